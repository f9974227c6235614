"""The valid values of a map in float64, block by block, without temporaries of the map's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.blocks import row_blocks

# Pixels of a map whose valid values are kept between two passes: 4 MB in float32.
_KEEP = 1 << 19

Values: TypeAlias = Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]


def dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum of products of two vectors; not by BLAS, whose sums depend on the number of threads."""
    return float(np.einsum("i,i->", a, b))


def check_maps(*, pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_], ndim: int) -> None:
    """Refuse a prediction, target and mask that don't belong together.

    Parameters
    ----------
    pred, target : [H, W] if ndim is 2, [H, W, 3] if it is 3
    mask : bool [H, W]

    Raises
    ------
    SampleError
        Wrong number of dimensions, different shapes, a mask that isn't boolean, or no valid pixel.
    """
    wanted = "[H, W]" if ndim == 2 else "[H, W, 3]"
    for name, array in (("prediction", pred), ("ground truth", target)):
        if array.ndim != ndim or (ndim == 3 and array.shape[2] != 3):
            raise SampleError(f"{name} has shape {array.shape}, expected {wanted}{_hint(array, ndim)}")
        if array.dtype.kind not in "fiu":
            raise SampleError(f"{name} has dtype {array.dtype}, expected real numbers")
    if pred.shape != target.shape:
        raise SampleError(f"prediction {pred.shape} and ground truth {target.shape} differ in shape: resize first")
    if mask.shape != target.shape[:2]:
        raise SampleError(f"mask {mask.shape} and ground truth {target.shape} differ in shape")
    if mask.dtype != np.bool_:
        raise SampleError(f"mask has dtype {mask.dtype}, expected bool")
    if not mask.any():
        raise SampleError("no valid pixel in the ground truth: an empty mask, or a range or crop that leaves nothing")


def _finite(values: NDArray[np.float64]) -> bool:
    # a sum is finite only if every term is, but that of finite terms may overflow
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def _hint(array: NDArray[Any], ndim: int) -> str:
    return ": channels first? move them last" if ndim == 3 and array.ndim == 3 and len(array) == 3 else ""


def not_finite(*, pred: NDArray[Any], mask: NDArray[np.bool_]) -> SampleError:
    """The error for NaN or infinity in a prediction where it counts, with the number of pixels."""
    bad = 0
    for rows in row_blocks(pred.shape[0], pred[0].size):
        finite = np.isfinite(pred[rows])
        bad += int(np.count_nonzero(mask[rows] & ~(finite.all(axis=-1) if pred.ndim == 3 else finite)))
    n = int(np.count_nonzero(mask))
    return SampleError(f"prediction is NaN or infinite at {bad} of {n} valid pixels")


class ValidPixels:
    """The valid (prediction, ground truth) values of a map, block by block in float64, as often as they are asked for.

    The values of a small map are kept when they were given once, in their own precision, so that a fit and the
    scoring after it gather and check them once.

    Parameters
    ----------
    pred, target : [H, W]
    mask : bool [H, W]

    Raises
    ------
    SampleError
        As `check_maps`.
    """

    def __init__(self, *, pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_]) -> None:
        check_maps(pred=pred, target=target, mask=mask, ndim=2)
        self.pred, self.target, self.mask = pred, target, mask
        self._kept: list[tuple[NDArray[Any], NDArray[Any]]] | None = None
        self._wide = np.empty((2, 0))

    def __call__(self, rows: NDArray[np.int64] | None = None, cols: NDArray[np.int64] | None = None) -> Values:
        """The values of each block, float64 [n]; the caller may overwrite them, and the next block does.

        Parameters
        ----------
        rows, cols : indices of a regular subsample; None takes all

        Raises
        ------
        SampleError
            A prediction that isn't finite, or a depth that isn't finite and positive, at a valid pixel.
        """
        every = rows is None and cols is None
        if every and self._kept is not None:
            yield from (self._widened(p, g) for p, g in self._kept)
            return
        kept: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for p, g in self._gathered(rows, cols):
            p64, g64 = self._widened(p, g)
            if not _finite(p64):
                raise not_finite(pred=self.pred, mask=self.mask)
            if not (g64.min() > 0 and _finite(g64)):
                raise SampleError("ground truth depth is zero, negative or not finite at valid pixels: "
                                  "a mask of other data, or invalid pixels that were marked valid?")  # fmt: skip
            if every and self.mask.size <= _KEEP:
                kept.append((p, g))
            yield p64, g64
        self._kept = kept or None

    def _gathered(
        self, rows: NDArray[np.int64] | None, cols: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Valid values of each block that has any, in their own precision."""
        height = self.target.shape[0] if rows is None else len(rows)
        width = self.target.shape[1] if cols is None else len(cols)
        for block in row_blocks(height, width):
            pick: slice | NDArray[np.int64] = block if rows is None else rows[block]
            v, p, g = (a[pick] if cols is None else a[pick][:, cols] for a in (self.mask, self.pred, self.target))
            # indices once and two takes cost a fifth of two boolean selections
            keep = np.flatnonzero(v)
            if keep.size:
                yield np.take(p, keep), np.take(g, keep)

    def _widened(self, p: NDArray[Any], g: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._wide.shape[1] < p.size:
            self._wide = np.empty((2, p.size))
        p64, g64 = self._wide[0, : p.size], self._wide[1, : p.size]
        np.copyto(p64, p)
        np.copyto(g64, g)
        return p64, g64
