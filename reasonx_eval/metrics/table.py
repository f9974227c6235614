"""What each metric's name means: unit, direction, limits and label, for tables, plots and gates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from reasonx_eval.errors import UsageError, unknown


@dataclass(frozen=True)
class MetricInfo:
    """One metric.

    name : as in protocols and records
    label : as in table heads
    unit : "" for a pure number
    higher_is_better : direction
    bounds : (lowest, highest) value there can be; infinite where there is no limit
    perfect : the value of a perfect prediction
    description : one line
    percent : tables usually print 100 times the value (records never do)
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    bounds: tuple[float, float]
    perfect: float
    description: str
    percent: bool = False

    @property
    def range(self) -> str:
        """The bounds as text: ``[0, inf)``."""
        low, high = self.bounds
        left = "(-inf" if math.isinf(low) else f"[{low:g}"
        return f"{left}, inf)" if math.isinf(high) else f"{left}, {high:g}]"


def _error(name: str, label: str, description: str, unit: str = "", high: float = math.inf) -> MetricInfo:
    return MetricInfo(name, label, unit, False, (0.0, high), 0.0, description)


def _share(name: str, label: str, description: str) -> MetricInfo:
    return MetricInfo(name, label, "", True, (0.0, 1.0), 1.0, description, percent=True)


_ALL = (
    _error("abs_rel", "AbsRel", "mean |p - g| / g"),
    _error("sq_rel", "SqRel", "mean (p - g)^2 / g", "m"),
    _error("mae", "MAE", "mean |p - g|", "m"),
    _error("rmse", "RMSE", "root of the mean (p - g)^2", "m"),
    _error("irmse", "iRMSE", "root of the mean (1/p - 1/g)^2", "1/m"),
    _error("rmse_log", "RMSE log", "root of the mean (ln p - ln g)^2"),
    _error("log10", "log10", "mean |log10 p - log10 g|"),
    _error("silog", "SILog", "100 times the standard deviation of ln p - ln g"),
    _share("delta1", "δ1", "share of pixels with max(p/g, g/p) < 1.25"),
    _share("delta2", "δ2", "share of pixels with max(p/g, g/p) < 1.25^2"),
    _share("delta3", "δ3", "share of pixels with max(p/g, g/p) < 1.25^3"),
    _error("mean_deg", "Mean", "mean angular error", "deg", 180.0),
    _error("median_deg", "Median", "median angular error", "deg", 180.0),
    _error("rmse_deg", "RMSE", "root of the mean squared angular error", "deg", 180.0),
    _share("within_5", "5°", "share of pixels with an angular error below 5 degrees"),
    _share("within_7_5", "7.5°", "share of pixels with an angular error below 7.5 degrees"),
    _share("within_11_25", "11.25°", "share of pixels with an angular error below 11.25 degrees"),
    _share("within_22_5", "22.5°", "share of pixels with an angular error below 22.5 degrees"),
    _share("within_30", "30°", "share of pixels with an angular error below 30 degrees"),
    _error("si_mse", "si-MSE", "mean squared error after the best scale, one for all channels"),
    _error("lmse", "LMSE", "squared error after the best scale of each local window"),
    _error("map_rmse", "RMSE", "root of the mean squared error over pixels and channels"),
    MetricInfo("psnr", "PSNR", "dB", True, (-math.inf, math.inf), math.inf, "10 log10(1 / MSE) for data in [0, 1]"),
    MetricInfo("ssim", "SSIM", "", True, (-1.0, 1.0), 1.0, "structural similarity, Gaussian window of 11 pixels"),
    _share("agreement", "Agreement", "share of point pairs whose relation is the reference's"),
    _error("consistency_deg", "Depth-normal", "mean angle between normals and those of the depth", "deg", 180.0),
    _error("consistency_rmse", "Depth-normal RMSE", "root of the mean squared difference between normals and those of "
           "the depth", high=2 / math.sqrt(3)),
)  # fmt: skip

#: every metric with a fixed name; ``whdr{percent}``, ``whdr{percent}_eq`` and ``whdr{percent}_ineq`` are a rule
METRICS: dict[str, MetricInfo] = {info.name: info for info in _ALL}

_WHDR = re.compile(r"whdr(\d{1,3}(?:_\d+)?)(_eq|_ineq)?")
_JUDGED = {"": "", "_eq": ", judgements 'same' only", "_ineq": ", judgements 'one is darker' only"}


def metric_info(name: str) -> MetricInfo:
    """What the metric `name` is.

    Raises
    ------
    UsageError
        Unknown name, with the nearest match.
    """
    if name in METRICS:
        return METRICS[name]
    match = _WHDR.fullmatch(name)
    if match is None:
        raise unknown("metric", name, [*METRICS, "whdr10", "whdr20", "whdr10_eq", "whdr10_ineq"])
    percent, judged = match.group(1).replace("_", "."), match.group(2) or ""
    label = f"WHDR {percent}%" + judged.replace("_", " ")
    description = f"weighted human disagreement rate, threshold {percent} %{_JUDGED[judged]}"
    return MetricInfo(name, label, "", False, (0.0, 1.0), 0.0, description, percent=True)


def known_metric(name: str) -> MetricInfo | None:
    """`metric_info`; None for a metric of another version of the program, whose results can still be read."""
    try:
        return metric_info(name)
    except UsageError:
        return None


def whdr_name(delta: float, judged: str = "") -> str:
    """The metric name of a WHDR threshold: 0.10 gives whdr10, 0.125 gives whdr12_5.

    Parameters
    ----------
    delta : threshold as a fraction
    judged : "", "eq" or "ineq"
    """
    percent = f"{delta * 100:.6g}".replace(".", "_")
    return f"whdr{percent}" + (f"_{judged}" if judged else "")
