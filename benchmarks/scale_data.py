"""Synthetic data sets, runs, reviewed results and answers of any number, for measuring how costs grow.

Contents are random but cheap: what is measured is everything around them.
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

from reasonx_eval.board.reviewed import Reviewed, Samples, reviewed_path, sealed, write_reviewed
from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.files import sha256_lines, sha256_text
from reasonx_eval.metrics.info import metric_info
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.protocol import get_protocol
from reasonx_eval.provenance import Hardware, Provenance, collect
from reasonx_eval.records import write_records
from reasonx_eval.results import SCHEMA, DatasetRef, ModelRef, ProtocolRef, Result, RunSpec, Selection, Value, save
from reasonx_eval.runner import finish
from reasonx_eval.seeding import rng
from reasonx_eval.types import DepthTarget, JudgementTarget, Kind, Prediction, Record, Sample
from reasonx_ft.judgements import Store
from reasonx_ft.judges.base import ORDERS, Answer, JudgeInfo, Photo, Question
from reasonx_ft.questions import read_questions

IIW_SIZE = (341, 512)
NYU_SIZE = (480, 640)
#: of IIW: 875,833 judgements of 5,230 photos
IIW_JUDGEMENTS = 167
#: pairs x modalities x colour orders, as `annotate` asks
ANSWERS_A_PHOTO = 320


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
    _size = NYU_SIZE

    @cached_property
    def _depth(self) -> NDArray[np.float32]:
        return rng(0, "depth").uniform(0.7, 9.0, self._size).astype(np.float32)

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        depth = self._depth * np.float32(1 + 0.1 * rng(0, sample_id).random())
        return Sample(sample_id, self._photo, {"depth": DepthTarget(depth, np.ones(self._size, dtype=np.bool_))})


class Free(Model):
    """A model without cost: always the same map, but for a factor that depends on the photo's name."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self._name, self._seed = name, seed

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name=self._name, source="benchmark")

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"depth": ("depth_affine",), "albedo": ("albedo_linear",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        return [Prediction(kind, self._map(s, kind)) for s in samples]

    def _map(self, sample: Sample, kind: Kind) -> NDArray[np.float32]:
        shape = sample.image.shape[:2] if kind == "depth_affine" else sample.image.shape
        return _ramp(shape, self._seed) + np.float32(0.01 * rng(self._seed, sample.id).random())


def write_run(folder: Path, n: int, protocol: str, *, seed: int = 0, shard: str | None = None) -> None:
    """A finished run of `n` images, or a shard of it, whose records have random values."""
    rules = get_protocol(protocol)
    ids = [f"{k:06d}" for k in range(n)]
    chosen = ids if shard is None else ids[int(shard[0]) - 1 :: int(shard[2])]
    values = rng(seed, "values").uniform(0.05, 0.95, (n, len(rules.metrics))).tolist()
    records = [Record(sample_id=i, metrics=dict(zip(rules.metrics, values[int(i)], strict=True)), n_valid=100,
                      data=f"{int(i):016x}", prediction=f"{int(i):016x}") for i in chosen]  # fmt: skip
    spec = RunSpec(
        schema=SCHEMA, reasonx="0.1.0", selection=Selection(shard=shard), seed=0,
        model=ModelRef(name=f"model-{seed}", source="benchmark", kind=rules.accepts[0]),
        protocol=ProtocolRef(name=rules.name, version=rules.version, digest=rules.digest, rules=rules.rules),
        dataset=DatasetRef(name="synthetic", split="all", n=n, ids_sha256=sha256_lines(ids)),
    )  # fmt: skip
    folder.mkdir(parents=True)
    save(folder / "run.json", spec)
    write_records(folder / "records.jsonl", records)
    finish(folder, spec, chosen, records, rules, collect(seed=0, passed={}, defaulted={}))


@lru_cache(maxsize=4)
def _ramp(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return rng(seed, "map").uniform(0.1, 0.9, shape).astype(np.float32)


PROTOCOLS = ("depth/nyuv2", "depth/eth3d", "depth/diode", "depth/scenes-wild", "depth/scenes-synthetic",
             "normals/scenes-wild", "normals/scenes-synthetic", "albedo/iiw", "albedo/scenes-wild",
             "albedo/scenes-synthetic", "irradiance/scenes-wild", "irradiance/scenes-synthetic")  # fmt: skip
_KINDS = {"depth": "disparity_affine", "normals": "normal", "albedo": "albedo_linear", "irradiance": "irradiance"}
_PROVENANCE = Provenance(reasonx="0.1.0", commit=None, dirty=None, python="3.11", packages={}, seed=0,
                         hardware=Hardware(machine="x", system="x", cpu="x", cores=1, memory_gib=None))  # fmt: skip


def write_board(folder: Path, models: int, images: int = 100) -> None:
    """Reviewed results of many models under 12 protocols; a third of the models are tuned from the one before."""
    for name in PROTOCOLS:
        for k in range(models):
            reviewed = _reviewed(name, k, images)
            write_reviewed(folder / reviewed_path(reviewed), reviewed)


def _reviewed(name: str, k: int, n: int) -> Reviewed:
    rules = get_protocol(name)
    ids = [f"image/{i:04d}" for i in range(n)]
    scene = rng(0, "scene", name).uniform(0.8, 1.2, n)
    level = 0.1 + 0.3 * rng(0, "level", name, str(k)).random()
    values: dict[str, list[float | None]] = {}
    for metric in rules.metrics:
        error = np.clip(level * scene * rng(0, name, metric, str(k)).normal(1, 0.15, n), 1e-3, 0.999)
        values[metric] = list((1 - error if metric_info(metric).higher_is_better else error).tolist())
    tuned = {"base": f"model-{k - 1:04d}", "reward": "agreement"} if k % 3 == 1 else {}
    kind = _KINDS[rules.task]
    result = Result(
        schema=1, status="complete", signature=rules.signature(kind=kind, n=n, n_total=n),
        model=ModelRef(name=f"model-{k:04d}", source="benchmark", kind=kind, **tuned),
        protocol=ProtocolRef(name=rules.name, version=rules.version, digest=rules.digest, rules=rules.rules),
        dataset=DatasetRef(name=rules.dataset, split=rules.split, n=n, ids_sha256=sha256_lines(ids)),
        selection=Selection(), aggregate={m: _value(v) for m, v in values.items()}, confidence=0.95, resamples=10_000,
        n_total=n, n_scored=n, n_undefined=0, failed={}, data_sha256=sha256_text("truth"), predictions_sha256="0",
        records_sha256="0", provenance=_PROVENANCE,
    )  # fmt: skip
    reviewed = sealed(Reviewed(schema=1, digest="", result=result, samples=Samples(ids=ids, values=values)))
    assert isinstance(reviewed, Reviewed)
    return reviewed


def _value(values: Sequence[float | None]) -> Value:
    known = [v for v in values if v is not None]
    mean, half = math.fsum(known) / len(known), 2 * float(np.std(known)) / math.sqrt(len(known))
    return Value(value=mean, ci_low=mean - half, ci_high=mean + half, n=len(known))


def photo_of(k: int, image: NDArray[np.uint8]) -> Photo:
    """A photo with a digest of its own, whatever its pixels are."""
    return Photo(f"photo {k:06d}", image, hashlib.sha256(str(k).encode()).hexdigest()[:32])


def answered(answers: int) -> Iterator[tuple[list[Question], list[Answer]]]:
    """Questions and answers photo by photo, until there are so many."""
    image = np.zeros((1, 1, 3), np.uint8)
    modalities = read_questions().modalities
    for k in range(answers // ANSWERS_A_PHOTO):
        draw, photo = rng(0, "answers", str(k)), photo_of(k, image)
        asked = [Question(photo, (a, b), (c, d), m, order) for a, b, c, d in draw.integers(30, 482, (40, 4)).tolist()
                 for order in ORDERS for m in modalities]  # fmt: skip
        yield asked, [Answer(p) for p in draw.random(len(asked)).tolist()]


def write_store(folder: Path, answers: int) -> None:
    """A store of so many answers, as `annotate` writes one."""
    with Store.open(folder, create=True).writer(JudgeInfo("judge", "r0"), read_questions()) as writer:
        for questions, given in answered(answers):
            writer.append(questions, given)
