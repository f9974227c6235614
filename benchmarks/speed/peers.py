"""The plain formulations of published evaluation code, written out from their formulas.

They are what many scripts do, step by step and with their temporaries: one Python iteration a judgement, one masked
copy a metric, one growing array a data set. They keep the dtype of their inputs, so that float64 shows that a form is
right and float32, the dtype of real maps, what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


def whdr_loop(reflectance: Array, judgements: Mapping[str, Any], delta: float = 0.10) -> float:
    """WHDR of linear reflectance [H, W, 3], judgement by judgement (Bell et al. 2014, section 3.5).

    Parameters
    ----------
    judgements : as parsed from a photo's JSON: ``intrinsic_points`` and ``intrinsic_comparisons``
    """
    points = judgements["intrinsic_points"]
    by_id = {point["id"]: point for point in points}
    height, width = reflectance.shape[:2]
    wrong = total = 0.0
    for comparison in judgements["intrinsic_comparisons"]:
        darker, weight = comparison["darker"], comparison["darker_score"]
        if darker not in ("1", "2", "E") or weight is None or weight <= 0:
            continue
        first, second = by_id[comparison["point1"]], by_id[comparison["point2"]]
        if not (first["opaque"] and second["opaque"]):
            continue
        light1 = max(1e-10, float(np.mean(reflectance[int(first["y"] * height), int(first["x"] * width), ...])))
        light2 = max(1e-10, float(np.mean(reflectance[int(second["y"] * height), int(second["x"] * width), ...])))
        if light2 / light1 > 1.0 + delta:
            answer = "1"
        elif light1 / light2 > 1.0 + delta:
            answer = "2"
        else:
            answer = "E"
        wrong += weight * (answer != darker)
        total += weight
    return wrong / total


def srgb_to_linear_masks(image: Array) -> Array:
    """sRGB codes [H, W, 3] to linear light, as float64 with a mask for each branch (IEC 61966-2-1)."""
    value = image.astype(np.float64) / 255.0
    linear = np.zeros_like(value)
    low = value <= 0.04045
    linear[low] = value[low] / 12.92
    linear[~low] = ((value[~low] + 0.055) / 1.055) ** 2.4
    return linear


def affine_lstsq(pred: Array, target: Array, valid: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Scale and shift that take prediction to ground truth, by a least-squares solver on [n, 2]."""
    p, g = pred[valid].reshape(-1, 1), target[valid].reshape(-1, 1)
    design = np.concatenate([p, np.ones_like(p)], axis=-1)
    (scale, shift) = np.linalg.lstsq(design, g, rcond=None)[0].ravel()
    return scale, shift


def depth_affine_torch(pred: Array, target: Array, valid: NDArray[np.bool_],
                       clip: tuple[float, float]) -> dict[str, float]:  # fmt: skip
    """Fit, align, clip, and the ten metrics of affine-invariant depth, each by whole-map tensors (Marigold's way)."""
    scale, shift = affine_lstsq(pred, target, valid)
    return depth_metric_torch(pred * scale + shift, target, valid, clip)


def depth_metric_torch(pred: Array, target: Array, valid: NDArray[np.bool_],
                       clip: tuple[float, float]) -> dict[str, float]:  # fmt: skip
    """The ten metrics of a depth in metres that is only clipped."""
    aligned = np.clip(np.clip(pred, *clip), a_min=1e-6, a_max=None)
    p, g, mask = torch.from_numpy(aligned), torch.from_numpy(target), torch.from_numpy(valid)
    return {name: function(p, g, mask).item() for name, function in _DEPTH.items()}


def depth_affine_numpy(pred: Array, target: Array, valid: NDArray[np.bool_],
                       clip: tuple[float, float]) -> dict[str, float]:  # fmt: skip
    """The same, masked once, by numpy on the vectors of valid pixels: the simple good form."""
    p, g = pred[valid].astype(np.float64), target[valid].astype(np.float64)
    cp, cg = p - p.mean(), g - g.mean()
    scale = (cp @ cg) / (cp @ cp)
    p = np.maximum(np.clip(p * scale + (g.mean() - scale * p.mean()), *clip), 1e-6)
    error, logs, inverse = p - g, np.log(p) - np.log(g), 1 / p - 1 / g
    ratio = np.maximum(p / g, g / p)
    return {
        "abs_rel": float(np.mean(np.abs(error) / g)), "sq_rel": float(np.mean(error**2 / g)),
        "rmse": float(np.sqrt(np.mean(error**2))), "rmse_log": float(np.sqrt(np.mean(logs**2))),
        "log10": float(np.mean(np.abs(logs)) / np.log(10)), "delta1": float(np.mean(ratio < 1.25)),
        "delta2": float(np.mean(ratio < 1.25**2)), "delta3": float(np.mean(ratio < 1.25**3)),
        "irmse": float(np.sqrt(np.mean(inverse**2))), "silog": 100 * float(np.std(logs)),
    }  # fmt: skip


def _masked_mean(error: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over valid pixels of a map whose other pixels are set to zero."""
    error[~mask] = 0
    return torch.sum(error, (-1, -2)) / mask.sum((-1, -2))


def _abs_rel(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _masked_mean(torch.abs(p - g) / g, mask)


def _sq_rel(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _masked_mean(torch.pow(torch.abs(p - g), 2) / g, mask)


def _rmse(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(_masked_mean(torch.pow(p - g, 2), mask))


def _rmse_log(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(_masked_mean(torch.pow(torch.log(p) - torch.log(g), 2), mask))


def _log10(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.mean(torch.abs(torch.log10(p[mask]) - torch.log10(g[mask])))


def _delta(power: int) -> Any:
    def share(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ratio = torch.max(p / g, g / p)
        inside = torch.where(ratio < 1.25**power, torch.ones_like(ratio), torch.zeros_like(ratio))
        return _masked_mean(inside, mask)

    return share


def _irmse(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(_masked_mean(torch.pow(1.0 / p - 1.0 / g, 2), mask))


def _silog(p: torch.Tensor, g: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    d = torch.log(p[mask]) - torch.log(g[mask])
    return torch.sqrt(torch.mean(torch.pow(d, 2)) - torch.pow(torch.mean(d), 2)) * 100


_DEPTH: Mapping[str, Any] = {
    "abs_rel": _abs_rel, "sq_rel": _sq_rel, "rmse": _rmse, "rmse_log": _rmse_log, "log10": _log10,
    "delta1": _delta(1), "delta2": _delta(2), "delta3": _delta(3), "irmse": _irmse, "silog": _silog,
}  # fmt: skip
#: the ten metrics that the depth forms give
DEPTH_METRICS = tuple(_DEPTH)
#: of normals: metric -> threshold in degrees
_WITHIN = {"within_5": 5.0, "within_7_5": 7.5, "within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}


def angular_errors_torch(pred: Array, target: Array, valid: NDArray[np.bool_]) -> torch.Tensor:
    """Angles in degrees [n] by cosine similarity of whole maps [1, 3, H, W] (DSINE's and Marigold's way)."""
    p = torch.from_numpy(pred).permute(2, 0, 1)[None]
    g = torch.from_numpy(target).permute(2, 0, 1)[None]
    cosine = torch.clamp(torch.cosine_similarity(p, g, dim=1), min=-1.0, max=1.0)
    error = (torch.acos(cosine) * 180.0 / np.pi).unsqueeze(1)
    return error[torch.from_numpy(valid)[None, None]]


def normal_statistics(errors: torch.Tensor) -> dict[str, float]:
    """Mean, median, RMSE and five shares of angular errors in degrees, as numpy reductions one by one."""
    e = errors.cpu().numpy()
    count = e.shape[0]
    return {
        "mean_deg": float(np.average(e)), "median_deg": float(np.median(e)),
        "rmse_deg": float(np.sqrt(np.sum(e * e) / count)),
        **{name: float(np.sum(e < limit) / count) for name, limit in _WITHIN.items()},
    }  # fmt: skip


def pooled_normals_growing(errors: Sequence[torch.Tensor]) -> dict[str, float]:
    """The same over every pixel of a data set: errors [n_i] of its images are concatenated one after the other."""
    total: torch.Tensor | None = None
    for piece in errors:
        total = piece if total is None else torch.cat((total, piece), dim=0)
    assert total is not None
    return normal_statistics(total)


def pooled_normals_once(errors: Sequence[torch.Tensor]) -> dict[str, float]:
    """The same with one concatenation at the end: linear, but all errors twice in memory."""
    return normal_statistics(torch.cat(list(errors), dim=0))
