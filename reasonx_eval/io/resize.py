"""Resize prediction maps to the size of the ground truth, without any image library's own rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, unknown
from reasonx_eval.io.blocks import row_blocks

_HOW = ("bilinear", "bilinear-mirror", "bilinear-zeros", "nearest")


def resize(value: NDArray[Any], shape: tuple[int, int], how: str) -> NDArray[Any]:
    """A map at another size.

    Parameters
    ----------
    value : [H, W] or [H, W, C]
    shape : (height, width) of the result
    how : "bilinear": half-pixel centres, edges clamped, no antialiasing (align_corners=False elsewhere);
        float64 arithmetic, and each value is rounded once to float32, or kept if `value` is float64.
        "bilinear-mirror" and "bilinear-zeros": beside the outermost pixels lie the mirror image (the pixel at the edge
        once) or zeros instead, as scikit-image does since 0.15 and did before.
        "nearest": the pixel whose centre is nearest (the later one of two), values untouched.

    Returns
    -------
    array of shape (*shape, ...)
        `value` itself if the size is right already. A NaN reaches exactly the pixels that weigh it in.

    Raises
    ------
    SampleError
        Not a map, or an empty one.
    """
    if how not in _HOW:
        raise unknown("resize", how, _HOW)
    if value.ndim not in (2, 3) or 0 in value.shape or min(shape) < 1:
        raise SampleError(f"can't resize an array of shape {value.shape} to {shape}: expected [H, W] or [H, W, C]")
    if value.shape[:2] == tuple(shape):
        return value
    if how == "nearest":
        rows, cols = (_nearest(old, new) for old, new in zip(value.shape[:2], shape, strict=True))
        return value[rows[:, None], cols]
    return _bilinear(value, shape, how.removeprefix("bilinear").lstrip("-"))


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    # (j + 1/2) * old / new in integers
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _bilinear(value: NDArray[Any], shape: tuple[int, int], beside: str) -> NDArray[Any]:
    if beside == "zeros":
        around = ((1, 1), (1, 1)) + ((0, 0),) * (value.ndim - 2)
        value = np.pad(value, around)
    margin = 1 if beside == "zeros" else 0
    top, bottom, down = _weights(value.shape[0] - 2 * margin, shape[0], margin, mirror=beside == "mirror")
    left, right, across = _weights(value.shape[1] - 2 * margin, shape[1], margin, mirror=beside == "mirror")
    extra = (1,) * (value.ndim - 2)
    dtype = np.float64 if value.dtype == np.float64 else np.float32
    out = np.empty((*shape, *value.shape[2:]), dtype=dtype)
    across = across.reshape(1, -1, *extra)
    for rows in row_blocks(shape[0], max(value[0].size, out[0].size)):
        weight = down[rows].reshape(-1, 1, *extra)
        lines = value[top[rows]] * (1 - weight)
        lines += value[bottom[rows]] * weight
        result = np.take(lines, left, axis=1)
        result *= 1 - across
        result += np.take(lines, right, axis=1) * across
        out[rows] = result
    return out


def _weights(
    old: int, new: int, margin: int, *, mirror: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lower index, upper index and the upper one's weight for each output position; `margin` pixels lie around."""
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    if mirror:
        position = np.abs(position)
        position = np.where(position > old - 1, 2 * (old - 1) - position, position)
    old += 2 * margin
    position = np.clip(position + margin, 0, old - 1)
    low = np.floor(position).astype(np.int64)
    weight = position - low
    exact = weight == 0
    high = np.where(exact, low, np.minimum(low + 1, old - 1))
    # one pixel twice at half weight: a neighbour of weight 0 would still spread its NaN
    weight[exact] = 0.5
    return low, high, weight
