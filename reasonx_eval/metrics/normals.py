"""Surface-normal metrics: angular error per image, or pooled over the pixels of a whole data set.

Formulas: acos of the clamped cosine similarity, as in Fouhey et al. 2013 and every later table.
Shares of pixels are fractions in [0, 1]; comparisons are strict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, unknown
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.arrays import Scores, each_image
from reasonx_eval.metrics.kernels import AngleSums, Bins
from reasonx_eval.metrics.streaming_median import BINS, binned_median, count, median_of
from reasonx_eval.metrics.valid_pixels import dot

#: metric name -> threshold in degrees
WITHIN = {"within_5": 5.0, "within_7_5": 7.5, "within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}
_BINS = Bins(0.0, 180.0, BINS)
# From this many angles on a histogram finds the median of one image.
_MANY = 1 << 15
#: every normal metric
NAMES = ("mean_deg", "median_deg", "rmse_deg", *WITHIN)


def angular_error(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Mean angle between predicted and true normals, degrees in [0, 180]; lower is better.

    Lengths don't matter. A predicted vector of length 0 has no direction and counts 90 degrees, as in the published
    scripts, where the cosine similarity of a zero vector is 0.

    Parameters
    ----------
    pred, target : [..., H, W, 3], same camera frame; numpy or torch, on any device
    mask : [..., H, W] or [H, W], bool or uint8, optional
        The pixels that count; all if it is not given.

    Returns
    -------
    float
        For leading axes float64 [...], an array or a tensor as the input is.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, a prediction that isn't finite at a valid pixel, or ground truth that isn't
        finite or has length 0 there.

    References
    ----------
    Fouhey, Gupta and Hebert 2013.

    Examples
    --------
    >>> x, y = np.eye(3)[0], np.eye(3)[1]
    >>> float(angular_error([[x, 2 * y]], [[x, x]]))
    45.0
    """
    return each_image(_statistic("mean_deg"), pred, target, mask, axes=3)


def median_angular_error(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Median angle, degrees in [0, 180], the mean of the two middle ones of an even number; see `angular_error`.

    Examples
    --------
    >>> x, y = np.eye(3)[0], np.eye(3)[1]
    >>> float(median_angular_error([[x, x, y]], [[x, x, x]]))
    0.0
    """
    return each_image(_statistic("median_deg"), pred, target, mask, axes=3)


def rmse_angular_error(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Root of the mean squared angle, degrees in [0, 180]; see `angular_error`.

    Examples
    --------
    >>> x, y = np.eye(3)[0], np.eye(3)[1]
    >>> float(rmse_angular_error([[y, -x, y, y, y]], [[x, x, x, x, x]])) == (8 * 90**2 / 5) ** 0.5
    True
    """
    return each_image(_statistic("rmse_deg"), pred, target, mask, axes=3)


def within(pred: Any, target: Any, mask: Any = None, *, degrees: float = 11.25) -> Scores:
    """Share of pixels with an angle below a threshold (strict), in [0, 1], higher is better; see `angular_error`.

    Parameters
    ----------
    degrees : 5, 7.5, 11.25, 22.5 or 30

    Examples
    --------
    >>> x, y = np.eye(3)[0], np.eye(3)[1]
    >>> within([[x, y]], [[x, x]], degrees=30)
    0.5
    """
    names = {limit: name for name, limit in WITHIN.items()}
    if degrees not in names:
        raise unknown("threshold in degrees", f"{degrees:g}", [f"{limit:g}" for limit in names])
    return each_image(_statistic(names[degrees]), pred, target, mask, axes=3)


def _statistic(name: str) -> Callable[..., float]:
    return lambda p, g, mask: measure_normals(pred=p, target=g, mask=mask, names=(name,))[name]


def measure_normals(
    *,
    pred: NDArray[Any],
    target: NDArray[Any],
    mask: NDArray[np.bool_],
    names: Collection[str] = NAMES,
    round_digits: int | None = None,
) -> dict[str, float]:
    """Normal metrics of one image; see `angular_errors` for what is compared and refused.

    Parameters
    ----------
    names : which of `NAMES`
    round_digits : int, optional
        Round to so many decimals, as one published protocol does before it averages images. Its shares
        are percentages, so fractions keep two decimals more.

    Returns
    -------
    dict
        name -> degrees, or a fraction for the shares.
    """
    values = summarise(errors=angular_errors(pred=pred, target=target, mask=mask), names=names)
    if round_digits is None:
        return values
    return {k: round(v, round_digits + 2 if k in WITHIN else round_digits) for k, v in values.items()}


def summarise(*, errors: NDArray[np.float64], names: Collection[str] = NAMES) -> dict[str, float]:
    """Metrics of one vector of angular errors in degrees (not empty); may reorder it.

    Returns
    -------
    dict
        name -> degrees, or a fraction for the shares.
    """
    # numpy's partition is slow on some processors, and a histogram by numpy is slower than that
    histogram = kernels.available() and errors.size >= _MANY
    sums = _Sums(names, histogram=histogram)
    sums.add(errors)
    return sums.values(
        lambda: binned_median(lambda: (errors,), _BINS, sums.counts) if histogram else median_of(errors)
    )


def pooled_normal_metrics(errors: Iterable[NDArray[np.float64]], names: Collection[str] = NAMES) -> dict[str, float]:
    """Metrics over all pixels of a data set at once, exactly, holding one image's errors at a time.

    Parameters
    ----------
    errors : re-iterable of float64 [n_i]
        Angular errors of each image in degrees. Iterated a few times (the median), so a list or an object
        with ``__iter__``, not a generator. Images without a pixel add nothing.
    names : which of `NAMES`

    Raises
    ------
    TypeError
        A one-shot iterator.
    SampleError
        No pixel at all.

    Examples
    --------
    >>> pooled_normal_metrics([np.array([1.0, 8.0]), np.array([3.0])], names=("mean_deg", "median_deg"))
    {'mean_deg': 4.0, 'median_deg': 3.0}
    """
    if iter(errors) is errors:
        raise TypeError("errors must be iterable more than once: a list, not a generator")
    sums = _Sums(names, histogram=True)
    for piece in errors:
        sums.add(piece)
    return sums.values(lambda: binned_median(lambda: errors, _BINS, sums.counts))


class _Sums:
    """Running sums of angular errors, and their histogram if the median needs one."""

    def __init__(self, names: Collection[str], *, histogram: bool) -> None:
        for name in names:
            if name not in NAMES:
                raise unknown("normal metric", name, NAMES)
        self.names = tuple(names)
        self.n = 0
        self.total = 0.0
        self.squares = 0.0
        self.within = dict.fromkeys(WITHIN, 0)
        self.counts = _BINS.empty()
        self._histogram = histogram and "median_deg" in names

    def add(self, errors: NDArray[np.float64]) -> None:
        errors = np.ascontiguousarray(errors, dtype=np.float64)
        self.n += errors.size
        found = kernels.sum_angles(angles=errors, limits=tuple(WITHIN.values()), bins=_BINS,
                                 counts=self.counts if self._histogram else None)  # fmt: skip
        if found is None:
            found = AngleSums(float(errors.sum()), dot(errors, errors),
                              tuple(int(np.count_nonzero(errors < limit)) for limit in WITHIN.values()))  # fmt: skip
            if self._histogram:
                count(errors, _BINS, self.counts)
        self.total += found.sum
        self.squares += found.square
        for name, below in zip(WITHIN, found.within, strict=True):
            self.within[name] += below

    def values(self, median: Callable[[], float]) -> dict[str, float]:
        if self.n == 0:
            raise SampleError("no valid pixel: there is nothing to average")
        found = {name: below / self.n for name, below in self.within.items()}
        found |= {"mean_deg": self.total / self.n, "rmse_deg": math.sqrt(self.squares / self.n)}
        if "median_deg" in self.names:
            found["median_deg"] = median()
        return {name: found[name] for name in self.names}
