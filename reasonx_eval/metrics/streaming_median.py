"""The exact median of values that come in pieces, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.blocks import BLOCK
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics.kernels import Bins

Pieces: TypeAlias = Callable[[], Iterable[NDArray[Any]]]

#: bins of one pass over the values
BINS = 1 << 13
# Values that are gathered for the last step: 8 MB of float64.
_GATHER = 1 << 20


def median_of(values: NDArray[Any]) -> float:
    """Exact median of a 1-D array, the mean of the two middle values if their number is even; may reorder it.

    The same as ``np.median`` in float64, without its NaN check and second copy.
    """
    half = values.size // 2
    values.partition(half)
    upper = float(values[half])
    if values.size % 2:
        return upper
    return (float(values[:half].max()) + upper) / 2


def streaming_median(pieces: Pieces) -> float:
    """Exact median over all values of all pieces; no NaN allowed; NaN if there is no value.

    Parameters
    ----------
    pieces : callable
        Gives the same arrays at each call; it is called a few times and never holds all at once.
    """
    n = sum(piece.size for piece in pieces())
    if n == 0:
        return float("nan")
    if n <= _GATHER:
        return median_of(np.concatenate([_flat(p) for p in pieces()]))
    return _between(pieces, *_limits(pieces()), np.array([(n - 1) // 2, n // 2]))


def binned_median(pieces: Pieces, bins: Bins, counts: NDArray[np.int64]) -> float:
    """`streaming_median` of values that are all in `counts`, by `count`, already: that saves a pass over them.

    Raises
    ------
    SampleError
        Values that lie in no bin, or are NaN.
    """
    n = int(counts.sum())
    if n == 0:
        return float("nan")
    if counts[-1]:
        raise SampleError(f"{counts[-1]} of {n} values lie outside [{bins.low:g}, {bins.high:g}], or are NaN")
    return _in_counts(pieces, bins, counts, np.array([(n - 1) // 2, n // 2]))


def count(values: NDArray[Any], bins: Bins, counts: NDArray[np.int64]) -> None:
    """Add values to a histogram that began as ``bins.empty()``; its last number is of those outside the bins."""
    flat = _flat(values)
    if kernels.count_bins(values=flat, bins=bins, counts=counts):
        return
    inside = 0
    for _, index in _numbered(flat, bins):
        counts += np.bincount(index, minlength=counts.size)
        inside += index.size
    counts[-1] += flat.size - inside


def _between(pieces: Pieces, low: float, high: float, ranks: NDArray[np.int64]) -> float:
    """The mean of the values of two neighbouring ranks among those in [low, high]."""
    if low == high:
        return low
    bins = Bins(low, high, BINS)
    if not np.isfinite(bins.row[2]):
        # limits so close that no number of bins is finite: the values lie among the smallest there are
        return _middle(np.concatenate([f[(f >= low) & (f <= high)] for f in map(_flat, pieces())]), ranks)
    counts = bins.empty()
    for piece in pieces():
        count(piece, bins, counts)
    return _in_counts(pieces, bins, counts, ranks)


def _in_counts(pieces: Pieces, bins: Bins, counts: NDArray[np.int64], ranks: NDArray[np.int64]) -> float:
    ends = np.cumsum(counts[:-1])
    first, last = (int(b) for b in np.searchsorted(ends, ranks, side="right"))
    ranks = ranks - (ends[first] - counts[first])
    if counts[first] + counts[last] <= _GATHER:
        return _middle(_gathered(pieces, bins, first, last, int(ends[last] - ends[first] + counts[first])), ranks)
    if first != last:
        # the middle falls between two crowded bins: the largest of one, the smallest of the other
        lower = _limits(_in_bins(pieces, bins, first, first))[1]
        upper = _limits(_in_bins(pieces, bins, last, last))[0]
        return (lower + upper) / 2
    return _between(pieces, *_limits(_in_bins(pieces, bins, first, first)), ranks)


def _middle(values: NDArray[np.float64], ranks: NDArray[np.int64]) -> float:
    values.partition(ranks)
    return (float(values[ranks[0]]) + float(values[ranks[1]])) / 2


def _flat(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64).ravel()


def _limits(arrays: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Smallest and largest value of all arrays."""
    low, high = float("inf"), float("-inf")
    for array in arrays:
        if array.size:
            low, high = min(low, float(array.min())), max(high, float(array.max()))
    return low, high


def _numbered(flat: NDArray[np.float64], bins: Bins) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Values that lie in any bin, block by block, and the numbers of their bins, which never fall as a value grows."""
    low, high, factor, _ = bins.row
    for start in range(0, flat.size, BLOCK):
        values = flat[start : start + BLOCK]
        if not (values.min() >= low and values.max() <= high):  # true of NaN as well
            values = _take(values, (values >= low) & (values <= high))
        yield values, ((values - low) * factor).astype(np.int64)


def _gathered(pieces: Pieces, bins: Bins, first: int, last: int, n: int) -> NDArray[np.float64]:
    """The n values in bins first to last."""
    out = np.empty(n)
    start = 0
    for piece in pieces():
        start += _take_bins(_flat(piece), bins, first, last, out[start:])
    return out


def _in_bins(pieces: Pieces, bins: Bins, first: int, last: int) -> Iterator[NDArray[np.float64]]:
    """The values in bins first to last, a block at a time."""
    room = np.empty(BLOCK)
    for piece in pieces():
        flat = _flat(piece)
        for start in range(0, flat.size, BLOCK):
            yield room[: _take_bins(flat[start : start + BLOCK], bins, first, last, room)]


def _take_bins(flat: NDArray[np.float64], bins: Bins, first: int, last: int, out: NDArray[np.float64]) -> int:
    """Copy the values in bins first to last to the start of `out`; gives their number."""
    taken = kernels.take_bins(values=flat, bins=bins, first=first, last=last, out=out)
    if taken is not None:
        return taken
    taken = 0
    for values, index in _numbered(flat, bins):
        found = _take(values, (index >= first) & (index <= last))
        out[taken : taken + found.size] = found
        taken += found.size
    return taken


def _take(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    # several times faster than values[where]
    return np.take(values, np.flatnonzero(where))
