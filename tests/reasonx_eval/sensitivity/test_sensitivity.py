"""Saved predictions under other protocols: the numbers are those a run would give, and a lost order is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.cli.sensitivity import order_text
from reasonx_eval.errors import UsageError
from reasonx_eval.io.results import load_result
from reasonx_eval.protocols.protocol import Protocol, all_protocols, get_protocol
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.run.saved_runs import load_sample, open_dataset, open_run
from reasonx_eval.sensitivity.analysis import Sensitivity, analyse
from reasonx_eval.sensitivity.rows import RuleRow
from reasonx_eval.sensitivity.variants import AXES, variants
from reasonx_eval.types import DepthTarget
from tests.helpers.pages import EVAL
from tests.helpers.pages import text as page

DEPTH = "depth/scenes-synthetic"
N = 8


def make(out: Path, name: str, protocol: str, *more: str, limit: int = N) -> Path:
    """A run with its predictions under OUT/NAME."""
    model = more[more.index("--model") + 1]
    assert run_cli(cli, ["run", "--protocol", protocol, "--limit", str(limit), "--quiet", "--save-predictions", "--out",
                         str(out / name), *more]) == 0  # fmt: skip
    return out / name / f"{protocol}@1" / model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def inverse(root: Path) -> Path:
    """Perfect disparities."""
    return make(root, "inverse", DEPTH, "--model", "oracle", "-O", "invert=true")


@pytest.fixture(scope="module")
def noisy(root: Path) -> Path:
    """Depths with noise: worse than perfect disparities, unless those are fitted in depth."""
    return make(root, "noisy", DEPTH, "--model", "oracle", "--kind", "depth_metric", "-O", "noise=0.05")


def study(*folders: Path, **more: object) -> Sensitivity:
    runs = [open_run(f) for f in folders]
    return analyse(runs, lambda p: open_dataset(runs[0].result, rules=p), **more)  # type: ignore[arg-type]


def by_label(found: Sensitivity, metric: str = "abs_rel") -> dict[str, RuleRow]:
    return {row.variant.label: row for row in found.rows[metric]}


def test_the_first_row_is_the_runs_own_result(noisy: Path) -> None:
    found = study(noisy, vary=[], metrics=["abs_rel", "rmse", "delta1"])
    result = load_result(noisy)
    for metric in ("abs_rel", "rmse", "delta1"):
        row = found.rows[metric][0]
        assert row.variant.label == "as run"
        assert row.values[0] == result.aggregate[metric]
        assert row.signatures == (result.signature,)


def test_fitting_disparities_in_depth_reverses_the_order(
    inverse: Path, noisy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = study(inverse, noisy, vary=["align_space"])
    rows = by_label(found)
    assert rows["as run"].values[0].value == pytest.approx(0, abs=1e-5)
    assert rows["as run"].order == (0, 1)
    fitted = rows["align_space=depth"]
    assert fitted.order == (1, 0)
    assert fitted.reversed == ((0, 1),)
    assert "|acc:depth_affine|align:affine.depth|" in str(fitted.signatures[0])
    assert "|acc:depth_metric|align:affine.depth|" in str(fitted.signatures[1])
    assert not found.survives("abs_rel")
    # an independent fit: least squares of depth on disparity
    saved = open_run(inverse)
    data = open_dataset(saved.result)
    errors = []
    for sample_id in saved.records:
        sample = load_sample(data, saved, sample_id)
        target = sample.targets["depth"]
        assert isinstance(target, DepthTarget)
        p, g = saved.load(sample).value[target.valid].astype(float), target.depth[target.valid].astype(float)
        aligned = np.clip(np.polyval(np.polyfit(p, g, 1), p), 0.001, 1000)
        errors.append(np.mean(np.abs(aligned - g) / g))
    assert fitted.values[0].value == pytest.approx(np.mean(errors), rel=1e-6)
    assert run_cli(cli, ["sensitivity", str(inverse), str(noisy), "--quiet", "--vary",
                         "align_space,crop,range,pool"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "the order does not survive" in out
    assert "REVERSED" in out
    assert "takes disparities for depths" in out
    assert "left out: crop=eigen: the Eigen crop is defined for 480x640" in out


def test_pooled_pixels_weigh_images_by_their_pixels(noisy: Path) -> None:
    found = study(noisy, vary=["pool"], metrics=["abs_rel", "delta1", "rmse"])
    records = list(open_run(noisy).records.values())
    weight = np.array([r.n_valid for r in records], dtype=float)
    for metric in ("abs_rel", "delta1"):
        values = np.array([r.metrics[metric] for r in records], dtype=float)
        row = by_label(found, metric)["pool=pixel"]
        assert row.values[0].value == pytest.approx((values * weight).sum() / weight.sum(), rel=1e-12)
        assert row.values[0].ci_low is not None
        assert "|pool:pixel|" in str(row.signatures[0])
    absent = by_label(found, "rmse")["pool=pixel"]
    assert absent.values[0].value is None
    assert "not a mean of pixels" in str(absent.values[0].reason)
    assert absent.signatures == (None,)


def test_a_crop_leaves_out_what_it_says(noisy: Path) -> None:
    found = study(noisy, vary=["crop"])
    saved = open_run(noisy)
    data = open_dataset(saved.result)
    errors = []
    for sample_id in saved.records:
        sample = load_sample(data, saved, sample_id)
        target = sample.targets["depth"]
        assert isinstance(target, DepthTarget)
        height, width = target.depth.shape
        inside = np.zeros(target.depth.shape, bool)
        rows, columns = (0.40810811, 0.99189189), (0.03594771, 0.96405229)
        inside[slice(*(int(r * height) for r in rows)), slice(*(int(c * width) for c in columns))] = True
        inside &= target.valid
        p, g = saved.load(sample).value[inside].astype(float), target.depth[inside].astype(float)
        aligned = np.polyval(np.polyfit(p, g, 1), p)
        errors.append(np.mean(np.abs(aligned - g) / g))
    assert by_label(found)["crop=garg"].values[0].value == pytest.approx(np.mean(errors), rel=1e-6)


def test_a_kind_that_a_protocol_refuses_has_no_number_and_says_why(root: Path, inverse: Path) -> None:
    affine = make(root, "affine", DEPTH, "--model", "oracle", "--kind", "depth_affine")
    found = study(inverse, affine, vary=["align_space"])
    row = by_label(found)["align_space=disparity"]
    assert row.values[0].value is not None
    assert row.values[1].value is None
    assert "no disparity of any kind" in str(row.values[1].reason)
    assert row.order == (0,)


def test_registered_protocols_of_the_same_data_are_rows() -> None:
    base = get_protocol("depth/nyuv2")
    labels = {v.label for v in variants(base, ["abs_rel"], [])}
    assert labels == {"as run", "depth/nyuv2-disparity@1", "depth/nyuv2-filled@1", "depth/nyuv2-median@1",
                      "depth/nyuv2-metric@1", "depth/nyuv2-nocrop@1", "depth/nyuv2-scale@1"}  # fmt: skip


@pytest.mark.parametrize("ref", sorted(all_protocols()))
def test_variations_are_rules_of_their_own(ref: str) -> None:
    base = all_protocols()[ref]
    if base.target == "agreement":
        return
    found = variants(base, base.metrics[:1])
    digests = [v.protocol.digest for v in found]
    assert len(set(digests)) == len(digests)
    assert found[0].protocol is base
    for variant in found[1:]:
        if "=" in variant.label:
            assert variant.protocol.ref not in all_protocols()
            rules = {**variant.protocol.rules, "pool": base.pool}
            again = Protocol.from_rules(rules)  # all but pooled depth is a protocol that could be registered
            assert again.signature(kind=base.accepts[0], n=1).split("|")[0] == variant.protocol.ref


def test_the_order_of_two_models_that_can_not_be_significant(root: Path, noisy: Path) -> None:
    found = study(noisy, noisy, vary=["pool"])
    row = by_label(found)["pool=pixel"]
    assert not row.apart.any()
    assert order_text(row, ["a", "b"]) == "a ~ b"
    assert found.survives("abs_rel")


@pytest.mark.parametrize(
    ("model", "protocol", "metrics"),
    [
        ("mean-normal", "normals/scenes-synthetic", ["mean_deg", "median_deg"]),
        ("retinex", "albedo/scenes-synthetic-whdr", ["whdr10"]),
        ("image-as-albedo", "albedo/scenes-synthetic", ["map_rmse"]),
        ("retinex", "irradiance/scenes-synthetic", ["map_rmse"]),
        ("oracle", "ordinal/scenes-synthetic-albedo", ["agreement"]),
    ],
)
def test_every_task_has_its_own_rules(root: Path, model: str, protocol: str, metrics: list[str]) -> None:
    folder = make(root, "tasks", protocol, "--model", model, limit=3)
    found = study(folder, metrics=metrics)
    result = load_result(folder)
    for metric in metrics:
        rows = found.rows[metric]
        assert rows[0].values[0].value == pytest.approx(result.aggregate[metric].value, rel=1e-12)
        signatures = [row.signatures[0] for row in rows]
        assert len(set(signatures)) == len(rows) > 1
    assert set(AXES[get_protocol(protocol).target])


def test_a_pooled_median_is_that_of_the_result(root: Path) -> None:
    from tests.helpers.fakes import Fake, Noisy
    from tests.reasonx_eval.statistics.planted import POOLED

    data = Fake()
    run(Noisy(), data, POOLED, root / "pooled", RunOptions(save_predictions=True))
    found = analyse([open_run(root / "pooled")], lambda _: data, metrics=["median_deg", "rmse_deg"])
    result = load_result(root / "pooled")
    assert found.rows["median_deg"][0].values[0] == result.aggregate["median_deg"]
    again, stored = found.rows["rmse_deg"][0].values[0], result.aggregate["rmse_deg"]
    for end in ("value", "ci_low", "ci_high"):
        assert getattr(again, end) == pytest.approx(getattr(stored, end), rel=1e-12)
    medians = [r.metrics["median_deg"] for r in open_run(root / "pooled").run.records]
    assert by_label(found, "median_deg")["normals/generic@1"].values[0].value == pytest.approx(np.mean(medians))


def test_json_and_two_calls(inverse: Path, noisy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for workers in ("1", "3"):
        assert run_cli(cli, ["sensitivity", str(inverse), str(noisy), "--vary", "pool", "--json", "--workers", workers,
                             "--metrics", "abs_rel,delta1"]) == 0  # fmt: skip
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    printed = json.loads(texts[0])
    assert list(printed["metrics"]) == ["abs_rel", "delta1"]
    row = printed["metrics"]["abs_rel"]["protocols"][1]
    assert row["protocol"] == "pool=pixel"
    assert all(v["signature"] for v in row["values"].values())


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--vary", "corp"], 2, "did you mean 'crop'"),
        (["--metrics", "absrel"], 2, "did you mean 'abs_rel'"),
        (["/nonexistent"], 4, "no such file"),
    ],
)
def test_mistakes(noisy: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str) -> None:
    assert run_cli(cli, ["sensitivity", str(noisy), *more, "--quiet"]) == code
    assert words in capsys.readouterr().err


def test_runs_under_different_rules_are_refused(root: Path, noisy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make(root, "other", "normals/scenes-synthetic", "--model", "mean-normal", limit=2)
    assert run_cli(cli, ["sensitivity", str(noisy), str(other), "--quiet"]) == 4
    assert "different rules" in capsys.readouterr().err


def test_an_unknown_metric_is_refused_before_any_work(noisy: Path) -> None:
    with pytest.raises(UsageError, match="mean_deg"):
        study(noisy, metrics=["mean_deg"])


@pytest.mark.slow
def test_the_readmes_rows_are_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page(EVAL)
    folders = [make(Path("results"), model, "albedo/scenes-wild", "--model", model, limit=20)
               for model in ("retinex", "tiny")]  # fmt: skip
    capsys.readouterr()
    assert run_cli(cli, ["sensitivity", *map(str, folders), "--metrics", "map_rmse"]) == 0
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    shown = text[text.index("   protocol         retinex") :].partition("```")[0].splitlines()
    assert len(shown) == 4
    for line in shown:
        assert " ".join(line.split()) in printed, line
