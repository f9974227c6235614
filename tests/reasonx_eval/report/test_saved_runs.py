"""Runs are read again only with the predictions and the data that they were scored on."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.results import load_result
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.run.saved_runs import load_sample, open_dataset, open_run
from reasonx_eval.types import Kind, Prediction, Sample
from tests.helpers.fakes import Fake, Noisy
from tests.reasonx_eval.report.conftest import MakeRun, N

DEPTH = "depth/scenes-synthetic"


def copied(folder: Path, root: Path) -> Path:
    return Path(shutil.copytree(folder, root / "copy"))


def test_a_run_gives_the_predictions_and_the_truth_that_its_records_name(made: MakeRun) -> None:
    saved = open_run(made("plane-depth", DEPTH))
    data = open_dataset(saved.result)
    assert len(saved.records) == N
    for sample_id, record in saved.records.items():
        sample = load_sample(data, saved, sample_id)
        assert array_digest(sample.targets["depth"]) == record.data
        assert array_digest(saved.load(sample)) == record.prediction


def test_digests_of_an_older_run_are_compared_by_their_own_algorithm(made: MakeRun) -> None:
    saved = open_run(made("plane-depth", DEPTH))
    data = open_dataset(saved.result)
    first, *others = saved.run.records
    sample = load_sample(data, saved, first.sample_id)
    older = replace(first, data=array_digest(sample.targets["depth"], "sha256"),
                    prediction=array_digest(saved.load(sample), "sha256"))  # fmt: skip
    saved = replace(saved, run=replace(saved.run, records=(older, *others)))
    assert array_digest(saved.load(load_sample(data, saved, first.sample_id)), "sha256") == older.prediction
    edited = replace(saved, run=replace(saved.run, records=(replace(older, data="0" * 16), *others)))
    with pytest.raises(NotComparable, match="not the one"):
        load_sample(data, edited, first.sample_id)


def test_without_predictions_it_gives_a_command_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["run", "--model", "plane-depth", "--protocol", DEPTH, "--samples",
               "synthetic/test/00003,synthetic/test/00001", "--quiet", "--out", "a b"]  # fmt: skip
    assert run_cli(cli, command) == 0
    folder = Path("a b") / f"{DEPTH}@1" / "plane-depth"
    with pytest.raises(UsageError, match="not saved") as error:
        open_run(folder)
    before = (folder / "records.jsonl").read_bytes()
    words = shlex.split(error.value.fix or "")
    assert words[0] == "reasonx-eval"
    assert run_cli(cli, words[1:]) == 0
    assert (folder / "records.jsonl").read_bytes() == before
    assert len(open_run(folder).records) == 2


def test_a_scored_folder_is_where_its_predictions_are(made: MakeRun, tmp_path: Path) -> None:
    original = made("plane-depth", DEPTH)
    code = run_cli(cli, ["score", str(original / "predictions"), "--name", "again", "--protocol", DEPTH, "--limit",
                         str(N), "--quiet", "--out", str(tmp_path)])  # fmt: skip
    assert code == 0
    folder = tmp_path / f"{DEPTH}@1" / "again"
    assert not (folder / "predictions").exists()
    saved = open_run(folder)
    data = open_dataset(saved.result)
    first = next(iter(saved.records))
    assert array_digest(saved.load(load_sample(data, saved, first))) == saved.records[first].prediction


def test_another_prediction_than_the_scored_one_is_refused(made: MakeRun, tmp_path: Path) -> None:
    folder = copied(made("tiny", DEPTH), tmp_path)
    saved = open_run(folder)
    first, second = list(saved.records)[:2]
    shutil.copy(folder / "predictions" / f"{second}.npy", folder / "predictions" / f"{first}.npy")
    data = open_dataset(saved.result)
    with pytest.raises(DataError, match="not the one that was scored"):
        saved.load(load_sample(data, saved, first))
    saved.load(load_sample(data, saved, second))


def test_edited_records_are_refused(made: MakeRun, tmp_path: Path) -> None:
    folder = copied(made("plane-depth", DEPTH), tmp_path)
    records = folder / "records.jsonl"
    records.write_text(records.read_text().replace('"n_valid": 12', '"n_valid": 13', 1))
    with pytest.raises(DataError, match="records"):
        open_run(folder)


def test_other_data_is_refused(made: MakeRun) -> None:
    saved = open_run(made("plane-depth", DEPTH))
    with pytest.raises(NotComparable, match="other samples"):
        open_dataset(saved.result, dataset="scenes-wild")
    wild = open_run(made("plane-depth", "depth/scenes-wild"))
    sample_id = next(iter(wild.records))

    class Other(Fake):
        def load(self, sample_id: str, want: object = None) -> Sample:
            return super().load("room/00")

    with pytest.raises(NotComparable, match="ground truth is not the one"):
        load_sample(Other(), wild, sample_id)


class Half(Noisy):
    """Predicts in float16, which is saved as float32."""

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        return [Prediction(p.kind, p.value.astype(np.float16)) for p in super().predict(samples, kind, seed)]


def test_half_precision_predictions_are_known_again(tmp_path: Path) -> None:
    data = Fake()
    run(Half(), data, get_protocol("depth/generic"), tmp_path / "r", RunOptions(save_predictions=True))
    saved = open_run(tmp_path / "r")
    sample = data.load("room/03")
    assert saved.load(sample).value.dtype == np.float32


def test_a_run_of_the_library_must_be_told_where_its_data_is(tmp_path: Path) -> None:
    run(Noisy(), Fake(), get_protocol("depth/generic"), tmp_path / "r", RunOptions(save_predictions=True))
    with pytest.raises(UsageError, match="does not say where 'fake' is"):
        open_dataset(load_result(tmp_path / "r"))
