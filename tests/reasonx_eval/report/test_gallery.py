"""Galleries: what is shown is what was scored, the right samples are chosen, and the page is safe and whole."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.images import read_rgb
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.gallery import Choice, Gallery, build, choose, write_png
from reasonx_eval.report.gallery_page import write_page
from reasonx_eval.report.gallery_pairs import draw_answers, draw_relations
from reasonx_eval.report.gallery_panels import LONG_SIDE, panels
from reasonx_eval.run.saved_runs import load_sample, open_dataset, open_run
from reasonx_eval.statistics.join import join
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget, Sample
from tests.reasonx_eval.report.conftest import MakeRun, N
from tests.reasonx_eval.statistics.planted import depth_records, edit_result, write_run

DEPTH = "depth/scenes-synthetic"


def test_help() -> None:
    assert run_cli(cli, ["gallery", "--help"]) == 0


def root_mean_square(error: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.nanmean(error**2)))


@pytest.mark.parametrize(
    ("model", "protocol", "metric", "unit", "reduce"),
    [
        ("plane-depth", DEPTH, "abs_rel", "|p - g| / g", np.nanmean),
        ("plane-depth", DEPTH, "rmse", "|p - g|, m", root_mean_square),
        ("plane-depth", DEPTH, "rmse_log", "|ln p/g|", root_mean_square),
        ("plane-depth", DEPTH, "log10", "|ln p/g|", lambda e: np.nanmean(e) / np.log(10)),
        ("mean-normal", "normals/scenes-synthetic", "mean_deg", "angle, degrees", np.nanmean),
        ("image-as-albedo", "albedo/scenes-synthetic", "map_rmse", "RMS of srgb R, G, B", root_mean_square),
        ("retinex", "irradiance/scenes-synthetic", "map_rmse", "RMS of linear R, G, B", root_mean_square),
    ],
)
def test_the_error_panel_averages_to_the_recorded_value(
    made: MakeRun, model: str, protocol: str, metric: str, unit: str, reduce: object
) -> None:
    saved = open_run(made(model, protocol))
    data = open_dataset(saved.result)
    for sample_id in list(saved.records)[:3]:
        error = panels(load_sample(data, saved, sample_id), [saved], metric)[-1]
        assert error.unit == unit
        assert reduce(error.value) == pytest.approx(saved.records[sample_id].metrics[metric], rel=1e-6)  # type: ignore[operator]


def test_depth_is_shown_as_the_protocol_aligned_it(made: MakeRun) -> None:
    saved = open_run(made("plane-depth", DEPTH))
    data = open_dataset(saved.result)
    sample = load_sample(data, saved, next(iter(saved.records)))
    photo, truth, shown, _ = panels(sample, [saved], "abs_rel")
    target = sample.targets["depth"]
    value = saved.load(sample).value.astype(np.float64)
    seen = target.valid & (value > 0)  # type: ignore[union-attr]
    # an independent fit in disparity
    scale, shift = np.polyfit(value[seen], 1 / target.depth[seen].astype(np.float64), 1)  # type: ignore[union-attr]
    np.testing.assert_allclose(shown.value, 1 / np.maximum(scale * value + shift, 1e-3), rtol=1e-6)
    assert (photo.title, truth.title, shown.title) == ("photo", "ground truth", "prediction")


def test_two_runs_are_a_and_b_on_one_scale(made: MakeRun) -> None:
    runs = [open_run(made(m, DEPTH)) for m in ("plane-depth", "tiny")]
    gallery = build(runs, open_dataset(runs[0].result), Choice(worst=2, best=1))
    titles = ["photo", "ground truth", "A", "B", "error of A", "error of B"]
    assert [[p.title for p in e.panels] for e in gallery.entries] == [titles] * 3
    pixels = np.concatenate([p.value.ravel() for e in gallery.entries for p in e.panels[-2:]])
    assert gallery.limit == pytest.approx(np.nanpercentile(pixels, 98))
    assert gallery.order == "by AbsRel of B"


def values_of(folder: Path, metric: str) -> dict[str, float]:
    return {i: r.metrics[metric] or 0.0 for i, r in open_run(folder).records.items()}


@pytest.mark.parametrize("metric", ["abs_rel", "delta1"])
def test_worst_and_best_by_the_last_run_and_by_change(made: MakeRun, metric: str) -> None:
    folders = [made(m, DEPTH) for m in ("plane-depth", "tiny")]
    joined = join([open_run(f).run for f in folders])
    a, b = (values_of(f, metric) for f in folders)
    worse = -1 if metric_info(metric).higher_is_better else 1
    for changed, badness in ((False, {i: worse * b[i] for i in b}), (True, {i: worse * (b[i] - a[i]) for i in b})):
        expected = sorted(badness, key=lambda i: -badness[i])
        chosen, _ = choose(joined, metric, Choice(worst=2, best=2, changed=changed))
        assert [i for i, _ in chosen] == [expected[0], expected[1], expected[-1], expected[-2]]
        assert [why for _, why in chosen] == ["worst 1", "worst 2", "best 1", "best 2"]
    everything, _ = choose(joined, metric, Choice(worst=4, best=40))
    assert sorted(i for i, _ in everything) == sorted(b)


def test_what_one_run_lacks_is_noted(tmp_path: Path) -> None:
    values = np.linspace(0.1, 0.2, 8)
    a = write_run(tmp_path / "a", depth_records({"abs_rel": values}))
    b = write_run(tmp_path / "b", depth_records({"abs_rel": values})[:5], n_total=8)
    from reasonx_eval.statistics.runs import load_run

    chosen, notes = choose(join([load_run(a), load_run(b)]), "abs_rel", Choice())
    assert len(chosen) == 5
    assert notes == ["3 samples have no score in net, the first: room/0005: not in the run"]


def test_wrong_answers_are_those_the_metric_counts(made: MakeRun) -> None:
    protocol = "albedo/scenes-wild-whdr"
    runs = [open_run(made(m, protocol)) for m in ("image-as-albedo", "retinex")]
    data = open_dataset(runs[0].result)
    sample = load_sample(data, runs[0], next(iter(runs[0].records)))
    target = sample.targets["judgements"]
    assert isinstance(target, JudgementTarget)
    for metric, limit in (("whdr10", 1.1), ("whdr20", 1.2)):
        row = panels(sample, runs, metric)
        assert [p.title for p in row] == ["photo", "ground truth", "A", "B", "answers of A", "answers of B"]
        for run, panel in zip(runs, row[-2:], strict=True):
            value = run.load(sample).value.astype(np.float64)
            if run.result.model.kind == "albedo_srgb":
                value = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
            height, width = value.shape[:2]
            rows, cols = (target.points[:, 1] * height).astype(int), (target.points[:, 0] * width).astype(int)
            light = np.maximum(value[rows, cols].mean(axis=1), 1e-10)
            first, second = light[target.pairs[:, 0]], light[target.pairs[:, 1]]
            answer = np.where(second / first > limit, FIRST, np.where(first / second > limit, SECOND, SAME))
            wrong = answer != target.darker
            assert panel.caption == f"{wrong.sum()} of {len(wrong)} wrong"
            share = target.weight[wrong].sum() / target.weight.sum()
            assert share == pytest.approx(run.records[sample.id].metrics[metric])


@pytest.mark.parametrize("task", ["depth", "normals", "albedo", "irradiance"])
def test_ordinal_pairs_are_drawn_for_every_modality(made: MakeRun, task: str) -> None:
    saved = open_run(made("oracle", f"ordinal/scenes-wild-{task}"))
    data = open_dataset(saved.result)
    row = panels(load_sample(data, saved, next(iter(saved.records))), [saved], "agreement")
    assert re.fullmatch(r"0 of \d+ wrong", row[-1].caption)
    assert all(p.value.dtype == np.uint8 for p in row)


def test_right_and_wrong_differ_in_shape_not_only_in_colour() -> None:
    photo = np.zeros((60, 80, 3), np.uint8)
    points = np.array([[0.2, 0.5], [0.8, 0.5]])
    pair = np.array([[0, 1]])
    right, wrong = (draw_answers(photo, points, pair, np.array([w])).any(axis=-1) for w in (False, True))
    middle = right.shape[0] // 2
    # a solid line against dashes; the cross reaches above and below the line
    assert right[middle, right.shape[1] // 4 : right.shape[1] * 3 // 4].all()
    assert not wrong[middle, right.shape[1] // 4 : right.shape[1] * 3 // 4].all()
    assert wrong[: middle - 3].any()
    assert not right[: middle - 3].any()
    same, darker = (draw_relations(photo, points, pair, np.array([r], np.int8)) for r in (SAME, FIRST))
    other = draw_relations(photo, points, pair, np.array([SECOND], np.int8))
    assert not np.array_equal(same, darker)
    # the arrow head is at the darker point
    assert darker[:, : 80 * 4 // 4].any(axis=-1).sum(axis=0).argmax() < right.shape[1] / 2
    assert other.any(axis=-1).sum(axis=0).argmax() > right.shape[1] / 2


def test_large_maps_are_drawn_small(made: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from reasonx_eval.report import gallery_panels

    saved = open_run(made("plane-depth", DEPTH))
    data = open_dataset(saved.result)
    monkeypatch.setattr(gallery_panels, "LONG_SIDE", 40)
    row = panels(load_sample(data, saved, next(iter(saved.records))), [saved], "abs_rel")
    assert {p.value.shape[:2] for p in row} == {(30, 40)}
    assert LONG_SIDE >= 320


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def two_runs(made: MakeRun) -> Gallery:
    runs = [open_run(made(m, DEPTH)) for m in ("plane-depth", "tiny")]
    return build(runs, open_dataset(runs[0].result), Choice(worst=2, best=1))


def test_the_page_is_whole_and_asks_for_nothing(made: MakeRun, tmp_path: Path) -> None:
    gallery = two_runs(made)
    write_page(tmp_path / "g.html", gallery)
    text = (tmp_path / "g.html").read_text(encoding="utf-8")
    page = Page(text)
    images = [a for t, a in page.tags if t == "img"]
    assert len(images) == 3 * 6
    for image in images:
        assert (image["src"] or "").startswith("data:image/")
        assert image["alt"]
    assert not {t for t, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    assert not re.search(r"https?://|@import|url\(", text)
    for run in gallery.runs:
        assert run.result.signature in page.words
    assert "|p - g| / g" in page.words
    for entry in gallery.entries:
        assert entry.sample_id in page.words
        for value in entry.numbers["abs_rel"]:
            assert f"AbsRel {value:.4g}" in page.words
    assert "prefers-color-scheme: dark" in text


def test_error_pictures_carry_the_values_on_the_scale(made: MakeRun, tmp_path: Path) -> None:
    gallery = two_runs(made)
    write_page(tmp_path / "g.html", gallery)
    page = Page((tmp_path / "g.html").read_text(encoding="utf-8"))
    sources = [a["src"] or "" for t, a in page.tags if t == "img"]
    raw = base64.b64decode(sources[5].partition(",")[2])
    picture = np.asarray(Image.open(io.BytesIO(raw)))
    error = gallery.entries[0].panels[5].value
    expected = np.minimum(error, gallery.limit)
    np.testing.assert_allclose(picture / 254 * gallery.limit, expected, atol=gallery.limit / 500)


def test_hostile_names_show_as_text(made: MakeRun, tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"\'{{7*7}}$x^\x1b[31m'
    folder = Path(shutil.copytree(made("plane-depth", DEPTH), tmp_path / "evil"))
    edit_result(folder, lambda document: document["model"].update(name=evil))
    saved = open_run(folder)
    gallery = build([saved], open_dataset(saved.result), Choice(worst=1, best=0))
    write_page(tmp_path / "g.html", gallery)
    write_png(tmp_path / "g.png", gallery)
    page = Page((tmp_path / "g.html").read_text(encoding="utf-8"))
    assert "script" not in {t for t, _ in page.tags}
    assert "<script>alert(1)</script>\"'{{7*7}}$x^\\x1b[31m" in page.words


def test_two_calls_give_the_same_bytes(made: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        assert run_cli(cli, ["gallery", str(made("plane-depth", DEPTH)), str(made("tiny", DEPTH)), "--worst", "1",
                             "--best", "1", "--out", str(tmp_path / f"{name}.html"), "--out",
                             str(tmp_path / f"{name}.png")]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "|align:affine.disparity|" in out
    assert "worst 1" in out
    for suffix in ("html", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    sheet = read_rgb(tmp_path / "a.png")
    assert sheet.shape[1] > 1000


def test_json_names_what_is_shown(made: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = list(open_run(made("tiny", DEPTH)).records)[2]
    assert run_cli(cli, ["gallery", str(made("tiny", DEPTH)), "--samples", chosen, "--by", "rmse", "--json", "--out",
                         str(tmp_path / "x.html")]) == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    assert [s["id"] for s in printed["samples"]] == [chosen]
    assert printed["metric"] == "rmse"
    assert printed["signatures"]


@pytest.mark.parametrize(
    ("runs", "more", "code", "words"),
    [
        (["depth"], ["--by", "absrel"], 2, "did you mean 'abs_rel'"),
        (["depth"], ["--changed"], 2, "compares two runs"),
        (["depth"] * 3, [], 2, "one run or two"),
        (["depth"], ["--samples", "nope"], 2, "not scored in every run"),
        (["depth", "normals"], [], 4, "different rules"),
        (["depth"], ["--out", "x.gif"], 2, ".html or .png"),
        (["depth"], ["--out", "there.html"], 2, "already there"),
        (["depth"], ["--dataset", "scenes-wild"], 4, "other samples"),
        (["planted"], [], 2, "were not saved"),
    ],
)
def test_mistakes(
    made: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    runs: list[str], more: list[str], code: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    known = {"depth": lambda: made("plane-depth", DEPTH),
             "normals": lambda: made("mean-normal", "normals/scenes-synthetic"),
             "planted": lambda: write_run(tmp_path / "p", depth_records({"abs_rel": np.ones(N)}))}  # fmt: skip
    assert run_cli(cli, ["gallery", *(str(known[r]()) for r in runs), *more]) == code
    assert words in capsys.readouterr().err
    assert Path("there.html").read_text() == "mine"
    assert not Path("gallery.html").exists()


def test_a_photo_that_is_gone_is_noted_and_the_rest_shown(made: MakeRun) -> None:
    saved = open_run(made("plane-depth", DEPTH))
    data = open_dataset(saved.result)
    broken = next(iter(saved.records))

    class Partly:
        name, ids = data.name, data.ids

        def load(self, sample_id: str, want: object = None) -> Sample:
            if sample_id == broken:
                from reasonx_eval.errors import SampleError

                raise SampleError("file is empty", where=sample_id)
            return data.load(sample_id, {"depth"})

    gallery = build([saved], Partly(), Choice(worst=N, best=0))  # type: ignore[arg-type]
    assert len(gallery.entries) == N - 1
    assert gallery.notes == (f"{broken} is left out: {broken}: file is empty",)
