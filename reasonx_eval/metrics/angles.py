"""Angles between two maps of vectors, by the kernel or by blocks of rows in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics.arrays import to_mask, to_numpy
from reasonx_eval.metrics.valid_pixels import check_maps, not_finite

# From this share of valid pixels on it is quicker to compute all and choose then.
_DENSE = 0.75


def angular_errors(pred: Any, target: Any, mask: Any = None) -> NDArray[np.float64]:
    """Angles between predicted and true normals, degrees in [0, 180], float64 [n], row by row.

    Lengths don't matter. A predicted vector of length 0 has no direction and counts 90 degrees, as in
    the published scripts (the cosine similarity of a zero vector is 0). Near 0 and 180 degrees the
    cosine leaves about 1e-6 degrees of rounding, but equal vectors give exactly 0.

    Parameters
    ----------
    pred, target : [H, W, 3], same camera frame; numpy or torch
    mask : [H, W], bool or uint8; all pixels count if it is not given

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, a prediction that isn't finite, or ground truth that isn't
        finite or has length 0 at a valid pixel.

    Examples
    --------
    >>> x, y = np.eye(3)[0], np.eye(3)[1]
    >>> angular_errors([[y, -x, x]], [[x, x, x]], mask=np.array([[True, True, False]]))
    array([ 90., 180.])
    """
    pred, target = to_numpy(pred), to_numpy(target)
    mask = to_mask(mask, target.shape[:2])
    check_maps(pred=pred, target=target, mask=mask, ndim=3)
    compiled = kernels.angles_between(pred=pred, target=target, mask=mask)
    if compiled is not None:
        return compiled
    errors = np.empty(np.count_nonzero(mask))
    work = _Work(pred.dtype, target.dtype)
    start = 0
    # what isn't finite ends as NaN, which is reported below, or lies where nothing is valid
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in row_blocks(*mask.shape):
            keep = np.flatnonzero(mask[rows])
            if keep.size:
                work.angles(pred[rows], target[rows], keep, out=errors[start : start + keep.size])
                start += keep.size
    if np.isnan(errors.sum()):
        raise _why_nan(pred, target, mask)
    return errors


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


def _why_nan(pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_]) -> SampleError:
    truth = np.asarray(target[mask], dtype=np.float64)
    bad = np.count_nonzero(~np.isfinite(truth).all(axis=-1) | ~truth.any(axis=-1))
    if bad:
        return SampleError(f"ground truth normals have length 0 or aren't finite at {bad} of {len(truth)} valid pixels:"
                           " invalid pixels that were marked valid?")  # fmt: skip
    return not_finite(pred=pred, mask=mask)
