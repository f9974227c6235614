"""WHDR against a plain loop written from the definition, and the edge cases that implementations disagree on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UndefinedScore
from reasonx_eval.io.color import srgb8_table
from reasonx_eval.metrics.judgements import compile_judgements, disagreement, lightness, whdr
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget


def _loop(reflectance, target, delta, only=(SAME, FIRST, SECOND)):
    """Bell et al. 2014, section 3.5, one judgement at a time."""
    rows, cols = reflectance.shape[:2]
    wrong = total = 0.0
    for (a, b), darker, weight in zip(target.pairs, target.darker, target.weight, strict=True):
        if darker not in only:
            continue
        light = []
        for x, y in (target.points[a], target.points[b]):
            pixel = reflectance[int(y * rows), int(x * cols)]
            light.append(max(1e-10, float(np.mean(np.asarray(pixel, dtype=np.float64)))))
        if light[1] / light[0] > 1.0 + delta:
            answer = FIRST
        elif light[0] / light[1] > 1.0 + delta:
            answer = SECOND
        else:
            answer = SAME
        wrong += weight * (answer != darker)
        total += weight
    return wrong / total if total else math.nan


def _random(seed, n_points=300, n=4000):
    rng = np.random.default_rng(seed)
    return JudgementTarget(rng.random((n_points, 2)), rng.integers(0, n_points, (n, 2)),
                           rng.integers(0, 3, n).astype(np.int8), rng.uniform(0.01, 2, n))  # fmt: skip


def _parts(reflectance, judgements, delta=0.10):
    parts = {"whdr": "all", "whdr_eq": "eq", "whdr_ineq": "ineq"}
    return {name: whdr(reflectance, judgements, delta, judged=judged) for name, judged in parts.items()}


def _two(darker, weight=1.0):
    """One judgement between the left and the right half."""
    return JudgementTarget(np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([[0, 1]]), np.array([darker], np.int8),
                           np.array([weight]))  # fmt: skip


@pytest.mark.parametrize("shape", [(61, 97, 3), (97, 61), (341, 512, 3)])
@pytest.mark.parametrize("delta", [0.1, 0.2, 0.0])
def test_equals_the_loop(shape, delta):
    rng = np.random.default_rng(shape[0])
    # coarse values: many ratios lie at or near the threshold, and some are zero
    reflectance = (rng.integers(0, 12, shape) / 11).astype(np.float32)
    target = _random(shape[1])
    parts = _parts(reflectance, target, delta=delta)
    assert parts["whdr"] == pytest.approx(_loop(reflectance, target, delta), abs=1e-12)
    assert parts["whdr_eq"] == pytest.approx(_loop(reflectance, target, delta, (SAME,)), abs=1e-12)
    assert parts["whdr_ineq"] == pytest.approx(_loop(reflectance, target, delta, (FIRST, SECOND)), abs=1e-12)
    assert whdr(reflectance, target, delta=delta) == parts["whdr"]


def test_constant_map_is_wrong_on_every_inequality():
    target = _random(0)
    unequal = target.weight[target.darker != SAME].sum() / target.weight.sum()
    parts = _parts(np.full((10, 10, 3), 0.4), target)
    assert parts["whdr"] == pytest.approx(unequal, abs=1e-12)
    assert (parts["whdr_eq"], parts["whdr_ineq"]) == (0, 1)


@pytest.mark.parametrize(("high", "low"), [(1.1, 1.0), (0.11, 0.1), (0.22, 0.2), (0.55, 0.5), (0.33, 0.3), (0, 0)])
def test_ratios_at_the_threshold_are_equal(high, low):
    for values in ((high, low), (low, high)):
        assert whdr(np.array([values]), _two(SAME)) == 0
        assert whdr(np.array([values]), _two(FIRST)) == 1
        assert whdr(np.array([values]), _two(SECOND)) == 1


def test_the_ratio_form_decides_where_the_product_form_differs():
    low, high = 0.011, 0.012100000000000001
    assert high > 1.1 * low
    assert whdr(np.array([[low, high]]), _two(SAME)) == 0
    assert whdr(np.array([[high, low]]), _two(SAME)) == 0


def test_one_point_zero_or_negative_is_the_darker_one():
    for dark in (0.0, -3.0, 1e-12):
        assert whdr(np.array([[dark, 0.5]]), _two(FIRST)) == 0
        assert whdr(np.array([[0.5, dark]]), _two(SECOND)) == 0
        assert whdr(np.array([[0.5, dark]]), _two(FIRST)) == 1
    # clamped to 1e-10 both, however far apart
    assert whdr(np.array([[-5.0, 1e-11]]), _two(SAME)) == 0


def test_perfect_answers_score_zero_and_opposite_ones_one():
    rng = np.random.default_rng(1)
    reflectance = rng.choice([0.1, 0.3, 0.9], (40, 50))
    target = _random(2)
    light = lightness(reflectance=reflectance, judgements=(c := compile_judgements(target=target, height=40, width=50)))
    ratio = light[c.pairs[:, 1]] / light[c.pairs[:, 0]]
    truth = np.where(ratio > 1.1, FIRST, np.where(ratio < 1 / 1.1, SECOND, SAME)).astype(np.int8)
    right = JudgementTarget(target.points, target.pairs, truth, target.weight)
    assert whdr(reflectance, right) == 0
    wrong = JudgementTarget(target.points, target.pairs, ((truth + 1) % 3).astype(np.int8), target.weight)
    assert whdr(reflectance, wrong) == 1


def test_scale_does_not_matter_but_gamma_does():
    reflectance = np.random.default_rng(3).random((30, 40, 3))
    target = _random(4)
    score = whdr(reflectance, target)
    assert whdr(reflectance * 4, target) == score
    assert whdr(reflectance ** (1 / 2.2), target) != score


def test_points_are_truncated_and_belong_to_any_size():
    target = JudgementTarget(np.array([[0.999999, 0.0], [0.0, 0.999999]]), np.array([[0, 1]]),
                             np.array([SECOND], np.int8), np.array([1.0]))  # fmt: skip
    for height, width in ((3, 7), (11, 2)):
        reflectance = np.ones((height, width))
        reflectance[0, -1], reflectance[-1, 0] = 0.9, 0.1
        assert whdr(reflectance, target) == 0


@pytest.mark.parametrize("point", [(1.0, 0.5), (0.5, 1.0), (-0.01, 0.5), (np.nan, 0.5)])
def test_points_outside_are_refused_if_judged(point):
    points = np.array([[0.2, 0.2], [0.6, 0.6], point])
    outside = JudgementTarget(points, np.array([[0, 2]]), np.array([SAME], np.int8), np.ones(1))
    with pytest.raises(SampleError, match="1 of 2 points lie outside"):
        whdr(np.ones((4, 4)), outside)
    unused = JudgementTarget(points, np.array([[0, 1]]), np.array([SAME], np.int8), np.ones(1))
    assert whdr(np.ones((4, 4)), unused) == 0


def test_no_weight_is_undefined_not_zero():
    with pytest.raises(UndefinedScore, match="no judgement"):
        whdr(np.ones((4, 4)), _two(SAME, 0.0))
    empty = JudgementTarget(np.zeros((0, 2)), np.zeros((0, 2), np.int64), np.zeros(0, np.int8), np.zeros(0))
    with pytest.raises(UndefinedScore, match="no judgement"):
        whdr(np.ones((4, 4)), empty)


def test_parts_without_weight_are_nan():
    parts = _parts(np.array([[0.1, 0.9]]), _two(FIRST))
    assert math.isnan(parts["whdr_eq"])
    assert parts["whdr_ineq"] == 0
    assert math.isnan(_parts(np.ones((1, 2)), _two(SAME))["whdr_ineq"])


def test_compiled_judgements_and_decoding_at_the_points_give_the_same():
    codes = np.random.default_rng(5).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    target = _random(6)
    table = srgb8_table()
    compiled = compile_judgements(target=target, height=30, width=40)
    seen = []

    def decode(values):
        seen.append(values.shape)
        return table[values]

    whole = _parts(table[codes], target, 0.2)
    light = lightness(reflectance=codes, judgements=compiled, decode=decode)
    assert seen == [(len(compiled.rows), 3)]
    assert disagreement(light=light, judgements=compiled, delta=0.2) == whole


def test_maps_that_are_not_contiguous_give_the_same():
    reflectance = np.random.default_rng(7).random((3, 40, 30)).transpose(2, 1, 0)
    target = _random(8)
    assert whdr(reflectance, target) == whdr(reflectance.copy(), target)


def test_bad_input():
    for value in (np.nan, np.inf):
        with pytest.raises(SampleError, match="NaN or infinite at 1 of 2 judged points"):
            whdr(np.array([[value, 0.5]]), _two(SAME))
    elsewhere = np.array([[0.5, np.nan, 0.5, np.nan]])
    assert whdr(np.nan_to_num(elsewhere, nan=0.5), _two(SAME)) == 0
    with pytest.raises(SampleError, match="expected"):
        whdr(np.ones(4), _two(SAME))
    compiled = compile_judgements(target=_two(SAME), height=4, width=4)
    with pytest.raises(SampleError, match=r"expected \[4, 4\]"):
        whdr(np.ones((4, 5)), compiled)
    good = _two(SAME)
    for wrong, message in (
        (JudgementTarget(good.points, np.array([[0, 2]]), good.darker, good.weight), "only 2"),
        (JudgementTarget(good.points, np.array([0, 1]), good.darker, good.weight), r"\[J, 2\]"),
        (JudgementTarget(good.points, good.pairs, np.array([3], np.int8), good.weight), "answers"),
        (JudgementTarget(good.points, good.pairs, good.darker, np.array([-1.0])), "weights"),
        (JudgementTarget(good.points, good.pairs, good.darker, np.array([np.nan])), "weights"),
        (JudgementTarget(good.points, good.pairs, good.darker, np.ones(2)), "as many"),
    ):
        with pytest.raises(SampleError, match=message):
            whdr(np.ones((4, 4)), wrong)
