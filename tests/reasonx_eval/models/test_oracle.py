"""The oracle: exact where it should be, spoilt exactly as asked, and judgements satisfied."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.models.embedded.oracle import Oracle
from reasonx_eval.models.embedded.oracle_judgements import paint_reflectance
from reasonx_eval.types import (
    FIRST,
    SAME,
    SECOND,
    DepthTarget,
    JudgementTarget,
    Kind,
    MapTarget,
    NormalTarget,
    Sample,
)

RNG = np.random.default_rng(1)
H, W = 12, 17
IMAGE = np.zeros((H, W, 3), np.uint8)
VALID = RNG.random((H, W)) < 0.7
DEPTH = np.where(VALID, RNG.uniform(0.5, 9, (H, W)), np.nan).astype(np.float32)
NORMAL = RNG.normal(size=(H, W, 3)).astype(np.float32)
NORMAL /= np.linalg.norm(NORMAL, axis=-1, keepdims=True)
ALBEDO = RNG.uniform(0, 1, (H, W, 3)).astype(np.float32)
SAMPLE = Sample("scene/7", IMAGE, {
    "depth": DepthTarget(DEPTH, VALID),
    "normals": NormalTarget(NORMAL, VALID),
    "albedo": MapTarget(ALBEDO, VALID),
    "irradiance": MapTarget(ALBEDO * 3, VALID),
})  # fmt: skip


def predict(kind: Kind, sample: Sample = SAMPLE, seed: int = 0, **options: Any) -> np.ndarray:
    (prediction,) = Oracle(**options).predict([sample], kind, seed)
    assert prediction.kind == kind
    assert np.isfinite(prediction.value).all()
    return prediction.value


@pytest.mark.parametrize(("kind", "truth"), [("depth_metric", DEPTH), ("depth_scale", DEPTH), ("depth_affine", DEPTH),
                                             ("normal", NORMAL), ("albedo_linear", ALBEDO),
                                             ("irradiance", ALBEDO * 3)])  # fmt: skip
def test_is_the_ground_truth(kind: Kind, truth: np.ndarray) -> None:
    np.testing.assert_array_equal(predict(kind)[VALID], truth[VALID])


def test_disparity_and_encoded_albedo_invert_to_the_truth() -> None:
    np.testing.assert_allclose(1 / predict("disparity_affine")[VALID], DEPTH[VALID], rtol=1e-15)
    np.testing.assert_allclose(srgb_to_linear(predict("albedo_srgb"))[VALID], ALBEDO[VALID], rtol=1e-13)


def test_fills_what_is_not_measured() -> None:
    np.testing.assert_array_equal(predict("depth_metric")[~VALID], np.median(DEPTH[VALID]))
    np.testing.assert_array_equal(predict("normal")[~VALID], np.tile([0, 0, -1], (np.count_nonzero(~VALID), 1)))
    nothing = Sample("x", IMAGE, {"depth": DepthTarget(DEPTH, np.zeros_like(VALID))})
    np.testing.assert_array_equal(predict("depth_metric", nothing), 1)


def test_does_not_change_the_target() -> None:
    before = DEPTH.copy()
    predict("depth_metric", scale=2.0, noise=0.1, shuffle=True)
    np.testing.assert_array_equal(DEPTH, before)


def test_scale_shift_negate() -> None:
    expected = -(2.5 * DEPTH.astype(np.float64) - 0.25)
    np.testing.assert_allclose(predict("depth_affine", scale=2.5, shift=-0.25, negate=True)[VALID], expected[VALID])
    np.testing.assert_allclose(predict("disparity_affine", scale=2.0, shift=1.0)[VALID], 2 / DEPTH[VALID] + 1,
                               rtol=1e-6)  # fmt: skip


def test_invert_is_a_disparity_or_a_wrongly_stated_depth() -> None:
    assert Oracle(invert=True).kinds == {"depth": ("disparity_affine",)}
    inverse = predict("disparity_affine", invert=True)
    np.testing.assert_array_equal(inverse, predict("disparity_affine"))
    (wrong,) = Oracle(invert=True, kind="depth_affine").predict([SAMPLE], "depth_affine", 0)
    assert wrong.kind == "depth_affine"
    np.testing.assert_array_equal(wrong.value, inverse)


def test_noise_has_its_standard_deviation_and_its_own_stream() -> None:
    big = Sample("big", np.zeros((300, 400, 3), np.uint8),
                 {"depth": DepthTarget(np.full((300, 400), 4, np.float32), np.ones((300, 400), bool))})  # fmt: skip
    absolute = predict("depth_metric", big, noise=0.5) - 4
    relative = predict("depth_metric", big, noise=0.5, noise_mode="relative") - 4
    # 120000 draws: the standard error of a standard deviation is sigma / sqrt(2 n)
    assert abs(absolute.std() - 0.5) < 5 * 0.5 / np.sqrt(240000)
    np.testing.assert_allclose(relative, 4 * absolute)
    np.testing.assert_array_equal(predict("depth_metric", big, noise=0.5) - 4, absolute)
    assert not np.array_equal(predict("depth_metric", big, seed=1, noise=0.5) - 4, absolute)
    other = Sample("other", big.source, big.targets)
    assert not np.array_equal(predict("depth_metric", other, noise=0.5) - 4, absolute)


def test_batch_changes_nothing() -> None:
    model = Oracle(noise=0.1, shuffle=True)
    samples = [Sample(i, IMAGE, SAMPLE.targets) for i in "abc"]
    together = model.predict(samples, "depth_metric", 3)
    for s, p in zip(samples, together, strict=True):
        np.testing.assert_array_equal(model.predict([s], "depth_metric", 3)[0].value, p.value)


def test_noisy_normals_stay_unit_length() -> None:
    np.testing.assert_allclose(np.linalg.norm(predict("normal", noise=0.3), axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", ["depth_metric", "normal", "albedo_linear"])
def test_shuffle_keeps_the_pixels_and_loses_their_places(kind: Kind) -> None:
    whole, shuffled = predict(kind), predict(kind, shuffle=True)
    assert shuffled.shape == whole.shape
    assert not np.array_equal(whole, shuffled)
    rows = [np.sort(m.reshape(H * W, -1), axis=0) for m in (whole, shuffled)]
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "depth"}, "unknown kind"),
        ({"scale": 0.0}, "scale not 0"),
        ({"shift": float("nan")}, "finite"),
        ({"noise": -1.0}, "standard deviation"),
        ({"noise_mode": "relativ"}, "noise_mode"),
        ({"kind": "normal", "invert": True}, "invert is for depth"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Oracle(**options)


def test_normals_have_no_scale() -> None:
    with pytest.raises(UsageError, match="neither scale nor shift"):
        Oracle(scale=2.0).kind_for("normals", ["normal"])


def test_reads_only_what_the_task_needs() -> None:
    model = Oracle()
    assert model.kind_for("albedo", ["albedo_srgb"]) == "albedo_srgb"
    assert model.needs_targets == ("albedo",)
    assert Oracle(kind="normal").needs_targets == ("normals",)


def test_says_which_target_is_missing() -> None:
    with pytest.raises(SampleError, match="copies the target 'normals', but the sample has no targets"):
        predict("normal", Sample("x", IMAGE))


# ---- judgements


def judgements(points: np.ndarray, rows: list[tuple[int, int, int, float]]) -> JudgementTarget:
    table = np.array(rows)
    return JudgementTarget(points, table[:, :2].astype(np.int64), table[:, 2].astype(np.int8), table[:, 3])


def whdr(image: np.ndarray, target: JudgementTarget, delta: float) -> float:
    """Bell et al.'s rule as a plain loop."""
    wrong = total = 0.0
    for (i, j), darker, weight in zip(target.pairs, target.darker, target.weight, strict=True):
        first, second = (
            max(1e-10, image[int(y * image.shape[0]), int(x * image.shape[1])].mean())
            for x, y in (target.points[i], target.points[j])
        )
        said = FIRST if second / first > 1 + delta else SECOND if first / second > 1 + delta else SAME
        wrong += weight * (said != darker)
        total += weight
    return wrong / total


def consistent(n: int, seed: int) -> JudgementTarget:
    """Judgements of points on surfaces of few exact levels: every pair, a few of them repeated."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(60 * 80, n, replace=False)
    points = np.stack([(cells % 80 + 0.5) / 80, (cells // 80 + 0.5) / 60], axis=1)
    level = rng.integers(0, 7, n)
    code = {-1: FIRST, 0: SAME, 1: SECOND}
    rows = [(i, j, code[int(np.sign(level[i] - level[j]))], float(rng.uniform(0.1, 1)))
            for i, j in itertools.combinations(range(n), 2)]  # fmt: skip
    return judgements(points, rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delta", [0.1, 0.2])
def test_consistent_judgements_are_all_satisfied(seed: int, delta: float) -> None:
    target = consistent(24, seed)
    image = paint_reflectance(target, 60, 80)
    assert whdr(image, target, delta) == 0
    assert whdr(image ** (1 / 2.2), target, delta) == 0
    assert image.min() > 0
    assert image.max() == 1


def test_the_lightest_contradiction_is_given_up() -> None:
    points = np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]])
    cycle = judgements(points, [(0, 1, FIRST, 1.0), (1, 2, FIRST, 0.9), (2, 0, FIRST, 0.2)])
    assert whdr(paint_reflectance(cycle, 10, 10), cycle, 0.1) == pytest.approx(0.2 / 2.1)
    equal = judgements(points, [(0, 1, SAME, 1.0), (1, 2, SAME, 0.9), (0, 2, SECOND, 0.2)])
    assert whdr(paint_reflectance(equal, 10, 10), equal, 0.1) == pytest.approx(0.2 / 2.1)
    light_equal = judgements(points, [(0, 1, FIRST, 1.0), (1, 2, FIRST, 0.9), (0, 2, SAME, 0.3)])
    assert whdr(paint_reflectance(light_equal, 10, 10), light_equal, 0.1) == pytest.approx(0.3 / 2.2)


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best_order_by_brute_force(seed: int) -> None:
    """Against every weak order of 4 points: never better than the best, and at most a third of the weight off."""
    rng = np.random.default_rng(seed)
    points = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]])
    target = judgements(points, [(i, j, int(rng.choice([FIRST, SECOND, SAME])), float(rng.uniform(0.1, 1)))
                                 for i, j in itertools.combinations(range(4), 2)])  # fmt: skip
    best = min(
        whdr(np.array([[v[0], v[1]], [v[2], v[3]]])[..., None], target, 0.1)
        for v in itertools.product([1.0, 2.0, 4.0, 8.0], repeat=4)
    )
    got = whdr(paint_reflectance(target, 10, 10), target, 0.1)
    assert best - 1e-12 <= got <= best + 1 / 3


def test_a_long_chain_fits_into_the_range() -> None:
    n = 60
    points = np.stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5)], axis=1)
    target = judgements(points, [(i, i + 1, FIRST, 1.0) for i in range(n - 1)])
    image = paint_reflectance(target, 4, n)
    assert whdr(image, target, 0.2) == 0
    assert image.min() >= 0.99e-8


def test_points_in_one_pixel_share_a_value_and_the_border_belongs_to_the_last_pixel() -> None:
    target = judgements(np.array([[0.0, 0.0], [0.01, 0.01], [1.0, 1.0]]), [(0, 1, FIRST, 1.0), (0, 2, SECOND, 0.5)])
    image = paint_reflectance(target, 10, 10)
    assert image[0, 0, 0] > image[9, 9, 0]


def test_albedo_from_judgements_only_where_there_is_no_exact_one() -> None:
    target = consistent(24, 0)
    photo = np.zeros((60, 80, 3), np.uint8)
    only = Sample("x", photo, {"judgements": target})
    assert whdr(predict("albedo_linear", only), target, 0.1) == 0
    assert whdr(srgb_to_linear(predict("albedo_srgb", only)), target, 0.1) == 0
    both = Sample("x", IMAGE, {"judgements": target, "albedo": MapTarget(ALBEDO, VALID)})
    np.testing.assert_array_equal(predict("albedo_linear", both)[VALID], ALBEDO[VALID])
    empty = JudgementTarget(np.zeros((0, 2)), np.zeros((0, 2), np.int64), np.zeros(0, np.int8), np.zeros(0))
    with pytest.raises(SampleError, match="no judgements"):
        predict("albedo_linear", Sample("x", photo, {"judgements": empty}))
