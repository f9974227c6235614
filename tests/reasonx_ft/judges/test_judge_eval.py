"""judge-eval: figures worked by hand, agreement with the datasets' own relations, the command and its files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.images import write_png
from reasonx_eval.io.selection import Selection
from reasonx_eval.leaderboard.judge_results import JudgeResult, load_judge_result
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME, SECOND
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import MODALITIES
from reasonx_ft.cli.main import cli
from reasonx_ft.judges.evaluation.evaluate import evaluate_judge, wanted_targets
from reasonx_ft.judges.evaluation.records import EvalPlan, PhotoAnswers, mean_of_orders
from reasonx_ft.judges.evaluation.report import print_judge
from reasonx_ft.judges.evaluation.scoring import calibration, modality_result
from reasonx_ft.judges.evaluation.truth import judged_modalities, map_relation, photo_of, truth_of
from reasonx_ft.judges.oracle import Oracle
from reasonx_ft.judges.training.data import maps_of
from reasonx_ft.types import Answer, Judge, JudgeInfo, Question

PLAN = EvalPlan(resamples=200)


def answers(name: str, relation: list[int], p: Sequence[Sequence[float]], base: list[int] | None = None,
            modality: str = "depth", band: list[int] | None = None) -> PhotoAnswers:  # fmt: skip
    n = len(relation)
    return PhotoAnswers(
        name, np.zeros((n, 2, 2), np.int64), np.array(band or [0] * n, np.int8),
        {modality: np.array(relation, np.int8)}, {modality: np.array(p, np.float64)},
        {} if base is None else {modality: np.array(base, np.int8)}, {modality: Counter(ok=n)},
    )  # fmt: skip


def test_accuracy_orders_and_disagreements_by_hand():
    # right, wrong, exactly one half (wrong), left out, unanswered
    one = answers("a", [FIRST, FIRST, SECOND, LEFT_OUT, FIRST],
                  [[0.9, 0.3, 0.6, 0.9, math.nan], [0.7, 0.5, 0.4, 0.9, math.nan]],
                  base=[FIRST, FIRST, FIRST, FIRST, FIRST])  # fmt: skip
    two = answers("b", [SECOND, SECOND], [[0.1, 0.2], [0.3, 0.9]], base=[FIRST, LEFT_OUT], band=[4, 4])
    found = modality_result([one, two], "depth", PLAN, "base")
    # b's second: mean .55 says FIRST, wrong; the base is undecided there, wrong too
    assert (found.n_asked, found.n_answered) == (6, 5)
    assert found.accuracy.value == pytest.approx(2 / 5)
    assert found.accuracy.n == 5
    assert found.balanced is None
    assert found.by_band["very near"].value == pytest.approx(1 / 3)
    assert found.by_band["very far"].value == pytest.approx(1 / 2)
    assert found.by_band["middle"].value is None
    # orders: alike, one undecided, opposite, alike, opposite
    assert found.consistency is not None
    assert found.consistency.value == pytest.approx(2 / 5)
    assert found.order_gap == pytest.approx((0.2 + 0.2 + 0.2 + 0.2 + 0.7) / 5)
    # one differs where exactly one of the two is right: a's second (base), b's first (judge)
    assert found.disagreements is not None
    assert found.disagreements.right.value == pytest.approx(1 / 2)
    assert found.disagreements.right.n == 2
    assert found.disagreements.base_accuracy.value == pytest.approx(2 / 5)


def test_albedo_is_balanced():
    relation = [SAME] + [DIFFERENT] * 3
    found = modality_result([answers("a", relation, [[0.9, 0.8, 0.1, 0.1]], modality="albedo")], "albedo", PLAN, None)
    assert found.accuracy.value == pytest.approx(3 / 4)
    assert found.balanced is not None
    assert found.balanced.value == pytest.approx((1 + 2 / 3) / 2)
    assert found.headline == found.balanced
    assert found.consistency is None
    assert found.disagreements is None
    lone = modality_result([answers("a", [SAME], [[0.9]], modality="albedo")], "albedo", PLAN, None)
    assert lone.balanced is not None
    assert lone.balanced.value is None


def test_an_order_without_an_answer_is_left_to_the_other():
    p = np.array([[0.9, math.nan, math.nan], [0.5, 0.2, math.nan]])
    assert mean_of_orders(p)[:2] == pytest.approx([0.7, 0.2])
    assert math.isnan(mean_of_orders(p)[2])


def test_calibration_by_hand():
    # confidences .9, .9 (p .1), .6, 1.0; right, wrong, right, right
    error, bins = calibration(np.array([0.9, 0.1, 0.6, 1.0]), np.array([True, False, True, True]))
    assert [(b.n, b.right) for b in bins] == [(1, 1.0), (2, 0.5), (1, 1.0)]
    assert bins[-1].high == pytest.approx(1.0)
    assert error == pytest.approx((1 * 0.4 + 2 * 0.4 + 1 * 0.0) / 4)
    assert calibration(np.zeros(0), np.zeros(0, bool)) == (None, [])


def test_calibrated_answers_have_a_small_error():
    rng = np.random.default_rng(0)
    p = rng.random(50_000)
    true = rng.random(50_000) < p
    error, _ = calibration(p, np.where(true, p > 0.5, p < 0.5))
    assert error is not None
    assert error < 0.01
    over, _ = calibration(np.where(p > 0.5, 0.99, 0.01), np.where(true, p > 0.5, p < 0.5))
    assert over == pytest.approx(0.99 - 0.75, abs=0.01)


def test_intervals_resample_photos_not_pairs():
    rng = np.random.default_rng(0)
    # 40 photos of 50 pairs, each photo all right or all wrong: as uncertain as 40 coin flips
    right = rng.random(40) < 0.5
    photos = [answers(str(k), [FIRST] * 50, [[0.9 if r else 0.1] * 50]) for k, r in enumerate(right)]
    found = modality_result(photos, "depth", EvalPlan(resamples=1000), None).accuracy
    assert found.value == pytest.approx(right.mean())
    assert found.ci_high - found.ci_low == pytest.approx(2 * 2.02 * math.sqrt(0.25 / 40), rel=0.15)
    assert modality_result(photos, "depth", EvalPlan(resamples=1000), None).accuracy == found
    lone = modality_result(photos[:1], "depth", PLAN, None).accuracy
    assert (lone.ci_low, lone.ci_high) == (None, None)
    # a share ends at 0 and 1, whatever Student's interval says
    few = modality_result([answers("a", [FIRST] * 4, [[0.9, 0.9, 0.9, 0.1]]), *photos[right.argmax() :][:1]], "depth",
                          PLAN, None).accuracy  # fmt: skip
    assert 0.0 <= few.ci_low < few.value < few.ci_high == 1.0


@pytest.mark.parametrize("modality", MODALITIES)
def test_own_pairs_are_those_of_the_maps(modality: str):
    dataset = load_dataset("scenes-broad", split="val")
    for sample_id in dataset.ids[:3]:
        sample = dataset.load(sample_id, (modality, "pairs"))
        truth = truth_of(sample, photo_of(sample), (modality,), own=True, pairs=1, seed=0)
        assert (map_relation(sample, modality, truth.points) == truth.relation[modality]).all()
        assert np.bincount(truth.band, minlength=5).min() >= 5


def test_what_can_be_asked_of_a_dataset():
    assert judged_modalities(load_dataset("scenes-wild")) == (MODALITIES, True)
    assert judged_modalities(load_dataset("scenes-wild"), ["albedo"]) == (("albedo",), True)
    wanted = wanted_targets(load_dataset("scenes-wild"), None, ("depth", "judgements"))
    assert wanted == ("pairs", "depth", "judgements")


def judged_photo(folder: Path) -> Path:
    """A photo with four comparisons of three points: equal, darker, darker, and one nobody was sure about."""
    write_png(folder / "rgb" / "a.png", np.full((40, 60, 3), 90, np.uint8))
    places = [(0.1, 0.2), (0.9, 1.0), (0.5, 0.5)]
    points = [{"id": k, "x": x, "y": y, "opaque": True} for k, (x, y) in enumerate(places)]
    said = [(0, 1, "E", 0.5), (0, 2, "1", 1.0), (1, 2, "2", 2.0), (2, 0, "E", 0.0)]
    comparisons = [{"id": k, "point1": a, "point2": b, "darker": d, "darker_score": s}
                   for k, (a, b, d, s) in enumerate(said)]  # fmt: skip
    judged = {"intrinsic_points": points, "intrinsic_comparisons": comparisons}
    (folder / "json").mkdir()
    (folder / "json" / "a.json").write_text(json.dumps(judged))
    (folder / "dataset.toml").write_text(
        'name = "judged"\nimages = "rgb/{id}.png"\n[judgements]\npath = "json/{id}.json"\nformat = "iiw"\n')
    return folder


def test_people_say_what_is_the_same(tmp_path: Path):
    dataset = load_dataset("folder", judged_photo(tmp_path))
    assert judged_modalities(dataset) == (("albedo",), True)
    with pytest.raises(UsageError, match="no ground truth of depth"):
        judged_modalities(dataset, ["depth"])
    assert wanted_targets(dataset, None, ()) == ("judgements",)
    with pytest.raises(UsageError, match="no maps to draw pairs on: it has judgements"):
        maps_of(dataset, None)
    sample = dataset.load("a")
    truth = truth_of(sample, photo_of(sample), ("albedo",), own=True, pairs=1, seed=0)
    assert truth.relation["albedo"].tolist() == [SAME, DIFFERENT, DIFFERENT]
    assert truth.points[0].tolist() == [[51, 102], [460, 511]]

    class Same(Judge):
        @property
        def info(self) -> JudgeInfo:
            return JudgeInfo("same", "0")

        def ask(self, questions: Sequence[Question]) -> list[Answer]:
            return [Answer(0.8)] * len(questions)

    found = evaluate_judge(Same(), Recent(dataset, ("judgements",)), EvalPlan(resamples=100))
    assert found.modalities["albedo"].accuracy.value == pytest.approx(1 / 3)
    assert found.modalities["albedo"].balanced is not None
    assert found.modalities["albedo"].balanced.value == 0.5
    assert "|pairs:human|orders:both|" in found.signature


def run(judge: Judge, data: Recent, **how: object) -> JudgeResult:
    plan = EvalPlan(selection=Selection(limit=4), resamples=200, **how)
    return evaluate_judge(judge, data, plan, base=load_model("oracle"))


def test_the_oracle_is_right_and_its_errors_are_counted():
    data = Recent(load_dataset("scenes-wild"), (*MODALITIES, "pairs"))
    perfect = run(Oracle(dataset=data, preset="perfect"), data)
    assert (perfect.status, perfect.n_scored, perfect.n_total, perfect.lacking) == ("partial", 4, 200, False)
    assert all(m.headline.value == 1.0 for m in perfect.modalities.values())
    assert all(m.calibration_error == 0.0 for m in perfect.modalities.values())
    assert all(m.consistency is not None and m.consistency.value == 1.0 for m in perfect.modalities.values())
    # the base is perfect: there is no disagreement, and no share of none
    assert all(m.disagreements is not None and m.disagreements.right.n == 0 for m in perfect.modalities.values())
    assert all(m.disagreements.base_accuracy.value == 1.0 for m in perfect.modalities.values())
    wrong = run(Oracle(dataset=data, preset="perfect", depth=1.0, hard=True), data)
    assert wrong.modalities["depth"].accuracy.value == 0.0
    assert wrong.modalities["depth"].disagreements.right.value == 0.0
    assert wrong.modalities["normals"].accuracy.value == 1.0
    noisy = run(Oracle(dataset=data, independent_orders=True), data)
    assert noisy.modalities["irradiance"].consistency.value < 1.0
    assert "split:test|n:4/200|pairs:own" in noisy.signature


class Moody(Judge):
    """Answers nothing about depth; says so."""

    batch_size = 7

    @property
    def info(self) -> JudgeInfo:
        return JudgeInfo("moody", "1")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        assert len(questions) <= 7
        return [Answer(math.nan, "refused") if q.modality == "depth" else Answer(0.75) for q in questions]


def test_unanswered_questions_make_a_result_partial():
    data = Recent(load_dataset("scenes-broad", split="val"), ("pairs",))
    plan = EvalPlan(modalities=("depth", "albedo"), selection=Selection(limit=2), resamples=200)
    found = evaluate_judge(Moody(), data, plan)
    assert found.lacking
    depth = found.modalities["depth"]
    assert depth.accuracy.value is None
    assert depth.n_answered == 0
    assert depth.flags == {"refused": 2 * depth.n_asked}
    assert depth.calibration_error is None
    assert found.modalities["albedo"].balanced.value == 0.5


class Red(Moody):
    """Always says red, whatever the order."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(float(q.order == "red-first")) for q in questions]


def test_a_judge_that_always_says_one_colour_is_warned_about(capsys):
    data = Recent(load_dataset("scenes-broad", split="val"), ("pairs",))
    plan = EvalPlan(modalities=("depth", "normals"), selection=Selection(limit=2), resamples=200)
    found = evaluate_judge(Red(), data, plan)
    asked = 2 * found.modalities["depth"].n_asked
    assert found.warnings[0] == (f"depth: {asked} of {asked} answers name red, whichever point is red: "
                                 "this judge doesn't look at the points")  # fmt: skip
    assert len(found.warnings) == 2
    print_judge(found)
    assert f"warning: {found.warnings[0]}" in capsys.readouterr().out


class Short(Moody):
    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return []


def test_a_judge_that_loses_answers_is_refused():
    data = Recent(load_dataset("scenes-broad", split="val"), ("pairs",))
    with pytest.raises(UsageError, match="gave 0 answers"):
        evaluate_judge(Short(), data, EvalPlan(selection=Selection(limit=1)))


def test_the_command_writes_result_records_and_plots(tmp_path: Path, capsys):
    line = ["judge-eval", "--judge", "oracle", "--dataset", "scenes-wild", "--base", "retinex", "--limit", "3",
            "--modalities", "albedo,irradiance", "--resamples", "100", "--out", str(tmp_path), "-q"]
    assert run_cli(cli, line) == 0
    said = capsys.readouterr().out
    assert "judge/scenes-wild@1|split:test|n:3/200" in said
    assert "right on them" in said
    folder = tmp_path / "scenes-wild-test" / "oracle"
    assert {p.name for p in folder.iterdir()} == {"judge.json", "records.jsonl", "calibration.png", "bands.png"}
    result = load_judge_result(folder)
    assert set(result.modalities) == {"albedo", "irradiance"}
    assert result.base is not None
    assert result.base.name == "retinex"
    assert result.records_sha256 == sha256_file(folder / "records.jsonl")
    rows = [json.loads(row) for row in (folder / "records.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert len(rows[0]["probability"]["albedo"][0]) == len(rows[0]["relation"]["albedo"]) == len(rows[0]["points"])
    assert result.provenance.passed["limit"] == 3
    # again
    assert run_cli(cli, line) == 2
    assert "a result is there already" in capsys.readouterr().err
    before = (folder / "judge.json").read_bytes()
    assert run_cli(cli, [*line, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "judge"
    assert (folder / "judge.json").read_bytes() == before


def test_results_of_other_programs_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        load_judge_result(tmp_path)
    path = tmp_path / "judge.json"
    path.write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        load_judge_result(path)
    path.write_text('{"schema": 99}')
    with pytest.raises(NotComparable, match="newer"):
        load_judge_result(path)
    path.write_text('{"schema": 1}')
    with pytest.raises(DataError, match="not a judge's result"):
        load_judge_result(path)


@pytest.mark.parametrize(("wrong", "said"), [
    (["--modalities", "depht"], "did you mean 'depth'"),
    (["--dataset", "scenes-wlid"], "did you mean 'scenes-wild'"),
    (["--judge", "orakle"], "unknown judge"),
    (["--base", "tinny"], "tiny"),
    (["--split", "nope"], "unknown split"),
])  # fmt: skip
def test_wrong_names(tmp_path: Path, capsys, wrong: list[str], said: str):
    line = ["judge-eval", "--judge", "oracle", "--dataset", "scenes-wild", "--limit", "1", "-q",
            "--out", str(tmp_path), *wrong]  # fmt: skip
    assert run_cli(cli, line) == 2
    assert said in capsys.readouterr().err
