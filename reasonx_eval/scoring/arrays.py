"""The metrics of a protocol for arrays: what `reasonx-eval run` computes for a sample, without files.

Each takes (prediction, ground truth, mask) of one image or of leading batch axes, numpy or torch, and gives every
metric of the protocol by name. The prediction may have another size than the ground truth if the protocol resizes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.metrics.arrays import each_image
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.scoring.sample import score_sample
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Prediction, Sample, Target

Make = Callable[[NDArray[Any], NDArray[np.bool_]], Target]


def depth_metrics(
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    protocol: str | Protocol = "depth/generic",
    kind: str = "depth_affine",
) -> dict[str, Any]:
    """Depth metrics by a protocol's rules: resize, range and crop, align, clip, measure.

    Parameters
    ----------
    pred : [..., h, w], in the unit that `kind` says; numpy or torch, on any device
    target : [..., H, W], metres; 0 or not finite where nothing was measured
    mask : [..., H, W] or [H, W], bool or uint8, optional
        Pixels that the data set calls measured; those with a finite depth above 0 if it is not given.
    protocol : depth/nyuv2, depth/eth3d@1, ...; `reasonx-eval list protocols` names all
    kind : depth_metric (metres), depth_scale (up to a factor), depth_affine (up to a factor and an offset) or
        disparity_affine (1/depth up to a factor and an offset)

    Returns
    -------
    dict
        name -> float; for leading axes float64 [...], arrays or tensors as the input is. The numbers are those that
        ``reasonx-eval run`` stores.

    Raises
    ------
    SampleError
        Shapes that don't match, nothing left to measure, values that aren't finite, or an undetermined alignment.
    UsageError
        Unknown protocol, or one that does not accept this kind.

    Examples
    --------
    A disparity of any scale and shift is fitted in disparity, then inverted:

    >>> depth = np.linspace(1, 9, 480 * 640).reshape(480, 640)
    >>> found = depth_metrics(0.3 / depth + 2, depth, protocol="depth/nyuv2", kind="disparity_affine")
    >>> round(found["abs_rel"], 9), found["delta1"]
    (0.0, 1.0)
    """

    def make(depth: NDArray[Any], valid: NDArray[np.bool_]) -> Target:
        if mask is None:
            with np.errstate(invalid="ignore"):
                valid = np.isfinite(depth) & (depth > 0)
        return DepthTarget(depth, valid)

    return _measure(pred, target, mask, protocol, kind, make)


def normal_metrics(
    pred: Any, target: Any, mask: Any = None, *, protocol: str | Protocol = "normals/generic"
) -> dict[str, Any]:
    """Metrics of surface normals by a protocol's rules, per image; see `depth_metrics`.

    A protocol that pools the pixels of a data set gives the numbers of one image here;
    `reasonx_eval.metrics.pooled_normal_metrics` pools.

    Parameters
    ----------
    pred, target : [..., H, W, 3], in one camera frame; a vector of the ground truth that is 0 counts nowhere

    Examples
    --------
    >>> normals = np.tile([0.0, 0.0, -1.0], (4, 4, 1))
    >>> normal_metrics(normals, normals)["mean_deg"]
    0.0
    """
    return _measure(pred, target, mask, protocol, "normal", NormalTarget)


def albedo_metrics(
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    protocol: str | Protocol = "albedo/generic",
    kind: str = "albedo_linear",
) -> dict[str, Any]:
    """Metrics of dense albedo by a protocol's rules; see `depth_metrics`, and `whdr` for human judgements.

    Parameters
    ----------
    pred : [..., H, W, 3], linear, or encoded as the protocol says if `kind` is albedo_srgb
    target : [..., H, W, 3], linear

    Examples
    --------
    >>> albedo = np.random.default_rng(0).uniform(0.1, 0.9, (24, 24, 3))
    >>> round(albedo_metrics(0.5 * albedo, albedo)["si_mse"], 12)
    0.0
    """
    return _measure(pred, target, mask, protocol, kind, MapTarget)


def irradiance_metrics(
    pred: Any, target: Any, mask: Any = None, *, protocol: str | Protocol = "irradiance/generic"
) -> dict[str, Any]:
    """Metrics of dense irradiance, linear [..., H, W, 3], by a protocol's rules; see `depth_metrics`.

    Examples
    --------
    >>> light = np.random.default_rng(0).uniform(0.1, 3, (24, 24, 3))
    >>> round(irradiance_metrics(2 * light, light)["map_rmse"], 12)
    0.0
    """
    return _measure(pred, target, mask, protocol, "irradiance", MapTarget)


def _measure(pred: Any, target: Any, mask: Any, protocol: str | Protocol, kind: str, make: Make) -> dict[str, Any]:
    rules = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if kind not in rules.accepts:
        raise UsageError(f"{rules.ref} accepts {', '.join(rules.accepts)}, not {kind}")
    if rules.target not in ("depth", "normals", "albedo", "irradiance"):
        raise UsageError(f"{rules.ref} measures against {rules.target}, not against a map",
                         fix="reasonx_eval.score_sample")  # fmt: skip

    def one(p: NDArray[Any], g: NDArray[Any], valid: NDArray[np.bool_]) -> dict[str, float]:
        if p.dtype.kind in "iu":
            p = p.astype(np.float64)
        # nothing but the prediction and the ground truth is looked at
        photo = np.zeros((*valid.shape, 3), dtype=np.uint8)
        sample = Sample("array", photo, {rules.reads: make(g, valid)})
        scored = score_sample(sample=sample, prediction=Prediction(kind, p), protocol=rules)
        return dict(scored.metrics)

    return dict(each_image(one, pred, target, mask, axes=2 if rules.target == "depth" else 3,
                           resizes=True))  # fmt: skip
