"""The test for skewed differences: by hand, mirrored, and how often it errs beside Student's t."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reasonx_eval.statistics.skewed_test import p_above, p_below, widening


def left_out(values: np.ndarray) -> np.ndarray:
    return (values.sum() - values) / (len(values) - 1)


def test_by_hand() -> None:
    values = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0])
    n, bound = 8, 1.5
    t = (values.mean() - bound) / scipy_stats.sem(values)
    a = scipy_stats.skew(values) / math.sqrt(n)
    corrected = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    expected = scipy_stats.t.cdf(corrected / (1 + 1.8 / math.sqrt(n)), n - 1)
    assert p_below(values.mean(), left_out(values), bound) == pytest.approx(expected, rel=1e-12)
    # the long right tail makes a true mean above what was measured more likely than Student's t thinks
    assert expected > scipy_stats.ttest_1samp(values, bound, alternative="less").pvalue


def test_symmetric_differences_take_students_t_at_a_widened_quantile() -> None:
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, -1.0, 1.0])
    t = (values.mean() - 1.0) / scipy_stats.sem(values)
    expected = scipy_stats.t.cdf(t / widening(7), 6)
    assert p_below(values.mean(), left_out(values), 1.0) == pytest.approx(expected, rel=1e-12)


def test_mirrored_and_monotone() -> None:
    values = np.random.default_rng(0).lognormal(size=30)
    value, without = values.mean(), left_out(values)
    bounds = np.linspace(0.2, 6, 40)
    below = [p_below(value, without, b) for b in bounds]
    assert below == sorted(below, reverse=True)
    for bound in bounds:
        assert p_above(-value, -without, -bound) == p_below(value, without, bound)


def test_no_p_is_smaller_than_the_chance_of_one_side() -> None:
    same = np.full(4, 0.3)
    assert p_below(0.3, left_out(same), 9.0) == 1 / 16
    assert p_below(0.3, left_out(same), 0.1) == 1.0
    assert p_below(0.3, np.empty(0), 9.0) == 1.0


@pytest.mark.parametrize("n", [20, 100])
def test_errors_of_a_skewed_mean(n: int) -> None:
    """4,000 samples whose mean is at the bound: errors at 2.5 % and 5 %, at most 1.3 times as many."""
    draw = np.random.default_rng(n)
    samples = draw.lognormal(size=(4000, n))
    p = np.array([p_below(v.mean(), left_out(v), math.exp(0.5)) for v in samples])
    students = scipy_stats.ttest_1samp(samples, math.exp(0.5), axis=1, alternative="less").pvalue
    assert (students < 0.025).mean() > 0.06  # what it is for
    for level in (0.025, 0.05):
        assert (p < level).mean() <= 1.3 * level
    assert (p < 0.05).mean() >= 0.02
