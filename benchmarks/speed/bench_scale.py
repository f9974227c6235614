"""Whole commands' work at the size of the largest data sets, and at half of it: nothing may grow faster than its input.

Each form is run once: what is timed is the very call whose memory is measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.conftest import Measure
from benchmarks.speed.scale_data import Free, IiwSized, NyuSized, write_board, write_run, write_store
from reasonx_eval.io.records import read_records
from reasonx_eval.leaderboard.generate import generate, write
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.run.shards import merge
from reasonx_eval.statistics.comparison import compare_folders
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.judgements import merge as merge_stores

IIW, NYU = 5_230, 654
MODELS = 200
ANSWERS = 1_600_000
_SHARDS = 4
_RUN = "predict, score, write, aggregate; 2 workers"

HALVES = pytest.mark.parametrize("share", [0.5, 1.0], ids=["half", "full"])


@dataclass
class Made:
    """Folders by name, each made when it is first asked for and kept for the session."""

    root: Path

    def folder(self, name: str, make: Callable[[Path], Any]) -> Path:
        """A folder that `make` has filled, here or before."""
        path = self.root / name
        if not path.exists():
            make(path)
        return path

    def fresh(self, name: str) -> Path:
        """A path that isn't there."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("scale")
    yield Made(root)
    shutil.rmtree(root, ignore_errors=True)


def _run(dataset: IiwSized | NyuSized, protocol: str, out: Path) -> None:
    result = run(Free(), dataset, get_protocol(protocol), out, RunOptions(workers=2))
    assert result.n_scored == len(dataset)


def _measure(measure: Measure, work: Callable[[], Any], n: int, unit: str, form: str) -> None:
    """Time and memory of one call; a call that must not be repeated (it writes) is not."""
    measure("ours", work, form=form, size=n, unit=unit, memory="resident", rounds=1)


@pytest.mark.benchmark(group="scale: run of IIW-sized images")
@HALVES
def test_run_iiw(measure: Measure, made: Made, share: float) -> None:
    n = round(IIW * share)
    out = made.fresh("run-iiw")
    _measure(measure, lambda: _run(IiwSized(n), "albedo/generic-whdr", out), n, "images", _RUN)


@pytest.mark.benchmark(group="scale: run of NYU-sized images")
@HALVES
def test_run_nyu(measure: Measure, made: Made, share: float) -> None:
    n = round(NYU * share)
    out = made.fresh("run-nyu")
    _measure(measure, lambda: _run(NyuSized(n), "depth/generic", out), n, "images", _RUN)


@pytest.mark.benchmark(group="scale: merge of 4 shards")
@HALVES
def test_merge(measure: Measure, made: Made, share: float) -> None:
    n = round(IIW * share)
    shards = [made.folder(f"shard-{n}-{k}", lambda path, k=k: write_run(path, n, "albedo/generic-whdr",
                                                                        shard=f"{k}/{_SHARDS}"))
              for k in range(1, _SHARDS + 1)]  # fmt: skip
    out = made.fresh("merged")
    _measure(measure, lambda: merge(shards, out), n, "images", "read, check, write, aggregate")
    assert len(read_records(out / "records.jsonl")) == n


@pytest.mark.benchmark(group="scale: compare two runs")
@HALVES
def test_compare(measure: Measure, made: Made, share: float) -> None:
    n = round(IIW * share)
    runs = [made.folder(f"planted-{n}-{k}", lambda path, k=k: write_run(path, n, "albedo/generic-whdr", seed=k))
            for k in range(2)]  # fmt: skip
    _measure(measure, lambda: compare_folders(runs), n, "images", "read, check, join, test, intervals")


@pytest.mark.benchmark(group="scale: leaderboard of 12 protocols")
@HALVES
def test_leaderboard(measure: Measure, made: Made, share: float) -> None:
    models = round(MODELS * share)
    results = made.folder(f"board-{models}", lambda path: write_board(path, models))
    out = made.fresh("page")

    def build() -> None:
        out.mkdir()
        write(generate(results, out))

    _measure(measure, build, models, "models", "read, check, rank, write page, table and JSON")
    assert (out / "index.html").is_file()


def _store(made: Made, share: float) -> tuple[Path, int]:
    n = round(ANSWERS * share)
    return made.folder(f"store-{n}", lambda path: write_store(path, n)), n


@pytest.mark.benchmark(group="scale: store, write")
@HALVES
def test_store_write(measure: Measure, made: Made, share: float) -> None:
    n = round(ANSWERS * share)
    _measure(measure, lambda: write_store(made.root / f"store-{n}", n), n, "answers", "from questions and answers")


@pytest.mark.benchmark(group="scale: store, open")
@HALVES
def test_store_open(measure: Measure, made: Made, share: float) -> None:
    folder, n = _store(made, share)
    _measure(measure, lambda: len(Store.open(folder)), n, "answers", "read, check, sort")


@pytest.mark.benchmark(group="scale: store, statistics")
@HALVES
def test_store_stats(measure: Measure, made: Made, share: float) -> None:
    folder, n = _store(made, share)
    store = Store.open(folder)
    assert len(store) == n
    _measure(measure, store.stats, n, "answers", "of all judges, modalities and wordings")


@pytest.mark.benchmark(group="scale: store, table for training")
@HALVES
def test_store_table(measure: Measure, made: Made, share: float) -> None:
    folder, n = _store(made, share)
    store = Store.open(folder)
    assert len(store) == n
    _measure(measure, lambda: store.table(modality="depth"), n, "answers", "both colour orders averaged")


@pytest.mark.benchmark(group="scale: store, merge")
@HALVES
def test_store_merge(measure: Measure, made: Made, share: float) -> None:
    folder, n = _store(made, share)
    store = Store.open(folder)
    assert len(store) == n
    out = made.fresh("store-merged")
    _measure(measure, lambda: merge_stores([store], out), n, "answers", "one shard a million answers")
