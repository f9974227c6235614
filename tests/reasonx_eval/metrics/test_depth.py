"""Depth metrics: hand-worked values, plain float64 formulas, and the one-pass form against both."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.metrics import align, depth
from reasonx_eval.metrics.depth_sums import NAMES, measure_depth
from reasonx_eval.metrics.valid_pixels import ValidPixels
from reasonx_eval.types import Alignment

SAME = Alignment("none", "depth", 1.0, 0.0, 1)


def _oracle(p, g):
    """Straight from the definitions, on float64 vectors."""
    d = np.log(p) - np.log(g)
    ratio = np.maximum(p / g, g / p)
    return {
        "abs_rel": np.mean(np.abs(p - g) / g),
        "sq_rel": np.mean((p - g) ** 2 / g),
        "mae": np.mean(np.abs(p - g)),
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "irmse": np.sqrt(np.mean((1 / p - 1 / g) ** 2)),
        "rmse_log": np.sqrt(np.mean(d**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(g))),
        "silog": 100 * np.sqrt(np.mean(d**2) - np.mean(d) ** 2),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }


def _scene(seed=0, shape=(211, 307)):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 9.0, shape).astype(np.float32)
    pred = (target * np.exp(0.4 * rng.standard_normal(shape))).astype(np.float32)
    return pred, target, rng.random(shape) < 0.6


def _one_pass(pred, target, mask, alignment=SAME, names=NAMES, **options):
    pixels = ValidPixels(pred=pred, target=target, mask=mask)
    return measure_depth(pixels, alignment=alignment, names=names, **options)


@pytest.mark.parametrize("shape", [(211, 307), (1, 1), (3, 50001)])
def test_plain_and_one_pass_forms_equal_the_definitions(shape):
    pred, target, mask = _scene(1, shape)
    mask[0, 0] = True
    expected = _oracle(pred[mask].astype(np.float64), target[mask].astype(np.float64))
    found = _one_pass(pred, target, mask)
    assert list(found) == list(NAMES)
    for name in NAMES:
        plain = getattr(depth, name)(pred, target, mask)
        assert plain == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name


def test_hand_worked():
    pred, target = np.array([[2.0, 1.0]]), np.array([[1.0, 4.0]])
    found = _one_pass(pred, target, np.ones((1, 2), bool))
    assert found["abs_rel"] == pytest.approx((1 + 0.75) / 2)
    assert found["sq_rel"] == pytest.approx((1 + 9 / 4) / 2)
    assert found["mae"] == pytest.approx(2)
    assert found["rmse"] == pytest.approx(math.sqrt(5))
    assert found["irmse"] == pytest.approx(math.sqrt((0.25 + 0.5625) / 2))
    assert found["rmse_log"] == pytest.approx(math.log(2) * math.sqrt(2.5))
    assert found["log10"] == pytest.approx(1.5 * math.log10(2))
    # d = ln 2 and -2 ln 2: mean -ln 2 / 2, deviation 1.5 ln 2
    assert found["silog"] == pytest.approx(150 * math.log(2))
    assert (found["delta1"], found["delta2"], found["delta3"]) == (0, 0, 0)


def test_perfect_prediction_is_perfect():
    _, target, mask = _scene()
    found = _one_pass(target, target, mask)
    for name, value in found.items():
        assert value == (1 if name.startswith("delta") else 0), name


def test_delta_is_strict_on_both_sides():
    target = np.array([[1.0, 1.25, 1.0, 1.0]])
    pred = np.array([[1.25, 1.0, np.nextafter(1.25, 0), 1.25**2]])
    found = _one_pass(pred, target, np.ones((1, 4), bool))
    assert (found["delta1"], found["delta2"], found["delta3"]) == (0.25, 0.75, 1)
    assert depth.delta1(pred=pred[:, :1], target=target[:, :1], mask=np.ones((1, 1), bool)) == 0


def test_small_errors_keep_their_digits():
    rng = np.random.default_rng(4)
    target = rng.uniform(1, 2, (300, 300))
    error = 1e-6 * rng.standard_normal((300, 300))
    found = _one_pass(target * (1 + error), target, np.ones((300, 300), bool))
    assert found["abs_rel"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert found["silog"] == pytest.approx(100 * np.std(np.log1p(error)), rel=1e-6)
    # a scaled copy: the difference of two means of squares would leave about 1e-6 here
    scaled = _one_pass(target * 7, target, np.ones((300, 300), bool))
    assert scaled["silog"] < 1e-12


def test_scale_and_permutation_invariance():
    pred, target, mask = _scene(2)
    found = _one_pass(pred, target, mask)
    doubled = _one_pass(pred * 2, target * 2, mask)
    for name in ("abs_rel", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3"):
        assert doubled[name] == pytest.approx(found[name], rel=1e-12)
    assert doubled["rmse"] == pytest.approx(2 * found["rmse"], rel=1e-12)
    assert doubled["irmse"] == pytest.approx(found["irmse"] / 2, rel=1e-12)
    order = np.random.default_rng(0).permutation(target.size)
    shuffled = _one_pass(*(a.ravel()[order].reshape(a.shape) for a in (pred, target, mask)))
    for name, value in found.items():
        assert shuffled[name] == pytest.approx(value, rel=1e-12)


def test_alignment_clip_and_floor_come_in_that_order():
    pred, target, mask = _scene(3)
    depth_fit = Alignment("affine", "depth", 1.5, -2.0, 10)
    p = np.maximum(np.clip(1.5 * pred.astype(np.float64) - 2, 1e-3, 5.0), 1e-6)[mask]
    found = _one_pass(pred, target, mask, depth_fit, clip_m=(1e-3, 5.0))
    for name, value in _oracle(p, target[mask].astype(np.float64)).items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    disparity_fit = Alignment("affine", "disparity", 0.4, -0.5, 10)
    p = np.clip(1 / np.maximum(0.4 * pred.astype(np.float64) - 0.5, 0.02), 0.6, np.inf)[mask]
    found = _one_pass(pred, target, mask, disparity_fit, clip_m=(0.6, math.inf), disparity_floor=0.02)
    for name, value in _oracle(p, target[mask].astype(np.float64)).items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


def test_floor_alone_keeps_logarithms_finite_and_bad():
    found = _one_pass(np.array([[-1.0, 1.0]]), np.ones((1, 2)), np.ones((1, 2), bool))
    assert found["delta3"] == 0.5
    assert found["rmse_log"] == pytest.approx(math.log(1e6) / math.sqrt(2))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_without_a_floor_nothing_good_comes_of_non_positive_depth(value):
    pred, target, mask = np.array([[value, 1.0]]), np.ones((1, 2)), np.ones((1, 2), bool)
    found = _one_pass(pred, target, mask, floor_m=None)
    for name in ("rmse_log", "log10", "silog", "irmse"):
        assert math.isnan(found[name])
        assert math.isnan(getattr(depth, name)(pred, target, mask))
    assert found["delta3"] == 0.5
    assert depth.delta3(pred=pred, target=target, mask=mask) == 0.5
    assert found["abs_rel"] == pytest.approx((1 - value) / 2)


def test_only_named_metrics_are_returned_and_equal():
    pred, target, mask = _scene()
    everything = _one_pass(pred, target, mask)
    for name in NAMES:
        assert _one_pass(pred, target, mask, names=(name,)) == {name: everything[name]}
    with pytest.raises(UsageError, match="did you mean 'abs_rel'"):
        _one_pass(pred, target, mask, names=("absrel",))


def test_bad_input():
    pred, target, mask = _scene(shape=(4, 5))
    mask[:] = True
    broken = pred.copy()
    broken[0, :2] = np.nan, np.inf
    with pytest.raises(SampleError, match="NaN or infinite at 2 of 20"):
        _one_pass(broken, target, mask)
    mask[0, :2] = False
    assert _one_pass(broken, target, mask) == _one_pass(pred, target, mask)
    with pytest.raises(SampleError, match="ground truth depth"):
        _one_pass(pred, target * 0, mask)
    with pytest.raises(SampleError, match="no valid pixel"):
        _one_pass(pred, target, ~np.ones_like(mask))
    with pytest.raises(SampleError, match="differ in shape"):
        _one_pass(pred[:2], target, mask)
    undetermined = Alignment("affine", "depth", math.nan, math.nan, 20, "the prediction is constant")
    with pytest.raises(SampleError, match="the prediction is constant"):
        _one_pass(pred, target, mask, undetermined)


def test_needs_little_memory():
    pred, target, mask = _scene(shape=(1500, 2000))
    tracemalloc.start()
    try:
        _one_pass(pred, target, mask, clip_m=(1e-3, 10))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("space", ["depth", "disparity"])
@pytest.mark.parametrize("mode", ["none", "median", "scale", "affine"])
def test_values_gathered_once_give_the_same_bits(monkeypatch, mode, space, kept):
    monkeypatch.setattr("reasonx_eval.metrics.valid_pixels._KEEP", 1 << 19 if kept else 0)
    pred, target, mask = _scene(5)
    fit = align.fit(pred=pred, target=target, mask=mask, mode=mode, space=space)
    pairs = ValidPixels(pred=pred, target=target, mask=mask)
    for _ in range(2):
        assert align.fit_pixels(pairs, mode=mode, space=space) == fit
        found = measure_depth(pairs, alignment=fit, names=NAMES)
        assert found == _one_pass(pred, target, mask, fit)


def test_a_pass_that_is_not_finished_keeps_nothing():
    pred, target, mask = _scene(6, (400, 400))
    pairs = ValidPixels(pred=pred, target=target, mask=mask)
    next(pairs())
    assert sum(p.size for p, _ in pairs()) == np.count_nonzero(mask)
    assert sum(p.size for p, _ in pairs()) == np.count_nonzero(mask)


def test_a_subsample_does_not_stand_for_the_map():
    pred, target, mask = _scene(7)
    pairs = ValidPixels(pred=pred, target=target, mask=mask)
    rows = cols = np.arange(0, 200, 3)
    few = sum(p.size for p, _ in pairs(rows, cols))
    assert few == np.count_nonzero(mask[np.ix_(rows, cols)])
    assert sum(p.size for p, _ in pairs()) == np.count_nonzero(mask)
    assert sum(p.size for p, _ in pairs(rows, cols)) == few
