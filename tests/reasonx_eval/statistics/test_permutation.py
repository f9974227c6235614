"""Exchange tests against enumeration by hand, scipy and sums of scenes; Holm by hand; t tests of many pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reasonx_eval.statistics.permutation import EXACT_CLUSTERS, holm, least_p, pair_p_values, permutation_test


def ones(n: int) -> np.ndarray:
    return np.ones(n)


def test_exact_by_hand():
    # differences 1, 2, 3: of the 8 sign patterns only +++ and --- reach |6|
    assert permutation_test([0.0, 0, 0], [1.0, 2, 3], ones(3), seed=0) == 2 / 8
    assert least_p(3) == 2 / 8  # no three differences give less
    # 1, 1, -1 sums to 1: |sum| is 1 or 3 under every pattern
    assert permutation_test([0.0, 0, 1], [1.0, 1, 0], ones(3), seed=0) == 1.0


@pytest.mark.parametrize("n", [5, 9, EXACT_CLUSTERS])
def test_exact_agrees_with_scipy(n):
    draw = np.random.default_rng(n)
    a = draw.normal(size=n)
    b = a + 0.3 + 0.5 * draw.normal(size=n)
    theirs = scipy_stats.permutation_test(
        (b, a), lambda x, y, axis: (x - y).mean(axis=axis), vectorized=True, permutation_type="samples",
        n_resamples=np.inf, alternative="two-sided",
    )  # fmt: skip
    ours = permutation_test(a, b, ones(n), seed=0)
    # scipy doubles the smaller tail, which is the same for a test that is symmetric
    assert ours == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [EXACT_CLUSTERS + 1, 80])
def test_random_exchanges_of_equal_sizes_are_the_sign_test(n):
    # differences of one size: the sum is a count of signs, whose distribution is binomial
    signs = np.where(np.arange(n) < 0.7 * n, 1.0, -1.0)
    k = int((signs > 0).sum())
    expected = scipy_stats.binomtest(k, n).pvalue
    ours = permutation_test(np.zeros(n), signs, ones(n), seed=1, permutations=20_000)
    assert ours == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-4)


def test_random_and_exact_agree_at_the_border(monkeypatch):
    draw = np.random.default_rng(3)
    a, b = draw.normal(size=12), 0.4 + draw.normal(size=12)
    exact = permutation_test(a, b, ones(12), seed=0)
    monkeypatch.setattr("reasonx_eval.statistics.permutation.EXACT_CLUSTERS", 4)
    sampled = permutation_test(a, b, ones(12), seed=0, permutations=40_000)
    assert exact != sampled
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact / 40_000))


@pytest.mark.parametrize("root", [False, True])
def test_weights_and_roots_by_enumeration(root):
    draw = np.random.default_rng(4)
    w = draw.uniform(1, 5, size=7)
    a, b = w * draw.gamma(1, size=7), w * draw.gamma(1.5, size=7)
    finish = np.sqrt if root else float

    def difference(x, y):
        return finish(y.sum() / w.sum()) - finish(x.sum() / w.sum())

    observed = difference(a, b)
    reached = [abs(difference(np.where(s, b, a), np.where(s, a, b))) >= abs(observed) * (1 - 1e-12)
               for s in map(np.array, itertools.product([False, True], repeat=7))]  # fmt: skip
    assert permutation_test(a, b, w, seed=0, root=root) == pytest.approx(np.mean(reached), abs=1e-12)
    pairs = pair_p_values(np.array([a, b, a]), w, root=root)
    np.testing.assert_allclose(pairs, [[1, pairs[0, 1], 1], [pairs[0, 1], 1, pairs[0, 1]], [1, pairs[0, 1], 1]])
    assert pairs[0, 1] == pytest.approx(np.mean(reached), abs=1e-12)


@pytest.mark.parametrize("n", [8, 40])
def test_invariances(n):
    draw = np.random.default_rng(5)
    a, b = draw.gamma(2, size=n), draw.gamma(2.2, size=n)
    p = permutation_test(a, b, ones(n), seed=0)
    assert permutation_test(b, a, ones(n), seed=0) == p
    # powers of two scale without rounding
    assert permutation_test(8 * a, 8 * b, ones(n), seed=0) == p
    assert permutation_test(a + 1e6, b + 1e6, ones(n), seed=0) == pytest.approx(p, abs=2e-3)
    if n <= EXACT_CLUSTERS:
        order = draw.permutation(n)
        assert permutation_test(a[order], b[order], ones(n), seed=0) == p


def test_no_difference_is_one_and_the_smallest_p_is_never_zero():
    a = np.arange(30.0)
    assert permutation_test(a, a, ones(30), seed=0) == 1.0
    assert permutation_test(a, a + 1, ones(30), seed=0, permutations=999) == 1 / 1000
    assert permutation_test([1.0], [2.0], [1.0], seed=0) == 1.0


def test_seed_decides_and_blocks_do_not(monkeypatch):
    draw = np.random.default_rng(6)
    a, b = draw.normal(size=50), 0.2 + draw.normal(size=50)
    p = permutation_test(a, b, ones(50), seed=0)
    assert permutation_test(a, b, ones(50), seed=0) == p
    assert permutation_test(a, b, ones(50), seed=1) != p
    monkeypatch.setattr("reasonx_eval.statistics.permutation._BLOCK", 50 * 7)
    assert permutation_test(a, b, ones(50), seed=0) == p


def test_level_under_no_difference():
    """400 pairs without a difference: 5 % of p-values below 0.05, 20 % below 0.2."""
    draw = np.random.default_rng(7)
    p = np.array([permutation_test(*draw.gamma(2, size=(2, 25)), ones(25), seed=0, permutations=400)
                  for _ in range(400)])  # fmt: skip
    assert 8 <= (p <= 0.05).sum() <= 34  # binomial(400, 0.05): 20, sd 4.4
    assert 56 <= (p <= 0.2).sum() <= 106


@pytest.mark.parametrize("bad", [([1.0], [1.0, 2], [1.0, 1]), ([], [], []), ([math.nan], [1.0], [1.0]),
                                 ([1.0], [2.0], [0.0]), ([1.0], [math.inf], [1.0])])  # fmt: skip
def test_bad_input(bad):
    with pytest.raises(ValueError, match=r"expected three arrays|NaN or infinity|must be positive"):
        permutation_test(*bad, seed=0)


def test_holm_by_hand():
    # sorted 0.01 0.02 0.03 0.2 times 4 3 2 1: 0.04 0.06 0.06 0.2, in the order given
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    # 0.01 * 3 = 0.03, 0.04 * 2 = 0.08, then no smaller: 0.08
    assert holm([0.01, 0.04, 0.045]) == pytest.approx([0.03, 0.08, 0.08])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_leaves_out_what_has_no_test():
    adjusted = holm([0.02, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


def test_holm_is_between_nothing_and_bonferroni():
    p = np.random.default_rng(8).uniform(size=20) ** 3
    adjusted = np.array(holm(list(p)))
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, 20 * p) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_pairs_are_t_tests_beyond_a_few_units():
    draw = np.random.default_rng(9)
    top = draw.normal(size=(4, 60))
    p = pair_p_values(top, ones(60))
    for i, j in itertools.combinations(range(4), 2):
        assert p[i, j] == p[j, i] == pytest.approx(scipy_stats.ttest_rel(top[i], top[j]).pvalue, rel=1e-9)
    assert (np.diag(p) == 1).all()


def test_pairs_of_pooled_values_agree_with_exchanges():
    draw = np.random.default_rng(10)
    w = draw.uniform(1, 5, size=60)
    top = w * draw.gamma(3, size=(3, 60)) * np.array([[1.0], [1.1], [1.0]])
    for root in (False, True):
        p = pair_p_values(top, w, root=root)
        for i, j in itertools.combinations(range(3), 2):
            exchanged = permutation_test(top[i], top[j], w, seed=0, root=root)
            assert p[i, j] == pytest.approx(exchanged, abs=0.06)


def test_pairs_that_agree_everywhere_or_differ_by_a_constant():
    top = np.array([np.arange(20.0), np.arange(20.0), np.arange(20.0) + 1])
    p = pair_p_values(top, ones(20))
    assert p[0, 1] == 1.0
    assert p[0, 2] == pytest.approx(0.0, abs=1e-12)
    assert (pair_p_values(top[:, :1], ones(1)) == 1).all()
