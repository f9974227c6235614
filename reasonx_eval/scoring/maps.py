"""Dense albedo and irradiance against ground truth maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from reasonx_eval import color
from reasonx_eval.errors import SampleError
from reasonx_eval.metrics import image
from reasonx_eval.protocol import MapSpec, Protocol
from reasonx_eval.scoring import Scored
from reasonx_eval.scoring.depth import match_size
from reasonx_eval.types import MapTarget, Prediction, Sample, Target

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
    pred = match_size(prediction.value, truth.shape, spec.resize).astype(np.float64)
    if not np.isfinite(pred[mask]).all():
        bad = int(np.count_nonzero(~np.isfinite(pred[mask]).all(axis=-1)))
        raise SampleError(f"the prediction has NaN or infinity at {bad} of {n_valid} valid pixels")
    if prediction.kind == "albedo_srgb":
        pred = color.decode(pred, spec.transfer)
    metrics: dict[str, float] = {}
    for name in protocol.metrics:
        if name in ("si_mse", "lmse"):
            metrics[name] = _scale_invariant(name, pred, truth, mask, spec)
    rest = [n for n in protocol.metrics if n not in metrics]
    if rest:
        a, b = _compared(pred, truth, mask, spec)
        compute: dict[str, Callable[..., float]] = {"psnr": image.psnr, "ssim": image.ssim, "map_rmse": image.rmse}
        metrics |= {name: compute[name](pred=a, target=b, valid=mask) for name in rest}
    return Scored(metrics={k: metrics[k] for k in protocol.metrics}, n_valid=n_valid)


def _scale_invariant(
    name: str, pred: NDArray[np.float64], truth: NDArray[np.float64], mask: NDArray[np.bool_], spec: MapSpec
) -> float:
    """Metrics with a scale of their own, in linear values."""
    if name == "si_mse":
        return image.si_mse(pred=pred, target=truth, valid=mask)
    if spec.lmse == "luo":
        return image.lmse_luo(pred=pred, target=truth, valid=mask)
    return image.lmse_grosse(pred=pred.mean(axis=-1), target=truth.mean(axis=-1), valid=mask)


def _compared(
    pred: NDArray[np.float64], truth: NDArray[np.float64], mask: NDArray[np.bool_], spec: MapSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both maps after scale, exposure, clipping and transfer, in the space the protocol compares in."""
    if spec.scale == "lsq":
        scale = image.lsq_scale(pred=pred, target=truth, valid=mask)
        if not np.isfinite(scale):
            raise SampleError("the least-squares scale is undetermined: the prediction is black")
        pred = pred * scale
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
