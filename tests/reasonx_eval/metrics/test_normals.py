"""Normal metrics: hand-worked angles, plain arccos in float64, pooling against one long vector."""

from __future__ import annotations

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.metrics import angles, normals, streaming_median
from reasonx_eval.metrics.valid_pixels import dot
from reasonx_eval.scoring.normals import pixel_stats


def _unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _scene(seed=0, shape=(61, 83), noise=0.4):
    rng = np.random.default_rng(seed)
    target = _unit(rng.standard_normal((*shape, 3))).astype(np.float32)
    pred = (target + noise * rng.standard_normal((*shape, 3))).astype(np.float32)
    return pred, target, rng.random(shape) < 0.7


def _oracle(pred, target, mask):
    p, g = _unit(pred[mask].astype(np.float64)), _unit(target[mask].astype(np.float64))
    return np.degrees(np.arccos(np.clip((p * g).sum(-1), -1, 1)))


def _metrics(e):
    shares = {"within_5": 5, "within_7_5": 7.5, "within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30}
    return {"mean_deg": e.mean(), "median_deg": np.median(e), "rmse_deg": np.sqrt((e**2).mean()),
            **{k: (e < t).mean() for k, t in shares.items()}}  # fmt: skip


@pytest.mark.parametrize("shape", [(61, 83), (1, 1), (2, 40000)])
def test_equals_the_definition(shape):
    pred, target, mask = _scene(1, shape)
    mask[0, 0] = True
    expected = _oracle(pred, target, mask)
    np.testing.assert_allclose(angles.angular_errors(pred=pred, target=target, mask=mask), expected, rtol=1e-9)
    found = normals.measure_normals(pred=pred, target=target, mask=mask)
    assert tuple(found) == normals.NAMES
    for name, value in _metrics(expected).items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


def test_hand_worked_angles():
    target = np.tile([0.0, 0.0, 1.0], (1, 5, 1))
    pred = np.array([[[0, 0, -1], [0, 0, 1], [1, 0, 0], [1, 0, 1], [0, np.sqrt(3), 1]]])
    found = angles.angular_errors(pred=pred, target=target, mask=np.ones((1, 5), bool))
    np.testing.assert_allclose(found, [180, 0, 90, 45, 60], rtol=1e-14)


def test_equal_and_opposite_vectors_are_exact_at_any_length():
    _, target, mask = _scene(2)
    for factor, angle in ((1.0, 0.0), (0.37, 0.0), (-2.5, 180.0)):
        errors = angles.angular_errors(pred=target.astype(np.float64) * factor, target=target, mask=mask)
        np.testing.assert_allclose(errors, angle, atol=2e-6)
    assert angles.angular_errors(pred=target, target=target, mask=mask).max() == 0
    perfect = normals.measure_normals(pred=target, target=target, mask=mask)
    assert perfect == {name: float(name.startswith("within")) for name in normals.NAMES}


def test_rotation_and_length_invariance():
    pred, target, mask = _scene(3)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found = normals.measure_normals(pred=pred, target=target, mask=mask, names=("mean_deg",))
    turned = normals.measure_normals(pred=3 * pred @ turn, target=target @ turn, mask=mask, names=("mean_deg",))
    assert turned["mean_deg"] == pytest.approx(found["mean_deg"], rel=1e-6)


def test_shares_are_strict():
    errors = np.array([5.0, 4.999, 7.5, 30.0])
    found = normals.summarise(errors=errors, names=("within_5", "within_7_5", "within_30"))
    assert found == {"within_5": 0.25, "within_7_5": 0.5, "within_30": 0.75}


def test_a_predicted_vector_without_direction_is_90_degrees_off():
    pred, target, mask = _scene(4)
    pred[mask] = 0
    assert set(angles.angular_errors(pred=pred, target=target, mask=mask)) == {90.0}
    found = normals.measure_normals(pred=pred, target=target, mask=mask)
    assert found["within_30"] == 0


def test_rounding_as_published():
    pred, target, mask = _scene(5)
    found = normals.measure_normals(pred=pred, target=target, mask=mask, round_digits=4)
    for name, value in _metrics(_oracle(pred, target, mask)).items():
        expected = round(100 * value, 4) / 100 if name.startswith("within") else round(value, 4)
        assert found[name] == pytest.approx(expected, rel=1e-12)


def test_bad_input():
    pred, target, mask = _scene(shape=(3, 4))
    mask[:] = True
    for value in (np.nan, np.inf, -np.inf):
        broken = pred.copy()
        broken[0, 0, 1] = value
        broken[1, 1] = value
        with pytest.raises(SampleError, match="prediction is NaN or infinite at 2 of 12"):
            angles.angular_errors(pred=broken, target=target, mask=mask)
    for value in (0.0, np.nan):
        wrong = target.copy()
        wrong[2, 3] = value
        with pytest.raises(SampleError, match="length 0 or aren't finite at 1 of 12"):
            angles.angular_errors(pred=pred, target=wrong, mask=mask)
    with pytest.raises(SampleError, match="no valid pixel"):
        normals.measure_normals(pred=pred, target=target, mask=~mask)
    with pytest.raises(SampleError, match="differ in shape"):
        normals.measure_normals(pred=pred[:2], target=target, mask=mask)
    with pytest.raises(SampleError, match=r"expected \[H, W, 3\]"):
        normals.measure_normals(pred=pred[..., 0], target=target[..., 0], mask=mask)
    with pytest.raises(UsageError, match="did you mean 'mean_deg'"):
        normals.measure_normals(pred=pred, target=target, mask=mask, names=("mean_degr",))


def test_outside_the_mask_anything_may_stand():
    pred, target, mask = _scene(6)
    expected = normals.measure_normals(pred=pred, target=target, mask=mask)
    pred[~mask], target[~mask] = np.nan, 0
    assert normals.measure_normals(pred=pred, target=target, mask=mask) == expected


@pytest.mark.parametrize("gather", [100, 1 << 20])
def test_pooling_equals_one_long_vector(monkeypatch, gather):
    monkeypatch.setattr(streaming_median, "_GATHER", gather)
    pieces = [angles.angular_errors(pred=p, target=g, mask=v) for p, g, v in map(_scene, range(5))]
    pieces.insert(2, np.empty(0))
    found = normals.pooled_normal_metrics(errors=pieces)
    for name, value in _metrics(np.concatenate(pieces)).items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    assert found["median_deg"] == np.median(np.concatenate(pieces))
    # not the mean of per-image medians
    assert found["median_deg"] != np.mean([np.median(p) for p in pieces if p.size])


def test_pooling_needs_pixels_and_more_than_one_pass():
    with pytest.raises(SampleError, match="no valid pixel"):
        normals.pooled_normal_metrics(errors=[np.empty(0)])
    with pytest.raises(TypeError, match="more than once"):
        normals.pooled_normal_metrics(errors=iter([np.ones(3)]))


def test_kept_sums_are_those_of_the_metrics_to_the_last_bit():
    errors = np.random.default_rng(0).gamma(1.5, 10, 240_001)
    sums = pixel_stats(errors)
    # a sum by BLAS would depend on the number of threads
    assert sums["sum_sq"] == dot(errors, errors)
    assert sums["sum"] / sums["count"] == normals.summarise(errors=errors, names=("mean_deg",))["mean_deg"]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_computing_all_or_choosing_first_gives_the_same_bits(monkeypatch, share):
    pred, target, _ = _scene(9, (300, 401))
    mask = np.random.default_rng(9).random((300, 401)) < share
    pred[10, 10:20] = 0
    mask[10, 10:20] = True
    # whatever is stored where nothing is valid
    for array, value in ((pred, np.nan), (pred, np.inf), (target, 0), (target, np.inf), (target, np.nan)):
        array[~mask & (np.random.default_rng(int(share * 99)).random(mask.shape) < 0.4)] = value
    found = {}
    for limit in (0.0, 1.0):
        monkeypatch.setattr(angles, "_DENSE", limit)
        found[limit] = angles.angular_errors(pred=pred, target=target, mask=mask)
    np.testing.assert_array_equal(found[0.0], found[1.0])
    assert np.isfinite(found[0.0]).all()
