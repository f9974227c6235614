"""Cache-sized row blocks: how maps of any size are reduced in float64 without full-size temporaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError

# Pixels a block: eight float64 temporaries of it fit a 2 MB cache.
BLOCK = 1 << 15


def row_blocks(height: int, width: int, block: int = BLOCK) -> Iterator[slice]:
    """Slices of whole rows that cover [0, height), each of about `block` pixels and at least one row."""
    step = max(1, block // max(1, width))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum of products of two vectors; not by BLAS, whose sums depend on the number of threads."""
    return float(np.einsum("i,i->", a, b))


def check_maps(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_], ndim: int) -> None:
    """Refuse a prediction, target and mask that don't belong together.

    Parameters
    ----------
    pred, target : [H, W] if ndim is 2, [H, W, 3] if it is 3
    valid : bool [H, W]

    Raises
    ------
    SampleError
        Wrong number of dimensions, different shapes, a mask that isn't boolean, or no valid pixel.
    """
    wanted = "[H, W]" if ndim == 2 else "[H, W, 3]"
    for name, array in (("prediction", pred), ("ground truth", target)):
        if array.ndim != ndim or (ndim == 3 and array.shape[2] != 3):
            raise SampleError(f"{name} has shape {array.shape}, expected {wanted}")
        if array.dtype.kind not in "fiu":
            raise SampleError(f"{name} has dtype {array.dtype}, expected real numbers")
    if pred.shape != target.shape:
        raise SampleError(f"prediction {pred.shape} and ground truth {target.shape} differ in shape: resize first")
    if valid.shape != target.shape[:2]:
        raise SampleError(f"mask {valid.shape} and ground truth {target.shape} differ in shape")
    if valid.dtype != np.bool_:
        raise SampleError(f"mask has dtype {valid.dtype}, expected bool")
    if not valid.any():
        raise SampleError("no valid pixel in the ground truth: an empty mask, or a range or crop that leaves nothing")


def not_finite(*, pred: NDArray[Any], valid: NDArray[np.bool_]) -> SampleError:
    """The error for NaN or infinity in a prediction where it counts, with the number of pixels."""
    bad = 0
    for rows in row_blocks(pred.shape[0], pred[0].size):
        finite = np.isfinite(pred[rows])
        bad += int(np.count_nonzero(valid[rows] & ~(finite.all(axis=-1) if pred.ndim == 3 else finite)))
    n = int(np.count_nonzero(valid))
    return SampleError(f"prediction is NaN or infinite at {bad} of {n} valid pixels")


def depth_pairs(
    *,
    pred: NDArray[Any],
    target: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: NDArray[np.int64] | None = None,
    cols: NDArray[np.int64] | None = None,
    reuse: bool = False,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Valid (prediction, ground truth) values, block by block, as float64 [n] arrays to do with as one likes.

    Parameters
    ----------
    pred, target, valid : [H, W], already checked by `check_maps`
    rows, cols : indices of a regular subsample; None takes all
    reuse : give every block in the same memory, which stays in the cache: for a caller that is done with a block
        before it asks for the next

    Raises
    ------
    SampleError
        A prediction that isn't finite, or a depth that isn't finite and positive, at a valid pixel.
    """
    height = target.shape[0] if rows is None else len(rows)
    width = target.shape[1] if cols is None else len(cols)
    take_pred, take_target = _Taken(pred.dtype, reuse), _Taken(target.dtype, reuse)
    for block in row_blocks(height, width):
        pick: slice | NDArray[np.int64] = block if rows is None else rows[block]
        v, p, g = (a[pick] if cols is None else a[pick][:, cols] for a in (valid, pred, target))
        # indices once and two takes cost a fifth of two boolean selections
        keep = np.flatnonzero(v)
        if keep.size == 0:
            continue
        p64, g64 = take_pred(p, keep), take_target(g, keep)
        # a sum is finite only if every term is
        if not np.isfinite(p64.sum()):
            raise not_finite(pred=pred, valid=valid)
        if not (g64.min() > 0 and np.isfinite(g64.sum())):
            raise SampleError("ground truth depth is zero, negative or not finite at valid pixels: "
                              "a mask of other data, or invalid pixels that were marked valid?")  # fmt: skip
        yield p64, g64


class _Taken:
    """Chosen values of a block as float64 [n], in memory of its own or always the same."""

    def __init__(self, dtype: np.dtype[Any], reuse: bool) -> None:
        self._reuse = reuse
        self._raw = np.empty(0, dtype)
        self._wide = np.empty(0)

    def __call__(self, block: NDArray[Any], keep: NDArray[np.int64]) -> NDArray[np.float64]:
        if not self._reuse:
            return np.take(block, keep).astype(np.float64)
        if self._raw.size < block.size:
            self._raw, self._wide = np.empty(block.size, self._raw.dtype), np.empty(block.size)
        raw, wide = self._raw[: keep.size], self._wide[: keep.size]
        # the indices are those of the block: with "clip" nothing is checked or buffered
        np.take(block, keep, out=raw, mode="clip")
        np.copyto(wide, raw)
        return wide
