"""Predictors without weights: the scores that a network has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.io.color import linear_to_srgb, srgb8_table
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.embedded.retinex import colour_retinex
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Prediction, Sample

_DEPTH_KINDS: tuple[Kind, ...] = ("depth_metric", "depth_scale", "depth_affine", "disparity_affine")
_SRGB = (np.arange(256) / 255.0).astype(np.float32)


class _Baseline(Model):
    """One photo at a time, no state, no targets."""

    thread_safe = True

    def __init__(self, info: ModelInfo, kinds: Mapping[str, tuple[Kind, ...]]) -> None:
        self._info = info
        self._kinds = kinds

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return self._kinds

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, [k for kinds in self._kinds.values() for k in kinds], where=self._info.name)
        return [Prediction(kind, self._map(s.image, kind)) for s in samples]

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        raise NotImplementedError


class Constant(_Baseline):
    """The same value everywhere, in the photo's size.

    Under an alignment with scale and shift a constant leaves the scale undetermined, so it has no score there.

    Parameters
    ----------
    kind : predict only this kind
    depth : metres, > 0; a disparity is its inverse
    albedo : linear grey; albedo_srgb is its encoding
    irradiance : linear grey
    """

    def __init__(
        self, *, kind: str | None = None, depth: float = 2.5, albedo: float = 0.5, irradiance: float = 0.5
    ) -> None:
        values = {"depth": depth, "albedo": albedo, "irradiance": irradiance}
        for name, value in values.items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value:g}; needs a finite value above 0", where="constant")
        kinds: Mapping[str, tuple[Kind, ...]] = {
            "depth": _DEPTH_KINDS,
            "normals": ("normal",),
            "albedo": ("albedo_linear", "albedo_srgb"),
            "irradiance": ("irradiance",),
        }
        if kind is not None:
            check_kind(kind, KINDS, where="constant")
            kinds = {t: (k,) for t, all_kinds in kinds.items() for k in all_kinds if k == kind}
        super().__init__(ModelInfo("constant", "constant", options=values), kinds)
        self._values = values

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        if kind == "normal":
            facing = np.zeros((height, width, 3), dtype=np.float32)
            facing[..., 2] = -1
            return facing
        task = TASK_OF_KIND[kind]
        value = self._values[task]
        if kind == "disparity_affine":
            value = 1.0 / value
        elif kind == "albedo_srgb":
            value = float(linear_to_srgb(value))
        # one row that stands for all, or writing the map would take as long as reading the ground truth
        row = np.full((width,) if task == "depth" else (width, 3), value, dtype=np.float32)
        return np.broadcast_to(row, (height, *row.shape))


class ImageAsAlbedo(_Baseline):
    """The photo itself as albedo: everything is paint, nothing is light."""

    def __init__(self) -> None:
        super().__init__(
            ModelInfo("image-as-albedo", "image-as-albedo"), {"albedo": ("albedo_srgb", "albedo_linear")}
        )

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        table = _SRGB if kind == "albedo_srgb" else srgb8_table().astype(np.float32)
        return table[image]


class Retinex(_Baseline):
    """Colour Retinex (see `retinex.colour_retinex`): linear albedo, and grey irradiance = image / albedo.

    Parameters
    ----------
    chroma_threshold, intensity_threshold : steps in log chroma and log intensity between neighbouring pixels
        above which a step is paint
    max_side : a larger photo is averaged down first (in linear light), because the thresholds are per pixel step;
        the maps keep that size
    """

    def __init__(
        self, *, chroma_threshold: float = 0.1, intensity_threshold: float = 1.0, max_side: int = 1024
    ) -> None:
        options = {"chroma_threshold": chroma_threshold, "intensity_threshold": intensity_threshold}
        for name, value in options.items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value:g}; needs a finite value, 0 or more", where="retinex")
        if max_side < 2:
            raise UsageError(f"max_side is {max_side}; needs 2 pixels or more", where="retinex")
        super().__init__(
            ModelInfo("retinex", "retinex", options={**options, "max_side": max_side}),
            {"albedo": ("albedo_linear",), "irradiance": ("irradiance",)},
        )
        self._chroma, self._intensity, self._max_side = chroma_threshold, intensity_threshold, max_side

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        albedo, irradiance = colour_retinex(
            image,
            chroma_threshold=self._chroma,
            intensity_threshold=self._intensity,
            max_side=self._max_side,
        )
        return albedo if kind == "albedo_linear" else irradiance


class PlaneDepth(_Baseline):
    """A ground-plane prior: disparity linear in the image row, from 1 / far (top edge) to 1 / near (bottom edge).

    Exact for a camera over an infinite plane; no pixel is looked at.

    Parameters
    ----------
    near, far : metres, 0 < near < far
    """

    def __init__(self, *, near: float = 1.0, far: float = 10.0) -> None:
        if not (math.isfinite(far) and 0 < near < far):
            raise UsageError(f"near {near:g} and far {far:g}: needs 0 < near < far, in metres", where="plane-depth")
        kinds = (_DEPTH_KINDS[-1], *_DEPTH_KINDS[:-1])
        super().__init__(
            ModelInfo("plane-depth", "plane-depth", options={"near": near, "far": far}), {"depth": kinds}
        )
        self._top, self._bottom = 1.0 / far, 1.0 / near

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        disparity = _rows(image, lambda v: self._top + (self._bottom - self._top) * v)
        column = disparity if kind == "disparity_affine" else 1.0 / disparity
        return np.repeat(column.astype(np.float32)[:, None], image.shape[1], axis=1)


class MeanNormal(_Baseline):
    """A fixed direction per image row: facing the camera at the top edge, tilted up towards the bottom edge.

    Parameters
    ----------
    top, bottom : degrees that the normal is tilted up (from facing the camera) at the top and the bottom edge,
        linear in between; negative is down
    """

    def __init__(self, *, top: float = 0.0, bottom: float = 60.0) -> None:
        for name, value in {"top": top, "bottom": bottom}.items():
            if not -90 <= value <= 90:
                raise UsageError(f"{name} is {value:g}; needs degrees between -90 and 90", where="mean-normal")
        super().__init__(
            ModelInfo("mean-normal", "mean-normal", options={"top": top, "bottom": bottom}), {"normals": ("normal",)}
        )
        self._top, self._bottom = math.radians(top), math.radians(bottom)

    def _map(self, image: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
        angle = _rows(image, lambda v: self._top + (self._bottom - self._top) * v)
        # up is -y, towards the camera is -z
        normal = np.stack([np.zeros_like(angle), -np.sin(angle), -np.cos(angle)], axis=-1).astype(np.float32)
        return np.repeat(normal[:, None, :], image.shape[1], axis=1)


def _rows(image: NDArray[np.uint8], of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """A function of the row, at pixel centres: 0 at the top edge, 1 at the bottom edge."""
    height = image.shape[0]
    return of((np.arange(height) + 0.5) / height)
