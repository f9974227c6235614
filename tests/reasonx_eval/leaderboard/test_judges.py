"""Judges have tables of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.results import DatasetRef, Value
from reasonx_eval.io.selection import Selection
from reasonx_eval.leaderboard.board import make_board
from reasonx_eval.leaderboard.generate import generate
from reasonx_eval.leaderboard.judge_results import JudgeRef, JudgeResult, ModalityResult, save_judge_result
from reasonx_eval.leaderboard.submissions import read_all
from reasonx_eval.leaderboard.submit import submit
from tests.reasonx_eval.leaderboard.makers import PROVENANCE

RECORDS = '{"photo": "a"}\n'


def judge(name: str, right: float, *, scored: int = 4, ids: str = "x") -> JudgeResult:
    value = Value(value=right, ci_low=right - 0.1, ci_high=right + 0.1, n=40)
    found = ModalityResult(accuracy=value, by_band={"near": value}, calibration_error=0.0321, bins=[], n_asked=40,
                           n_answered=40, flags={"ok": 40})  # fmt: skip
    whole = "" if scored == 4 else "/4"
    return JudgeResult(
        schema=1, status="complete" if scored == 4 else "partial",
        signature=f"judge/scenes-wild@1|split:test|n:{scored}{whole}|pairs:own|reasonx:0.1.0",
        judge=JudgeRef(name=name, revision="r", trained_on=["scenes-wild/train"]), selection=Selection(),
        dataset=DatasetRef(name="scenes-wild", split="test", n=4, ids_sha256=ids),
        modalities={"depth": found, "albedo": found.model_copy(update={"balanced": Value(value=0.5, n=40)})},
        confidence=0.95, resamples=100, n_total=4, n_scored=scored, failed={}, records_sha256=sha256_text(RECORDS),
        provenance=PROVENANCE,
    )  # fmt: skip


def folder(path: Path, result: JudgeResult) -> Path:
    path.mkdir(parents=True)
    save_judge_result(path, result)
    (path / "records.jsonl").write_text(RECORDS)
    return path


def test_judges_are_added_and_shown_apart_with_their_signature(tmp_path: Path) -> None:
    runs = [folder(tmp_path / "a", judge("tiny", 0.8)), folder(tmp_path / "b", judge("<b>bold</b>", 0.7)),
            folder(tmp_path / "c", judge("part", 0.9, scored=3))]  # fmt: skip
    added = submit(runs, tmp_path / "results")
    assert added[0].path == tmp_path / "results/judges/scenes-wild/tiny.json"
    board = make_board(tmp_path / "results")
    assert [[j.result.judge.name for j in t.rows] for t in board.judges] == [["part"], ["<b>bold</b>", "tiny"]]
    made = generate(tmp_path / "results", tmp_path)
    page = made.files[tmp_path / "index.html"].decode()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "judge/scenes-wild@1|split:test|n:4|pairs:own|reasonx:0.1.0" in page
    assert "0.8000<i>[0.7000, 0.9000]" in page
    assert "0.5000" in page, "albedo is judged by the balanced share"
    assert "partial: 3 of 4 photos" in page
    assert "trained on this dataset (scenes-wild/train)" in page
    assert "Judges of point pairs" in made.files[tmp_path / "README.md"].decode()


def test_edited_answers_and_doubles_are_refused(tmp_path: Path) -> None:
    run = folder(tmp_path / "a", judge("tiny", 0.8))
    with pytest.raises(UsageError, match="two of the runs"):
        submit([run, folder(tmp_path / "b", judge("tiny", 0.7))], tmp_path / "results")
    (run / "records.jsonl").write_text(RECORDS + RECORDS)
    with pytest.raises(DataError, match="records are not those"):
        submit([run], tmp_path / "results")
    (run / "records.jsonl").write_text(RECORDS)
    path = submit([run], tmp_path / "results")[0].path
    path.write_text(path.read_text().replace("0.8", "0.9"))
    with pytest.raises(DataError, match="digest"):
        read_all(tmp_path / "results")


def test_other_photos_under_one_signature_are_refused(tmp_path: Path) -> None:
    submit([folder(tmp_path / "a", judge("one", 0.8)), folder(tmp_path / "b", judge("two", 0.8, ids="y"))],
        tmp_path / "results")  # fmt: skip
    with pytest.raises(NotComparable, match="other photos"):
        make_board(tmp_path / "results")
