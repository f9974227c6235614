"""Exported tables: rounding by the interval, tie groups in bold, hostile names escaped, the hub's own parsers."""

from __future__ import annotations

import csv
import doctest
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.results import Value
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.report import export, latex
from reasonx_eval.report.export import NumberStyle, digits_of, tabulate, written
from reasonx_eval.statistics.columns import column
from reasonx_eval.statistics.join import join
from reasonx_eval.statistics.ranks import rank_ranges, tie_group
from reasonx_eval.statistics.runs import load_run
from tests.reasonx_eval.statistics.planted import depth_records, edit_result, write_run

N = 60
NORMALS = get_protocol("normals/generic")
EVIL = "a|b & 50% _x_ $y$ #1 {z} ^~ \\cmd <script>alert(1)</script> [opt] *"


def run(*arguments: object) -> int:
    return run_cli(cli, ["export", *(str(a) for a in arguments)])


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Best and second can't be told apart; the third is clearly worse."""
    draw = np.random.default_rng(0)
    base = 0.2 + 0.03 * draw.normal(size=N)
    values = {"best": base, "second": base + 0.0005 * draw.normal(size=N), "worse": base + 0.05}
    return [write_run(tmp_path / n, depth_records({"abs_rel": v, "delta1": 1 - v}), name=n) for n, v in values.items()]


def test_examples() -> None:
    assert doctest.testmod(export).failed == doctest.testmod(latex).failed == 0


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [(0.0531, 0.0575, 4), (0.05, 0.09, 3), (16.1, 16.9, 2), (10, 50, 0), (100, 900, 0), (0.1, 0.1, None),
     (None, None, None), (1e-12, 3e-12, 8), (0.0, 0.2, 2)],
)  # fmt: skip
def test_the_half_width_keeps_two_significant_digits(low: float | None, high: float | None, digits: int | None) -> None:
    assert digits_of(low, high) == digits


def test_written_values_by_hand() -> None:
    share, error = metric_info("delta1"), metric_info("abs_rel")
    value = Value(value=0.96384, ci_low=0.9613, ci_high=0.9667, n=10)
    assert written(value, share, NumberStyle()) == ("0.9638", "[0.9613, 0.9667]")
    assert written(value, share, NumberStyle(percent=True)) == ("96.38", "[96.13, 96.67]")
    assert written(value, error, NumberStyle(percent=True)) == ("0.9638", "[0.9613, 0.9667]")
    assert written(Value(value=0.123456, n=1), error, NumberStyle()) == ("0.1235", "")
    assert written(Value(value=None, n=0, reason="why"), error, NumberStyle()) == ("-", "why")


def test_the_tie_group_is_that_of_the_paired_tests(three: list[Path]) -> None:
    runs = [load_run(p) for p in three]
    (table,) = tabulate(runs, ["abs_rel", "delta1"])
    joined = join(runs)
    for name in table.metrics:
        group = tie_group(rank_ranges(column(joined, name)))
        assert [k for k in range(3) if table.bold(name, k)] == group == [0, 1]


def test_one_run_alone_is_not_bold(three: list[Path]) -> None:
    (table,) = tabulate([load_run(three[0])])
    assert not any(table.bold(m, 0) for m in table.metrics)


def test_partial_and_contaminated_runs_are_marked_and_not_tested(three: list[Path], tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", depth_records({"abs_rel": np.full(N, 0.01)})[:20], name="few", n_total=N)
    edit_result(three[0], lambda d: d["model"].update(trained_on=["fake/train"]))
    (table,) = tabulate([load_run(p) for p in (*three, few)], ["abs_rel"])
    assert table.marks == ("†", "", "", "*")
    assert table.ranks["abs_rel"][0] is None
    assert table.ranks["abs_rel"][3] is None
    assert [table.bold("abs_rel", k) for k in range(4)] == [False, True, False, False]


def test_protocols_and_datasets_are_never_mixed(three: list[Path], tmp_path: Path) -> None:
    normals = write_run(tmp_path / "n", depth_records({"mean_deg": np.linspace(10, 20, N)}, protocol=NORMALS),
                        protocol=NORMALS)  # fmt: skip
    elsewhere = write_run(tmp_path / "e", depth_records({"abs_rel": np.full(N, 0.1)}), dataset="other")
    tables = tabulate([load_run(p) for p in (three[0], normals, elsewhere, three[1])])
    assert [[r.where.name for r in t.runs] for t in tables] == [["best", "second"], ["n"], ["e"]]
    assert [t.ref for t in tabulate([load_run(normals), load_run(three[0])], ["abs_rel"])] == ["depth/generic@1"]


def test_markdown(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*three, "--metrics", "abs_rel,delta1", "--ci") == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert rows[0] == "| model | AbsRel ↓ | δ1 ↑ | n |"
    assert {row.count("|") for row in rows} == {5}
    assert rows[2].startswith("| best | **0.")
    assert "**" not in rows[4]
    assert f"depth/generic@1|data:fake|n:{N}|" in out
    assert "paired tests" in out


def test_names_can_not_break_a_markdown_table(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    edit_result(three[0], lambda d: d["model"].update(name=EVIL + "\n| x |\x1b[2J"))
    assert run(*three, "--metrics", "abs_rel") == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert "<script>" not in out
    assert "\x1b" not in out


def balanced(text: str) -> bool:
    depth = 0
    for token in re.findall(r"\\.|[{}]", text, flags=re.S):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0


def test_names_can_not_break_a_latex_table(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    edit_result(three[0], lambda d: d["model"].update(name="[1em]" + EVIL + " \\end{tabular} -- ''"))
    assert run(*three, "--format", "latex", "--metrics", "abs_rel,delta1,rmse", "--ci") == 0
    out = capsys.readouterr().out
    assert balanced(out)
    lines = out.splitlines()
    assert sum(line == r"\end{tabular}" for line in lines) == 1
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 3
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 4
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert not re.search(r"(?<!\\)[#%]", line)
    evil = body[0].split(" & ")[0]
    # an opening bracket after a line's end would be its option
    assert body[0].startswith("{[}1em]")
    assert not re.search(r"(?<!\\)[_^~]", evil)
    assert not re.search(r"\\(?!text|[&%$#_{}])", evil)
    assert "--" not in evil
    assert "''" not in evil


def test_latex_has_rules_bold_labels_and_the_signature_in_its_notes(
    three: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*three, "--format", "latex", "--metrics", "abs_rel,delta1") == 0
    out = capsys.readouterr().out
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"$\delta_{1}$ $\uparrow$", r"AbsRel $\downarrow$"):
        assert word in out
    assert out.count(r"\mathbf") == 4
    notes = out[out.index(r"\begin{tablenotes}") :]
    assert r"depth/generic@1\textbar{}\allowbreak{}data:fake" in notes
    assert "Holm" in notes


@pytest.mark.parametrize("name", ["mean_deg", "within_11_25", "whdr10", "delta3", "si_mse", "psnr"])
def test_labels_of_metrics_are_plain_latex(name: str) -> None:
    assert latex.label(metric_info(name).label).isascii()


def test_csv_and_json_have_every_digit(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    edit_result(three[2], lambda d: d["model"].update(name="=cmd()"))
    assert run(*three, "--format", "csv", "--metrics", "abs_rel") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert run(*three, "--format", "json", "--metrics", "abs_rel") == 0
    objects = json.loads(capsys.readouterr().out)
    for row, thing, path in zip(rows, objects, three, strict=True):
        stored = load_run(path).aggregate["abs_rel"]
        assert float(row["value"]) == thing["value"] == stored.value
        assert (thing["ci_low"], thing["ci_high"]) == (stored.ci_low, stored.ci_high)
        assert row["signature"] == thing["signature"] == load_run(path).signature
    assert [r["tie_group"] for r in rows] == ["True", "True", "False"]
    assert objects[2]["model"] == "=cmd()"
    # a spreadsheet would run it
    assert rows[2]["model"] == "'=cmd()"


def test_absent_values_are_empty_and_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = depth_records({"abs_rel": np.full(4, 0.1)})
    holes = [r if k else r.__class__(**{**vars(r), "metrics": {**r.metrics, "silog": None}})
             for k, r in enumerate(records)]  # fmt: skip
    path = write_run(tmp_path / "a", holes)
    assert run(path, "--format", "json", "--metrics", "silog") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["value"] is None
    assert "undefined for 1 samples" in row["reason"]
    assert run(path, "--metrics", "silog") == 0
    assert "| - undefined for 1 samples" in capsys.readouterr().out


def write_complete(tmp_path: Path, name: str = "owner/net") -> Path:
    return write_run(tmp_path / "done", depth_records({"abs_rel": np.linspace(0.1, 0.2, N)}), name=name)


def test_eval_results_are_read_by_the_hubs_own_parser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_complete(tmp_path), tmp_path / ".eval_results" / "reasonx.yaml"
    assert run(path, "--format", "hf-eval-results", "--metrics", "abs_rel,delta1", "--hub-dataset", "me/nyu",
               "--source-url", "https://example.org/log", "--out", out) == 0  # fmt: skip
    entries = parse_eval_result_entries(yaml.safe_load(out.read_text(encoding="utf-8")))
    found = load_run(path)
    assert [e.task_id for e in entries] == ["depth/generic:abs_rel", "depth/generic:delta1"]
    assert [e.value for e in entries] == [found.aggregate[m].value for m in ("abs_rel", "delta1")]
    assert all(e.dataset_id == "me/nyu" for e in entries)
    assert all(found.signature in str(e.notes) for e in entries)
    assert entries[0].source_url == "https://example.org/log"
    assert run(path, "--format", "hf-eval-results", "--hub-dataset", "me/nyu", "--out", out) == 2
    assert "already" in capsys.readouterr().err


def test_model_index_is_read_by_the_hubs_own_parser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_complete(tmp_path, name='evil: "name" # {x}')
    assert run(path, "--format", "model-index", "--metrics", "abs_rel") == 0
    head = capsys.readouterr().out
    assert head.startswith("---\n")
    document: dict[str, Any] = yaml.safe_load(head.strip().strip("-"))
    name, results = model_index_to_eval_results(document["model-index"])
    assert name == 'evil: "name" # {x}'
    (result,) = results
    assert result.task_type == "depth-estimation"
    assert result.metric_value == load_run(path).aggregate["abs_rel"].value
    assert result.metric_args["signature"] == load_run(path).signature  # type: ignore[index]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--format", "hf-eval-results"], 2, "--hub-dataset OWNER/NAME"),
        (["--format", "hf-eval-results", "--hub-dataset", "name"], 2, "--hub-dataset OWNER/NAME"),
        (["--format", "md", "--hub-dataset", "a/b"], 2, "not for --format md"),
        (["--metrics", "absrel"], 2, "did you mean 'abs_rel'"),
        (["--format", "model-index"], 2, "describe one model"),
        (["--format", "xml"], 2, "xml"),
    ],
)
def test_mistakes(
    three: list[Path], capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str
) -> None:
    assert run(*three, *more) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""


def test_a_partial_run_is_not_for_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path / "p", depth_records({"abs_rel": np.full(4, 0.1)}), n_total=9)
    assert run(path, "--format", "model-index") == 6
    assert "4 of 9 samples" in capsys.readouterr().err


def test_a_folder_of_runs_is_all_of_them(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(three[0].parent, "--metrics", "abs_rel") == 0
    out = capsys.readouterr().out
    assert all(f"| {name} |" in out for name in ("best", "second", "worse"))
