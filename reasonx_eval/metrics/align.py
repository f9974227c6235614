"""Align a depth or disparity prediction to ground truth: none, median, scale or affine, in float64.

aligned = scale * pred + shift, in the space (depth or disparity) that the prediction is in. The fit is
reported, never hidden: an undetermined one has scale and shift NaN and a reason.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics.arrays import to_mask, to_numpy
from reasonx_eval.metrics.kernels import Moments
from reasonx_eval.metrics.streaming_median import streaming_median
from reasonx_eval.metrics.valid_pixels import ValidPixels, Values, dot
from reasonx_eval.types import Alignment

Mode: TypeAlias = Literal["none", "median", "scale", "affine"]
Space: TypeAlias = Literal["depth", "disparity"]

_SUBSAMPLES = ("all", "nearest-1024", "width-nearest-1024")
_LONG_SIDE = 1024


def fit(
    pred: Any, target: Any, mask: Any = None, *, mode: Mode = "affine", space: Space = "depth", subsample: str = "all"
) -> Alignment:
    """The transform that takes a prediction to ground truth, aligned = scale * pred + shift, of one image.

    Least squares uses centred moments, merged over row blocks, so a large offset costs no digits.
    In disparity the ground truth is inverted and the fit sees only pixels where the prediction is
    positive, as the published least-squares-in-disparity scripts do. That mask is the fit's alone: an
    affine disparity may be zero or negative, and such pixels are aligned and scored like all others.

    Parameters
    ----------
    pred : [H, W], in `space`; numpy or torch
    target : [H, W], always depth in metres
    mask : [H, W], bool or uint8, optional
        The pixels that count; all if it is not given.
    mode : none, median (median(target) / median(pred)), scale or affine (least squares)
    space : depth or disparity, the unit of the values of `pred`
    subsample : which pixels the fit sees: all, nearest-1024 or width-nearest-1024 (see `subsample_indices`)

    Returns
    -------
    Alignment
        n_valid counts the pixels the fit saw. scale and shift are NaN, with a reason, if there are too
        few of them, or if the prediction is constant (affine), zero (scale) or has no positive median.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, a prediction that isn't finite or a depth that isn't
        positive at a valid pixel.

    References
    ----------
    Ranftl et al. 2020, MiDaS (least squares in disparity); Ke et al. 2024, Marigold (in depth).

    Examples
    --------
    >>> found = fit(np.array([[1.0, 2.0, 3.0]]), np.array([[2.5, 4.5, 6.5]]))
    >>> found.scale, found.shift
    (2.0, 0.5)
    """
    p, g = to_numpy(pred), to_numpy(target)
    pixels = ValidPixels(pred=p, target=g, mask=to_mask(mask, g.shape[:2]))
    return fit_pixels(pixels, mode=mode, space=space, subsample=subsample)


def fit_pixels(depth: ValidPixels, *, mode: Mode, space: Space, subsample: str = "all") -> Alignment:
    """`fit` of pixels that are scored afterwards: those of a small map are then gathered once."""
    for what, name, known in (("alignment mode", mode, _FITS), ("alignment space", space, ("depth", "disparity")),
                              ("subsample", subsample, _SUBSAMPLES)):  # fmt: skip
        if name not in known:
            raise unknown(what, name, known)
    rows, cols = subsample_indices(depth.target.shape[0], depth.target.shape[1], subsample)

    def pairs() -> Values:
        return depth(rows, cols) if space == "depth" else _inverted(depth(rows, cols))

    moments = None
    if rows is None and cols is None and mode in _LEAST_SQUARES:
        moments = kernels.depth_moments(pred=depth.pred, target=depth.target, mask=depth.mask,
                                      disparity=space == "disparity")  # fmt: skip
    scale, shift, n, reason = _FITS[mode](pairs) if moments is None else _LEAST_SQUARES[mode](moments)
    if reason is None and not (math.isfinite(scale) and math.isfinite(shift)):
        reason = "the fit overflows: the prediction varies too little, or its values are too small"
    if reason is not None:
        scale = shift = math.nan
    return Alignment(mode, space, scale, shift, n, reason)


def apply(
    pred: NDArray[Any],
    alignment: Alignment,
    *,
    disparity_floor: float = 1e-3,
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Aligned depth in metres, float64, of the shape of `pred` (a map, a block of rows or chosen pixels).

    Parameters
    ----------
    disparity_floor : an aligned disparity below this is raised to it before it is inverted [1/m]
    out : float64 array for the result; may be `pred` itself

    Raises
    ------
    SampleError
        The alignment is undetermined; gives its reason.

    Examples
    --------
    >>> apply(np.array([[1.0, 2.0]]), Alignment("affine", "disparity", 0.5, 0.0, 2))
    array([[2., 1.]])
    """
    if not alignment.determined:
        raise SampleError(f"the {alignment.mode} alignment in {alignment.space} is undetermined: {alignment.reason}")
    depth: NDArray[np.float64] = np.multiply(pred, np.float64(alignment.scale), out=out, dtype=np.float64)
    depth += alignment.shift
    if alignment.space == "disparity":
        np.maximum(depth, disparity_floor, out=depth)
        np.reciprocal(depth, out=depth)
    return depth


def to_space(*, pred: NDArray[Any], kind: str, space: Space) -> NDArray[Any]:
    """A depth prediction in the space a protocol fits in: itself, or 1/depth as float64.

    A depth of zero or less has no disparity: it becomes 0, which the fit leaves out and the scoring
    takes for farthest.

    Raises
    ------
    UsageError
        The kind can't be inverted: an unknown shift makes the inverse of an affine map meaningless.
    """
    own = "disparity" if kind == "disparity_affine" else "depth"
    if space == own:
        return pred
    if kind not in ("depth_metric", "depth_scale"):
        raise UsageError(f"'{kind}' is known up to a shift, so its inverse is no {space} of any kind",
                         where="alignment space", fix='space = "own" in the protocol')  # fmt: skip
    positive = pred > 0
    inverse = np.zeros(pred.shape, dtype=np.float64)
    np.divide(1.0, pred, out=inverse, where=positive, dtype=np.float64)
    # NaN isn't positive; it must still reach the check that counts it
    np.copyto(inverse, np.nan, where=~np.isfinite(pred))
    return inverse


def alignment_notes(alignment: Alignment) -> tuple[str, ...]:
    """A note for the reader of a result whose scale is negative, which no published protocol forbids."""
    if not alignment.determined or alignment.scale > 0:
        return ()
    if alignment.scale < 0:
        return ("the fitted scale is negative, so the prediction's order is reversed (a disparity given as a depth?)",)
    return ("the fitted scale is 0, so the prediction is ignored",)


def subsample_indices(
    height: int, width: int, subsample: str
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Row and column indices of the pixels a fit sees; None means every one.

    "nearest-1024" brings the long side to 1024: index j * long / 1024, rounded down, on both axes.
    "width-nearest-1024" uses the same factor on columns only and keeps all rows: the published scripts
    pass a two-dimensional map where a batch of one-dimensional signals is expected.
    """
    long = max(height, width)
    if subsample == "all" or long <= _LONG_SIDE:
        return None, None
    # integer arithmetic: 1024 / long isn't exact in binary, and would lose a pixel at some sizes
    cols, rows = (np.arange(side * _LONG_SIDE // long) * long // _LONG_SIDE for side in (width, height))
    return (None if subsample.startswith("width") else rows), cols


def _inverted(pairs: Values) -> Values:
    for p, g in pairs:
        positive = p > 0
        if not positive.all():
            p, g = p[positive], g[positive]
        if p.size:
            yield p, np.reciprocal(g, out=g)


def _fit_none(pairs: Any) -> tuple[float, float, int, str | None]:
    return 1.0, 0.0, sum(p.size for p, _ in pairs()), None


def _fit_median(pairs: Any) -> tuple[float, float, int, str | None]:
    n = sum(p.size for p, _ in pairs())
    if n == 0:
        return math.nan, math.nan, n, _too_few(n, 1)
    # copies: the next block comes in the same memory
    middle = streaming_median(lambda: (p.copy() for p, _ in pairs()))
    if middle <= 0:
        return math.nan, math.nan, n, f"the median of the prediction is {middle:.4g}, not positive"
    return streaming_median(lambda: (g.copy() for _, g in pairs())) / middle, 0.0, n, None


def _fit_scale(pairs: Any) -> tuple[float, float, int, str | None]:
    n, pp, pg = 0, 0.0, 0.0
    for p, g in pairs():
        n += p.size
        pp += dot(p, p)
        pg += dot(p, g)
    return _scale(n, pp, pg)


def _scale_of(m: Moments) -> tuple[float, float, int, str | None]:
    return _scale(m.n, m.pred_square + m.n * m.pred_mean**2, m.product + m.n * m.pred_mean * m.target_mean)


def _scale(n: int, pp: float, pg: float) -> tuple[float, float, int, str | None]:
    """From the sums of squares of the prediction and of its products with the truth."""
    if n < 1:
        return math.nan, math.nan, n, _too_few(n, 1)
    if pp == 0:
        return math.nan, math.nan, n, "the prediction is zero at every valid pixel"
    return pg / pp, 0.0, n, None


def _fit_affine(pairs: Any) -> tuple[float, float, int, str | None]:
    n, mean_p, mean_g, pp, pg = 0, 0.0, 0.0, 0.0, 0.0
    pivot = 0.0
    for p, g in pairs():
        # about its first value a constant is exactly 0 everywhere, so pp == 0 finds every constant
        pivot = pivot if n else float(p[0])
        p -= pivot
        block_p, block_g = p.mean(), g.mean()
        p -= block_p
        g -= block_g
        # merge the moments of two sets (Chan, Golub, LeVeque 1979)
        total = n + p.size
        step_p, step_g, weight = block_p - mean_p, block_g - mean_g, n * p.size / total
        pp += dot(p, p) + step_p * step_p * weight
        pg += dot(p, g) + step_p * step_g * weight
        mean_p += step_p * p.size / total
        mean_g += step_g * p.size / total
        n = total
    return _affine(Moments(n, pivot + mean_p, mean_g, pp, pg))


def _affine(m: Moments) -> tuple[float, float, int, str | None]:
    if m.n < 2:
        return math.nan, math.nan, m.n, _too_few(m.n, 2)
    if m.pred_square == 0:
        return math.nan, math.nan, m.n, f"the prediction is constant ({m.pred_mean:.6g}) at every valid pixel"
    scale = m.product / m.pred_square
    return scale, m.target_mean - scale * m.pred_mean, m.n, None


_FITS: dict[str, Any] = {"none": _fit_none, "median": _fit_median, "scale": _fit_scale, "affine": _fit_affine}
#: those that need nothing but moments
_LEAST_SQUARES: dict[str, Any] = {"scale": _scale_of, "affine": _affine}


def _too_few(n: int, needed: int) -> str:
    return f"{n} valid pixel{'' if n == 1 else 's'} where the prediction can be used; at least {needed} needed"
