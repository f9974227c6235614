"""Confidence intervals by bootstrap: of means over images, and of ratios of sums (pooled metrics).

The resampled unit is the image, or, where scenes repeat, the scene with all its images: images of one
scene are not independent, and an interval that ignores it is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonx_eval.io import seeding

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["bca", "percentile"]
#: low and high end: floats for [n] input, float64 [k] for [n, k]
Ends: TypeAlias = tuple[Any, Any]

# draws held at once, which stay in the cache; the stream of draws is the same for every value
_BLOCK = 1 << 16


def bootstrap_ci(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int,
    groups: Sequence[str] | None = None,
    method: Method = "bca",
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
    method : "bca" (bias-corrected and accelerated, Efron 1987) or "percentile"

    Returns
    -------
    (low, high), or None
        Floats, or float64 [k] each. None with fewer than two samples (or groups): one cluster says nothing
        about the spread. Both ends are the mean itself where all clusters agree: nothing that was seen varies.

    Raises
    ------
    ValueError
        NaN or infinity, no samples, a wrong number of labels, or a parameter out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    return bootstrap_ratio_ci(array, np.ones(array.shape[:1]), confidence=confidence, resamples=resamples, seed=seed,
                              groups=groups, method=method)  # fmt: skip


def bootstrap_ratio_ci(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int,
    groups: Sequence[str] | None = None,
    method: Method = "bca",
) -> Ends | None:
    """Interval of sum(numerator) / sum(denominator) over samples: a metric that pools pixels.

    Parameters
    ----------
    numerator : float [n] or [n, k]
        Per sample: the sum of errors, of squared errors, or the count of pixels below a limit.
    denominator : float [n]
        Per sample: the count of pixels, > 0.
    confidence, resamples, seed, groups, method
        As in `bootstrap_ci`.

    Returns
    -------
    (low, high), or None
        As `bootstrap_ci`. Both methods commute with monotone functions: the interval of a pooled RMSE
        is the square root of the interval of sum(e^2) / count.

    Raises
    ------
    ValueError
        As `bootstrap_ci`, and a denominator that is not positive.
    """
    num = np.asarray(numerator, dtype=np.float64)
    den = np.asarray(denominator, dtype=np.float64)
    _check(num, den, confidence, resamples, method)
    shape = num.shape[1:]
    # a contiguous row per metric: sums then round the same way whatever the other metrics are
    num = np.ascontiguousarray(num.reshape(len(num), -1).T)
    if groups is not None:
        num, den = sum_by_group(num, den, groups)
    if len(den) < 2:
        return None
    theta = num.sum(axis=1) / den.sum()
    # resampling residuals keeps the digits that a large common offset would eat
    residual = num - theta[:, None] * den
    spread = _resampled(residual, den, resamples, seed)
    ends = np.array([spread_ends(spread[j], theta[j], num[j], den, confidence=confidence, method=method)
                     for j in range(len(num))]).reshape(len(num), 2).T  # fmt: skip
    return ends[0].reshape(shape)[()], ends[1].reshape(shape)[()]


def spread_ends(
    spread: Floats, theta: float, num: Floats, den: Floats, *, confidence: float, method: Method = "bca"
) -> tuple[float, float]:
    """Both ends of the interval of one ratio of sums, read off its resamples.

    Parameters
    ----------
    spread : float64 [b], resampled minus observed statistic
    theta : float, the observed one: sum(num) / sum(den)
    num, den : float64 [g], of each unit
    confidence, method : as in `bootstrap_ci`
    """
    residual = num - theta * den
    if np.abs(residual).max() <= 8 * np.finfo(np.float64).eps * np.abs(num).max():
        return float(theta), float(theta)  # all clusters have the same ratio, up to rounding of their sums
    tail = (1 - confidence) / 2
    levels = np.array([tail, 1 - tail])
    if method == "bca":
        levels = bca_levels(levels, spread, acceleration(residual, den))
    low, high = theta + np.quantile(spread, levels)
    return float(low), float(high)


def acceleration(residual: Floats, den: Floats) -> float:
    """BCa acceleration from the jackknife over clusters: sum(d^3) / (6 sum(d^2)^1.5), d = mean(t) - t.

    Parameters
    ----------
    residual : float64 [g], numerator - ratio * denominator of each unit, not all the same
    den : float64 [g], positive

    Notes
    -----
    t_i is the statistic without unit i. Efron & Tibshirani, An Introduction to the Bootstrap, eq. 14.15.
    """
    left_out = (residual.sum() - residual) / (den.sum() - den)
    d = left_out.mean() - left_out
    return float((d**3).sum() / (6 * (d**2).sum() ** 1.5))


def bca_levels(levels: Floats, spread: Floats, accelerate: float) -> Floats:
    """The levels that BCa reads in place of `levels`, in [0, 1]: Efron & Tibshirani, eq. 14.10.

    Parameters
    ----------
    levels : float64 [m], as the percentile method reads them
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
    z = bias + ndtri(levels)
    room = 1 - accelerate * z
    # past the pole of the acceleration the level is the extreme on that side
    moved = np.where(room > 0, z / np.where(room > 0, room, 1.0), np.copysign(np.inf, z))
    return np.asarray(ndtr(bias + moved))


def _resampled(residual: Floats, den: Floats, resamples: int, seed: int) -> Floats:
    """Statistic of each resample minus the observed one, float64 [k, resamples]; `residual` is [k, clusters]."""
    metrics, clusters = residual.shape
    stream = seeding.rng(seed, "bootstrap")
    out = np.empty((metrics, resamples))
    rows = max(1, _BLOCK // clusters)
    # of means every resample has as many clusters as there are
    constant = bool((den == 1).all())
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = stream.integers(0, clusters, size=(stop - start, clusters))
        drawn += np.arange(stop - start)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(-1, clusters).astype(np.float64)
        # not by BLAS, whose sums depend on the processor and on the number of threads
        weight = float(clusters) if constant else np.einsum("ru,u->r", counts, den)
        # a product per metric: one for all may round differently with their number
        for j in range(metrics):
            out[j, start:stop] = np.einsum("ru,u->r", counts, residual[j]) / weight
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


def _check(num: Floats, den: Floats, confidence: float, resamples: int, method: str) -> None:
    if num.ndim not in (1, 2) or den.shape != num.shape[:1]:
        shapes = f"{list(num.shape)} with {list(den.shape)}"
        raise ValueError(f"expected [n] or [n, k] values with [n] denominators, not {shapes}")
    if len(num) == 0:
        raise ValueError("no samples: there is nothing to resample")
    if not (np.isfinite(num).all() and np.isfinite(den).all()):
        raise ValueError("NaN or infinity among the values: leave out what is undefined, and say so")
    if not (den > 0).all():
        raise ValueError("every denominator must be positive: leave out samples without pixels")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    if method not in ("bca", "percentile"):
        raise ValueError(f"method must be 'bca' or 'percentile', not '{method}'")
