"""Depth metrics: the plain formulas, and one pass over a map that gives all of them.

Formulas: Eigen, Puhrsch and Fergus 2014, and the KITTI depth benchmark (log10: Saxena 2009;
SILog: population variance, times 100). p is aligned depth, g ground truth, both in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import unknown
from reasonx_eval.metrics import align, kernels
from reasonx_eval.metrics.valid_pixels import ValidPixels, dot
from reasonx_eval.types import Alignment

Floats = NDArray[np.float64]


def abs_rel(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Mean |p - g| / g, in [0, inf)."""
    p, g = _values(pred, target, valid)
    return float(np.mean(np.abs(p - g) / g))


def sq_rel(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Mean (p - g)^2 / g, metres, in [0, inf); the KITTI development kit divides by g^2 instead."""
    p, g = _values(pred, target, valid)
    return float(np.mean((p - g) ** 2 / g))


def mae(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Mean |p - g|, metres, in [0, inf)."""
    p, g = _values(pred, target, valid)
    return float(np.mean(np.abs(p - g)))


def rmse(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Root of the mean (p - g)^2, metres, in [0, inf)."""
    p, g = _values(pred, target, valid)
    return float(np.sqrt(np.mean((p - g) ** 2)))


def irmse(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Root of the mean (1/p - 1/g)^2, 1/m, in [0, inf); NaN where a prediction isn't positive."""
    p, g = _positive(*_values(pred, target, valid))
    return float(np.sqrt(np.mean((1 / p - 1 / g) ** 2)))


def rmse_log(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Root of the mean (ln p - ln g)^2, in [0, inf); NaN where a prediction isn't positive."""
    return float(np.sqrt(np.mean(_log_ratio(pred, target, valid) ** 2)))


def log10(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Mean |log10 p - log10 g|, in [0, inf); NaN where a prediction isn't positive."""
    return float(np.mean(np.abs(_log_ratio(pred, target, valid)))) / math.log(10)


def silog(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """100 sqrt(mean d^2 - (mean d)^2), d = ln p - ln g, in [0, inf); NaN where a prediction isn't positive."""
    d = _log_ratio(pred, target, valid)
    # the variance about the mean: the difference of two squares loses all digits of a good prediction
    return 100 * float(np.sqrt(np.mean((d - d.mean()) ** 2)))


def delta(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_], power: int = 1) -> float:
    """Share of pixels with max(p/g, g/p) < 1.25^power (strict), in [0, 1]; a prediction <= 0 never counts."""
    p, g = _positive(*_values(pred, target, valid))
    return float(np.mean(np.maximum(p / g, g / p) < 1.25**power))


def delta1(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Share of pixels within a factor of 1.25 (strict), in [0, 1]."""
    return delta(pred=pred, target=target, valid=valid, power=1)


def delta2(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Share of pixels within a factor of 1.25^2 (strict), in [0, 1]."""
    return delta(pred=pred, target=target, valid=valid, power=2)


def delta3(*, pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Share of pixels within a factor of 1.25^3 (strict), in [0, 1]."""
    return delta(pred=pred, target=target, valid=valid, power=3)


#: every depth metric by name
METRICS: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (abs_rel, sq_rel, mae, rmse, irmse, rmse_log, log10, silog, delta1, delta2, delta3)
}
_LINEAR = frozenset({"abs_rel", "sq_rel", "mae", "rmse"})
_LOGARITHMIC = frozenset({"rmse_log", "log10", "silog"})
_DELTAS = frozenset({"delta1", "delta2", "delta3"})


def depth_metrics(
    *,
    pred: NDArray[Any],
    target: NDArray[Any],
    valid: NDArray[np.bool_],
    alignment: Alignment,
    names: Collection[str],
    clip_m: tuple[float, float] | None = None,
    floor_m: float | None = 1e-6,
    disparity_floor: float = 1e-3,
) -> dict[str, float]:
    """Align, clip and score a map in one pass over cache-sized blocks of rows, all sums in float64.

    Parameters
    ----------
    pred : [H, W], in the alignment's space
    target : [H, W], metres
    valid : bool [H, W]
    alignment : from `align.fit`
    names : which of `METRICS`
    clip_m : aligned depth is clipped to [min, max], metres; the maximum may be infinite
    floor_m : then raised to this, metres; None leaves values of zero or less, which have no logarithm
    disparity_floor : see `align.apply`

    Returns
    -------
    dict
        name -> value, in the order of `names`; logarithms of values <= 0 give NaN.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, a prediction that isn't finite or a depth that isn't positive
        at a valid pixel, or an undetermined alignment.
    """
    return measure_depth(ValidPixels(pred=pred, target=target, valid=valid), alignment=alignment, names=names,
                       clip_m=clip_m, floor_m=floor_m, disparity_floor=disparity_floor)  # fmt: skip


def measure_depth(
    depth: ValidPixels,
    *,
    alignment: Alignment,
    names: Collection[str],
    clip_m: tuple[float, float] | None = None,
    floor_m: float | None = 1e-6,
    disparity_floor: float = 1e-3,
) -> dict[str, float]:
    """`depth_metrics` of values that `align.fit_pixels` was given before: those of a small map are gathered once."""
    for name in names:
        if name not in METRICS:
            raise unknown("depth metric", name, METRICS)
    compiled = _compiled(depth, alignment, clip_m, floor_m, disparity_floor)
    if compiled is not None:
        return {name: compiled[name] for name in names}
    sums = _Sums(names)
    for p, g in depth():
        align.apply(pred=p, alignment=alignment, disparity_floor=disparity_floor, out=p)
        if clip_m is not None:
            np.clip(p, clip_m[0], clip_m[1], out=p)
        # a clipped value may already be above the floor
        if floor_m is not None and (clip_m is None or clip_m[0] < floor_m):
            np.maximum(p, floor_m, out=p)
        sums.add(p, g)
    return {name: sums.value(name) for name in names}


def _compiled(depth: ValidPixels, alignment: Alignment, clip_m: tuple[float, float] | None, floor_m: float | None,
              disparity_floor: float) -> dict[str, float] | None:  # fmt: skip
    """Every metric by the compiled kernel, or None."""
    if not alignment.determined:
        return None
    low, high = clip_m if clip_m is not None else (-math.inf, math.inf)
    if floor_m is not None:
        low, high = max(low, floor_m), max(high, floor_m)
    s = kernels.depth_sums(pred=depth.pred, target=depth.target, valid=depth.valid, scale=alignment.scale,
                         shift=alignment.shift, disparity=alignment.space == "disparity",
                         disparity_floor=disparity_floor, low=low, high=high)  # fmt: skip
    if s is None:
        return None
    return {
        "abs_rel": s.relative / s.n, "sq_rel": s.relative_square / s.n, "mae": s.abs / s.n,
        "rmse": math.sqrt(s.square / s.n), "irmse": math.sqrt(s.inverse_square / s.n),
        "rmse_log": math.sqrt(s.log_spread / s.n + s.log_mean**2), "log10": s.abs_log / s.n / math.log(10),
        "silog": 100 * math.sqrt(s.log_spread / s.n), "delta1": s.delta1 / s.n, "delta2": s.delta2 / s.n,
        "delta3": s.delta3 / s.n,
    }  # fmt: skip


class _Sums:
    """Running sums of one map; a block adds the groups that some wanted metric needs.

    Every step of every block is written into the same few arrays, which stay in the cache.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.wanted = frozenset(names)
        self.n = 0
        self.sums = dict.fromkeys(METRICS, 0.0)
        self.log_mean = 0.0
        self.log_spread = 0.0
        self._steps = np.empty((3, 0))
        self._inside = np.empty(0, dtype=np.bool_)

    def add(self, p: Floats, g: Floats) -> None:
        if self._inside.size < p.size:
            self._steps, self._inside = np.empty((3, p.size)), np.empty(p.size, dtype=np.bool_)
        first, second, third = self._steps[:, : p.size]
        if self.wanted & _LINEAR:
            self._add_linear(p, g, first, second)
        # NaN rather than a negative ratio, which would pass for a small one
        p = p if p.min() > 0 else np.where(p > 0, p, np.nan)
        if self.wanted & (_LOGARITHMIC | _DELTAS):
            np.divide(p, g, out=first)
        if self.wanted & _LOGARITHMIC:
            self._add_logarithmic(np.log(first, out=second), third)
        if self.wanted & _DELTAS:
            self._add_deltas(np.maximum(first, np.divide(g, p, out=second), out=second))
        if "irmse" in self.wanted:
            np.reciprocal(p, out=first)
            first -= np.reciprocal(g, out=second)
            self.sums["irmse"] += dot(first, first)
        self.n += p.size

    def _add_linear(self, p: Floats, g: Floats, error: Floats, relative: Floats) -> None:
        np.subtract(p, g, out=error)
        np.abs(error, out=error)
        np.divide(error, g, out=relative)
        if "mae" in self.wanted:
            self.sums["mae"] += error.sum()
        if "rmse" in self.wanted:
            self.sums["rmse"] += dot(error, error)
        if "abs_rel" in self.wanted:
            self.sums["abs_rel"] += relative.sum()
        if "sq_rel" in self.wanted:
            self.sums["sq_rel"] += dot(relative, error)

    def _add_deltas(self, ratio: Floats) -> None:
        inside = self._inside[: ratio.size]
        for power, name in enumerate(("delta1", "delta2", "delta3"), start=1):
            self.sums[name] += np.count_nonzero(np.less(ratio, 1.25**power, out=inside))

    def _add_logarithmic(self, d: Floats, size: Floats) -> None:
        if "log10" in self.wanted:
            self.sums["log10"] += np.abs(d, out=size).sum() / math.log(10)
        mean = d.mean()
        d -= mean
        total = self.n + d.size
        step = mean - self.log_mean
        # merge means and spreads of two sets (Chan, Golub, LeVeque 1979)
        self.log_spread += dot(d, d) + step * step * (self.n * d.size / total)
        self.log_mean += step * d.size / total

    def value(self, name: str) -> float:
        if name == "silog":
            return 100 * math.sqrt(self.log_spread / self.n)
        if name == "rmse_log":
            return math.sqrt(self.log_spread / self.n + self.log_mean**2)
        mean = float(self.sums[name]) / self.n
        return math.sqrt(mean) if name in ("rmse", "irmse") else mean


def _values(pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Checked valid values, float64 [n]."""
    pairs = ValidPixels(pred=pred, target=target, valid=valid)
    p, g = zip(*((p.copy(), g.copy()) for p, g in pairs()), strict=True)
    return np.concatenate(p), np.concatenate(g)


def _positive(p: Floats, g: Floats) -> tuple[Floats, Floats]:
    return np.where(p > 0, p, np.nan), g


def _log_ratio(pred: NDArray[Any], target: NDArray[Any], valid: NDArray[np.bool_]) -> Floats:
    p, g = _positive(*_values(pred, target, valid))
    return np.asarray(np.log(p / g))

