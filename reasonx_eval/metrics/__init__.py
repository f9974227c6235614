"""Metrics of depth, normals, albedo and irradiance, on numpy arrays or torch tensors.

Each takes (prediction, ground truth, mask) and gives a float for one image, or an array for leading batch axes, in
float64. They are the functions that `reasonx-eval run` and `score` call.

>>> from reasonx_eval.metrics import abs_rel, depth_metrics
>>> abs_rel([[2.0, 1.0]], [[1.0, 4.0]])
0.875

`abs_rel` and the other plain formulas compare maps as they are. `depth_metrics`, `normal_metrics`, `albedo_metrics` and
`irradiance_metrics` take a protocol's name and do all that it says first: resize, mask, align, clip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reasonx_eval.metrics.align import apply as apply_alignment
from reasonx_eval.metrics.align import fit as fit_alignment
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.consistency import depth_normal_consistency, normals_from_depth
from reasonx_eval.metrics.depth import (
    abs_rel,
    delta1,
    delta2,
    delta3,
    irmse,
    log10,
    mae,
    rmse,
    rmse_log,
    silog,
    sq_rel,
)
from reasonx_eval.metrics.image import lmse, lsq_scale, map_rmse, psnr, si_mse, ssim
from reasonx_eval.metrics.judgements import whdr
from reasonx_eval.metrics.normals import (
    angular_error,
    median_angular_error,
    pooled_normal_metrics,
    rmse_angular_error,
    within,
)
from reasonx_eval.metrics.ordinal import agreement, relation
from reasonx_eval.metrics.table import METRICS, Metric, metric_info

if TYPE_CHECKING:
    from reasonx_eval.scoring.arrays import albedo_metrics, depth_metrics, irradiance_metrics, normal_metrics

#: these read protocols, which know the metrics: they are found on first use
_BY_PROTOCOL = ("albedo_metrics", "depth_metrics", "irradiance_metrics", "normal_metrics")

__all__ = [
    "METRICS", "Metric", "abs_rel", "agreement", "albedo_metrics", "angular_error", "angular_errors",
    "apply_alignment", "delta1", "delta2", "delta3", "depth_metrics", "depth_normal_consistency", "fit_alignment",
    "irmse", "irradiance_metrics", "lmse", "log10", "lsq_scale", "mae", "map_rmse", "median_angular_error",
    "metric_info", "normal_metrics", "normals_from_depth", "pooled_normal_metrics", "psnr", "relation", "rmse",
    "rmse_angular_error", "rmse_log", "si_mse", "silog", "sq_rel", "ssim", "whdr", "within",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _BY_PROTOCOL:
        return getattr(import_module("reasonx_eval.scoring.arrays"), name)
    raise AttributeError(f"module 'reasonx_eval.metrics' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
