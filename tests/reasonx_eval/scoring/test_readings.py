"""Units, frames and codes that were mixed up are named; right ones, bad models and chance are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.datasets.examples import smooth_truth
from reasonx_eval.io import color
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.folder import _notes
from reasonx_eval.scoring import score_sample
from reasonx_eval.scoring.readings import READING, colour_readings, depth_readings, normal_readings, sampled
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Prediction, Record, Sample

TRUTH = smooth_truth(96, 128, 0)
RNG = np.random.default_rng(3)


def notes(kind: Any, value: NDArray[Any], protocol: str, target: Any, **meta: Any) -> tuple[str, ...]:
    rules = get_protocol(protocol)
    sample = Sample("a", TRUTH.photo, {rules.reads: target}, meta=meta)
    return score_sample(sample=sample, prediction=Prediction(kind, value.astype(np.float32)), protocol=rules).notes


DEPTH = DepthTarget(TRUTH.depth.astype(np.float32), TRUTH.seen)
NOISE = np.exp(0.05 * RNG.standard_normal(TRUTH.depth.shape))


@pytest.mark.parametrize(("factor", "words"), [
    (1000.0, "1000 (millimetres)"), (100.0, "100 (centimetres)"), (5.0, "5 (a PNG of 5000 steps a metre"),
    (0.2, "0.2 (millimetres read as 5000"), (0.001, "0.001 (kilometres"), (3.90625, "3.90625 (a PNG of 256"),
    (1.1 * 1000, "1000 (millimetres)"),
])  # fmt: skip
def test_a_metric_depth_in_another_unit(factor: float, words: str) -> None:
    [note] = notes("depth_metric", factor * TRUTH.depth * NOISE, "depth/generic-metric", DEPTH)
    assert note.startswith(f"{READING}the prediction divided by {words}")


@pytest.mark.parametrize("value", [
    TRUTH.depth, 1.5 * TRUTH.depth * NOISE, 2.2 * TRUTH.depth, np.full(TRUTH.depth.shape, 30.0),
    np.exp(RNG.normal(1.0, 1.5, TRUTH.depth.shape)),
])  # fmt: skip
def test_a_depth_that_is_right_or_only_bad_carries_no_note(value: NDArray[np.float64]) -> None:
    assert notes("depth_metric", value, "depth/generic-metric", DEPTH) == ()


@pytest.mark.parametrize(("kind", "protocol"), [("depth_metric", "depth/generic-metric"),
                                                ("depth_scale", "depth/nyuv2-scale"),
                                                ("depth_scale", "depth/nyuv2-median")])  # fmt: skip
def test_a_disparity_given_as_a_depth(kind: str, protocol: str) -> None:
    truth = smooth_truth(480, 640, 0)
    target = DepthTarget(truth.depth.astype(np.float32), truth.seen)
    rules = get_protocol(protocol)
    for value in (1 / truth.depth, 5 - 0.5 * truth.depth):
        scored = score_sample(sample=Sample("a", truth.photo, {"depth": target}), protocol=rules,
                              prediction=Prediction(kind, value.astype(np.float32)))  # type: ignore[arg-type]
        assert [n for n in scored.notes if "is it a disparity" in n]


def test_a_range_that_drops_most_of_what_was_measured() -> None:
    truth = smooth_truth(480, 640, 0)
    for factor, told in ((1.0, False), (5.0, True)):
        target = DepthTarget((factor * truth.depth).astype(np.float32), truth.seen)
        scored = score_sample(sample=Sample("a", truth.photo, {"depth": target}), protocol=get_protocol("depth/nyuv2"),
                              prediction=Prediction("depth_metric", truth.depth.astype(np.float32)))  # fmt: skip
        assert any("leaves out more than half" in n for n in scored.notes) == told


NORMALS = NormalTarget(TRUTH.normal.astype(np.float32), TRUTH.seen)
FORMS: list[tuple[str, Any]] = [
    ("read in the frame opengl (", lambda n: n * (1, -1, -1)),
    ("read in the frame dsine (vectors that point away from the camera)", lambda n: -n),
    ("read in the frame pytorch3d (", lambda n: n * (-1, -1, 1)),
    ("read in the frame x left, y down, z forward", lambda n: n * (-1, 1, 1)),
    ("read in the frame x right, y up, z forward", lambda n: n * (1, -1, 1)),
    ("read with the channels as BGR", lambda n: n[..., ::-1]),
    ("read with the channels as BGR in the frame opengl (", lambda n: (n * (1, -1, -1))[..., ::-1]),
    ("read as codes of (n + 1) / 2", lambda n: (n + 1) / 2),
    ("read as codes of (n + 1) / 2 in the frame opengl (", lambda n: (n * (1, -1, -1) + 1) / 2),
    ("read as codes of (n + 1) / 2 with the channels as BGR", lambda n: (n[..., ::-1] + 1) / 2),
]  # fmt: skip


@pytest.mark.parametrize(("words", "form"), FORMS, ids=[f[0] for f in FORMS])
@pytest.mark.parametrize("protocol", ["normals/generic", "normals/nyuv2"])
def test_normals_in_another_frame_or_code(words: str, form: Any, protocol: str) -> None:
    noisy = TRUTH.normal + 0.1 * RNG.standard_normal(TRUTH.normal.shape)
    found = notes("normal", form(noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)), protocol, NORMALS)
    assert found[0].startswith(f"{READING}the prediction {words}")


@pytest.mark.parametrize(("form", "words"), [
    (lambda n: n * (1, -1, -1), "read in the frame opengl (x right, y up, z to the camera)"),
    (lambda n: -n, "read in the frame dsine"), (lambda n: n[..., ::-1], "read with the channels as BGR"),
    (lambda n: (n + 1) / 2, "read as codes of (n + 1) / 2"),
    (lambda n: (n * (1, -1, -1))[..., ::-1] * (1, -1, -1), "read with the channels as BGR in the file, which is open"),
])  # fmt: skip
def test_ground_truth_in_another_frame_is_told_from_a_prediction_in_one(form: Any, words: str) -> None:
    target = NormalTarget(form(TRUTH.normal).astype(np.float32), TRUTH.seen)
    [note] = notes("normal", TRUTH.normal, "normals/generic", target)
    assert note.startswith(f"{READING}the ground truth {words}")


@pytest.mark.parametrize("value", [
    TRUTH.normal, np.broadcast_to([0.0, 0.0, -1.0], TRUTH.normal.shape), RNG.standard_normal(TRUTH.normal.shape),
    TRUTH.normal + 0.5 * RNG.standard_normal(TRUTH.normal.shape),
])  # fmt: skip
def test_normals_that_are_right_or_only_bad_carry_no_note(value: NDArray[np.float64]) -> None:
    assert notes("normal", value, "normals/generic", NORMALS) == ()


def test_albedo_in_another_order_or_code() -> None:
    target = MapTarget(TRUTH.albedo.astype(np.float32), TRUTH.seen)
    for value, words in ((0.5 * TRUTH.albedo[..., ::-1], "with the channels as BGR"),
                         (color.encode(TRUTH.albedo, "srgb"), "as encoded (sRGB) values")):  # fmt: skip
        [note] = notes("albedo_linear", value, "albedo/generic", target)
        assert note == f"{READING}the prediction read {words}"
    assert notes("albedo_linear", TRUTH.albedo, "albedo/generic", target) == ()
    assert notes("albedo_linear", RNG.random(TRUTH.albedo.shape), "albedo/generic", target) == ()


@pytest.mark.parametrize(("shape", "told"), [((96, 128), False), ((48, 64), False), ((95, 129), False),
                                             ((96, 96), True), ((96, 131), True), ((90, 128), True)])  # fmt: skip
def test_another_aspect_ratio(shape: tuple[int, int], told: bool) -> None:
    value = np.ones((*shape, 3)) * (0.0, 0.0, -1.0)
    assert any("aspect ratio" in n for n in notes("normal", value, "normals/generic", NORMALS)) == told


def test_an_aspect_ratio_is_compared_with_the_photos_where_there_is_no_map(tmp_path: Path) -> None:
    from reasonx_eval.datasets import iiw

    written = iiw.write_examples(tmp_path)
    sample = iiw.IIW(tmp_path, "test").load(next(iter(written)))
    for shape, told in (((96, 128, 3), False), ((96, 96, 3), True)):
        prediction = Prediction("albedo_linear", np.ones(shape, np.float32))
        scored = score_sample(sample=sample, prediction=prediction, protocol=get_protocol("albedo/iiw"))
        assert any("aspect ratio" in n for n in scored.notes) == told


def test_an_aspect_ratio_is_compared_with_rendered_photos() -> None:
    from reasonx_eval.registry import load_dataset

    dataset = load_dataset("scenes-synthetic")
    sample = dataset.load(dataset.ids[0], {"pairs"})
    for shape, told in (((96, 128), False), ((96, 96), True)):
        prediction = Prediction("depth_metric", np.arange(1.0, 1.0 + shape[0] * shape[1]).reshape(shape))
        scored = score_sample(sample=sample, prediction=prediction,
                              protocol=get_protocol("ordinal/scenes-synthetic-depth"))  # fmt: skip
        assert any("aspect ratio" in n for n in scored.notes) == told


def test_few_or_degenerate_pixels_give_no_note() -> None:
    one = np.ones((3, 3))
    assert depth_readings(one[0], one[0], metric=True) == []
    assert normal_readings(one, one) == []
    assert colour_readings(one, one) == []
    assert depth_readings(np.full(50, -1.0), np.ones(50), metric=True) == []


def test_sampled_pixels_are_valid_and_the_same_of_every_map() -> None:
    mask = np.zeros((500, 700), bool)
    mask[123, 45:100] = True
    a = np.arange(mask.size, dtype=np.float64).reshape(mask.shape)
    one, two = sampled(mask, a, np.stack([a, 2 * a], axis=-1))
    assert np.array_equal(one, a[mask])
    assert np.array_equal(two, np.stack([one, 2 * one], axis=-1))
    assert len(sampled(np.ones((4000, 6000), bool), np.zeros((4000, 6000)))[0]) < 3000


def record(name: str, *found: str, error: str | None = None) -> Record:
    return Record(name, {} if error else {"x": 1.0}, notes=found, error=error)


def test_a_reading_is_told_only_if_it_fits_every_sample() -> None:
    first, second = f"{READING}a", f"{READING}b"
    assert _notes([record("1", second, first), record("2", first), record("3", error="x")]) == [
        f"{first}: 2 samples (1, 2)"]  # fmt: skip
    assert _notes([record("1", second, first), record("2", second, first)]) == [f"{second}: 2 samples (1, 2)"]
    assert _notes([record("1", first), record("2"), record("3", "cropped")]) == ["cropped: 1 samples (3)"]


def test_score_says_it_and_doctor_says_whose_fault_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(2):
        truth = smooth_truth(48, 64, k)
        write_png(tmp_path / f"set/{k}_rgb.png", truth.photo)
        stored = (truth.normal * (1, -1, -1))[..., ::-1]
        write_png(tmp_path / f"set/{k}_normal.png", np.rint((stored + 1) * 127.5).astype(np.uint8))
        write_npy(tmp_path / f"preds/{k}.npy", truth.normal.astype(np.float32))
    options = ["--dataset-option", "normals_frame=opengl"]
    assert run_cli(cli, ["doctor", "flat", "--root", str(tmp_path / "set"), *options]) in (0, 4)
    assert "read with the channels as BGR" in capsys.readouterr().out
    assert run_cli(cli, ["score", str(tmp_path / "preds"), "--kind", "normal", "--dataset", "flat", "--root",
                         str(tmp_path / "set"), *options, "--out", str(tmp_path / "out"), "-q"]) == 0  # fmt: skip
    assert "note: another reading fits far better: the ground truth read with the channels as BGR" in (
        capsys.readouterr().out)  # fmt: skip
