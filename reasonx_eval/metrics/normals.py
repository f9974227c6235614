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
from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics.kernels import AngleSums, Bins
from reasonx_eval.metrics.streaming_median import BINS, binned_median, count, median_of
from reasonx_eval.metrics.valid_pixels import check_maps, dot, not_finite

#: metric name -> threshold in degrees
WITHIN = {"within_5": 5.0, "within_7_5": 7.5, "within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}
# From this share of valid pixels on it is quicker to compute all and choose then.
_DENSE = 0.75
_BINS = Bins(0.0, 180.0, BINS)
#: every normal metric
METRICS = ("mean_deg", "median_deg", "rmse_deg", *WITHIN)


def angular_errors(
    *, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Angles between predicted and true normals, degrees in [0, 180], float64 [n], row by row.

    Lengths don't matter. A predicted vector of length 0 has no direction and counts 90 degrees, as in
    the published scripts (the cosine similarity of a zero vector is 0). Near 0 and 180 degrees the
    cosine leaves about 1e-6 degrees of rounding, but equal vectors give exactly 0.

    Parameters
    ----------
    pred, target : [H, W, 3], same camera frame
    valid : bool [H, W]

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, a prediction that isn't finite, or ground truth that isn't
        finite or has length 0 at a valid pixel.
    """
    check_maps(pred=pred, target=target, valid=valid, ndim=3)
    compiled = kernels.angles_between(pred=pred, target=target, valid=valid)
    if compiled is not None:
        return compiled
    errors = np.empty(np.count_nonzero(valid))
    work = _Work(pred.dtype, target.dtype)
    start = 0
    # what isn't finite ends as NaN, which is reported below, or lies where nothing is valid
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in row_blocks(*valid.shape):
            keep = np.flatnonzero(valid[rows])
            if keep.size:
                work.angles(pred[rows], target[rows], keep, out=errors[start : start + keep.size])
                start += keep.size
    if np.isnan(errors.sum()):
        raise _why_nan(pred, target, valid)
    return errors


def normal_metrics(
    *,
    pred: NDArray[Any],
    target: NDArray[Any],
    valid: NDArray[np.bool_],
    names: Collection[str] = METRICS,
    round_digits: int | None = None,
) -> dict[str, float]:
    """Normal metrics of one image; see `angular_errors` for what is compared and refused.

    Parameters
    ----------
    names : which of `METRICS`
    round_digits : int, optional
        Round to so many decimals, as one published protocol does before it averages images. Its shares
        are percentages, so fractions keep two decimals more.

    Returns
    -------
    dict
        name -> degrees, or a fraction for the shares.
    """
    values = summarise(errors=angular_errors(pred=pred, target=target, valid=valid), names=names)
    if round_digits is None:
        return values
    return {k: round(v, round_digits + 2 if k in WITHIN else round_digits) for k, v in values.items()}


def summarise(*, errors: NDArray[np.float64], names: Collection[str] = METRICS) -> dict[str, float]:
    """Metrics of one vector of angular errors in degrees (not empty); may reorder it.

    Returns
    -------
    dict
        name -> degrees, or a fraction for the shares.
    """
    sums = _Sums(names, histogram=False)
    sums.add(errors)
    return sums.values(lambda: median_of(errors))


def pooled_metrics(*, errors: Iterable[NDArray[np.float64]], names: Collection[str] = METRICS) -> dict[str, float]:
    """Metrics over all pixels of a data set at once, exactly, holding one image's errors at a time.

    Parameters
    ----------
    errors : re-iterable of float64 [n_i]
        Angular errors of each image in degrees. Iterated a few times (the median), so a list or an object
        with ``__iter__``, not a generator. Images without a pixel add nothing.
    names : which of `METRICS`

    Raises
    ------
    TypeError
        A one-shot iterator.
    SampleError
        No pixel at all.
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
            if name not in METRICS:
                raise unknown("normal metric", name, METRICS)
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


class _Work:
    """Arrays for one block, in float64 with a contiguous row per component; the same for every block."""

    def __init__(self, pred: np.dtype[Any], target: np.dtype[Any]) -> None:
        self._raw = np.empty((0, 3), pred), np.empty((0, 3), target)
        self._rows = np.empty((2, 0))
        self._all = np.empty(0)

    def angles(
        self, pred: NDArray[Any], target: NDArray[Any], keep: NDArray[np.int64], out: NDArray[np.float64]
    ) -> None:
        """Degrees between the vectors of a block at the flat indices `keep`, into out [n]."""
        p, g = pred.reshape(-1, 3), target.reshape(-1, 3)
        if len(self._all) < len(p):
            self._raw = np.empty(p.shape, p.dtype), np.empty(g.shape, g.dtype)
            self._rows, self._all = np.empty((2, 4 * len(p))), np.empty(len(p))
        # the indices are those of the block: with "clip" nothing is checked or buffered
        if keep.size > _DENSE * len(p):
            _angles(*self._components(p, g), out=self._all[: len(p)])
            np.take(self._all, keep, out=out, mode="clip")
            return
        taken = (np.take(a, keep, axis=0, out=raw[: keep.size], mode="clip")
                 for a, raw in zip((p, g), self._raw, strict=True))  # fmt: skip
        _angles(*self._components(*taken), out=out)

    def _components(self, p: NDArray[Any], g: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64 [4, n] each: the components, and a row to spare."""
        n = len(p)
        wide_p, wide_g = self._rows[0, : 4 * n].reshape(4, n), self._rows[1, : 4 * n].reshape(4, n)
        np.copyto(wide_p[:3], p.T)
        np.copyto(wide_g[:3], g.T)
        return wide_p, wide_g


def _angles(p: NDArray[np.float64], g: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Degrees between the vectors of p and g, which are overwritten, into out [n]."""
    spare = p[3]
    cosine = np.multiply(p[0], g[0], out=out)
    for k in (1, 2):
        cosine += np.multiply(p[k], g[k], out=spare)
    pp, gg = (_squared_lengths(vectors[:3]) for vectors in (p, g))
    # true of NaN as well, behind which a zero may hide
    if not gg.min() > 0:
        gg[gg == 0] = np.nan
    # one root of the product: for equal vectors it is exactly their dot product
    length = np.sqrt(np.multiply(pp, gg, out=pp), out=pp)
    if not length.min() > 0:
        length[length == 0] = np.inf
    cosine /= length
    np.clip(cosine, -1.0, 1.0, out=cosine)
    np.arccos(cosine, out=cosine)
    cosine *= 180 / math.pi


def _squared_lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of squares of each column, float64 [n], in the first row of [3, n], all of which is overwritten."""
    np.multiply(vectors, vectors, out=vectors)
    total: NDArray[np.float64] = vectors[0]
    total += vectors[1]
    total += vectors[2]
    return total


def _why_nan(pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> SampleError:
    truth = np.asarray(target[valid], dtype=np.float64)
    bad = np.count_nonzero(~np.isfinite(truth).all(axis=-1) | ~truth.any(axis=-1))
    if bad:
        return SampleError(f"ground truth normals have length 0 or aren't finite at {bad} of {len(truth)} valid pixels:"
                           " invalid pixels that were marked valid?")  # fmt: skip
    return not_finite(pred=pred, valid=valid)
