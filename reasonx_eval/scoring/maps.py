"""Dense albedo and irradiance against ground truth maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io import color
from reasonx_eval.metrics import image
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.protocols.protocol import MapSpec, Protocol
from reasonx_eval.scoring.depth import match_size
from reasonx_eval.scoring.readings import colour_readings, sampled
from reasonx_eval.scoring.scored import Scored
from reasonx_eval.types import MapTarget, Prediction, Sample, Target

Map: TypeAlias = NDArray[np.float64]

#: identical maps have no finite PSNR, and JSON no infinity: what is above is stored as this, in dB
PSNR_CEILING = 100.0

#: metrics that fit a scale of their own, to linear values
OWN_SCALE = frozenset({"si_mse", "lmse"})

#: the brightness weights of the published irradiance exposure (not Rec. 601's: they sum to 1.00 with .30 .59 .11)
_BRIGHTNESS = (0.3, 0.59, 0.11)


def score_map(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, MapTarget)
    spec = protocol.map
    assert spec is not None
    mask = target.valid
    n_valid = int(np.count_nonzero(mask))
    if n_valid == 0:
        raise SampleError("the ground truth has no valid pixel")
    truth = target.value.astype(np.float64)
    pred = linear_map(prediction, truth.shape, spec)
    if not np.isfinite(pred[mask]).all():
        bad = int(np.count_nonzero(~np.isfinite(pred[mask]).all(axis=-1)))
        raise SampleError(f"the prediction has NaN or infinity at {bad} of {n_valid} valid pixels")
    # si-MSE and LMSE fit scales of their own, in linear values; the rest sees what the protocol compares
    maps = {"linear": (pred, truth)}
    if set(protocol.metrics) - OWN_SCALE:
        maps["compared"] = compared_maps(pred, truth, mask, spec)
    metrics = {name: _measure(name, maps, mask, spec) for name in protocol.metrics}
    notes = colour_readings(*sampled(mask, pred, truth))
    return Scored(metrics=metrics, n_valid=n_valid, notes=tuple(notes))


def linear_map(prediction: Prediction, shape: tuple[int, ...], spec: MapSpec) -> Map:
    """The prediction at the ground truth's size in linear values, float64 [H, W, 3]."""
    pred = match_size(prediction.value, shape, spec.resize).astype(np.float64)
    return color.decode(pred, spec.transfer) if prediction.kind == "albedo_srgb" else pred


def _measure(name: str, maps: Mapping[str, tuple[Map, Map]], mask: NDArray[np.bool_], spec: MapSpec) -> float:
    pred, truth = maps["linear" if name in OWN_SCALE else "compared"]
    if name == "lmse":
        return float(image.lmse(pred, truth, mask, form=spec.lmse))
    if name == "ssim":
        return float(image.ssim(pred, truth, mask, border=spec.ssim or "crop"))
    if name == "psnr":
        return min(float(image.psnr(pred, truth, mask)), PSNR_CEILING)
    return float(metric_info(name).function(pred, truth, mask))


def compared_maps(pred: Map, truth: Map, mask: NDArray[np.bool_], spec: MapSpec) -> tuple[Map, Map]:
    """Both maps after scale, exposure, clipping and transfer, in the space the protocol compares in."""
    if spec.scale == "lsq":
        pred = pred * image.lsq_scale(pred, truth, mask)
    if spec.exposure == "p90":
        bright = float(np.percentile(truth[mask] @ np.array(_BRIGHTNESS), 90))
        if bright <= 1e-4:
            raise SampleError("the ground truth is black: its exposure is undetermined")
        pred, truth = pred * (0.8 / bright), truth * (0.8 / bright)
    if spec.clip01 or spec.exposure == "p90":
        pred, truth = np.clip(pred, 0.0, 1.0), np.clip(truth, 0.0, 1.0)
    if spec.space != "linear":
        transfer = "gamma2.2" if spec.space == "gamma" else "srgb"
        pred, truth = color.encode(pred, transfer), color.encode(truth, transfer)
    return pred, truth
