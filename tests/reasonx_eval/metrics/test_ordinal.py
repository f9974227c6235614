"""Relations at point pairs: direction per modality, margins, ties, and what a flat map is worth."""

from __future__ import annotations

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UndefinedScore, UsageError
from reasonx_eval.metrics.ordinal import agreement, relation
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME, SECOND

# centres of a row of four pixels, and all ordered pairs of neighbours
POINTS = np.array([[0.125, 0.5], [0.375, 0.5], [0.625, 0.5], [0.875, 0.5]])
PAIRS = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])


def _row(value, modality, **options):
    return relation(value=np.asarray([value], dtype=np.float32), points=POINTS, pairs=PAIRS, modality=modality,
                    **options).tolist()  # fmt: skip


def _random(seed, shape, n=500):
    rng = np.random.default_rng(seed)
    return {"value": rng.random(shape).astype(np.float32), "points": rng.random((60, 2)),
            "pairs": rng.integers(0, 60, (n, 2))}  # fmt: skip


def test_depth_smaller_is_closer_and_disparity_larger():
    assert _row([1, 2, 4, 3], "depth") == [FIRST, FIRST, SECOND, SECOND]
    assert _row([1, 2, 4, 3], "depth", larger_is_closer=True) == [SECOND, SECOND, FIRST, FIRST]


def test_depth_margin_is_a_share_of_the_range():
    value = [0, 1, 100, 102]
    # of 102: 0.0098, 0.97, 0.0196, 1
    assert _row(value, "depth") == [LEFT_OUT, FIRST, LEFT_OUT, SECOND]
    assert _row(value, "depth", margin=0.015) == [LEFT_OUT, FIRST, FIRST, SECOND]
    assert _row(value, "depth", margin=0.0) == [FIRST, FIRST, FIRST, SECOND]
    # exactly the margin counts
    assert _row([0, 0.25, 1, 1], "depth", margin=0.25)[0] == FIRST


def test_depth_equals_a_loop():
    s = _random(0, (37, 53))
    value = s["value"].astype(np.float64)
    norm = (value - value.min()) / (value.max() - value.min())
    expected = []
    for a, b in s["pairs"]:
        (xa, ya), (xb, yb) = s["points"][a], s["points"][b]
        d = norm[int(ya * 37), int(xa * 53)] - norm[int(yb * 37), int(xb * 53)]
        expected.append(LEFT_OUT if abs(d) < 0.02 else FIRST if d < 0 else SECOND)
    assert relation(**s, modality="depth").tolist() == expected


def test_normals_compare_the_part_that_faces_the_camera():
    towards, slanted, edge, away = (0, 0, -1), (0, 0.8, -0.6), (1, 0, 0), (0, 0, 1)
    assert _row([towards, slanted, edge, away], "normals") == [FIRST, FIRST, FIRST, SECOND]
    # length is not direction
    assert _row([(0, 0, -0.1), (0, 8, -6), (1, 0, 0), (0, 0, 9)], "normals") == [FIRST, FIRST, FIRST, SECOND]
    assert _row([towards, (0, 0.14, -0.9901), towards, towards], "normals")[0] == LEFT_OUT
    # no direction, no relation
    assert _row([towards, (0, 0, 0), edge, edge], "normals", margin=0.0)[:2] == [LEFT_OUT, LEFT_OUT]


def test_irradiance_compares_luminance():
    red, green, blue, white = [*np.eye(3).tolist(), [1, 1, 1]]
    # 0.299, 0.587, 0.114, 1
    assert _row([red, green, blue, white], "irradiance") == [SECOND, FIRST, SECOND, FIRST]
    assert _row([red, green, blue, white], "irradiance", margin=0.3) == [LEFT_OUT, FIRST, SECOND, FIRST]


def test_albedo_is_same_or_different_by_distance():
    value = [(0.5, 0.5, 0.5), (0.52, 0.52, 0.52), (0.5, 0.5, 0.46), (0.9, 0.5, 0.5)]
    assert _row(value, "albedo") == [SAME, DIFFERENT, DIFFERENT, DIFFERENT]
    assert _row(value, "albedo", same_distance=0.07) == [SAME, SAME, DIFFERENT, DIFFERENT]
    # strict: a distance of exactly the threshold is different
    assert _row([(0, 0, 0), (0.25, 0, 0), (0, 0, 0), (0, 0, 0)], "albedo", same_distance=0.25)[0] == DIFFERENT


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_flat_maps_have_no_direction_and_agree_with_nothing(margin):
    for modality, pixel in (("depth", 3.3), ("normals", (0, 0, -1)), ("irradiance", (0.2, 0.2, 0.2))):
        flat = np.array(_row([pixel] * 4, modality, margin=margin), np.int8)
        assert (flat == LEFT_OUT).all()
        assert agreement(flat, np.array([FIRST, SECOND, FIRST, SECOND], np.int8)) == 0


def test_swapping_points_swaps_the_answer():
    for modality, shape in (("depth", (20, 30)), ("normals", (20, 30, 3)), ("irradiance", (20, 30, 3))):
        s = _random(1, shape)
        found = relation(**s, modality=modality)
        swapped = relation(**s | {"pairs": s["pairs"][:, ::-1]}, modality=modality)
        np.testing.assert_array_equal(swapped, np.array([SAME, SECOND, FIRST, LEFT_OUT], np.int8)[found])
        assert {FIRST, SECOND, LEFT_OUT} == set(found.tolist())


def test_at_margin_zero_depth_depends_on_order_alone():
    s = _random(2, (20, 30))
    found = relation(**s, modality="depth", margin=0.0)
    for change in (lambda v: v**3, lambda v: np.log(v + 1e-3), lambda v: 1000 * v + 5):
        changed = s | {"value": change(s["value"].astype(np.float64))}
        np.testing.assert_array_equal(relation(**changed, modality="depth", margin=0.0), found)
    # an outlier squeezes everything else into a sliver of the range
    outlier = s["value"].copy()
    outlier[0, 0] = 1e9
    assert not (np.floor(s["points"] * (30, 20)) == 0).all(axis=1).any()
    np.testing.assert_array_equal(relation(**s | {"value": outlier}, modality="depth", margin=0.0), found)
    assert (relation(**s | {"value": outlier}, modality="depth") == LEFT_OUT).all()


def test_perfect_prediction_agrees_fully():
    for modality, shape in (("depth", (20, 30)), ("normals", (20, 30, 3)), ("irradiance", (20, 30, 3)),
                            ("albedo", (20, 30, 3))):  # fmt: skip
        s = _random(3, shape)
        reference = relation(**s, modality=modality)
        predicted = relation(**s, modality=modality, margin=0.0)
        assert agreement(predicted, reference) == 1


def test_agreement_counts_only_what_the_reference_decides():
    reference = np.array([FIRST, SECOND, LEFT_OUT, FIRST], np.int8)
    predicted = np.array([FIRST, FIRST, SECOND, LEFT_OUT], np.int8)
    assert agreement(predicted, reference) == pytest.approx(1 / 3)
    with pytest.raises(UndefinedScore, match="no pair"):
        agreement(predicted, np.full(4, LEFT_OUT, np.int8))
    with pytest.raises(SampleError, match="4 predicted relations, 3 reference"):
        agreement(predicted, reference[:3])


def test_unmeasured_points_leave_their_pairs_out():
    valid = np.array([[True, False, True, True]])
    for value in (np.inf, 0.0, np.nan):
        assert _row([1, value, 4, 3], "depth", valid=valid) == [LEFT_OUT, LEFT_OUT, SECOND, SECOND]
    # the range is that of measured pixels: 1e9 would leave out every other pair
    assert _row([1, 1e9, 4, 3], "depth", valid=valid) == [LEFT_OUT, LEFT_OUT, SECOND, SECOND]
    nan, one = (np.nan,) * 3, (1.0, 1.0, 1.0)
    assert _row([one, nan, one, one], "albedo", valid=valid) == [LEFT_OUT, LEFT_OUT, SAME, SAME]


def test_bad_input():
    depth = np.array([[1.0, 2.0, 3.0, 4.0]])
    good = {"value": depth, "points": POINTS, "pairs": PAIRS, "modality": "depth"}
    for value in (np.nan, np.inf):
        with pytest.raises(SampleError, match="NaN or infinite at 1 of 4 points"):
            relation(**good | {"value": np.array([[1.0, value, 3.0, 4.0]])})
    with pytest.raises(SampleError, match="at 1 of 8 pixels"):
        relation(**good | {"value": np.array([[1.0, 2, 3, 4], [5, 6, np.nan, 7]]), "points": POINTS * (1, 0.5)})
    with pytest.raises(SampleError, match="outside the image"):
        relation(**good | {"points": POINTS + 0.2})
    with pytest.raises(SampleError, match=r"expected \[H, W\]"):
        relation(**good | {"value": depth[..., None]})
    with pytest.raises(SampleError, match=r"expected \[H, W, 3\]"):
        relation(**good | {"modality": "albedo"})
    with pytest.raises(SampleError, match="only 4"):
        relation(**good | {"pairs": np.array([[0, 4]])})
    with pytest.raises(SampleError, match="no valid pixel"):
        relation(**good, valid=np.zeros((1, 4), bool))
    with pytest.raises(SampleError, match="differ in shape"):
        relation(**good, valid=np.zeros((4, 1), bool))
    with pytest.raises(UsageError, match="did you mean 'normals'"):
        relation(**good | {"modality": "normal"})
