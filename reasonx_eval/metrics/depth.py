"""Depth metrics of aligned depth: p is the prediction, g the ground truth, both in metres.

Formulas: Eigen, Puhrsch and Fergus 2014, and the KITTI depth benchmark (log10: Saxena 2009; SILog: population
variance, times 100). Each takes what `abs_rel` takes, gives what it gives, and raises what it raises.
"""

from __future__ import annotations

from typing import Any

from reasonx_eval.metrics.arrays import Scores, each_image
from reasonx_eval.metrics.depth_sums import measure_depth
from reasonx_eval.metrics.valid_pixels import ValidPixels
from reasonx_eval.types import Alignment

_ALIGNED = Alignment("none", "depth", 1.0, 0.0, 1)


def abs_rel(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Absolute relative error, mean |p - g| / g, in [0, inf); lower is better.

    Parameters
    ----------
    pred, target : [..., H, W], metres; numpy or torch, on any device
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
        finite and positive there.

    References
    ----------
    Eigen, Puhrsch and Fergus 2014.

    Examples
    --------
    >>> import numpy as np
    >>> abs_rel([[2.0, 1.0]], [[1.0, 4.0]])
    0.875
    >>> abs_rel([[2.0, 1.0]], [[1.0, 4.0]], mask=np.array([[True, False]]))
    1.0
    >>> abs_rel(np.full((3, 4, 5), 2.0), np.ones((3, 4, 5)))
    array([1., 1., 1.])
    """
    return _measure("abs_rel", pred, target, mask)


def sq_rel(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Squared relative error, mean (p - g)^2 / g, metres, in [0, inf); the KITTI development kit divides by g^2.

    Examples
    --------
    >>> sq_rel([[2.0, 1.0]], [[1.0, 4.0]])
    1.625
    """
    return _measure("sq_rel", pred, target, mask)


def mae(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Mean absolute error, mean |p - g|, metres, in [0, inf).

    Examples
    --------
    >>> mae([[2.0, 1.0]], [[1.0, 4.0]])
    2.0
    """
    return _measure("mae", pred, target, mask)


def rmse(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Root of the mean (p - g)^2, metres, in [0, inf).

    Examples
    --------
    >>> rmse([[4.0, 5.0]], [[1.0, 1.0]]) == 12.5 ** 0.5
    True
    """
    return _measure("rmse", pred, target, mask)


def irmse(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Root of the mean (1/p - 1/g)^2, 1/m, in [0, inf); NaN if a valid prediction isn't positive: it has no inverse.

    Examples
    --------
    >>> irmse([[0.5, 0.5]], [[1.0, 1.0]])
    1.0
    """
    return _measure("irmse", pred, target, mask)


def rmse_log(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Root of the mean (ln p - ln g)^2, in [0, inf); NaN if a valid prediction isn't positive: it has no logarithm.

    Examples
    --------
    >>> round(rmse_log([[2.0, 0.5]], [[1.0, 1.0]]), 6)
    0.693147
    """
    return _measure("rmse_log", pred, target, mask)


def log10(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Mean |log10 p - log10 g|, in [0, inf); NaN if a valid prediction isn't positive: it has no logarithm.

    Examples
    --------
    >>> round(log10([[10.0, 1.0]], [[1.0, 1.0]]), 12)
    0.5
    """
    return _measure("log10", pred, target, mask)


def silog(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Scale-invariant logarithmic error, 100 sqrt(mean d^2 - (mean d)^2) with d = ln p - ln g, in [0, inf).

    A common factor costs nothing. NaN if a valid prediction isn't positive: it has no logarithm.

    Examples
    --------
    >>> silog([[3.0, 6.0]], [[1.0, 2.0]])
    0.0
    """
    return _measure("silog", pred, target, mask)


def delta1(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Share of pixels with max(p/g, g/p) < 1.25 (strict), in [0, 1], higher is better; p <= 0 never counts.

    Ties are decided by the float64 ratio of the values as given. A ground truth of 6.4 m against a prediction clipped
    to 10 m is 1.25^2 exactly and does not count in `delta2`; 6.4 m in float32 is 6.4000001 m and counts, where code
    that also divides in float32 finds 1.25^2 again.

    Examples
    --------
    >>> delta1([[1.2, 1.25, 2.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]])
    0.5
    """
    return _measure("delta1", pred, target, mask)


def delta2(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Share of pixels with max(p/g, g/p) < 1.25^2 (strict), in [0, 1], higher is better; p <= 0 never counts.

    Examples
    --------
    >>> delta2([[1.2, 1.25, 2.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]])
    0.75
    >>> import numpy as np
    >>> delta2([[10.0]], [[6.4]]), delta2([[10.0]], np.array([[6.4]], dtype=np.float32))
    (0.0, 1.0)
    """
    return _measure("delta2", pred, target, mask)


def delta3(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Share of pixels with max(p/g, g/p) < 1.25^3 (strict), in [0, 1], higher is better; p <= 0 never counts.

    Examples
    --------
    >>> delta3([[1.9, 2.0, -1.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]])
    0.5
    """
    return _measure("delta3", pred, target, mask)


def _measure(name: str, pred: Any, target: Any, mask: Any) -> Scores:
    def one(p: Any, g: Any, valid: Any) -> float:
        pixels = ValidPixels(pred=p, target=g, mask=valid)
        return measure_depth(pixels, alignment=_ALIGNED, names=(name,), floor_m=None)[name]

    return each_image(one, pred, target, mask, axes=2)
