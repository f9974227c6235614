"""Load: many tiny samples, and a judgement store of five million answers. Each form is run once.

The commands that read and merge the store are processes of their own, so their memory is all that they take. A
leaderboard of 200 models and 12 protocols is in `bench_scale`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.speed.conftest import Measure
from benchmarks.speed.memory import Command
from benchmarks.speed.scale_data import Free, TinySized, write_columns
from reasonx_eval.io.records import read_records
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import RunOptions, run
from reasonx_ft.annotation.judgements import Store

SAMPLES = 20_000
ANSWERS = 5_000_000
_STORE = "import sys; from reasonx_ft.annotation.judgements import Store; store = Store.open(sys.argv[1]); "
_OPEN = _STORE + f"assert len(store) == {ANSWERS}"
_MERGE = "import sys; from reasonx_ft.cli.main import main; main(['judgements', 'merge', *sys.argv[1:]])"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("load")
    write_columns(root / "store", ANSWERS)
    yield root / "store"
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.benchmark(group="load: run of tiny samples")
@pytest.mark.parametrize("share", [0.25, 1.0], ids=["quarter", "full"])
def test_run(measure: Measure, tmp_path: Path, share: float) -> None:
    n = round(SAMPLES * share)
    out = tmp_path / "run"
    measure("ours", lambda: run(Free(), TinySized(n), get_protocol("depth/generic"), out, RunOptions(workers=2)),
            form="predict, score, write, aggregate; 2 workers", size=n, unit="samples", memory="resident",
            rounds=1)  # fmt: skip
    assert len(read_records(out / "records.jsonl")) == n
    shutil.rmtree(out)


@pytest.mark.benchmark(group="load: store, write")
def test_write(measure: Measure, tmp_path: Path) -> None:
    measure("ours", lambda: write_columns(tmp_path / "store", ANSWERS), form="from batches of questions and answers",
            size=ANSWERS, unit="answers", memory="resident", rounds=1)  # fmt: skip
    shutil.rmtree(tmp_path / "store")


@pytest.mark.benchmark(group="load: store, open")
def test_open(measure: Measure, store: Path) -> None:
    command = Command((sys.executable, "-c", _OPEN, str(store)))
    measure("ours", command, form="read, check, sort; a process", size=ANSWERS, unit="answers", memory=command.peak,
            rounds=1)  # fmt: skip


@pytest.mark.benchmark(group="load: store, merge")
def test_merge(measure: Measure, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"

    def anew() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)

    command = Command((sys.executable, "-c", _MERGE, str(copy)))
    measure("ours", command, form="reasonx-ft judgements merge, in place", size=ANSWERS, unit="answers",
            memory=command.peak, rounds=1, setup=anew)  # fmt: skip
    merged = Store.open(copy)
    assert len(merged.shards) < len(Store.open(store).shards)
    assert len(merged) == ANSWERS
    shutil.rmtree(copy)
