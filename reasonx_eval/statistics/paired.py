"""One metric of two paired runs: difference, interval, p-value, wins and losses, the samples that changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonx_eval.metrics.table import Metric
from reasonx_eval.statistics.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    bootstrap_ratio_ci,
    bootstrap_statistic_ci,
    jackknife,
)
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.permutation import EXACT_CLUSTERS, PERMUTATIONS, holm, least_p, permutation_test

Floats = NDArray[np.float64]
Finding = Literal["improved", "worse", "no evidence", "too few", "same", "untested"]

ALPHA = 0.05
#: values closer than this are equal: predictions are float32, and a perfect one is off by rounding
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


@dataclass(frozen=True)
class Settings:
    """How paired statistics are taken.

    confidence : of intervals, in (0, 1)
    resamples : of the bootstrap; permutations : of the test beyond 14 clusters
    seed : of both
    alpha : an adjusted p-value below it is a finding
    """

    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES
    permutations: int = PERMUTATIONS
    seed: int = 0
    alpha: float = ALPHA


@dataclass(frozen=True)
class SampleChange:
    """One sample's values in the metric's unit; `worse_by` is positive where the second run is worse."""

    sample_id: str
    base: float
    other: float
    worse_by: float


@dataclass(frozen=True)
class Paired:
    """Second run minus first, one metric, on common samples.

    base, other : aggregates on the common samples, in the metric's unit
    difference : other - base; ci_low, ci_high : its interval; None with fewer than two clusters
    p : of no difference, two-sided; p_adjusted : after Holm's correction over the family it belongs to
    exact : whether p is enumerated, not sampled
    least_p : the smallest adjusted p that so many differing clusters allow
    wins, losses, ties : samples on which the other run is better, worse, equal up to rounding
    n : samples; clusters : what is resampled (scenes where scenes repeat)
    worst : samples by how much worse the other run is, worst first; only those that are worse
    reason : why there is no test; then base, other and difference are NaN, or those of the results where they hold for
        these samples
    """

    info: Metric
    base: float
    other: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float
    p_adjusted: float
    exact: bool
    least_p: float
    wins: int
    losses: int
    ties: int
    n: int
    clusters: int
    worst: tuple[SampleChange, ...]
    reason: str | None = None
    alpha: float = ALPHA

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def worse_by(self) -> float:
        """The difference, positive where the second run is worse."""
        return self.base - self.other if self.info.higher_is_better else self.difference

    @property
    def worse_interval(self) -> tuple[float, float] | None:
        """Interval of `worse_by`, (good end, bad end)."""
        if self.ci_low is None or self.ci_high is None:
            return None
        return (-self.ci_high, -self.ci_low) if self.info.higher_is_better else (self.ci_low, self.ci_high)

    @property
    def finding(self) -> Finding:
        if self.reason is not None:
            return "untested"
        if self.wins == self.losses == 0:
            return "same"
        if not self.p_adjusted < self.alpha:
            return "no evidence" if self.least_p < self.alpha else "too few"
        if not beyond_rounding(self.base, self.other):
            return "same"
        return "worse" if self.worse_by > 0 else "improved"


def paired(
    column: Column, *, base: int = 0, other: int = 1, settings: Settings | None = None, tested: bool = True
) -> Paired:
    """Compare two runs of a column; the p-value is not yet corrected for other metrics (see `adjust`).

    Parameters
    ----------
    base, other : positions of the runs in the join
    tested : whether to compute the p-value; NaN without
    """
    chosen = settings or Settings()
    first, second = column.values[base], column.values[other]
    worse = -column.sign * (second - first)
    differ = beyond_rounding(first, second)
    order = np.argsort(-worse, kind="stable")
    worst = tuple(SampleChange(column.ids[k], float(first[k]), float(second[k]), float(worse[k]))
                  for k in order if worse[k] > 0)  # fmt: skip
    top, weight = column.cluster_sums(base, other)
    means = column.means if column.stored is None else list(column.stored)
    common = Paired(
        info=column.info, base=means[base], other=means[other], difference=means[other] - means[base], ci_low=None,
        ci_high=None, p=math.nan, p_adjusted=math.nan, exact=len(weight) <= EXACT_CLUSTERS,
        least_p=least_p(int(np.count_nonzero(top[0] != top[1]))),
        wins=int(np.count_nonzero(differ & (worse < 0))), losses=int(np.count_nonzero(differ & (worse > 0))),
        ties=int(np.count_nonzero(~differ)), n=len(column.ids), clusters=len(weight), worst=worst,
        reason=column.reason, alpha=chosen.alpha,
    )  # fmt: skip
    if column.reason is not None:
        return common
    p = math.nan
    if tested:
        p = permutation_test(top[0], top[1], weight, seed=chosen.seed, root=column.root,
                             permutations=chosen.permutations)  # fmt: skip
    ends = interval(top[0], top[1], weight, root=column.root, settings=chosen)
    low, high = (None, None) if ends is None else ends
    return replace(common, p=p, p_adjusted=p, ci_low=low, ci_high=high)


def adjust(results: Sequence[Paired]) -> list[Paired]:
    """The same with Holm's correction over all of them: one family, the rows of one table."""
    tests = sum(not math.isnan(r.p) for r in results)
    return [replace(r, p_adjusted=p, least_p=min(1.0, tests * r.least_p))
            for r, p in zip(results, holm([r.p for r in results]), strict=True)]  # fmt: skip


def beyond_rounding(first: ArrayLike, second: ArrayLike) -> NDArray[np.bool_]:
    """Whether values differ by more than the rounding of float32 predictions: a millionth of the larger, and 1e-9."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return np.asarray(np.abs(b - a) > _RELATIVE * np.maximum(np.abs(a), np.abs(b)) + _ABSOLUTE)


def interval(
    first: Floats, second: Floats, weight: Floats, *, root: bool = False, settings: Settings
) -> tuple[float, float] | None:
    """Bootstrap interval of ``f(sum second / sum weight) - f(sum first / sum weight)``, clusters resampled.

    Parameters
    ----------
    first, second, weight : float64 [clusters]
    root : whether f is the square root, else the identity

    Returns
    -------
    (low, high), or None with fewer than two clusters.
    """
    if not root:
        return bootstrap_ratio_ci(second - first, weight, confidence=settings.confidence,
                                  resamples=settings.resamples, seed=settings.seed)  # fmt: skip
    ends = bootstrap_statistic_ci(np.column_stack([first, second, weight]), difference_of_roots,
                                  confidence=settings.confidence, resamples=settings.resamples,
                                  seed=settings.seed)  # fmt: skip
    return None if ends is None else (float(ends[0][0]), float(ends[1][0]))


def intervals(column: Column, pairs: Sequence[tuple[int, int]], settings: Settings) -> list[tuple[float, float] | None]:
    """`interval` of the difference ``other - base`` for many pairs (base, other) of a column's runs, in one pass."""
    if not pairs:
        return []
    tops, weight = column.cluster_sums(*range(len(column.top)))
    if column.root or len(weight) < 2:
        return [interval(tops[b], tops[o], weight, root=column.root, settings=settings) for b, o in pairs]
    ends = bootstrap_ratio_ci(np.stack([tops[o] - tops[b] for b, o in pairs], axis=1), weight,
                              confidence=settings.confidence, resamples=settings.resamples,
                              seed=settings.seed)  # fmt: skip
    assert ends is not None
    return [(float(low), float(high)) for low, high in zip(*ends, strict=True)]


def worse_left_out(column: Column, *, base: int = 0, other: int = 1) -> Floats:
    """`Paired.worse_by` without each cluster, float64 [clusters]; empty with one cluster."""
    top, weight = column.cluster_sums(base, other)
    if len(weight) < 2:
        return np.empty(0)
    if column.root:
        left_out = jackknife(np.column_stack([top[0], top[1], weight]), difference_of_roots)[0]
    else:
        left_out = jackknife(np.column_stack([top[1] - top[0], weight]), lambda s: s[..., :1] / s[..., 1:])[0]
    return np.asarray(-column.sign * left_out)


def difference_of_roots(sums: Floats) -> Floats:
    """sqrt(b / w) - sqrt(a / w) of sums (a, b, w), [..., 3] to [..., 1]."""
    roots = np.sqrt(np.maximum(sums[..., :2], 0.0) / sums[..., 2:])
    return roots[..., 1:] - roots[..., :1]
