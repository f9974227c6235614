"""The exact median of values that come in pieces, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.blocks import BLOCK

Pieces: TypeAlias = Callable[[], Iterable[NDArray[Any]]]

_BINS = 1 << 13
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


def streaming_median(pieces: Pieces, *, bounds: tuple[float, float] | None = None) -> float:
    """Exact median over all values of all pieces; no NaN allowed; NaN if there is no value.

    Parameters
    ----------
    pieces : callable
        Gives the same arrays at each call; it is called a few times and never holds all at once.
    bounds : (low, high), optional
        Known limits of the values, which save a pass.
    """
    n = sum(piece.size for piece in pieces())
    if n == 0:
        return float("nan")
    if n <= _GATHER:
        return median_of(np.concatenate([np.asarray(p, dtype=np.float64).ravel() for p in pieces()]))
    low, high = bounds if bounds is not None else _limits(pieces())
    # ranks of the two middle values among those in [low, high]
    ranks = np.array([(n - 1) // 2, n // 2])
    while low < high:
        # the highest value itself has bin number _BINS
        counts = np.zeros(_BINS + 1, dtype=np.int64)
        for _, index in _binned(pieces, low, high):
            top = np.bincount(index)
            counts[: top.size] += top
        ends = np.cumsum(counts)
        first, last = (int(b) for b in np.searchsorted(ends, ranks, side="right"))
        ranks = ranks - (ends[first] - counts[first])
        if counts[first] + counts[last] <= _GATHER:
            values = np.concatenate(list(_in_bins(pieces, low, high, first, last)))
            values.partition(ranks)
            return (float(values[ranks[0]]) + float(values[ranks[1]])) / 2
        if first != last:
            # the middle falls between two crowded bins: the largest of one, the smallest of the other
            lower = _limits(_in_bins(pieces, low, high, first, first))[1]
            upper = _limits(_in_bins(pieces, low, high, last, last))[0]
            return (lower + upper) / 2
        low, high = _limits(_in_bins(pieces, low, high, first, first))
    return low


def _limits(arrays: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Smallest and largest value of all arrays."""
    low, high = float("inf"), float("-inf")
    for array in arrays:
        if array.size:
            low, high = min(low, float(array.min())), max(high, float(array.max()))
    return low, high


def _binned(pieces: Pieces, low: float, high: float) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Values in [low, high] with the number of their bin, which never falls as the value grows."""
    for piece in pieces():
        flat = np.asarray(piece, dtype=np.float64).ravel()
        for start in range(0, flat.size, BLOCK):
            values = flat[start : start + BLOCK]
            if values.min() < low or values.max() > high:
                values = _take(values, (values >= low) & (values <= high))
            position = values - low
            position /= high - low
            position *= _BINS
            yield values, position.astype(np.int64)


def _in_bins(pieces: Pieces, low: float, high: float, first: int, last: int) -> Iterator[NDArray[np.float64]]:
    for values, index in _binned(pieces, low, high):
        yield _take(values, (index >= first) & (index <= last))


def _take(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    # several times faster than values[where]
    return np.take(values, np.flatnonzero(where))
