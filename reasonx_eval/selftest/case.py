"""One protocol, one kind of prediction and one sample: what a check is applied to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.datasets.examples import Written
from reasonx_eval.io import color
from reasonx_eval.models.adapters.derived import surface_normals
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.models.embedded.oracle import Oracle
from reasonx_eval.protocols.protocol import Protocol, align_space
from reasonx_eval.scoring import Scored, score_sample
from reasonx_eval.types import (
    LEFT_OUT,
    TASK_OF_KIND,
    DepthTarget,
    JudgementTarget,
    Kind,
    NormalTarget,
    PairTarget,
    Prediction,
    Sample,
    Target,
)


class Failed(Exception):
    """A check saw something else than it expects; the message says what."""


@dataclass(frozen=True)
class Case:
    """What one check looks at.

    ids : the samples of this source that are there; samples : the same, loaded
    written : what the files of each sample say; empty for rendered and for the user's own data
    """

    protocol: Protocol
    kind: Kind
    source: str
    dataset: Dataset
    samples: tuple[Sample, ...] = field(repr=False)
    written: Mapping[str, Written] = field(default_factory=dict, repr=False)

    @property
    def sample(self) -> Sample:
        return self.samples[0]

    @property
    def ids(self) -> list[str]:
        return [s.id for s in self.samples]

    @property
    def first_kind(self) -> bool:
        """For checks that no kind of prediction changes: they run once a protocol."""
        return self.kind == self.protocol.accepts[0]

    @property
    def inverted(self) -> bool:
        """Whether the protocol fits this depth prediction in the space it is not given in."""
        assert self.protocol.depth is not None
        own = "disparity" if self.kind == "disparity_affine" else "depth"
        return align_space(self.protocol.depth.align, self.kind) != own

    @property
    def transfer(self) -> str:
        """How this protocol decodes an encoded albedo."""
        spec = self.protocol.whdr or self.protocol.map
        return spec.transfer if spec is not None else "srgb"

    @property
    def agreement(self) -> bool:
        """Whether the protocol compares a model's normals with its own depth."""
        return self.protocol.target == "agreement"

    def oracle(self, sample: Sample | None = None, **options: Any) -> Prediction:
        """The oracle's prediction of this case's kind; an encoded albedo is encoded as the protocol decodes it."""
        sample = sample or self.sample
        if self.agreement:
            return surface_oracle(sample, **options)
        if self.kind == "albedo_srgb" and self.transfer != "srgb":
            linear = Oracle(**options).predict([sample], "albedo_linear", seed=0)[0]
            return Prediction(self.kind, color.encode(linear.value, self.transfer))
        return Oracle(**options).predict([sample], self.kind, seed=0)[0]

    def score(self, prediction: Prediction, sample: Sample | None = None) -> Scored:
        return score_sample(sample=sample or self.sample, prediction=prediction, protocol=self.protocol)

    def blank(self, kind: str) -> NDArray[np.float32]:
        """An array of ones as large as the ground truth (or the photo) and shaped as `kind` asks."""
        height, width = map_size(self.sample, self.protocol.reads)
        return np.ones((height, width) if TASK_OF_KIND[kind] == "depth" else (height, width, 3), dtype=np.float32)


def surface_oracle(sample: Sample, *, scale: float = 1.0, shift: float = 0.0, **options: Any) -> Prediction:
    """Ground-truth depth, times `scale` plus `shift`, beside the normals of its surface, which `options` spoil."""
    target = sample.targets["depth"]
    assert isinstance(target, DepthTarget)
    normal = surface_normals(sample, target.depth)
    exact = replace(sample, targets={"normals": NormalTarget(normal, np.ones(normal.shape[:2], dtype=np.bool_))})
    depth = Oracle(scale=scale, shift=shift).predict([sample], "depth_metric", seed=0)[0]
    return replace(Oracle(**options).predict([exact], "normal", seed=0)[0], beside=depth)


class SurfaceOracle(Model):
    """`surface_oracle` as a model, for whole runs."""

    needs_targets = ("depth",)

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name="surface-oracle", source="selftest")

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"normals": ("normal",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        return [surface_oracle(s) for s in samples]


def map_size(sample: Sample, name: str) -> tuple[int, int]:
    """Height and width of a dense target; of the photo, for judgements and pairs."""
    valid = getattr(sample.targets[name], "valid", None)
    height, width = (sample.image if valid is None else valid).shape[:2]
    return height, width


def without_truth(sample: Sample, name: str) -> Sample:
    """The sample with ground truth that counts nowhere."""
    return replace(sample, targets={**sample.targets, name: _nothing(sample.targets[name])})


def _nothing(target: Target) -> Target:
    if isinstance(target, JudgementTarget):
        none = slice(0, 0)
        return replace(target, pairs=target.pairs[none], darker=target.darker[none], weight=target.weight[none])
    if isinstance(target, PairTarget):
        return replace(target, relation={m: np.full_like(r, LEFT_OUT) for m, r in target.relation.items()})
    return replace(target, valid=np.zeros_like(target.valid))
