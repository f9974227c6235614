"""reasonx-eval compare: exit codes, every format, rewards, pictures, hostile names."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.types import Record
from tests.reasonx_eval.statistics.planted import depth_records, edit_lines, planted, write_run

N = 30


def run(*arguments: object) -> int:
    return run_cli(cli, ["compare", *(str(a) for a in arguments)])


def pair(root: Path, *, name: str = "tuned", effect: float = -0.02, **more: Any) -> tuple[Path, Path]:
    a, b = planted(N, effect, 0.9, 0)
    return (write_run(root / "a", depth_records({"abs_rel": a}), name="base"),
            write_run(root / "b", depth_records({"abs_rel": b}), name=name, **more))  # fmt: skip


def test_table_has_both_signatures_the_seed_and_the_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(tmp_path)
    assert run(a, b, "--worst", 2, "--seed", 7) == 0
    out = capsys.readouterr().out
    assert out.count(f"depth/generic@1|data:fake|n:{N}|acc:depth_metric") == 2
    assert "seed 7; bootstrap, 10,000 resamples" in out
    assert "Holm over 8 tests" in out
    assert f"{N} samples paired" in out
    line = next(x for x in out.splitlines() if x.startswith("abs_rel ↓"))
    assert line.endswith("improved")
    assert "delta1 ↑" in out
    assert "worst for tuned by abs_rel:" in out


def test_two_calls_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(tmp_path)
    for form in ("table", "md", "csv", "latex", "json"):
        texts = []
        for k in range(2):
            plot = ["--plot", tmp_path / f"{k}.png"] if form == "table" else []
            assert run(a, b, "--format", form, *plot) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert (tmp_path / "0.png").read_bytes().startswith(b"\x89PNG")


def test_json_and_csv_hold_the_same_unrounded_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(tmp_path)
    assert run(a, b, "--json") == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    metrics = comparison["others"][0]["metrics"]
    assert run(a, b, "--format", "csv") == 0
    rows = {r["metric"]: r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert list(rows) == list(metrics)
    first, second = planted(N, -0.02, 0.9, 0)
    row = metrics["abs_rel"]
    assert row["difference"] == pytest.approx(np.mean(second - first), rel=1e-9)
    assert row["ci_low"] < row["difference"] < row["ci_high"] < 0
    assert row["p"] <= row["p_adjusted"] <= 8 * row["p"] + 1e-12
    for key in ("base", "difference", "ci_low", "ci_high", "p", "p_adjusted"):
        assert float(rows["abs_rel"][key]) == row[key]
    assert rows["abs_rel"]["base_signature"] == comparison["base"]["signature"]
    assert rows["abs_rel"]["signature"] == comparison["others"][0]["signature"]
    assert comparison["seed"] == 0


@pytest.mark.parametrize("form", ["md", "latex"])
def test_documents_carry_signatures(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    a, b = pair(tmp_path)
    assert run(a, b, "--format", form) == 0
    out = capsys.readouterr().out
    assert out.count("depth/generic@1|data:fake") == 2
    if form == "latex":
        assert r"abs\_rel $\downarrow$ & " in out
        assert out.count(r" \\") == 9
    else:
        assert "|---|---:|" in out


def test_missing_sample_is_named_and_the_code_is_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"abs_rel": planted(N, 0.0, 0.9, 0)[0]}
    records = depth_records(values)
    a = write_run(tmp_path / "a", records, name="base")
    lost = [*records[:4], Record("room/0004", error="out of memory"), *records[5:]]
    b = write_run(tmp_path / "b", lost, name="tuned")
    assert run(a, b) == 6
    printed = capsys.readouterr()
    assert "missing  tuned: room/0004: failed: out of memory" in printed.out
    assert f"{N - 1} samples paired" in printed.out
    assert "partial" in printed.err
    assert run(a, b, "--json") == 6
    document = json.loads(capsys.readouterr().out)["comparisons"][0]
    assert document["others"][0]["missing"] == {"room/0004": "failed: out of memory"}
    assert document["n"] == N - 1


def test_other_rules_are_refused_field_by_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = get_protocol("depth/generic-metric")
    a = write_run(tmp_path / "a", depth_records({"abs_rel": np.full(5, 0.1)}))
    b = write_run(tmp_path / "b", depth_records({"abs_rel": np.full(5, 0.1)}, protocol=metric), protocol=metric)
    assert run(a, b) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert 'protocol.depth.align.mode: "affine" -> "none"' in printed.err


def test_edited_records_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(tmp_path)
    edit_lines(b, lambda lines: lines[::-1])
    assert run(a, b) == 4
    assert "edited, reordered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--by", "absrel"], "did you mean 'abs_rel'"),
        (["--unrewarded"], "no run says which metrics it was rewarded for"),
        (["--plot", "x.jpg"], "writes .png, not '.jpg'"),
        (["--force"], "--force belongs to --plot"),
    ],
)
def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str) -> None:
    assert run(*pair(tmp_path), *more) == 2
    assert words in capsys.readouterr().err


def test_a_picture_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(tmp_path)
    picture = tmp_path / "x.png"
    picture.write_text("mine")
    assert run(a, b, "--plot", picture) == 2
    assert "already there\n  try: --force, or another --plot" in capsys.readouterr().err
    assert picture.read_text() == "mine"
    assert run(a, b, "--plot", picture, "--force") == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_run_is_not_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = pair(tmp_path)
    assert run(a) == 2
    assert "at least two runs" in capsys.readouterr().err


def test_rewarded_metrics_are_marked_the_others_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"abs_rel": np.linspace(0.1, 0.3, N), "delta1": np.linspace(0.5, 0.9, N)}
    tuned = {"abs_rel": base["abs_rel"] - 0.02, "delta1": base["delta1"] - 0.1}
    a = write_run(tmp_path / "a", depth_records(base), name="base")
    b = write_run(tmp_path / "b", depth_records(tuned), name="tuned", options={"tuning": {"rewarded": ["abs_rel"]}})
    assert run(a, b, "--unrewarded") == 0
    out = capsys.readouterr().out
    assert "abs_rel ↓ ‡" in out
    assert "tuned: rewarded ‡  1 improved" in out
    assert "tuned: not rewarded  1 worse" in out
    assert "before you believe the reward" in out
    assert run(a, b, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparisons"][0]["others"][0]["metrics"]["abs_rel"]["rewarded"] is True
    assert len(document["reward"]) == 3


def test_folders_with_many_runs_are_paired_by_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = get_protocol("depth/generic-metric")
    values = {"abs_rel": np.linspace(0.1, 0.3, 6)}
    for side in ("before", "after"):
        write_run(tmp_path / side / "1", depth_records(values), name=side)
        write_run(tmp_path / side / "2", depth_records(values, protocol=metric), name=side, protocol=metric)
    write_run(tmp_path / "after" / "3", depth_records(values), name=side, dataset="other")
    assert run(tmp_path / "before", tmp_path / "after", "--plot", tmp_path / "x.png") == 0
    printed = capsys.readouterr()
    assert "depth/generic@1  fake all" in printed.out
    assert "depth/generic-metric@1  fake all" in printed.out
    assert "not paired: depth/generic@1 other all: only in" in printed.err
    drawn = sorted(p.name for p in tmp_path.glob("*.png"))
    assert drawn == ["x.depth-generic-metric@1-fake.png", "x.depth-generic@1-fake.png"]


def test_a_run_against_itself_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = pair(tmp_path)
    assert run(a, a) == 0
    out = capsys.readouterr().out
    assert out.count("same") == 8
    assert "no sample got worse" in out
    assert f"base ({a})" in out


def test_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31m$x|<script>_{%"
    a, b = pair(tmp_path, name=name)
    for form in ("table", "md", "latex", "csv", "json"):
        plot = ["--plot", tmp_path / "x.png", "--force"] if form == "table" else []
        assert run(a, b, "--format", form, *plot) == 0
        out = capsys.readouterr().out
        if form != "csv":  # a file of data keeps the name as it is
            assert "\x1b" not in out
    assert run(a, b, "--format", "md") == 0
    header = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| metric"))
    assert "&lt;script&gt;" in header
    assert header.count(" | ") == 7
    assert run(a, b, "--format", "latex") == 0
    out = capsys.readouterr().out
    assert r"\$x\textbar{}\textless{}script\textgreater{}\_\{\%" in out
