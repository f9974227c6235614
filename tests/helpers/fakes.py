"""A small in-memory dataset and models with set faults, for tests of the runner and the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.errors import SampleError, UndefinedScore
from reasonx_eval.io.seeding import rng
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.types import DepthTarget, Kind, NormalTarget, Prediction, Sample

N = 12


class Fake(Dataset):
    """N images of 24x32 with random depth in 1-5 m and random normals; `broken` can't be read."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="fake", title="random maps", targets=("depth", "normals"), splits={"all": N}, licence="none",
        homepage="", size="", needs_root=False,
    )  # fmt: skip

    def __init__(self, broken: Collection[str] = (), group: bool = False) -> None:
        super().__init__(None, "all")
        self._broken, self._group = set(broken), group

    @property
    def ids(self) -> Sequence[str]:
        return [f"room/{k:02d}" for k in range(N)]

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        if sample_id in self._broken:
            raise SampleError("file is empty (0 bytes)", where=f"{sample_id}.png")
        random = rng(0, sample_id)
        depth = random.uniform(1, 5, (24, 32)).astype(np.float32)
        normal = random.normal(size=(24, 32, 3)) - [0, 0, 3]
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        valid = np.ones((24, 32), bool)
        return Sample(
            id=sample_id,
            source=random.integers(0, 256, (24, 32, 3), dtype=np.uint8),
            targets={"depth": DepthTarget(depth, valid),
                     "normals": NormalTarget(normal.astype(np.float32), valid)},
            group=f"scene{int(sample_id[-2:]) // 3}" if self._group else None,
        )  # fmt: skip


class Noisy(Model):
    """Ground truth times seeded noise: every number depends on (seed, sample id) and on nothing else."""

    needs_targets = ("depth", "normals")
    fully_described = True  # what it gives depends on the sample and the seed alone

    def __init__(self, batch_size: int = 1, fail: Collection[str] = (), name: str = "noisy") -> None:
        self.batch_size, self._fail, self._name = batch_size, set(fail), name
        self.calls: list[list[str]] = []

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name=self._name, source="test")

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"depth": ("depth_affine",), "normals": ("normal",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        self.calls.append([s.id for s in samples])
        out = []
        for sample in samples:
            if sample.id in self._fail:
                raise RuntimeError("CUDA error: something\nwith a second line")
            random = rng(seed, sample.id, "noise")
            if kind == "normal":
                target = sample.targets["normals"]
                assert isinstance(target, NormalTarget)
                value = target.normal + 0.2 * random.normal(size=target.normal.shape)
            else:
                truth = sample.targets["depth"]
                assert isinstance(truth, DepthTarget)
                value = truth.depth * (1 + 0.1 * random.normal(size=truth.depth.shape))
            out.append(Prediction(kind, value.astype(np.float32)))
        return out


class Undefined(Noisy):
    """A model that says of one sample that its score is undefined: not for a model to say."""

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        if samples[0].id == "room/03":
            raise UndefinedScore("too hard")
        return super().predict(samples, kind, seed)


class Unjudged(Fake):
    """A data set with one sample whose ground truth defines no score."""

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        if sample_id == "room/03":
            raise UndefinedScore("no judgement with weight")
        return super().load(sample_id, want)
