"""All depth metrics of a map in one pass, by the kernel or by blocks of rows in numpy, summed in float64.

The formulas are those that `reasonx_eval.metrics.depth` states; p is aligned depth, g ground truth, both in metres.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import unknown
from reasonx_eval.metrics import align, kernels
from reasonx_eval.metrics.valid_pixels import ValidPixels, dot
from reasonx_eval.types import Alignment

Floats = NDArray[np.float64]

_LINEAR = ("abs_rel", "sq_rel", "mae", "rmse")
_LOGARITHMIC = ("rmse_log", "log10", "silog")
_DELTAS = ("delta1", "delta2", "delta3")
#: every depth metric
NAMES = (*_LINEAR, "irmse", *_LOGARITHMIC, *_DELTAS)


def measure_depth(
    depth: ValidPixels,
    *,
    alignment: Alignment,
    names: Collection[str],
    clip_m: tuple[float, float] | None = None,
    floor_m: float | None = 1e-6,
    disparity_floor: float = 1e-3,
) -> dict[str, float]:
    """Align, clip and score the valid pixels of a map, all sums in float64.

    Parameters
    ----------
    depth : the pixels; those that `align.fit_pixels` was given need not be gathered again
    alignment : of the prediction
    names : which of `NAMES`
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
        A prediction that isn't finite or a depth that isn't positive at a valid pixel, or an undetermined alignment.
    """
    for name in names:
        if name not in NAMES:
            raise unknown("depth metric", name, NAMES)
    compiled = _compiled(depth, alignment, clip_m, floor_m, disparity_floor)
    if compiled is not None and compiled.keys() >= set(names):
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
    s = kernels.depth_sums(pred=depth.pred, target=depth.target, mask=depth.mask, scale=alignment.scale,
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
        self.sums = dict.fromkeys(NAMES, 0.0)
        self.log_mean = 0.0
        self.log_spread = 0.0
        self._steps = np.empty((3, 0))
        self._inside = np.empty(0, dtype=np.bool_)

    def add(self, p: Floats, g: Floats) -> None:
        if self._inside.size < p.size:
            self._steps, self._inside = np.empty((3, p.size)), np.empty(p.size, dtype=np.bool_)
        first, second, third = self._steps[:, : p.size]
        if self.wanted.intersection(_LINEAR):
            self._add_linear(p, g, first, second)
        # NaN rather than a negative ratio, which would pass for a small one
        p = p if p.min() > 0 else np.where(p > 0, p, np.nan)
        if self.wanted.intersection(_LOGARITHMIC + _DELTAS):
            np.divide(p, g, out=first)
        if self.wanted.intersection(_LOGARITHMIC):
            self._add_logarithmic(np.log(first, out=second), third)
        if self.wanted.intersection(_DELTAS):
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
