"""The study: its grid, its figures against hand-worked values, its table, and a small one from end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import summary
from benchmarks.study.__main__ import command as cli
from benchmarks.study.design import Cell, cells
from benchmarks.study.evaluation import DOMAINS, MEASURES
from benchmarks.study.report import brief, markdown, plot
from benchmarks.study.summary import StudyRow, figure
from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, UsageError

WHDR = MEASURES[0]
DELTA1 = MEASURES[2]
assert (WHDR.label, DELTA1.label) == ("WHDR", "delta1")

IMAGES = 40


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Run folders by name, whose values are set by the test."""
    values: dict[str, np.ndarray] = {}

    def values_of(folder: Path, metric: str) -> tuple[list[str], np.ndarray, str]:
        found = values[folder.name]
        return [f"image-{k}" for k in range(len(found))], found, f"signature of {metric}"

    monkeypatch.setattr(summary, "values_of", values_of)
    return values


def compared(measure: object, base: str, tuned: Sequence[str], ceiling: Sequence[str] = ()) -> summary.Figure:
    assert measure in MEASURES
    return figure(measure, DOMAINS[0], Path(base), [Path(t) for t in tuned], [Path(c) for c in ceiling])


# the grid


def test_the_grid_leaves_out_what_does_not_exist() -> None:
    found = cells(["tiny", "tiny-flow"], ["grpo", "expected"], ["oracle"], [0, 1])
    assert [c.name for c in found] == [
        "tiny-grpo-oracle-s0", "tiny-grpo-oracle-s1", "tiny-expected-oracle-s0", "tiny-expected-oracle-s1",
        "tiny-flow-grpo-oracle-s0", "tiny-flow-grpo-oracle-s1",
    ]  # fmt: skip
    assert Cell("tiny", "grpo", "random", 3).name == "tiny-grpo-random-s3"


@pytest.mark.parametrize(
    ("what", "match"),
    [({"bases": ["tini"]}, "tiny"), ({"methods": ["gpro"]}, "grpo"), ({"judges": ["orakle"]}, "oracle"),
     ({"seeds": []}, "no seed")],
)  # fmt: skip
def test_unknown_names_are_refused(what: dict[str, list[str]], match: str) -> None:
    given = {"bases": ["tiny"], "methods": ["grpo"], "judges": ["oracle"], "seeds": [0], **what}
    with pytest.raises(UsageError, match=match):
        cells(**given)  # type: ignore[arg-type]


# figures


def test_a_figure_by_hand(runs: dict[str, np.ndarray]) -> None:
    runs["base"] = np.full(IMAGES, 0.4)
    runs["a"], runs["b"] = np.full(IMAGES, 0.3), np.full(IMAGES, 0.32)
    runs["ceiling"] = np.full(IMAGES, 0.2)
    found = compared(WHDR, "base", ["a", "b"], ["ceiling"])
    assert found.tuned == pytest.approx(0.31)
    assert found.by_seed == pytest.approx([0.3, 0.32])
    # every image says the same: the intervals have no width
    assert (found.change.value, found.change.low, found.change.high) == pytest.approx((-0.225, -0.225, -0.225))
    assert (found.closed.value, found.closed.low, found.closed.high) == pytest.approx((0.45, 0.45, 0.45))
    assert (found.better_in, found.worse_in) == (2, 0)
    assert found.n == IMAGES


def test_more_is_better_for_delta1(runs: dict[str, np.ndarray]) -> None:
    runs["base"], runs["up"], runs["down"] = (np.full(IMAGES, v) for v in (0.5, 0.7, 0.4))
    runs["ceiling"] = np.full(IMAGES, 0.9)
    up, down = compared(DELTA1, "base", ["up"], ["ceiling"]), compared(DELTA1, "base", ["down"], ["ceiling"])
    assert (up.better_in, up.worse_in, down.better_in, down.worse_in) == (1, 0, 0, 1)
    assert up.closed.value == pytest.approx(0.5)
    assert down.closed.value == pytest.approx(-0.25)


def test_noise_is_no_change(runs: dict[str, np.ndarray]) -> None:
    stream = np.random.default_rng(3)
    runs["base"] = stream.uniform(0.2, 0.6, IMAGES)
    # a difference whose mean over images is exactly 0
    noise = stream.normal(0, 0.05, IMAGES)
    runs["tuned"] = runs["base"] + noise - noise.mean()
    found = compared(WHDR, "base", ["tuned"])
    assert found.change.value == pytest.approx(0.0, abs=1e-12)
    assert found.change.low is not None
    assert found.change.high is not None
    assert found.change.low < 0 < found.change.high
    assert (found.better_in, found.worse_in) == (0, 0)


def test_without_a_gap_no_share_of_it_is_told(runs: dict[str, np.ndarray]) -> None:
    stream = np.random.default_rng(4)
    runs["base"] = stream.uniform(0.2, 0.6, IMAGES)
    wobble = stream.normal(0, 0.05, IMAGES)
    runs["ceiling"] = runs["base"] + wobble - wobble.mean() - 1e-4
    runs["tuned"] = runs["base"] - 0.05
    found = compared(WHDR, "base", ["tuned"], ["ceiling"])
    assert found.closed.value is None
    assert found.change.value is not None


def test_other_images_are_refused(runs: dict[str, np.ndarray]) -> None:
    runs["base"], runs["tuned"] = np.ones(IMAGES), np.ones(IMAGES - 1)
    with pytest.raises(DataError, match="other images than the base"):
        compared(WHDR, "base", ["tuned"])


# table and plot


def test_the_table_shows_the_base_every_row_and_every_signature(runs: dict[str, np.ndarray], tmp_path: Path) -> None:
    stream = np.random.default_rng(5)
    runs["base"] = stream.uniform(0.2, 0.6, IMAGES)
    runs["tuned"], runs["ceiling"] = runs["base"] * 0.9, runs["base"] * 0.8
    rows = [
        StudyRow(base="tiny", method=method, judge=judge, seeds=[0], seconds=1.0, figures=[
            figure(m, d, Path("base"), [Path(name)], [Path("ceiling")] if d == DOMAINS[0] else [])
            for d in DOMAINS for m in MEASURES
        ])
        for method, judge, name in (("supervised", "labels", "ceiling"), ("ranking", "oracle", "tuned"))
    ]  # fmt: skip
    text = markdown(rows)
    lines = [line for line in text.splitlines() if line.startswith("| `tiny`")]
    assert len(lines) == 6
    assert all(line.count("|") == 4 + len(MEASURES) for line in lines)
    assert "-10.0 % [-10.0, -10.0], closes 50 % (1/0 of 1)" in lines[2]
    assert "closes" not in lines[1] + lines[5]
    for measure in MEASURES:
        assert f"signature of {measure.metric}" in text
    short = [line for line in brief(rows).splitlines() if line.startswith("| `tiny`")]
    assert len(short) == 2
    assert "-10.0 % [-10.0, -10.0], 50 %" in short[1]
    # on the other domain too everything fell by a tenth, and of delta1 more would have been better
    assert short[1].endswith("| delta1 10.0 % worse |")
    assert short[0].endswith("| delta1 20.0 % worse |")
    plot(rows, tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes()[:4] == b"\x89PNG"


# from end to end


@pytest.mark.slow
def test_a_small_study_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    small = ["--out", str(out), "--bases", "tiny", "--judges", "random", "--photos", "16", "--pairs", "10",
             "--limit", "3", "--steps", "tiny=1", "--workers", "1",
             "--set", "objective.rehearsal_scenes=4", "-q", "--json"]  # fmt: skip
    assert run_cli(cli, [*small, "--methods", "ranking", "--seeds", "0"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [(r["method"], r["judge"], r["seeds"]) for r in first["rows"]] == [
        ("supervised", "labels", [0]), ("ranking", "random", [0])]  # fmt: skip
    assert {f["n"] for r in first["rows"] for f in r["figures"]} == {3}
    # what is finished is not done again
    before = (out / "cells" / "tiny-ranking-random-s0" / "done.json").stat().st_mtime_ns
    assert run_cli(cli, [*small, "--methods", "ranking", "--seeds", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == first["rows"]
    assert (out / "cells" / "tiny-ranking-random-s0" / "done.json").stat().st_mtime_ns == before
    assert run_cli(cli, [*small, "--methods", "ranking", "--seeds", "0", "--photos", "17"]) == 2
    assert "photos 16 (now 17)" in capsys.readouterr().err


# what this repository measured


def test_the_readme_has_the_table_of_the_committed_study() -> None:
    from tests.helpers.pages import STUDY, text
    from tests.helpers.study_table import table

    assert table() in text(STUDY), "run: python -m tests.helpers.study_table STUDY"
