"""Alignment: least squares against LAPACK, exact medians, published masks and subsamples, undetermined fits."""

from __future__ import annotations

import math
import re
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.metrics import align
from reasonx_eval.types import Alignment


def _scene(seed: int = 0, shape: tuple[int, int] = (97, 213), share: float = 0.7):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 9.0, shape).astype(np.float32)
    pred = (0.2 * target + 0.3 + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    return pred, target, rng.random(shape) < share


def _lstsq(p, g):
    p, g = p.astype(np.float64), g.astype(np.float64)
    return np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), g, rcond=None)[0]


@pytest.mark.parametrize("shape", [(97, 213), (5, 40000), (400, 3)])
def test_affine_equals_lstsq(shape):
    pred, target, mask = _scene(shape=shape)
    found = align.fit(pred=pred, target=target, mask=mask, mode="affine", space="depth")
    assert (found.scale, found.shift) == pytest.approx(tuple(_lstsq(pred[mask], target[mask])), rel=1e-9)
    assert found.n_valid == mask.sum()
    assert found.reason is None


def test_affine_with_large_offset_and_small_spread_equals_exact_arithmetic():
    rng = np.random.default_rng(3)
    pred = (4096 + rng.integers(0, 64, (20, 30)) / 2048).astype(np.float32)
    target = rng.uniform(1, 5, (20, 30)).astype(np.float32)
    p, g = ([Fraction(float(x)) for x in a.ravel()] for a in (pred, target))
    n, sp, sg = len(p), sum(p), sum(g)
    scale = (n * sum(a * b for a, b in zip(p, g, strict=True)) - sp * sg) / (n * sum(a * a for a in p) - sp * sp)
    shift = (sg - scale * sp) / n
    found = align.fit(pred=pred, target=target, mask=np.ones((20, 30), bool), mode="affine", space="depth")
    assert found.scale == pytest.approx(float(scale), rel=1e-9)
    assert found.shift == pytest.approx(float(shift), rel=1e-9)


def test_scale_equals_lstsq_and_median_equals_numpy():
    pred, target, mask = _scene(1)
    p, g = pred[mask].astype(np.float64), target[mask].astype(np.float64)
    scale = align.fit(pred=pred, target=target, mask=mask, mode="scale", space="depth")
    assert scale.scale == pytest.approx(np.linalg.lstsq(p[:, None], g, rcond=None)[0][0], rel=1e-12)
    assert scale.shift == 0
    for some in (mask, mask & (np.cumsum(mask).reshape(mask.shape) > 1)):  # an odd and an even number
        p, g = pred[some].astype(np.float64), target[some].astype(np.float64)
        median = align.fit(pred=pred, target=target, mask=some, mode="median", space="depth")
        assert median.scale == np.median(g) / np.median(p)


def test_none_changes_nothing():
    pred, target, mask = _scene()
    found = align.fit(pred=pred, target=target, mask=mask, mode="none", space="depth")
    assert (found.scale, found.shift, found.n_valid) == (1.0, 0.0, mask.sum())
    np.testing.assert_array_equal(align.apply(pred=pred, alignment=found), pred.astype(np.float64))


@pytest.mark.parametrize("mode", ["affine", "scale", "median"])
def test_disparity_fits_the_inverse_where_the_prediction_is_positive(mode):
    rng = np.random.default_rng(5)
    _, target, mask = _scene(5)
    pred = (3 / target.astype(np.float64) - 1 + 0.1 * rng.standard_normal(target.shape)).astype(np.float32)
    used = mask & (pred > 0)
    assert 0 < used.sum() < mask.sum()
    p, g = pred[used].astype(np.float64), 1 / target[used].astype(np.float64)
    expected = {"affine": lambda: tuple(_lstsq(p, g)), "scale": lambda: ((p @ g) / (p @ p), 0.0),
                "median": lambda: (np.median(g) / np.median(p), 0.0)}[mode]()  # fmt: skip
    found = align.fit(pred=pred, target=target, mask=mask, mode=mode, space="disparity")
    assert (found.scale, found.shift) == pytest.approx(expected, rel=1e-9)
    assert found.n_valid == used.sum()
    # pixels the fit left out are aligned like the others, raised to the floor, and inverted
    depth = align.apply(pred=pred, alignment=found, disparity_floor=0.05)
    aligned = found.scale * pred.astype(np.float64) + found.shift
    np.testing.assert_allclose(depth, 1 / np.maximum(aligned, 0.05), rtol=1e-12)
    assert depth.max() == pytest.approx(20.0)


def test_exact_affine_prediction_is_recovered_in_both_spaces():
    _, target, mask = _scene(7)
    t = target.astype(np.float64)
    for pred, space in (((t - 2.5) / 7, "depth"), ((1 / t - 0.01) / 3, "disparity")):
        found = align.fit(pred=pred, target=target, mask=mask, mode="affine", space=space)
        np.testing.assert_allclose(align.apply(pred=pred, alignment=found)[mask], t[mask], rtol=1e-12)


def test_reversed_order_gives_a_negative_scale_and_a_note():
    pred, target, mask = _scene()
    found = align.fit(pred=-pred, target=target, mask=mask, mode="affine", space="depth")
    assert found.scale < 0
    assert "reversed" in align.alignment_notes(found)[0]
    upright = align.fit(pred=pred, target=target, mask=mask, mode="affine", space="depth")
    assert align.alignment_notes(upright) == ()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3, -7.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_prediction_leaves_affine_undetermined(value, dtype):
    _, target, mask = _scene(shape=(300, 700))
    pred = np.full(target.shape, value, dtype)
    found = align.fit(pred=pred, target=target, mask=mask, mode="affine", space="depth")
    assert math.isnan(found.scale)
    assert math.isnan(found.shift)
    assert not found.determined
    assert "constant" in found.reason
    with pytest.raises(SampleError, match="constant"):
        align.apply(pred=pred, alignment=found)


@pytest.mark.parametrize(
    ("mode", "space", "pred", "n_valid", "reason"),
    [
        ("affine", "depth", [[1.0, 2.0]], 1, "1 valid pixel .* at least 2"),
        ("scale", "depth", [[0.0, 0.0]], 2, "zero"),
        ("median", "depth", [[-1.0, 0.5]], 2, "median"),
        ("median", "depth", [[0.0, 0.0]], 2, "median"),
        ("affine", "disparity", [[-1.0, -2.0]], 2, "0 valid pixels"),
        ("scale", "disparity", [[-1.0, 0.0]], 2, "0 valid pixels"),
        ("median", "disparity", [[-1.0, 0.0]], 2, "0 valid pixels"),
    ],
)
def test_undetermined_fits_say_why(mode, space, pred, n_valid, reason):
    mask = np.zeros((1, 2), bool)
    mask[0, :n_valid] = True
    found = align.fit(pred=np.array(pred, np.float32), target=np.array([[1.0, 2.0]], np.float32), mask=mask,
                      mode=mode, space=space)  # fmt: skip
    assert math.isnan(found.scale)
    assert math.isnan(found.shift)
    assert re.search(reason, found.reason)


def test_overflowing_fit_is_undetermined():
    pred = np.array([[1e-200, 2e-200]])
    found = align.fit(pred=pred, target=np.array([[1.0, 2.0]]), mask=np.ones((1, 2), bool), mode="affine",
                      space="depth")  # fmt: skip
    assert not found.determined
    assert found.reason


def test_bad_input_is_refused_with_numbers():
    pred, target, mask = _scene()
    good = {"pred": pred, "target": target, "mask": mask, "mode": "affine", "space": "depth"}

    def fit(**changed):
        return align.fit(**(good | changed))

    broken = pred.copy()
    broken[np.argwhere(mask)[:3, 0], np.argwhere(mask)[:3, 1]] = [np.nan, np.inf, -np.inf]
    with pytest.raises(SampleError, match=f"at 3 of {mask.sum()} valid"):
        fit(pred=broken)
    outside = pred.copy()
    outside[~mask] = np.nan
    assert fit(pred=outside) == fit()
    for value in (0.0, -1.0, np.nan, np.inf):
        wrong = target.copy()
        wrong[tuple(np.argwhere(mask)[0])] = value
        with pytest.raises(SampleError, match="ground truth depth"):
            fit(target=wrong)
    with pytest.raises(SampleError, match="no valid pixel"):
        fit(mask=np.zeros_like(mask))
    with pytest.raises(SampleError, match="differ in shape"):
        fit(pred=pred[1:])
    with pytest.raises(SampleError, match="expected bool"):
        fit(mask=mask.astype(np.float32))
    with pytest.raises(SampleError, match=r"expected \[H, W\]"):
        fit(pred=pred[..., None], target=target[..., None])
    with pytest.raises(UsageError, match="did you mean 'affine'"):
        fit(mode="afine")
    with pytest.raises(UsageError, match="Known"):
        fit(space="inverse")
    with pytest.raises(UsageError, match="nearest-1024"):
        fit(subsample="nearest")


def test_width_subsample_has_the_published_indices():
    rows, cols = align.subsample_indices(4032, 6048, "width-nearest-1024")
    assert rows is None
    assert len(cols) == 1024
    assert cols[:8].tolist() == [0, 5, 11, 17, 23, 29, 35, 41]
    assert cols[-1] == 6042
    rows, cols = align.subsample_indices(4032, 6048, "nearest-1024")
    assert (len(rows), len(cols)) == (682, 1024)
    assert rows.tolist() == [j * 6048 // 1024 for j in range(682)]
    portrait = align.subsample_indices(6048, 4032, "width-nearest-1024")
    assert portrait[0] is None
    assert len(portrait[1]) == 682
    assert align.subsample_indices(768, 1024, "nearest-1024") == (None, None)


@pytest.mark.parametrize("subsample", ["nearest-1024", "width-nearest-1024"])
def test_subsampled_fit_sees_only_its_pixels(subsample):
    pred, target, mask = _scene(2, (50, 2500))
    rows, cols = align.subsample_indices(50, 2500, subsample)
    pick = np.ix_(np.arange(50) if rows is None else rows, cols)
    p, g, v = pred[pick], target[pick], mask[pick]
    found = align.fit(pred=pred, target=target, mask=mask, mode="affine", space="depth", subsample=subsample)
    assert found.n_valid == v.sum()
    assert (found.scale, found.shift) == pytest.approx(tuple(_lstsq(p[v], g[v])), rel=1e-9)


def test_fit_needs_little_memory():
    pred, target, mask = _scene(shape=(1500, 2000))
    tracemalloc.start()
    try:
        for mode in ("affine", "median"):
            align.fit(pred=pred, target=target, mask=mask, mode=mode, space="disparity")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_to_space():
    depth = np.array([[2.0, 0.0, -1.0, 4.0]], np.float32)
    assert align.to_space(pred=depth, kind="depth_metric", space="depth") is depth
    assert align.to_space(pred=depth, kind="disparity_affine", space="disparity") is depth
    disparity = align.to_space(pred=depth, kind="depth_scale", space="disparity")
    np.testing.assert_array_equal(disparity, [[0.5, 0, 0, 0.25]])
    thirds = align.to_space(pred=np.array([[3.0, 7.0]], np.float32), kind="depth_metric", space="disparity")
    np.testing.assert_array_equal(thirds, [[1 / 3, 1 / 7]])  # divided in float64, not in the prediction's float32
    broken = align.to_space(pred=np.array([[np.nan, 1.0, np.inf]]), kind="depth_metric", space="disparity")
    np.testing.assert_array_equal(np.isfinite(broken), [[False, True, False]])
    for kind, space in (("depth_affine", "disparity"), ("disparity_affine", "depth")):
        with pytest.raises(UsageError, match="up to a shift"):
            align.to_space(pred=depth, kind=kind, space=space)


def test_apply_writes_in_place():
    alignment = Alignment("affine", "disparity", 2.0, 1.0, 10)
    values = np.array([0.0, 0.5, -3.0])
    assert align.apply(pred=values, alignment=alignment, out=values) is values
    np.testing.assert_allclose(values, [1.0, 0.5, 1000.0])
