"""The self-test holds on a sound installation, and fails when something is broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.datasets import flat, folder
from reasonx_eval.datasets.examples import graded_judgements, smooth_truth
from reasonx_eval.io.images import write_png
from reasonx_eval.protocols.protocol import all_protocols, get_protocol
from reasonx_eval.scoring import depth
from reasonx_eval.selftest import checks, engine, report
from reasonx_eval.selftest.engine import CheckResult, check_made_up
from reasonx_eval.selftest.sources import all_examples, serves
from reasonx_eval.types import FIRST, SAME

#: one protocol of each kind of dataset and rule, those with small files
FEW = (
    "depth/nyuv2", "depth/nyuv2-filled", "depth/generic-disparity", "depth/generic-metric", "normals/generic",
    "normals/nyuv2", "albedo/iiw-irn", "albedo/iiw", "albedo/generic-whdr", "albedo/generic-marigold", "albedo/mit-luo",
    "irradiance/mit", "irradiance/generic-marigold", "ordinal/generic-depth", "ordinal/scenes-wild-albedo",
    "normals/scenes-synthetic-agreement",
)  # fmt: skip


def failed(*names: str) -> list[str]:
    return report.failures(check_made_up([get_protocol(n) for n in names]))


def test_it_holds() -> None:
    outcomes = check_made_up([get_protocol(n) for n in FEW])
    assert report.failures(outcomes) == []
    assert {o.protocol.name for o in outcomes} == set(FEW)
    # every check of the table found a protocol to be applied to
    assert {o.check for o in outcomes} >= set(checks.CHECKS) | {engine.READ, engine.ITSELF, engine.REFUSED}
    assert {o.kind for o in outcomes if o.protocol.name == "depth/nyuv2" and o.kind} == {
        "depth_metric", "depth_scale", "depth_affine", "disparity_affine"}  # fmt: skip
    assert {o.source for o in outcomes if o.protocol.name == "depth/nyuv2"} == {
        "nyuv2, mat", "nyuv2, extracted", "nyuv2, bts"}  # fmt: skip


def test_every_protocol_has_files_to_be_checked_on() -> None:
    for protocol in all_protocols().values():
        assert any(serves(e, protocol) for e in all_examples()), protocol.ref


def test_a_protocol_without_files_fails() -> None:
    strange = get_protocol("depth/nyuv2").model_copy(update={"dataset": "elsewhere"})
    outcomes = check_made_up([strange])
    assert [o.error for o in outcomes] == ["no made-up files of this dataset"]


def spoil(monkeypatch: pytest.MonkeyPatch, where: str, change: Callable[[Any], Any]) -> None:
    """Replace a function by one whose result is changed."""
    module, _, name = where.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(where, lambda *a, **k: change(original(*a, **k)))


@pytest.mark.parametrize(
    ("where", "change", "protocol", "caught"),
    [
        # a loader whose unit, frame or transfer is off
        ("reasonx_eval.datasets.formats.nyuv2_layouts.read_png", lambda v: v + np.uint16(7), "depth/nyuv2",
         "files (read as written)"),
        ("reasonx_eval.datasets.folder.decode_normals", lambda v: (v[0] * np.float32([1, -1, 1]), v[1]),
         "normals/generic", "files (read as written)"),
        ("reasonx_eval.datasets.mit_intrinsic._layer", lambda v: v * 257.0, "albedo/mit", "files (read as written)"),
        ("reasonx_eval.datasets.folder.decode_colour", np.sqrt, "albedo/generic", "files (read as written)"),
        # a resize that is a pixel off
        ("reasonx_eval.scoring.depth.resize", lambda v: np.roll(v, 1, axis=1), "depth/generic",
         "oracle, twice the size (perfect)"),
        # metrics
        ("reasonx_eval.scoring.normals.measure_normals", lambda m: {k: 0.5 * v for k, v in m.items()},
         "normals/generic", "oracle (perfect)"),
        ("reasonx_eval.scoring.depth.measure_depth", lambda m: {**m, "abs_rel": 1.05 * m["abs_rel"]},
         "depth/generic-metric", "oracle x (1 + 0.05 z) (closed form)"),
        ("reasonx_eval.scoring.judgements.disagreement", lambda m: {**m, "whdr_eq": m["whdr_ineq"] + 0.1},
         "albedo/generic-whdr", "oracle (perfect)"),
        ("reasonx_eval.scoring.pairs.agreement", lambda v: max(v, 0.97), "ordinal/generic-normals",
         "shuffled pixels (bad on every metric)"),
        # pooling is not seen by scoring one sample at a time, only by a whole run
        ("reasonx_eval.statistics.aggregate.pooled_normal_metrics", lambda m: {**m, "median_deg": 0.1}, "normals/nyuv2",
         "oracle, whole run (perfect)"),
    ],
)  # fmt: skip
def test_what_is_broken_is_caught(
    where: str, change: Callable[[Any], Any], protocol: str, caught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, where, change)
    found = failed(protocol)
    assert any(line.startswith(caught) for line in found), found


@pytest.mark.parametrize(
    ("mode", "other", "protocol", "caught"),
    [
        ("affine", "none", "depth/generic", "oracle x 3.7 (perfect)"),
        ("affine", "scale", "depth/generic", "oracle x 3.7 + 0.2 (perfect)"),
        ("none", "affine", "depth/generic-metric", "oracle x 3.7 (not perfect)"),
    ],
)
def test_another_fit_than_the_protocol_says_is_caught(
    mode: str, other: str, protocol: str, caught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = depth.fit_depth

    def fit(prediction: Any, target: Any, mask: Any, spec: Any, **options: Any) -> Any:
        assert spec.align.mode == mode
        changed = spec.align.model_copy(update={"mode": other})
        return original(prediction, target, mask, spec.model_copy(update={"align": changed}), **options)

    monkeypatch.setattr(depth, "fit_depth", fit)
    assert any(line.startswith(caught) for line in failed(protocol))


def test_refusals_that_are_gone_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    import reasonx_eval.scoring.maps as maps

    original = maps.score_map

    def forgiving(sample: Any, target: Any, prediction: Any, protocol: Any) -> Any:
        filled = np.nan_to_num(prediction.value, nan=0.5)
        return original(sample, target, type(prediction)(prediction.kind, filled), protocol)

    monkeypatch.setattr(maps, "score_map", forgiving)
    found = failed("irradiance/generic")
    assert [line for line in found if line.startswith("NaN in one half (refused): irradiance/generic@1 on folder")]
    assert "not refused" in found[0]
    assert all(line.startswith("NaN") for line in found)


def test_a_crash_in_a_check_is_a_failure_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("reasonx_eval.scoring.pairs.relation", crash)
    found = failed("ordinal/generic-albedo")
    assert any(line.endswith("ZeroDivisionError: by design") for line in found)


def test_the_judgements_do_not_contradict_each_other_and_traps_are_in_the_file() -> None:
    judged = graded_judgements(0)
    kept = judged.counted
    assert len(judged.comparisons) > len(kept.pairs)
    assert {SAME, FIRST} <= set(kept.darker.tolist())
    assert not all(opaque for *_, opaque in judged.points)


def test_truth_is_what_it_says() -> None:
    truth = smooth_truth(48, 64, 3)
    assert 0.5 < truth.depth.min() < truth.depth.max() < 9
    np.testing.assert_allclose(np.linalg.norm(truth.normal, axis=-1), 1)
    assert truth.normal[..., 2].max() < 0
    assert 0.1 < truth.albedo.min() < truth.albedo.max() < 1
    assert 0.5 < truth.seen.mean() < 0.95


def run(*arguments: str) -> int:
    return run_cli(cli, ["selftest", *arguments])


def test_the_verb_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--protocol", "albedo/iiw,normals/scenes-wild", "--quick") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["prediction", "ground", "truth", "(protocols)", "expected", "worst", "seen",
                                           "checks", "outcome"]  # fmt: skip
    assert "FAIL" not in out
    assert out.splitlines()[-1].endswith("checks hold, 2 protocols")


def test_json_and_exit_code_of_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "reasonx_eval.scoring.pairs.agreement", lambda v: 0.999 * v)
    assert run("--protocol", "ordinal/generic-depth", "--quick", "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["failed"] == len(document["failures"]) == sum(r["failed"] for r in document["rows"]) > 0
    assert document["checks"] == sum(r["checks"] for r in document["rows"])
    assert document["failures"][0]["protocol"] == "ordinal/generic-depth@1"
    assert "agreement 0.999" in document["failures"][0]["reason"]
    assert run("--protocol", "ordinal/generic-depth", "--quick") == 4
    assert "FAIL oracle (perfect): ordinal/generic-depth@1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--root", "."], 2, "belong to --dataset"),
        (["--protocol", "depth/nyu"], 2, "did you mean 'depth/nyuv2'"),
        (["--dataset", "nyuv3"], 2, "did you mean 'nyuv2'"),
        (["--dataset", "flat", "--root", "/nonexistent"], 4, "no such folder"),
    ],
)
def test_mistakes(arguments: Sequence[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == code
    assert words in capsys.readouterr().err


def own(name: str, root: Path, limit: int = 2) -> list[CheckResult]:
    return engine.check_own_data(name, engine.protocols_for(name, root=root, options={}), root=root, options={},
                                 limit=limit)  # fmt: skip


def test_own_data(tmp_path: Path) -> None:
    folder.write_examples(tmp_path)
    outcomes = own("folder", tmp_path)
    assert report.failures(outcomes) == []
    assert {o.protocol.target for o in outcomes} == {"depth", "normals", "albedo", "irradiance"}
    assert {o.protocol.dataset for o in outcomes} == {"any"}


def test_own_judgements_that_contradict_each_other_are_no_failure(tmp_path: Path) -> None:
    folder.write_judged(tmp_path)
    path = tmp_path / "judged" / "a.json"
    content = json.loads(path.read_text())
    unequal = next(c for c in content["intrinsic_comparisons"] if c["darker"] == "1" and c["darker_score"])
    content["intrinsic_comparisons"].append({**unequal, "darker": "2", "darker_score": 0.1})
    path.write_text(json.dumps(content))
    assert report.failures(own("folder", tmp_path)) == []


def test_own_data_that_is_damaged_fails_and_says_where(tmp_path: Path) -> None:
    flat.write_examples(tmp_path)
    (tmp_path / "a_albedo.png").write_bytes(b"\x89PNG")
    found = report.failures(own("flat", tmp_path))
    assert any("albedo/generic@1" in line and "a_albedo.png" in line for line in found)
    assert not any("normals/generic@1" in line for line in found)


def test_own_data_without_any_whole_sample_fails(tmp_path: Path) -> None:
    write_png(tmp_path / "turtle" / "mask.png", np.ones((4, 4), np.uint16))
    found = report.failures(own("mit-intrinsic", tmp_path))
    assert len(found) == 3
    assert all("none of the 20 samples has all its files" in line for line in found)
