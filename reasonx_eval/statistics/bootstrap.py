"""Confidence intervals by bootstrap: of means over images, of ratios of sums, of any statistic of sums.

What is resampled is a cluster: an image, or, where scenes repeat, a scene with all its images. Images of one scene are
not independent, and an interval that ignores it is too narrow.

There is one interval for everything, the hull of two: BCa (Efron 1987) at a widened level, and Student's t with the
jackknife's standard error. BCa alone is too short for few images and for tails that are heavy on both sides, Student's
alone for a skewed mean. benchmarks/statistics holds how often the hull covers the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonx_eval.io import seeding

Floats: TypeAlias = NDArray[np.float64]
#: sums over samples, float64 [..., s], to statistics, [..., m]
Statistic: TypeAlias = Callable[[Floats], Floats]
#: low and high end: floats for [n] input, float64 [k] for [n, k]
Ends: TypeAlias = tuple[Any, Any]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
#: how intervals are taken, stored with results; version 1 was BCa at its nominal level
METHOD: Final = "bca-t@2"
#: with fewer clusters an interval covers less than it says, by some per cent, whatever the method
ROUGH_BELOW: Final = 10
#: BCa is asked for the normal quantile times 1 + _EXTRA / clusters
_EXTRA: Final = 4.0

# draws held at once, which stay in the cache; the stream of draws is the same for every value
_BLOCK = 1 << 16


def bootstrap_ci(
    values: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Ends | None:
    """Interval of the mean of `values` over samples, in the unit of `values`.

    Parameters
    ----------
    values : float [n] or [n, k]
        One row per sample, one column per metric; every column sees the same resamples, so that an
        interval depends neither on the other columns nor on their order. For a paired comparison
        of two runs pass the differences.
    confidence : float, in (0, 1)
    resamples : int
    seed : int
    groups : sequence of n labels, optional
        What repeats between samples. Whole groups are drawn, and a resample's mean is over its samples
        (sum / count), so that a group weighs as much as it has samples. Without repeats the result is that
        without groups, but for the order in which groups are drawn.

    Returns
    -------
    (low, high), or None
        Floats, or float64 [k] each. None with fewer than two samples (or groups): one cluster says nothing
        about the spread. Both ends are the mean itself where all clusters agree: nothing that was seen varies.
        Neither end lies beyond the lowest or highest value of a cluster.

    Raises
    ------
    ValueError
        NaN or infinity, no samples, a wrong number of labels, or a parameter out of range.

    Examples
    --------
    >>> low, high = bootstrap_ci([0.12, 0.08, 0.10, 0.09, 0.13, 0.11, 0.07, 0.10, 0.12, 0.08], seed=0)
    >>> bool(0.07 < low < 0.1 < high < 0.13)
    True
    """
    array = np.asarray(values, dtype=np.float64)
    return bootstrap_ratio_ci(array, np.ones(array.shape[:1]), confidence=confidence, resamples=resamples, seed=seed,
                              groups=groups)  # fmt: skip


def bootstrap_ratio_ci(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Ends | None:
    """Interval of sum(numerator) / sum(denominator) over samples: a metric that pools pixels.

    Parameters
    ----------
    numerator : float [n] or [n, k]
        Per sample: the sum of errors, of squared errors, or the count of pixels below a limit.
    denominator : float [n]
        Per sample: the count of pixels, > 0.
    confidence, resamples, seed, groups
        As in `bootstrap_ci`.

    Returns
    -------
    (low, high), or None
        As `bootstrap_ci`.

    Raises
    ------
    ValueError
        As `bootstrap_ci`, and a denominator that is not positive.
    """
    num = np.asarray(numerator, dtype=np.float64)
    den = np.asarray(denominator, dtype=np.float64)
    _check_ratio(num, den)
    _check_parameters(confidence, resamples)
    shape = num.shape[1:]
    # a contiguous row per metric: sums then round the same way whatever the other metrics are
    num = np.ascontiguousarray(num.reshape(len(num), -1).T)
    if groups is not None:
        num, den = sum_by_group(num, den, groups)
    theta = num.sum(axis=1) / den.sum()
    # resampling residuals keeps the digits that a large common offset would eat
    residual = num - theta[:, None] * den
    # all clusters have the same ratio, up to the rounding of their sums
    residual[np.abs(residual).max(axis=1) <= 8 * np.finfo(np.float64).eps * np.abs(num).max(axis=1)] = 0.0
    ends = bootstrap_statistic_ci(np.vstack([residual, den]).T, lambda sums: sums[..., :-1] / sums[..., -1:],
                                  confidence=confidence, resamples=resamples, seed=seed)  # fmt: skip
    return None if ends is None else ((theta + ends[0]).reshape(shape)[()], (theta + ends[1]).reshape(shape)[()])


def bootstrap_statistic_ci(
    sums: Floats, statistic: Statistic, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int
) -> tuple[Floats, Floats] | None:
    """Intervals of statistics of sums over clusters, such as a mean, a pooled RMSE or a balanced accuracy.

    Parameters
    ----------
    sums : float64 [clusters, s], what each cluster adds
    statistic : function
        Of sums [..., s], gives m statistics [..., m]; NaN where a resample does not define one, which is left out.
    confidence, resamples, seed
        As in `bootstrap_ci`.

    Returns
    -------
    (low, high), float64 [m] each, or None with fewer than two clusters

    Examples
    --------
    The root of a mean square:

    >>> squares = np.arange(1.0, 21.0)
    >>> low, high = bootstrap_statistic_ci(np.column_stack([squares, np.ones(20)]),
    ...                                    lambda s: np.sqrt(s[..., :1] / s[..., 1:]), seed=0)
    >>> bool(low[0] < np.sqrt(squares.mean()) < high[0])
    True
    """
    _check_parameters(confidence, resamples)
    clusters = len(sums)
    if clusters < 2:
        return None
    observed = statistic(_total(sums))
    spread = _resampled(sums, statistic, observed, resamples, seed)
    left_out, single = jackknife(sums, statistic), statistic(sums).T
    ends = [_ends(spread[k], left_out[k] - observed[k], single[k] - observed[k], confidence)
            for k in range(len(observed))]  # fmt: skip
    low, high = observed + np.array(ends).T
    return low, high


def jackknife(sums: Floats, statistic: Statistic) -> Floats:
    """The statistics without each cluster, float64 [m, clusters], from the sums [clusters, s]."""
    return np.ascontiguousarray(statistic(_total(sums) - sums).T)


def _total(sums: Floats) -> Floats:
    return np.asarray(np.ascontiguousarray(sums.T).sum(axis=1))


def _ends(spread: Floats, left_out: Floats, single: Floats, confidence: float) -> tuple[float, float]:
    """Both ends of one statistic's interval, minus what was observed: the hull of BCa's and Student's.

    Parameters
    ----------
    spread : float64 [b], resampled; left_out : float64 [g], without each cluster; single : float64 [g], of each alone;
        all minus what was observed
    """
    from scipy.special import stdtrit

    spread, left_out = spread[~np.isnan(spread)], left_out[~np.isnan(left_out)]
    count = len(left_out)
    if not spread.any() or count < 2:
        return 0.0, 0.0
    t = float(stdtrit(count - 1, 0.5 + confidence / 2))
    # resamples of g clusters spread too little, by sqrt((g - 1) / g): Hesterberg 2015, the expanded percentile interval
    z = t * math.sqrt(count / (count - 1)) * (1 + _EXTRA / count)
    low, high = np.quantile(spread, bca_levels(np.array([-z, z]), spread, acceleration(left_out)))
    error = t * standard_error(left_out)
    # no mixture of clusters has a mean beyond theirs, so Student's interval must not either
    return (float(min(low, max(-error, min(np.nanmin(single), 0.0)))),
            float(max(high, min(error, max(np.nanmax(single), 0.0)))))  # fmt: skip


def standard_error(left_out: Floats) -> float:
    """Jackknife's standard error from the statistic without each of g clusters: sqrt((g-1)/g sum((t - mean(t))^2)).

    Notes
    -----
    Efron & Tibshirani, An Introduction to the Bootstrap, eq. 11.5. Of a mean it is the sample's deviation / sqrt(g).
    """
    count = len(left_out)
    return math.sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))


def acceleration(left_out: Floats) -> float:
    """BCa acceleration from the jackknife over clusters: sum(d^3) / (6 sum(d^2)^1.5), d = mean(t) - t.

    Parameters
    ----------
    left_out : float64 [g], the statistic without each cluster

    Notes
    -----
    Efron & Tibshirani, An Introduction to the Bootstrap, eq. 14.15.
    """
    d = left_out.mean() - left_out
    squares = float((d**2).sum())
    return float((d**3).sum() / (6 * squares**1.5)) if squares > 0 else 0.0


def bca_levels(quantiles: Floats, spread: Floats, accelerate: float) -> Floats:
    """The levels, in [0, 1], that BCa reads for normal quantiles: Efron & Tibshirani, eq. 14.10.

    Parameters
    ----------
    quantiles : float64 [m], of the standard normal distribution: -1.96 and 1.96 for 95 %
    spread : float64 [b], resampled minus observed statistic; its share below 0 gives the bias correction
    accelerate : float, from `acceleration`
    """
    from scipy.special import ndtr, ndtri

    count = len(spread)
    # ties count half (discrete data have many, blurred by rounding);
    # an observed value outside all resamples is taken to be just inside
    blur = 1e-9 * spread.std()
    below = np.count_nonzero(spread < -blur) + 0.5 * np.count_nonzero(np.abs(spread) <= blur)
    bias = ndtri(np.clip(below, 0.5, count - 0.5) / count)
    z = bias + quantiles
    room = 1 - accelerate * z
    # past the pole of the acceleration the level is the extreme on that side
    moved = np.where(room > 0, z / np.where(room > 0, room, 1.0), np.copysign(np.inf, z))
    return np.asarray(ndtr(bias + moved))


def _resampled(sums: Floats, statistic: Statistic, observed: Floats, resamples: int, seed: int) -> Floats:
    """Statistics of each resample minus the observed ones, float64 [m, resamples]."""
    clusters = len(sums)
    stream = seeding.rng(seed, "bootstrap")
    out = np.empty((len(observed), resamples))
    rows = max(1, _BLOCK // clusters)
    # as whole numbers: they add up exactly in any order, so that no sum depends on the processor, on the number of
    # threads or on the other columns
    scale = np.exp2(np.floor(np.log2(2.0**52 / clusters / np.maximum(np.abs(sums).max(axis=0), 1e-280))))
    whole = np.round(sums * scale)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = stream.integers(0, clusters, size=(stop - start, clusters))
        drawn += np.arange(stop - start)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(-1, clusters).astype(np.float64)
        totals = (counts @ whole) / scale
        out[:, start:stop] = (statistic(totals) - observed).T
    return out


def sum_by_group(num: Floats, den: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Sums over the samples of each group, [k, groups] of [k, n] and [groups] of [n], in order of first appearance."""
    if len(groups) != len(den):
        raise ValueError(f"{len(groups)} group labels for {len(den)} samples")
    # in this order unrepeated labels change nothing
    index = {label: i for i, label in enumerate(dict.fromkeys(groups))}
    rows = np.array([index[label] for label in groups])
    num_sum, den_sum = np.zeros((len(num), len(index))), np.zeros(len(index))
    for total, part in ((den_sum, den), *zip(num_sum, num, strict=True)):
        np.add.at(total, rows, part)
    return num_sum, den_sum


def _check_ratio(num: Floats, den: Floats) -> None:
    if num.ndim not in (1, 2) or den.shape != num.shape[:1]:
        shapes = f"{list(num.shape)} with {list(den.shape)}"
        raise ValueError(f"expected [n] or [n, k] values with [n] denominators, not {shapes}")
    if len(num) == 0:
        raise ValueError("no samples: there is nothing to resample")
    if not (np.isfinite(num).all() and np.isfinite(den).all()):
        raise ValueError("NaN or infinity among the values: leave out what is undefined, and say so")
    if not (den > 0).all():
        raise ValueError("every denominator must be positive: leave out samples without pixels")


def _check_parameters(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
