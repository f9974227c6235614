"""The table of metrics: what protocols may name, and what tables, plots, gates, tests and the self-test know of each.

A new metric is a function, a row here, and a test.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.metrics import consistency, depth, image, judgements, normals, ordinal


@dataclass(frozen=True)
class Metric:
    """One metric.

    name : as in protocols and records
    function : computes it, of one image or a batch
    unit : "" for a pure number
    direction : which values are better
    root : whether it is the root of a mean over pixels; False: the mean itself; None: neither
    targets : kinds of ground truth that it measures against
    label : as in table heads
    bounds : (lowest, highest) value there can be; infinite where there is no limit
    description : one line
    rounding : distance from the perfect value that float32 maps and a fit leave
    chance : distance from the perfect value that a prediction which knows nothing of the image keeps
    percent : tables usually print 100 times the value (records never do)
    """

    name: str
    function: Callable[..., Any]
    unit: str
    direction: Literal["lower", "higher"]
    root: bool | None
    targets: tuple[str, ...]
    label: str
    bounds: tuple[float, float]
    description: str
    rounding: float = 0.0
    chance: float = 0.05
    percent: bool = False

    @property
    def higher_is_better(self) -> bool:
        return self.direction == "higher"

    @property
    def perfect(self) -> float:
        """The value of a perfect prediction."""
        return self.bounds[1 if self.higher_is_better else 0]

    @property
    def range(self) -> str:
        """The bounds as text: ``[0, inf)``."""
        low, high = self.bounds
        left = "(-inf" if math.isinf(low) else f"[{low:g}"
        return f"{left}, inf)" if math.isinf(high) else f"{left}, {high:g}]"


_DEPTH, _NORMALS, _MAPS = ("depth",), ("normals",), ("albedo", "irradiance")
_POSITIVE, _DEGREES, _SHARE = (0.0, math.inf), (0.0, 180.0), (0.0, 1.0)


def _delta(k: int, limit: str, chance: float) -> Metric:
    return Metric(f"delta{k}", getattr(depth, f"delta{k}"), "", "higher", False, _DEPTH, f"δ{k}", _SHARE,
                  f"share of pixels with max(p/g, g/p) < {limit}", chance=chance, percent=True)  # fmt: skip


def _within(name: str, degrees: float, chance: float = 0.05) -> Metric:
    return Metric(name, partial(normals.within, degrees=degrees), "", "higher", False, _NORMALS, f"{degrees:g}°",
                  _SHARE, f"share of pixels with an angular error below {degrees:g} degrees", chance=chance,
                  percent=True)  # fmt: skip


_ALL = (
    Metric("abs_rel", depth.abs_rel, "", "lower", False, _DEPTH, "AbsRel", _POSITIVE, "mean |p - g| / g", 1e-6),
    Metric("sq_rel", depth.sq_rel, "m", "lower", False, _DEPTH, "SqRel", _POSITIVE, "mean (p - g)^2 / g", 1e-6),
    Metric("mae", depth.mae, "m", "lower", False, _DEPTH, "MAE", _POSITIVE, "mean |p - g|", 1e-5),
    Metric("rmse", depth.rmse, "m", "lower", True, _DEPTH, "RMSE", _POSITIVE, "root of the mean (p - g)^2", 1e-5),
    Metric("irmse", depth.irmse, "1/m", "lower", True, _DEPTH, "iRMSE", _POSITIVE, "root of the mean (1/p - 1/g)^2",
           1e-6),
    Metric("rmse_log", depth.rmse_log, "", "lower", True, _DEPTH, "RMSE log", _POSITIVE,
           "root of the mean (ln p - ln g)^2", 1e-6),
    Metric("log10", depth.log10, "", "lower", False, _DEPTH, "log10", _POSITIVE, "mean |log10 p - log10 g|", 1e-6,
           chance=0.03),
    Metric("silog", depth.silog, "", "lower", None, _DEPTH, "SILog", _POSITIVE,
           "100 times the standard deviation of ln p - ln g", 1e-4, chance=5.0),
    _delta(1, "1.25", 0.05), _delta(2, "1.25^2", 0.02), _delta(3, "1.25^3", 0.02),
    Metric("mean_deg", normals.angular_error, "deg", "lower", False, _NORMALS, "Mean", _DEGREES, "mean angular error",
           1e-4, chance=5.0),
    Metric("median_deg", normals.median_angular_error, "deg", "lower", None, _NORMALS, "Median", _DEGREES,
           "median angular error", 1e-4, chance=5.0),
    Metric("rmse_deg", normals.rmse_angular_error, "deg", "lower", True, _NORMALS, "RMSE", _DEGREES,
           "root of the mean squared angular error", 1e-3, chance=5.0),
    *(_within(name, degrees, {"within_22_5": 0.02, "within_30": 0.01}.get(name, 0.05))
      for name, degrees in normals.WITHIN.items()),
    Metric("si_mse", image.si_mse, "", "lower", None, _MAPS, "si-MSE", _POSITIVE,
           "mean squared error after the best scale, one for all channels", 1e-12, chance=1e-3),
    # windows that are nearly black take scale 0, as published, so that real pictures leave a little
    Metric("lmse", image.lmse, "", "lower", None, _MAPS, "LMSE", _POSITIVE,
           "squared error after the best scale of each local window", 1e-6, chance=1e-3),
    Metric("psnr", image.psnr, "dB", "higher", None, _MAPS, "PSNR", (-math.inf, math.inf),
           "10 log10(1 / MSE) for data in [0, 1]", chance=70.0),
    Metric("ssim", image.ssim, "", "higher", None, _MAPS, "SSIM", (-1.0, 1.0),
           "structural similarity, Gaussian window of 11 pixels", 1e-7),
    Metric("map_rmse", image.map_rmse, "", "lower", True, _MAPS, "RMSE", _POSITIVE,
           "root of the mean squared error over pixels and channels", 1e-7, chance=0.02),
    Metric("agreement", ordinal.agreement, "", "higher", None, ("pairs",), "Agreement", _SHARE,
           "share of point pairs whose relation is the reference's", percent=True),
    Metric("consistency_deg", consistency.depth_normal_consistency, "deg", "lower", False, ("agreement",),
           "Depth-normal", _DEGREES, "mean angle between normals and those of the depth", 1e-3, chance=5.0),
    Metric("consistency_rmse", consistency.depth_normal_consistency, "", "lower", True, ("agreement",),
           "Depth-normal RMSE", (0.0, 2 / math.sqrt(3)),
           "root of the mean squared difference between normals and those of the depth", 1e-5),
)  # fmt: skip

#: every metric with a fixed name; ``whdr{percent}``, ``whdr{percent}_eq`` and ``whdr{percent}_ineq`` are a rule
METRICS: Final[dict[str, Metric]] = {metric.name: metric for metric in _ALL}

_WHDR = re.compile(r"whdr(\d{1,3}(?:_\d+)?)(_eq|_ineq)?")
_JUDGED = {"all": "", "eq": ", judgements 'same' only", "ineq": ", judgements 'one is darker' only"}


def metric_info(name: str) -> Metric:
    """The metric `name`.

    Raises
    ------
    UsageError
        Unknown name, with the nearest match.

    Examples
    --------
    >>> metric_info("rmse_deg").unit, metric_info("whdr10").label
    ('deg', 'WHDR 10%')
    """
    if name in METRICS:
        return METRICS[name]
    match = _WHDR.fullmatch(name)
    if match is None:
        raise unknown("metric", name, [*METRICS, "whdr10", "whdr20", "whdr10_eq", "whdr10_ineq"])
    percent, suffix = match.group(1).replace("_", "."), match.group(2) or ""
    judged = suffix[1:] or "all"
    return Metric(name, partial(judgements.whdr, delta=float(percent) / 100, judged=judged), "", "lower", None,
                  ("judgements",), f"WHDR {percent}%" + suffix.replace("_", " "), _SHARE,
                  f"weighted human disagreement rate, threshold {percent} %{_JUDGED[judged]}",
                  percent=True)  # fmt: skip


def known_metric(name: str) -> Metric | None:
    """`metric_info`; None for a metric of another version of the program, whose results can still be read."""
    try:
        return metric_info(name)
    except UsageError:
        return None


def metrics_of(target: str) -> tuple[str, ...]:
    """The names of the metrics that measure against a kind of ground truth; WHDR's follow from its thresholds.

    Examples
    --------
    >>> metrics_of("pairs")
    ('agreement',)
    """
    return tuple(metric.name for metric in _ALL if target in metric.targets)


def whdr_name(delta: float, judged: str = "") -> str:
    """The metric name of a WHDR threshold.

    Parameters
    ----------
    delta : threshold as a fraction
    judged : "", "eq" or "ineq"

    Examples
    --------
    >>> whdr_name(0.10), whdr_name(0.125, "eq")
    ('whdr10', 'whdr12_5_eq')
    """
    percent = f"{delta * 100:.6g}".replace(".", "_")
    return f"whdr{percent}" + (f"_{judged}" if judged else "")
