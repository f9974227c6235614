"""Ground truth as a prediction, whole or spoilt in a known way; every protocol is tested with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.seeding import rng
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.embedded.oracle_judgements import paint_reflectance
from reasonx_eval.types import (
    KINDS,
    TASK_OF_KIND,
    DepthTarget,
    JudgementTarget,
    Kind,
    MapTarget,
    NormalTarget,
    Prediction,
    Sample,
)

_ALL: Mapping[str, tuple[Kind, ...]] = {
    "depth": ("depth_metric", "depth_scale", "depth_affine", "disparity_affine"),
    "normals": ("normal",),
    "albedo": ("albedo_linear", "albedo_srgb"),
    "irradiance": ("irradiance",),
}


class Oracle(Model):
    """The sample's own ground truth: ``noise(negate(scale * truth + shift))``, then shuffled if asked.

    Pixels without ground truth get something finite: the median of the valid ones, or a wall that faces the camera.
    Where a sample has judgements but no exact albedo, the albedo is an image solved to satisfy them (perfect if
    they don't contradict each other; see `oracle_judgements.solve_reflectance`); it has the photo's size.

    Parameters
    ----------
    kind : predict only this kind; default: whatever the protocol accepts first
    scale, shift : applied to depth, disparity, albedo or irradiance (never to normals)
    invert : depth gives 1 / depth, stated as disparity_affine; with kind=depth_... it is stated wrongly, on purpose
    negate : the opposite sign
    noise : standard deviation of Gaussian noise, drawn per sample from ``(seed, sample id)``; noisy normals are
        made unit length again
    noise_mode : absolute (in the unit of the prediction) or relative (times the value; for normals the same thing)
    shuffle : put the pixels in another order, drawn per sample: must score badly
    """

    thread_safe = True
    needs_image = False

    def __init__(
        self,
        *,
        kind: str | None = None,
        scale: float = 1.0,
        shift: float = 0.0,
        invert: bool = False,
        negate: bool = False,
        noise: float = 0.0,
        noise_mode: Literal["absolute", "relative"] = "absolute",
        shuffle: bool = False,
    ) -> None:
        if kind is not None:
            check_kind(kind, KINDS, where="oracle")
        if not (math.isfinite(scale) and math.isfinite(shift)) or scale == 0:
            raise UsageError(f"scale {scale:g}, shift {shift:g}: need finite values, and scale not 0", where="oracle")
        if not (math.isfinite(noise) and noise >= 0):
            raise UsageError(f"noise is a standard deviation, not {noise:g}", where="oracle")
        if noise_mode not in ("absolute", "relative"):
            raise UsageError(f"noise_mode is absolute or relative, not '{noise_mode}'", where="oracle")
        if invert and kind is not None and TASK_OF_KIND[kind] != "depth":
            raise UsageError(f"invert is for depth, not for {kind}", where="oracle")
        self._scale, self._shift = scale, shift
        self._invert, self._negate = invert, negate
        self._noise, self._noise_mode, self._shuffle = noise, noise_mode, shuffle
        self._kinds = _kinds(kind, invert)
        self._kind = kind
        # the target with the dense map has the task's name
        self.needs_targets = tuple(self._kinds)

    @property
    def info(self) -> ModelInfo:
        options = {
            "kind": self._kind, "scale": self._scale, "shift": self._shift, "invert": self._invert,
            "negate": self._negate, "noise": self._noise, "noise_mode": self._noise_mode, "shuffle": self._shuffle,
        }  # fmt: skip
        default = {"kind": None, "scale": 1.0, "shift": 0.0, "invert": False, "negate": False, "noise": 0.0,
                   "noise_mode": "absolute", "shuffle": False}  # fmt: skip
        return ModelInfo(
            name="oracle",
            source="oracle",
            options={k: v for k, v in options.items() if v != default[k]},
            notes=("ground truth as the prediction: a check of the protocol, not a model",),
        )

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return self._kinds

    def kind_for(self, task: str, accepts: Sequence[str]) -> Kind:
        """As in `Model`; also narrows `needs_targets` to this task, so that a run reads nothing else."""
        kind = super().kind_for(task, accepts)
        self._check_normals(kind)
        self.needs_targets = (task,)
        return kind

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, [k for kinds in self._kinds.values() for k in kinds], where="oracle")
        return [Prediction(kind, self._spoil(self._truth(s, kind), s.id, kind, seed)) for s in samples]

    def _check_normals(self, kind: Kind) -> None:
        if kind == "normal" and (self._scale, self._shift) != (1.0, 0.0):
            raise UsageError("normals have neither scale nor shift", where="oracle")

    def _truth(self, sample: Sample, kind: Kind) -> NDArray[np.floating[Any]]:
        task = TASK_OF_KIND[kind]
        if task == "depth":
            depth = _target(sample, "depth", DepthTarget)
            return _depth(depth, inverse=self._invert or kind == "disparity_affine")
        if task == "normals":
            normals = _target(sample, "normals", NormalTarget)
            return _filled(normals.normal, normals.valid & np.isfinite(normals.normal).all(-1), (0.0, 0.0, -1.0))
        value: NDArray[np.floating[Any]]
        if task == "albedo" and "albedo" not in sample.targets and "judgements" in sample.targets:
            judgements = _target(sample, "judgements", JudgementTarget)
            value = paint_reflectance(judgements, *sample.image.shape[:2])
        else:
            target = _target(sample, task, MapTarget)
            value = _filled(target.value, target.valid & np.isfinite(target.value).all(-1))
        # by magnitude, because encoding would clip values below zero
        return np.copysign(linear_to_srgb(np.abs(value)), value) if kind == "albedo_srgb" else value

    def _spoil(
        self, value: NDArray[np.floating[Any]], sample_id: str, kind: Kind, seed: int
    ) -> NDArray[np.floating[Any]]:
        self._check_normals(kind)
        normals = kind == "normal"
        if (self._scale, self._shift) != (1.0, 0.0):
            value = value.astype(np.float64) * self._scale + self._shift
        if self._negate:
            value = -value
        if self._noise:
            draw = rng(seed, sample_id, "noise").standard_normal(value.shape) * self._noise
            value = value + (draw * value if self._noise_mode == "relative" and not normals else draw)
            if normals:
                value = value / np.maximum(np.linalg.norm(value, axis=-1, keepdims=True), 1e-12)
        if self._shuffle:
            pixels = value.reshape(-1, *value.shape[2:])
            value = pixels[rng(seed, sample_id, "shuffle").permutation(len(pixels))].reshape(value.shape)
        return value


def _kinds(kind: str | None, invert: bool) -> Mapping[str, tuple[Kind, ...]]:
    if kind is None:
        return {"depth": ("disparity_affine",)} if invert else _ALL
    return {task: (k,) for task, kinds in _ALL.items() for k in kinds if k == kind}


_T = TypeVar("_T", DepthTarget, NormalTarget, JudgementTarget, MapTarget)


def _target(sample: Sample, name: str, cls: type[_T]) -> _T:
    target = sample.targets.get(name)
    if not isinstance(target, cls):
        have = ", ".join(sample.targets) or "no targets"
        raise SampleError(f"the oracle copies the target '{name}', but the sample has {have}", where=sample.id)
    return target


def _depth(target: DepthTarget, *, inverse: bool) -> NDArray[np.floating[Any]]:
    valid = target.valid & np.isfinite(target.depth)
    if not inverse:
        return _filled(target.depth, valid)
    valid = valid & (target.depth > 0)
    inverted = np.zeros(target.depth.shape)
    np.divide(1.0, target.depth, out=inverted, where=valid, dtype=np.float64)
    return _filled(inverted, valid)


def _filled(
    value: NDArray[np.floating[Any]], valid: NDArray[np.bool_], fill: tuple[float, ...] | None = None
) -> NDArray[np.floating[Any]]:
    """`value`, with `fill` (or the median of the valid pixels, per channel, or 1 if there are none) elsewhere."""
    if valid.all():
        return value
    out = value.copy()
    known = out[valid]
    out[~valid] = fill if fill is not None else np.median(known, axis=0) if len(known) else 1.0
    return out
