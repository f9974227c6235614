"""Published numbers beside ours: the rule of agreement, exit codes, and what is no comparison at all."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import NotComparable, UsageError
from reasonx_eval.io.results import Value
from reasonx_eval.metrics import depth
from reasonx_eval.models.loading.catalogue import catalogue
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.protocols.references import Reference, parse_references, published_names, references
from reasonx_eval.run.reproduce import agreement, check, exit_code, printed_step
from reasonx_eval.statistics.runs import load_run
from tests.reasonx_eval.protocols.test_references import GOOD
from tests.reasonx_eval.statistics.planted import depth_records, edit_result, write_run

IIW = get_protocol("albedo/iiw-luo-linear")
N = 40


def value(v: float, low: float | None = None, high: float | None = None) -> Value:
    return Value(value=v, ci_low=low, ci_high=high, n=N)


@pytest.mark.parametrize(
    ("ours", "published", "step", "verdict"),
    [
        (value(0.0549, 0.0531, 0.0568), 0.055, 0.001, "as printed"),
        # both neighbours may print a half
        (value(0.0545, 0.05, 0.06), 0.055, 0.001, "as printed"),
        (value(0.0545, 0.05, 0.06), 0.054, 0.001, "as printed"),
        (value(0.0560, 0.0531, 0.0590), 0.055, 0.001, "consistent"),
        # the published number may be as high as 0.0555, our interval begins there
        (value(0.0600, 0.0555, 0.0640), 0.055, 0.001, "consistent"),
        (value(0.0600, 0.0556, 0.0640), 0.055, 0.001, "inconsistent"),
        (value(0.0500, 0.0480, 0.0544), 0.055, 0.001, "inconsistent"),
        (value(0.0560), 0.055, 0.001, "inconsistent"),
        (value(0.0552), 0.055, 0.001, "as printed"),
        (value(16.44, 15.0, 17.0), 16.4, 0.1, "as printed"),
        (value(16.46, 15.0, 17.0), 16.4, 0.1, "consistent"),
    ],
)
def test_the_rule_by_hand(ours: Value, published: float, step: float, verdict: str) -> None:
    assert agreement(ours, published, step) == verdict


def reference(v: float, metric: str = "abs_rel", table: str = "Table 1") -> Reference:
    return Reference("net", "depth/nyuv2", metric, v, "a paper", table, "printed")


def test_a_columns_finest_number_tells_how_many_decimals_it_prints() -> None:
    column = [reference(0.96), reference(0.964), reference(0.9)]
    assert [printed_step(r, column) for r in column] == [0.001] * 3
    others = [*column, reference(0.12345, table="Table 2"), reference(0.12345, metric="rmse")]
    assert printed_step(others[0], others) == 0.001
    assert printed_step(reference(16.0), [reference(16.0)]) == 0.1
    assert printed_step(reference(16.0), [reference(16.0), reference(16.25)]) == 0.01


def write(folder: Path, whdr10: float, *, name: str = "CRefNet", spread: float = 0.02, **more: object) -> Path:
    draw = np.random.default_rng(0).normal(size=N)
    noise = spread * (draw - draw.mean())
    values = {"whdr10": whdr10 + noise, "whdr20": 0.108 + noise}
    return write_run(folder, depth_records(values, protocol=IIW), name=name, protocol=IIW, **more)  # type: ignore[arg-type]


def reproduce(*arguments: object) -> int:
    return run_cli(cli, ["reproduce", *(str(a) for a in arguments)])


def test_a_number_as_printed_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", 0.1281)
    assert reproduce(folder) == 0
    out = capsys.readouterr().out
    line = next(x for x in out.splitlines() if x.startswith("whdr10 ↓") and "as printed" in x)
    assert "0.128" in line
    assert "intrinsic-image-eval" in line
    assert "rule: as printed" in out
    assert load_run(folder).signature in out


def test_a_number_outside_both_intervals_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", 0.150)
    assert reproduce(folder, "--json") == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == 3
    verdicts = {c["metric"]: c["verdict"] for c in printed["checks"] if c["status"] == "printed"}
    assert verdicts == {"whdr10": "inconsistent", "whdr20": "as printed"}
    assert printed["signature"] == load_run(folder).signature


def test_known_differences_are_said_and_never_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # far off, but all that is published for this model was made by unpublished code
    folder = write(tmp_path / "r", 0.5, name="mine")
    assert reproduce(folder, "--as", "prism-x") == 4
    out = capsys.readouterr().out
    assert "judged: 0 of 2\nnot judged: 2, not the same protocol: the source's evaluation code is not published" in out
    assert "published: PRISM tuned with a judge's reward" in out


def test_every_number_is_judged_or_says_why_not(tmp_path: Path) -> None:
    base, counts = load_run(write(tmp_path / "r", 0.1)), Counter()
    for protocol in {r.protocol: get_protocol(r.protocol) for r in references()}.values():
        run = replace(base, protocol=protocol, digest=protocol.digest,
                      aggregate={m: value(0.1) for m in protocol.metrics})  # fmt: skip
        for model in dict.fromkeys(r.model for r in references(protocol.name)):
            for c in check(run, model):
                assert c.judged == (c.reference.difference is None)
                assert c.why == c.reference.difference
                counts[c.why] += 1
    assert counts.total() == len(references())
    assert counts[None] == 73
    assert all(len(why) > 20 for why in counts if why is not None)


def test_metrics_in_float32_move_no_digit_that_is_printed() -> None:
    draw = np.random.default_rng(0)
    target = np.exp(draw.normal(1, 0.6, (480, 640))).clip(0.5, 60).astype(np.float32)
    pred = (target * np.exp(draw.normal(0, 0.06, target.shape))).astype(np.float32)
    valid = np.ones(target.shape, bool)
    ours = {"abs_rel": depth.abs_rel(pred, target, valid),
            "delta1": depth.delta1(pred, target, valid)}  # fmt: skip
    ratio = np.maximum(pred / target, target / pred)
    single = {"abs_rel": (np.abs(pred - target) / target).mean(), "delta1": (ratio < 1.25).astype(np.float32).mean()}
    for name, found in single.items():
        assert found.dtype == np.float32
        assert float(found) == pytest.approx(ours[name], rel=1e-6)


def test_a_partial_run_has_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", 0.128, n_total=N + 5)
    assert reproduce(folder) == 4
    assert f"ours has {N} of the {N + 5} images" in capsys.readouterr().out


def test_names_of_the_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", 0.167, name="marigold-iid-lighting-v1-1")
    assert check(load_run(folder))[0].reference.model == "Marigold IID Lighting v1.1"
    nyu = get_protocol("depth/nyuv2")
    run = write_run(tmp_path / "d", depth_records({"abs_rel": np.full(4, 0.055)}, protocol=nyu), protocol=nyu,
                    name="marigold-depth-v1-0")  # fmt: skip
    assert reproduce(run) == 2
    assert "'Marigold v1.0', 'Marigold v1.0 (no ensemble)': say which" in capsys.readouterr().err
    assert {c.reference.value for c in check(load_run(run), "Marigold v1.0") if c.reference.metric == "abs_rel"} == {
        0.055
    }


def test_every_published_name_belongs_to_a_model_of_the_catalogue() -> None:
    rows = {r.model for r in references()}
    for model, names in published_names().items():
        assert model in catalogue()
        assert set(names) <= rows
    with pytest.raises(UsageError, match="which has no row"):
        parse_references('[names]\nx = ["Nobody"]\n' + GOOD, "refs.toml")


@pytest.mark.parametrize(
    ("name", "given", "error", "words"),
    [
        ("mine", None, NotComparable, "no number is published for this model"),
        ("mine", "CRefNte", UsageError, "did you mean 'CRefNet'"),
    ],
)
def test_unknown_models(tmp_path: Path, name: str, given: str | None, error: type[Exception], words: str) -> None:
    run = load_run(write(tmp_path / "r", 0.2, name=name))
    with pytest.raises(error, match=words):
        check(run, given)


def test_protocols_without_a_published_number_or_with_other_rules(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "a", depth_records({"abs_rel": np.full(4, 0.1)}))
    with pytest.raises(NotComparable, match="no published number"):
        check(load_run(plain))
    # an older version of the rules under the same name
    old = IIW.model_copy(update={"whdr": IIW.whdr.model_copy(update={"space": "srgb"})})  # type: ignore[union-attr]
    other = write_run(tmp_path / "b", depth_records({"whdr10": np.full(4, 0.1)}, protocol=old), protocol=old)
    with pytest.raises(NotComparable, match="not those that albedo/iiw-luo-linear@1 has here"):
        check(load_run(other))


def test_copies_decide_only_where_the_authors_number_is_missing(tmp_path: Path) -> None:
    run = load_run(write(tmp_path / "r", 0.1281))
    checks = check(run)
    assert {c.reference.status for c in checks} == {"printed", "third-party"}
    assert exit_code(checks) == 0
    assert exit_code([]) == 4


def test_an_absent_value_is_absent(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", 0.1281)
    lines = (folder / "records.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["metrics"]["whdr10"] = None
    from reasonx_eval.io.records import from_row

    records = [from_row(json.loads(line), "x") for line in [json.dumps(row), *lines[1:]]]
    holed = load_run(write_run(tmp_path / "h", records, name="CRefNet", protocol=IIW))
    found = [c for c in check(holed) if c.reference.metric == "whdr10"]
    assert {c.verdict for c in found} == {"absent"}
    assert all("undefined for 1 samples" in (c.why or "") for c in found)


def test_hostile_names_are_printed_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "r", 0.1281)
    edit_result(folder, lambda d: d["model"].update(name="x\x1b[2J"))
    assert reproduce(folder, "--as", "CRefNet") == 0
    assert "\x1b" not in capsys.readouterr().out
