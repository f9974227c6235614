"""The compiled kernels: depth and normals in fused passes over a map, where they could be built.

A function gives None where its caller must take the form in numpy: no kernels (no compiler at installation, another
processor, or REASONX_COMPILED=0), arrays of other types or layouts, or values that the kernels leave alone (not
finite, not positive, beyond 1e150). That form decides what is an error. Both agree to 1e-9 relative or better.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _load() -> ModuleType | None:
    if os.environ.get("REASONX_COMPILED", "1") == "0":
        return None
    try:
        return importlib.import_module("reasonx_eval.metrics.kernels._compiled")
    except ImportError:
        return None


#: items that the kernel writes behind the last angle
_SPARE = 4

_module = _load()


def available() -> bool:
    """Whether this process has the kernels."""
    return _module is not None


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, this process has no kernels: to compare with the forms in numpy. Not for use by several threads."""
    global _module
    kept, _module = _module, None
    try:
        yield
    finally:
        _module = kept


@dataclass(frozen=True)
class Moments:
    """Means of the pixels that a fit sees, and sums of squares and products about them."""

    n: int
    pred_mean: float
    target_mean: float
    pred_square: float
    product: float


@dataclass(frozen=True)
class DepthSums:
    """Sums over n valid pixels; `log` is ln p - ln g, and log_spread its sum of squares about the mean."""

    n: int
    abs: float
    square: float
    relative: float
    relative_square: float
    inverse_square: float
    abs_log: float
    log_mean: float
    log_spread: float
    delta1: int
    delta2: int
    delta3: int


@dataclass(frozen=True)
class Bins:
    """`count` equal bins over [low, high], float64; `high` itself may round to one more."""

    low: float
    high: float
    count: int

    @property
    def row(self) -> tuple[float, float, float, int]:
        """As the kernels take it: with bins a unit, and the bin of `high` counted."""
        return self.low, self.high, self.count / (self.high - self.low), self.count + 1

    def empty(self) -> NDArray[np.int64]:
        """Counts of no value: of the bins, of `high`'s own, and of what lies outside."""
        return np.zeros(self.count + 2, dtype=np.int64)


@dataclass(frozen=True)
class AngleSums:
    """Sums of angles, and how many lie below each limit."""

    sum: float
    square: float
    within: tuple[int, ...]


def depth_moments(
    *, pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_], disparity: bool
) -> Moments | None:
    """For a least-squares fit of [H, W] maps; in disparity the truth is inverted and predictions <= 0 are left out."""
    found = None if _module is None else _module.depth_moments(pred, target, mask, disparity)
    return None if found is None else Moments(*found)


def depth_sums(
    *,
    pred: NDArray[Any],
    target: NDArray[Any],
    mask: NDArray[np.bool_],
    scale: float,
    shift: float,
    disparity: bool,
    disparity_floor: float,
    low: float,
    high: float,
) -> DepthSums | None:
    """Sums of every depth metric of [H, W] maps; predictions are aligned as by `align.apply` and clipped."""
    if _module is None:
        return None
    found = _module.depth_errors(pred, target, mask, scale, shift, disparity, disparity_floor, low, high)
    return None if found is None else DepthSums(*found)


def angles_between(
    *, pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Degrees between the vectors of [H, W, 3] maps at valid pixels, float64 [n], row by row."""
    if _module is None:
        return None
    out = np.empty(np.count_nonzero(mask) + _SPARE)
    found = _module.angles_between(pred, target, mask, out)
    return None if found is None else out[:found]


def sum_angles(
    *, angles: NDArray[np.float64], limits: tuple[float, ...], bins: Bins, counts: NDArray[np.int64] | None
) -> AngleSums | None:
    """Sums and shares below five limits of contiguous float64 [n], which are added to the histogram, if any."""
    return None if _module is None else AngleSums(*_module.sum_angles(angles, limits, bins.row, counts))


def count_bins(*, values: NDArray[np.float64], bins: Bins, counts: NDArray[np.int64]) -> bool:
    """Add contiguous float64 [n] to the histogram `counts`; False: no kernels."""
    if _module is None:
        return False
    _module.count_bins(values, bins.row, counts)
    return True


def take_bins(
    *, values: NDArray[np.float64], bins: Bins, first: int, last: int, out: NDArray[np.float64]
) -> int | None:
    """Copy the values of bins first to last to the start of `out` and give their number.

    Raises
    ------
    ValueError
        There are more than `out` has room for.
    """
    return None if _module is None else int(_module.take_bins(values, bins.row, first, last, out))

