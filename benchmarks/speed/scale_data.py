"""Synthetic data sets, runs, reviewed results and answers of any number, for measuring how costs grow.

Contents are random but cheap: what is measured is everything around them. Runs and reviewed results are made as the
tests make them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.photos import every_question
from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.io.seeding import rng
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.selftest.writers import NYU_SHAPE
from reasonx_eval.types import DepthTarget, JudgementTarget, Kind, Prediction, Sample
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.types import ORDERS, Answer, AnswerBatch, JudgeInfo, Photo, Question
from tests.reasonx_eval.leaderboard import makers
from tests.reasonx_eval.statistics import planted

IIW_SIZE = (341, 512)
#: of IIW: 875,833 judgements of 5,230 photos
IIW_JUDGEMENTS = 167
#: of a photo, as `annotate` asks
PAIRS = 40


class _Synthetic(Dataset):
    """`n` photos of one size; the pixels of all are the same array, as no zero-cost model looks at them twice."""

    info: ClassVar[DatasetInfo]
    _size: ClassVar[tuple[int, int]]

    def __init__(self, n: int) -> None:
        super().__init__(None, "all")
        self._n = n

    @cached_property
    def ids(self) -> Sequence[str]:
        return [f"{k:06d}" for k in range(self._n)]

    @cached_property
    def _photo(self) -> NDArray[np.uint8]:
        return rng(0, "photo").integers(0, 256, (*self._size, 3), dtype=np.uint8)


def _info(name: str, target: str) -> DatasetInfo:
    return DatasetInfo(name=name, title="synthetic", targets=(target,), splits={"all": None}, licence="none",
                       homepage="", size="", needs_root=False)  # fmt: skip


class IiwSized(_Synthetic):
    """Photos as large as IIW's with as many judgements."""

    info = _info("iiw-sized", "judgements")
    _size = IIW_SIZE

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        draw = rng(0, sample_id)
        points = draw.random((2 * IIW_JUDGEMENTS, 2))
        pairs = np.arange(2 * IIW_JUDGEMENTS).reshape(-1, 2)
        darker = draw.integers(0, 3, IIW_JUDGEMENTS).astype(np.int8)
        weight = draw.uniform(0.1, 1.0, IIW_JUDGEMENTS)
        return Sample(sample_id, self._photo, {"judgements": JudgementTarget(points, pairs, darker, weight)})


class NyuSized(_Synthetic):
    """Photos and depth maps as large as NYUv2's."""

    info = _info("nyu-sized", "depth")
    _size = NYU_SHAPE

    @cached_property
    def _depth(self) -> NDArray[np.float32]:
        return rng(0, "depth").uniform(0.7, 9.0, self._size).astype(np.float32)

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        depth = self._depth * np.float32(1 + 0.1 * rng(0, sample_id).random())
        return Sample(sample_id, self._photo, {"depth": DepthTarget(depth, np.ones(self._size, dtype=np.bool_))})


class TinySized(NyuSized):
    """Photos and depth maps of a few pixels: what is left is the cost of a sample."""

    info = _info("tiny-sized", "depth")
    _size = (24, 32)


class Free(Model):
    """A model without cost: always the same map, but for a factor that depends on the photo's name."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name="free", source="benchmark")

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"depth": ("depth_affine",), "albedo": ("albedo_linear",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        return [Prediction(kind, self._map(s, kind)) for s in samples]

    def _map(self, sample: Sample, kind: Kind) -> NDArray[np.float32]:
        shape = sample.image.shape[:2] if kind == "depth_affine" else sample.image.shape
        return _ramp(shape) + np.float32(0.01 * rng(0, sample.id).random())


def write_run(folder: Path, n: int, protocol: str, *, seed: int = 0, shard: str | None = None) -> None:
    """A finished run of `n` images, or a shard of it, whose records have random values."""
    rules, selection = get_protocol(protocol), Selection(shard=shard)
    values = rng(seed, "values").uniform(0.05, 0.95, (len(rules.metrics), n))
    records = planted.depth_records(dict(zip(rules.metrics, values, strict=True)), protocol=rules)
    chosen = set(select(planted.ids(n), selection))
    planted.write_run(folder, [r for r in records if r.sample_id in chosen], name=f"model-{seed}", protocol=rules,
                      n_total=n, selection=selection)  # fmt: skip


@lru_cache(maxsize=4)
def _ramp(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng(0, "map").uniform(0.1, 0.9, shape).astype(np.float32)


def write_board(folder: Path, models: int, images: int = 100) -> None:
    """Reviewed results of many models under 12 protocols; a third of the models are tuned from the one before."""
    makers.write(folder, makers.crowd(models, len(makers.PROTOCOLS), images))


def answered(answers: int) -> Iterator[tuple[list[Question], list[Answer]]]:
    """Questions and answers photo by photo, until there are so many."""
    image = np.zeros((1, 1, 3), np.uint8)
    modalities = read_questions().modalities
    for k in range(answers // (PAIRS * len(modalities) * len(ORDERS))):
        draw = rng(0, "answers", str(k))
        photo = Photo(f"photo {k:06d}", image, hashlib.sha256(str(k).encode()).hexdigest()[:32])
        asked = [Question(photo, (a, b), (c, d), m, order)
                 for a, b, c, d in draw.integers(30, 482, (PAIRS, 4)).tolist()
                 for order in ORDERS for m in modalities]  # fmt: skip
        yield asked, [Answer(p) for p in draw.random(len(asked)).tolist()]


def write_store(folder: Path, answers: int) -> None:
    """A store of so many answers, as `annotate` writes one."""
    with Store.open(folder, create=True).writer(JudgeInfo("judge", "r0"), read_questions()) as writer:
        for questions, given in answered(answers):
            writer.append(questions, given)


def write_columns(folder: Path, answers: int) -> None:
    """A store of about so many answers, in shards of 50,000, from batches of columns."""
    image = np.zeros((1, 1, 3), np.uint8)
    questions = read_questions()
    with Store.open(folder, create=True).writer(JudgeInfo("judge", "r0"), questions, seconds=math.inf) as writer:
        for k in range(answers // (PAIRS * len(questions.modalities) * len(ORDERS))):
            draw = rng(0, "answers", str(k))
            photo = Photo(f"photo {k:06d}", image, hashlib.sha256(str(k).encode()).hexdigest()[:32])
            batch = every_question(photo, draw.integers(30, 482, (PAIRS, 2, 2)).astype(np.int16))
            n = len(batch)
            writer.add([batch], AnswerBatch(draw.random(n), np.zeros(n, np.int8), draw.random(n)))
