"""The simulation of intervals and gates: a small one, its peers against scipy, and the tables that the page shows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks.statistics.__main__ import PAGE
from benchmarks.statistics.simulate import ALPHA, coverage, gate_errors, ours, sample, sign_flip, students
from reasonx_eval.gate.decision import check, settle
from reasonx_eval.gate.policy import Rule
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.paired import Settings
from reasonx_eval.statistics.skewed_test import p_above, p_below


def test_a_small_simulation_of_coverage() -> None:
    found = coverage("log-normal (.8)", 20, trials=600, resamples=600, seed=7)
    # 600 trials at 95 % vary by .9 %
    assert found["ours"]["coverage"] >= 0.93
    assert found["BCa"]["coverage"] < found["BCa, widened"]["coverage"] < found["ours"]["coverage"]
    assert 1.0 < found["ours"]["width"] < 1.5


def test_a_small_simulation_of_the_gate() -> None:
    found = gate_errors("log-normal (1)", 20, side=1, trials=600, resamples=600, seed=7)
    assert found["ours"]["pass"] <= 1.3 * 0.025 + 0.0064  # one standard deviation of 600 trials
    assert found["studentised sign flip"]["pass"] > 0.07
    mirrored = gate_errors("log-normal (1)", 20, side=-1, trials=600, resamples=600, seed=7)
    assert mirrored["ours"]["regressed"] <= 1.3 * 0.05
    assert mirrored["studentised sign flip"]["regressed"] > 0.09


def test_the_rule_that_is_simulated_is_the_gates() -> None:
    values, mean = sample("exponential", 20, 30, 3)
    worse = 0.4 * (values - mean) + 0.05
    for k in range(30):
        one = worse[:, k]
        column = Column(metric_info("abs_rel"), tuple(map(str, range(20))), np.stack([np.full(20, 9.0), 9.0 + one]),
                        np.stack([np.full(20, 9.0), 9.0 + one]), np.ones(20))  # fmt: skip
        (found,) = settle([check(column, Rule(margin=0.2), Settings(resamples=500))], 1 - ALPHA)
        good, bad = ours(one[:, None] - 0.2, 500)
        left_out = (one.sum() - one) / 19
        passed = bad[0] < 0 and p_below(one.mean(), left_out, 0.2) < ALPHA / 2
        regressed = good[0] > 0 and p_above(one.mean(), left_out, 0.2) < ALPHA
        assert found.outcome == ("pass" if passed else "regressed" if regressed else "cannot tell")


def test_peers_agree_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2, size=(25, 3))
    low, high = students(values)
    for k in range(3):
        wanted = scipy_stats.ttest_1samp(values[:, k], 0).confidence_interval(0.95)
        assert (low[k], high[k]) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    worse = values - 1.8
    below, above = sign_flip(worse, 4000)
    for k in range(3):
        theirs = scipy_stats.permutation_test(
            (worse[:, k],), lambda x, axis: x.mean(axis) / (x.std(axis, ddof=1) / 5), permutation_type="samples",
            vectorized=True, n_resamples=4000, alternative="less", rng=np.random.default_rng(1),
        )  # fmt: skip
        assert below[k] == pytest.approx(theirs.pvalue, abs=0.04)
        assert below[k] + above[k] == pytest.approx(1, abs=0.01)


def test_the_page_shows_that_intervals_cover_and_that_the_gate_holds() -> None:
    """At least .93 for the shapes that errors have, and at most 1.3 times the promised rate of errors."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| ([^|]+) \|", text, flags=re.M)
    covered = {(name, int(n)): float(cell.strip("* ")) for name, n, cell in rows if "/" not in cell}
    for shape in ("normal", "exponential", "log-normal (.8)", "beta (8, 1)"):
        for n in (10, 20, 100):
            assert covered[shape, n] >= 0.93, (shape, n)
    gates = {(name, int(n)): [float(x.strip("* ")) for x in cell.split("/")] for name, n, cell in rows if "/" in cell}
    for (name, n), (passed, regressed) in gates.items():
        if n >= 20:
            assert passed <= 1.3 * 0.025, (name, n)
            assert regressed <= 1.3 * 0.05, (name, n)
    assert len(gates) == 30
