"""Whole evaluations of a model that costs nothing, from files to result.json, with two workers.

What is left is reading, the digests that a result is bound to its data and predictions by, and the metrics. A run takes
the digests of ground truth from an earlier one, as every run but the first over a data set does; the first is timed
too. The bound is decoding the same samples by the same readers in a pool of two threads, and nothing else; the second
bound is what no run can leave out, called directly: decoding, SHA-256 of a prediction, and the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.speed import peers
from benchmarks.speed.conftest import Measure
from benchmarks.speed.files import ETH3D_SHAPE, eth3d_folder, nyu_folder
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.datasets.eth3d import ETH3D
from reasonx_eval.datasets.nyuv2 import NYUv2
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.embedded.baselines import Constant
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.scoring import Scored, score_sample
from reasonx_eval.scoring.depth import EIGEN_NYU
from reasonx_eval.types import DepthTarget, Prediction

WORKERS = 2
NYU = "evaluation end to end: 100 NYU-sized samples"
ETH3D_TEN = "evaluation end to end: 10 ETH3D-sized samples"
ETH3D_ONE = "evaluation end to end: one ETH3D-sized sample"


@dataclass(frozen=True)
class Work:
    """Samples of a data set on disk, and the protocol they are scored by."""

    dataset: Dataset
    ids: tuple[str, ...]
    protocol: str
    out: Path
    read: Callable[[Sequence[Path], type], tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]]

    def first(self, count: int) -> Work:
        return replace(self, ids=self.ids[:count])


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Work:
    root = tmp_path_factory.mktemp("nyu")
    ids = nyu_folder(root, 100)
    return Work(NYUv2(root, "test"), ids, "depth/nyuv2-metric", root / "run", read_nyu)


@pytest.fixture(scope="module")
def eth3d(tmp_path_factory: pytest.TempPathFactory) -> Work:
    root = tmp_path_factory.mktemp("eth3d")
    ids = eth3d_folder(root, 10)
    return Work(ETH3D(root, "train-dslr"), ids, "depth/eth3d-metric", root / "run", read_eth3d)


def evaluated(work: Work) -> dict[str, float]:
    """The whole run, with its result files; the mean of every metric."""
    options = RunOptions(selection=Selection(samples=list(work.ids)), workers=WORKERS, force=True)
    result = run(Constant(), work.dataset, get_protocol(work.protocol), work.out, options)
    assert result.n_scored == len(work.ids)
    return {name: value.value for name, value in result.aggregate.items() if value.value is not None}


def decoded(work: Work) -> None:
    _in_pool(work, lambda sample_id: _decode(work.dataset, sample_id))


def needed(work: Work) -> None:
    """What a run can't do without, called directly: no run, no records, no digest of ground truth, no model."""
    protocol = get_protocol(work.protocol)

    def one(sample_id: str) -> tuple[Scored, str]:
        sample = work.dataset.load(sample_id, {"depth"})
        value = np.broadcast_to(np.full(sample.image.shape[1], 2.5, dtype=np.float32), sample.image.shape[:2])
        prediction = Prediction("depth_metric", value)
        return score_sample(sample=sample, prediction=prediction, protocol=protocol), array_digest(prediction)

    _in_pool(work, one)


def _decode(dataset: Dataset, sample_id: str) -> DepthTarget:
    sample = dataset.load(sample_id, {"depth"})
    target = sample.targets["depth"]
    assert isinstance(target, DepthTarget)
    assert sample.image.shape[:2] == target.depth.shape
    return target


def _in_pool(work: Work, one: Callable[[str], Any]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(one, work.ids):
            pass


def scripted(work: Work, dtype: type = np.float32) -> dict[str, float]:
    """A serial script: Pillow, whole float arrays, one masked pass a metric, means at the end."""
    rows = []
    limits = get_protocol(work.protocol).depth
    assert limits is not None
    assert limits.clip_m is not None
    for sample_id in work.ids:
        image, depth, valid = work.read(work.dataset.files(sample_id), dtype)
        assert image.shape[1:] == depth.shape
        rows.append(peers.depth_metric_torch(np.full(depth.shape, 2.5, dtype), depth, valid, limits.clip_m))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def read_nyu(files: Sequence[Path], dtype: type) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """A normalised photo [3, H, W], depth in metres, and the mask of range and crop."""
    depth = (np.asarray(Image.open(files[1])).astype(np.float32) / 1000.0).astype(dtype)
    crop = np.zeros(depth.shape, dtype=bool)
    crop[EIGEN_NYU] = True
    return _normalised(files[0]), depth, np.logical_and(depth > np.float32(1e-3), depth < 10.0) & crop


def read_eth3d(files: Sequence[Path], dtype: type) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    depth = np.frombuffer(files[1].read_bytes(), dtype=np.float32).copy().reshape(ETH3D_SHAPE)
    depth[depth == np.inf] = 0.0
    depth = depth.astype(dtype)
    return _normalised(files[0]), depth, np.logical_and(depth > 1e-5, depth < 50.0)


def _normalised(photo: Path) -> NDArray[np.float32]:
    planes = np.transpose(np.asarray(Image.open(photo).convert("RGB")), (2, 0, 1)).astype(int)
    return (planes / 255.0 * 2.0 - 1.0).astype(np.float32)


def assert_forms_agree(work: Work) -> None:
    few = work.first(3)
    ours, script = evaluated(few), scripted(few, np.float64)
    assert ours == pytest.approx({name: script[name] for name in ours}, rel=1e-9, abs=0)


@pytest.mark.benchmark(group=NYU)
def test_nyu_ours(measure: Measure, nyu: Work) -> None:
    assert_forms_agree(nyu)
    _ours(measure, nyu, rounds=9)


@pytest.mark.benchmark(group=NYU)
def test_nyu_peer(measure: Measure, nyu: Work) -> None:
    measure("peer", lambda: scripted(nyu), form="a serial script", memory="resident", rounds=2)


@pytest.mark.benchmark(group=NYU)
@pytest.mark.parametrize("work", [decoded, needed])
def test_nyu_bound(measure: Measure, nyu: Work, work: Callable[[Work], None]) -> None:
    _bound(measure, nyu, work)


@pytest.mark.benchmark(group=ETH3D_TEN)
def test_eth3d_ours(measure: Measure, eth3d: Work) -> None:
    _ours(measure, eth3d, rounds=5)


@pytest.mark.benchmark(group=ETH3D_TEN)
@pytest.mark.parametrize("work", [decoded, needed])
def test_eth3d_bound(measure: Measure, eth3d: Work, work: Callable[[Work], None]) -> None:
    _bound(measure, eth3d, work)


@pytest.mark.benchmark(group=ETH3D_ONE)
def test_eth3d_one_ours(measure: Measure, eth3d: Work) -> None:
    one = eth3d.first(1)
    assert_forms_agree(one)
    _ours(measure, one, rounds=5)


@pytest.mark.benchmark(group=ETH3D_ONE)
def test_eth3d_one_peer(measure: Measure, eth3d: Work) -> None:
    measure("peer", lambda: scripted(eth3d.first(1)), form="a serial script", memory="resident", rounds=2)


def _ours(measure: Measure, work: Work, rounds: int) -> None:
    measure("ours", lambda: evaluated(work), form="a run, two workers", memory="resident", rounds=rounds,
            against=lambda: decoded(work), against_form="decoding alone, two workers")  # fmt: skip


def _bound(measure: Measure, work: Work, form: Callable[[Work], None]) -> None:
    words = {decoded: "decoding alone, two workers", needed: "decoding, the prediction's digest, metrics"}[form]
    measure("bound", lambda: form(work), form=words, memory="resident", rounds=3)
