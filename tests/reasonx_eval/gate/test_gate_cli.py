"""The gate from the command line: what passes, what never does, what it writes, and how a baseline changes."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.gate.baseline import load_baseline
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.types import Record
from tests.reasonx_eval.statistics.planted import (
    POOLED,
    depth_records,
    edit_lines,
    edit_result,
    planted,
    pooled_records,
    write_run,
)

N = 40
POLICY = """
schema = 1
[protocol."depth/generic@1"]
abs_rel = { margin = 0.004 }
delta1 = { exact = true, tolerance = 1e-9 }
"""
BASE, SAME = planted(N, 0.0, 0.999, 0)


class Gate:
    """A folder with a policy, a baseline taken from one run, and shortcuts to judge others against it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.baseline = root / "baseline.json"
        (root / "policy.toml").write_text(POLICY, encoding="utf-8")

    def __call__(self, *arguments: object) -> int:
        files = ["--baseline", self.baseline, "--policy", self.root / "policy.toml"]
        return run_cli(cli, ["gate", *(str(a) for a in (*arguments, *files))])

    def run(self, folder: str, values: Any, **more: Any) -> Path:
        records = more.pop("records", None) or depth_records({"abs_rel": values}, more.pop("groups", None))
        return write_run(self.root / "runs" / folder, records, **more)

    def update(self, *runs: object, reason: str = "first") -> int:
        return self(*runs, "--update-baseline", "--reason", reason)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    made = Gate(tmp_path)
    assert made.update(made.run("base", BASE)) == 0
    return made


def test_pass_regressed_and_cannot_tell(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert gate(gate.run("same", SAME)) == 0
    out = capsys.readouterr().out
    assert out.count("depth/generic@1|data:fake|n:40") == 1
    assert "baseline and run" in out
    assert out.endswith("pass: exit 0\n")
    bad = gate.run("bad", SAME + 0.02)
    assert gate(bad) == 3
    out = capsys.readouterr().out
    assert "regressed: depth/generic@1 net abs_rel: worse by" in out
    assert "not gated: delta2" in out
    unsure = gate.run("unsure", planted(N, 0.003, 0.5, 0)[1])
    assert gate(unsure) == 5
    out = capsys.readouterr().out
    assert "samples would settle it" in out
    assert gate(unsure, "--inconclusive", "fail") == 3
    assert gate(unsure, "--inconclusive", "pass") == 0
    assert gate(bad, "--inconclusive", "pass") == 3


def test_exact_rule_names_the_sample(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    records = depth_records({"abs_rel": BASE, "delta1": np.where(np.arange(N) == 5, 0.4999, 0.5)})
    capsys.readouterr()
    assert gate(gate.run("x", None, records=records)) == 3
    out = capsys.readouterr().out
    assert "delta1: 1 of 40 samples are worse by more than 1e-09" in out
    assert "room/0005" in out


def _drop_sample(folder: Path) -> None:
    shutil.rmtree(folder)
    write_run(folder, depth_records({"abs_rel": SAME})[:-1], n_total=N)


def _fail_sample(folder: Path) -> None:
    shutil.rmtree(folder)
    write_run(folder, [*depth_records({"abs_rel": SAME})[:-1], Record("room/0039", error="out of memory")])


def _null(folder: Path) -> None:
    shutil.rmtree(folder)
    records = depth_records({"abs_rel": SAME})
    hole = Record(**{**vars(records[3]), "metrics": {**records[3].metrics, "abs_rel": None}})
    write_run(folder, [*records[:3], hole, *records[4:]])


def _other_kind(folder: Path) -> None:
    shutil.rmtree(folder)
    other = get_protocol("depth/generic").model_copy(update={"accepts": ("disparity_affine",)})
    write_run(folder, depth_records({"abs_rel": SAME}), protocol=other)


def _nan(lines: list[str]) -> list[str]:
    row = json.loads(lines[3])
    row["metrics"]["abs_rel"] = float("nan")
    return [*lines[:3], json.dumps(row) + "\n", *lines[4:]]


def _no_metric(lines: list[str]) -> list[str]:
    rows = [json.loads(line) for line in lines]
    for row in rows:
        del row["metrics"]["abs_rel"]
    return [json.dumps(row) + "\n" for row in rows]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_sample, "room/0039: not in the run"),
        (_fail_sample, "room/0039: failed: out of memory"),
        (_null, "has no abs_rel here"),
        (_other_kind, "protocol.accepts"),
        (lambda f: edit_lines(f, _nan), "edited, reordered"),
        (lambda f: edit_lines(f, _nan, reseal=True), "is nan, not a finite number"),
        (lambda f: edit_lines(f, _no_metric, reseal=True), "has no metric 'abs_rel'"),
        (lambda f: edit_lines(f, lambda lines: lines[::-1]), "edited, reordered"),
        (lambda f: edit_lines(f, lambda lines: [*lines, lines[0]]), "is there twice"),
        (lambda f: edit_result(f, lambda d: d["aggregate"].pop("abs_rel")), "it vanished"),
        (lambda f: edit_result(f, lambda d: d.update(signature="x|y")), "signature is not that"),
        (lambda f: (f / "records.jsonl").unlink(), "no records beside the result"),
    ],
)  # fmt: skip
def test_never_a_pass(gate: Gate, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], words: str) -> None:
    folder = gate.run("x", SAME)
    assert gate(folder) == 0
    spoil(folder)
    verdict = gate.root / "verdict.json"
    verdict.write_text('{"outcome": "pass"}', encoding="utf-8")
    capsys.readouterr()
    assert gate(folder, "--verdict", verdict, "--inconclusive", "pass") == 4
    printed = capsys.readouterr()
    assert words in printed.out + printed.err
    found = json.loads(verdict.read_text(encoding="utf-8"))
    assert (found["exit_code"], found["checks"]) == (4, [])
    assert found["outcome"] in ("not comparable", "error")
    assert any(words in line for line in found["refused"])


def test_kind_of_prediction_is_part_of_the_signature(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    both = get_protocol("depth/generic")
    assert len(both.accepts) > 1
    folder = gate.run("x", SAME)

    def as_disparity(document: dict[str, Any]) -> None:
        document["model"]["kind"] = "disparity_affine"
        document["signature"] = document["signature"].replace("depth_metric|align:affine.depth",
                                                              "disparity_affine|align:affine.disparity")  # fmt: skip

    edit_result(folder, as_disparity)
    assert gate(folder) == 4
    out = capsys.readouterr().out
    assert "acc:depth_metric -> acc:disparity_affine, align:affine.depth -> align:affine.disparity" in out


def test_runs_and_baselines_that_have_no_partner(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    metric = get_protocol("depth/generic-metric")
    gate.run("x", SAME)
    gate.run("y", None, records=depth_records({"abs_rel": SAME}, protocol=metric), protocol=metric)
    capsys.readouterr()
    assert gate(gate.root / "runs/x", gate.root / "runs/y") == 4
    assert "depth/generic-metric@1 fake all: only in" in capsys.readouterr().out
    assert gate.update(gate.root / "runs/y", reason="one more") == 0
    capsys.readouterr()
    assert gate(gate.root / "runs/x") == 4
    assert "only in" in capsys.readouterr().out
    # now both have partners, but the policy has no margin for one of them
    assert gate(gate.root / "runs/x", gate.root / "runs/y") == 4
    assert "the policy has no margin for this protocol" in capsys.readouterr().out


def test_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = Gate(tmp_path)
    assert gate(gate.run("x", SAME)) == 4
    assert "no baseline" in capsys.readouterr().err


def test_renamed_checkpoint_is_held_against_the_only_baseline(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(gate.run("x", SAME, name="step-400")) == 0
    assert "step-400: held against the baseline of net" in capsys.readouterr().out


def test_usage(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    run = gate.run("x", SAME)
    assert gate(run, "--update-baseline") == 2
    assert gate(run, "--reason", "x") == 2
    assert gate(run, "--prune") == 2
    assert gate(run, "--update-baseline", "--reason", " ") == 2
    (gate.root / "policy.toml").write_text(POLICY.replace("abs_rel", "abs_rell"), encoding="utf-8")
    assert gate(run) == 2
    assert "did you mean 'abs_rel'" in capsys.readouterr().err


def test_update_records_reason_and_old_values(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_baseline(gate.baseline)
    better = gate.run("better", BASE - 0.05)
    capsys.readouterr()
    assert gate.update(better, reason="decoder retrained") == 0
    assert "changed: depth/generic@1 fake net" in capsys.readouterr().out
    after = load_baseline(gate.baseline)
    assert [u.reason for u in after.history] == ["first", "decoder retrained"]
    change = after.history[1].entries[0]
    assert (change.action, change.old_records_sha256) == ("changed", before.entries[0].records_sha256)
    assert change.values["abs_rel"].old == pytest.approx(np.mean(BASE))
    assert change.values["abs_rel"].new == pytest.approx(np.mean(BASE) - 0.05)
    assert gate(gate.root / "runs/base") == 3
    # again: nothing to record, and not a byte changes
    text = gate.baseline.read_bytes()
    assert gate.update(better, reason="again") == 0
    assert gate.baseline.read_bytes() == text
    assert "nothing changed" in capsys.readouterr().out


def test_update_keeps_other_entries_unless_pruned(gate: Gate) -> None:
    metric = get_protocol("depth/generic-metric")
    other = gate.run("y", None, records=depth_records({"abs_rel": BASE}, protocol=metric), protocol=metric)
    assert gate.update(other, reason="more") == 0
    assert len(load_baseline(gate.baseline).entries) == 2
    assert gate.update(other, "--prune", reason="less") == 0
    left = load_baseline(gate.baseline)
    assert [e.protocol.name for e in left.entries] == ["depth/generic-metric"]
    assert left.history[-1].entries[0].action == "removed"
    assert left.history[-1].entries[0].values["abs_rel"].new is None


def test_update_refuses_failed_samples_and_edited_runs(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    folder = gate.run("x", SAME)
    text = gate.baseline.read_bytes()
    _fail_sample(folder)
    assert gate.update(folder) == 2
    assert "not fit for a baseline" in capsys.readouterr().err
    edit_lines(folder, lambda lines: lines[::-1])
    assert gate.update(folder) == 4
    assert gate.baseline.read_bytes() == text


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["entries"][0]["samples"]["metrics"]["abs_rel"].__setitem__(0, 9.9),
        lambda d: d["entries"][0]["samples"]["metrics"]["abs_rel"].__setitem__(0, float("nan")),
        lambda d: d["entries"][0]["samples"]["metrics"].pop("abs_rel"),
        lambda d: d["entries"][0]["samples"]["ids"].__setitem__(0, "room/0001"),
        lambda d: d["entries"].clear(),
        lambda d: d["history"][0].update(reason="another"),
        lambda d: d.update(extra=1),
        lambda d: d.update(schema=99),
    ],
)
def test_baseline_edited_by_hand(gate: Gate, change: Callable[[dict[str, Any]], Any]) -> None:
    run = gate.run("x", SAME)
    document = json.loads(gate.baseline.read_text(encoding="utf-8"))
    change(document)
    gate.baseline.write_text(json.dumps(document), encoding="utf-8")
    text = gate.baseline.read_bytes()
    assert gate(run) == 4
    assert gate.update(run) == 4
    assert gate.baseline.read_bytes() == text


def test_baseline_is_a_run_again(gate: Gate) -> None:
    """What goes in comes out: the very same run compares as the same, scenes and pooled sums included."""
    draw = np.random.default_rng(0)
    errors = [draw.uniform(0, 40, size=k) for k in draw.integers(20, 50, size=N)]
    groups = [f"scene{k // 4}" for k in range(N)]
    pooled = gate.run("p", None, records=pooled_records(errors, groups), protocol=POOLED, pixels=errors)
    assert gate.update(pooled, "--prune", reason="pooled") == 0
    (gate.root / "policy.toml").write_text(
        '[protocol."normals/generic@1"]\nmean_deg = { margin = 0.0 }\nrmse_deg = { margin = 0.1 }\n', encoding="utf-8")
    assert gate(pooled) == 0
    worse = [e * 1.5 for e in errors]
    verdict = gate.root / "v.json"
    bad = gate.run("q", None, records=pooled_records(worse, groups), protocol=POOLED, pixels=worse)
    assert gate(bad, "--verdict", verdict) == 3
    checks = json.loads(verdict.read_text(encoding="utf-8"))["checks"]
    assert [(c["metric"], c["n"], c["clusters"]) for c in checks] == [("mean_deg", N, 10), ("rmse_deg", N, 10)]
    pixels = np.concatenate(errors)
    assert checks[0]["worse_by"] == pytest.approx(0.5 * pixels.mean())
    assert checks[1]["worse_by"] == pytest.approx(0.5 * np.sqrt((pixels**2).mean()))
    (gate.root / "policy.toml").write_text('[protocol."normals/generic@1"]\nmedian_deg = { margin = 0.0 }\n',
                                           encoding="utf-8")  # fmt: skip
    assert gate(pooled) == 4


def test_verdict_and_junit(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    name = 'net <&>"\x1b\x00]]>'
    bad = gate.run("bad", SAME + 0.02, name=name)
    verdict, junit = gate.root / "out" / "v.json", gate.root / "out" / "v.xml"
    capsys.readouterr()
    assert gate(bad, "--verdict", verdict, "--junit", junit, "--json") == 3
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(verdict.read_text(encoding="utf-8"))
    assert printed == written
    assert (written["schema"], written["outcome"], written["exit_code"]) == (1, "regressed", 3)
    check = next(c for c in written["checks"] if c["metric"] == "abs_rel")
    assert (check["model"], check["margin"], check["outcome"]) == (name, 0.004, "regressed")
    assert 0 < check["ci_good"] < check["worse_by"] < check["ci_bad"]
    assert check["signature"].startswith("depth/generic@1|data:fake|n:40")
    root = ET.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    failure = root.find(".//testcase[@name='abs_rel']/failure")
    assert failure is not None
    assert failure.get("type") == "regressed"
    assert root.find(".//testcase[@name='delta1']/failure") is None
    assert r'net <&>"\x1b\x00]]>' in str(root.find("testsuite").get("name"))  # type: ignore[union-attr]
    (bad / "records.jsonl").unlink()
    assert gate(bad, "--verdict", verdict, "--junit", junit) == 4
    root = ET.parse(junit).getroot()
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    assert "no records beside" in str(root.find(".//error").get("message"))  # type: ignore[union-attr]


def test_cannot_tell_in_junit(gate: Gate) -> None:
    unsure = gate.run("unsure", planted(N, 0.003, 0.5, 0)[1])
    junit = gate.root / "v.xml"
    assert gate(unsure, "--junit", junit) == 5
    assert ET.parse(junit).getroot().get("failures") == "1"
    assert gate(unsure, "--junit", junit, "--inconclusive", "pass") == 0
    root = ET.parse(junit).getroot()
    assert (root.get("failures"), root.get("skipped")) == ("0", "1")


def test_two_gates_say_the_same(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    unsure = gate.run("unsure", planted(N, 0.003, 0.5, 0)[1])
    texts = []
    capsys.readouterr()
    for _ in range(2):
        gate(unsure, "--json")
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
