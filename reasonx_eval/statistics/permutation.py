"""Tests of paired differences: exchange of the two runs unit by unit, a t test for many pairs, Holm's correction.

A cluster is an image, or, where scenes repeat, a scene with all its images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonx_eval.io import seeding

Floats: TypeAlias = NDArray[np.float64]

#: up to this many clusters all 2^clusters permutations are enumerated, and the p-value is exact
EXACT_CLUSTERS: Final = 14
PERMUTATIONS: Final = 10_000
#: arrangements that only rounding tells apart are ties: they count, so that p is never too small
_ROUNDING: Final = 1e-12
# numbers held at once
_BLOCK: Final = 1 << 21


def permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    weight: ArrayLike,
    *,
    seed: int,
    root: bool = False,
    permutations: int = PERMUTATIONS,
) -> float:
    """Two-sided p-value of the difference of two pooled values under exchange of the runs in each unit.

    Were both runs equally good, exchanging them in any unit would change nothing. So the observed difference
    ``f(sum second / sum weight) - f(sum first / sum weight)`` is held against those of other permutations. For means
    (f the identity) this is the sign-flip test of the differences.

    Parameters
    ----------
    first, second : float [clusters], a unit's value, or sum over its images or pixels
    weight : float [clusters], > 0, images or pixels of a unit, the same in both runs
    seed : of the random permutations; unused up to 14 clusters, where all are enumerated and p is exact
    root : whether f is the square root
    permutations : how many random ones; what was observed is counted too, so that p is at least 1/(permutations + 1)

    Returns
    -------
    float in (0, 1]
        1 where no unit differs.

    Raises
    ------
    ValueError
        Other shapes, no clusters, NaN, infinity, or a weight that is not positive.

    Notes
    -----
    Counting the observed arrangement: Phipson & Smyth, Permutation P-values Should Never Be Zero (2010).
    """
    a, b, w = (np.asarray(x, dtype=np.float64) for x in (first, second, weight))
    _check(a, b, w)
    gap = b - a
    if not gap.any():
        return 1.0
    sums = _Sums(first=float(a.sum()), gap=float(gap.sum()), below=float(w.sum()), root=root)
    slack = sums.slack(gap)
    observed = abs(float(sums.difference(np.zeros(1))[0]))
    exact = len(gap) <= EXACT_CLUSTERS
    reached = total = 0
    for taken in [_every_exchange(len(gap))] if exact else _random_exchanges(len(gap), permutations, seed):
        # not by BLAS, whose sums depend on the processor and on the number of threads
        reached += int(np.count_nonzero(np.abs(sums.difference(np.einsum("ru,u->r", taken, gap))) >= observed - slack))
        total += len(taken)
    return reached / total if exact else (reached + 1) / (total + 1)


def least_p(clusters: int) -> float:
    """The smallest two-sided p that exchanging the runs in so many clusters can give: 2 / 2^clusters, at most 1.

    Examples
    --------
    >>> least_p(4)
    0.125
    """
    return min(1.0, 2.0 ** (1 - clusters))


@dataclass(frozen=True)
class _Sums:
    """Sums over clusters as observed, and what they become when some clusters change sides."""

    first: float
    gap: float
    below: float
    root: bool

    def difference(self, moved: Floats) -> Floats:
        """Second minus first, when `moved` of the gap's sum has changed sides."""
        if not self.root:
            # not by way of the two sums, whose digits a common offset eats
            return np.asarray((self.gap - 2 * moved) / self.below)
        first = np.maximum(self.first + moved, 0.0) / self.below
        second = np.maximum(self.first + self.gap - moved, 0.0) / self.below
        return np.asarray(np.sqrt(second) - np.sqrt(first))

    def slack(self, parts: Floats) -> float:
        """How far rounding may bring apart two arrangements with the same difference; `parts` are what is summed."""
        slack = _ROUNDING * float(np.abs(parts).sum()) / self.below
        if self.root:
            slack += _ROUNDING * abs(self.first) / self.below
            lower = max(min(self.first, self.first + self.gap), 0.0) / self.below
            slack /= 2 * max(math.sqrt(lower), math.sqrt(slack))
        return slack


def _check(a: Floats, b: Floats, w: Floats) -> None:
    if a.ndim != 1 or a.shape != b.shape or a.shape != w.shape or len(a) == 0:
        raise ValueError(f"expected three arrays [clusters], not {list(a.shape)}, {list(b.shape)}, {list(w.shape)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(w).all()):
        raise ValueError("NaN or infinity among the values: leave out what is undefined, and say so")
    if not (w > 0).all():
        raise ValueError("every weight must be positive: leave out clusters without pixels")


def _every_exchange(clusters: int) -> Floats:
    """All rows of 0 and 1, [2^clusters, clusters]."""
    return ((np.arange(1 << clusters)[:, None] >> np.arange(clusters)) & 1).astype(np.float64)


def _random_exchanges(clusters: int, permutations: int, seed: int) -> Iterator[Floats]:
    """0 or 1 for each unit, [rows, clusters], a block at a time; the same stream for every metric."""
    stream = seeding.rng(seed, "exchange")
    rows = max(1, _BLOCK // clusters)
    for start in range(0, permutations, rows):
        yield (stream.random((min(rows, permutations - start), clusters)) < 0.5).astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several: step-down, controls the chance of any false finding.

    The k-th smallest of m (k from 0) becomes p * (m - k), no smaller than its predecessor, at most 1; in the order
    given. NaN (no test) stays NaN and is not counted.

    Notes
    -----
    Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    factor = np.arange(len(order), 0, -1)
    out[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * factor))
    return [float(x) for x in out]


def pair_p_values(top: Floats, weight: Floats, *, root: bool = False) -> Floats:
    """Two-sided p-values of the paired differences of all pairs of many runs.

    Parameters
    ----------
    top : float64 [runs, clusters], sums per unit
    weight : float64 [clusters], > 0
    root : whether a run's value is the root of sum(top) / sum(weight)

    Returns
    -------
    float64 [runs, runs]
        Symmetric; 1 on the diagonal and for runs that agree in every unit.

    Notes
    -----
    Up to 14 clusters each pair takes the exact exchange test. Beyond, a t test of the (linearised) differences with
    clusters - 1 degrees of freedom: no affordable number of random permutations resolves p-values that are small
    enough to survive the correction for the 19,900 pairs of 200 runs.
    """
    runs, clusters = top.shape
    p = np.ones((runs, runs))
    if clusters < 2:
        return p
    moved = np.einsum("ru,mu->mr", _every_exchange(clusters), top) if clusters <= EXACT_CLUSTERS else None
    for i in range(runs - 1):
        if moved is None:
            p[i, i + 1 :] = _t_test(top[i], top[i + 1 :], weight, root)
        else:
            p[i, i + 1 :] = [_exact(top[i], top[j], moved[j] - moved[i], weight, root) for j in range(i + 1, runs)]
        p[i + 1 :, i] = p[i, i + 1 :]
    return p


def _exact(first: Floats, second: Floats, moved: Floats, weight: Floats, root: bool) -> float:
    gap = second - first
    if not gap.any():
        return 1.0
    sums = _Sums(first=float(first.sum()), gap=float(gap.sum()), below=float(weight.sum()), root=root)
    # `moved` is a difference of sums over runs, not a sum of differences: its rounding is that of the sums
    slack = sums.slack(np.abs(first) + np.abs(second))
    observed = abs(float(sums.difference(np.zeros(1))[0]))
    reached = np.abs(sums.difference(moved)) >= observed - slack
    return float(np.count_nonzero(reached) / len(reached))


def _t_test(first: Floats, others: Floats, weight: Floats, root: bool) -> Floats:
    """t tests of one run against others; a unit's residual is what it adds to the difference beyond its share."""
    from scipy.special import stdtr

    clusters, below = len(weight), weight.sum()
    gap = others - first  # [others, clusters]
    if root:
        # the difference of roots is linear in the sums near the observed ones: d sqrt(x) = dx / (2 sqrt(x))
        scale_first = np.sqrt(first.sum() / below)
        scale_others = np.sqrt(others.sum(axis=1, keepdims=True) / below)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = (others / scale_others - first / scale_first) / 2
        value = scale_others[:, 0] - scale_first
        residual = gap - (gap.sum(axis=1, keepdims=True) / below) * weight
    else:
        value = gap.sum(axis=1) / below
        residual = gap - value[:, None] * weight
    spread = np.sqrt((residual**2).sum(axis=1) * clusters / (clusters - 1)) / below
    different = (others != first).any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(value) / spread
    p = np.asarray(2 * stdtr(clusters - 1, -t))
    return np.where(different, np.where(np.isnan(p), 1.0, p), 1.0)
