"""Surface normals: angles in degrees, per image or pooled over every pixel of the data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.normals import WITHIN, measure_normals, summarise
from reasonx_eval.metrics.valid_pixels import dot
from reasonx_eval.protocols.protocol import NormalsSpec, Protocol
from reasonx_eval.scoring.depth import match_size
from reasonx_eval.scoring.readings import normal_readings, sampled
from reasonx_eval.scoring.scored import Scored
from reasonx_eval.types import NormalTarget, Prediction, Sample, Target


def evaluation_mask(target: NormalTarget, spec: NormalsSpec) -> NDArray[np.bool_]:
    """Pixels that count, bool [H, W]: valid, and min_norm < |n| < max_norm."""
    if spec.min_norm == 0.0 and spec.max_norm is None:
        return target.valid & np.asarray(target.normal.any(axis=-1))
    norm = np.sqrt(np.einsum("hwc,hwc->hw", target.normal, target.normal, dtype=np.float64))
    mask: NDArray[np.bool_] = target.valid & (norm > spec.min_norm)
    return mask if spec.max_norm is None else mask & (norm < spec.max_norm)


def score_normals(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, NormalTarget)
    spec = protocol.normals
    assert spec is not None
    mask = evaluation_mask(target, spec)
    n_valid = int(np.count_nonzero(mask))
    if n_valid == 0:
        raise SampleError("the ground truth has no valid normal")
    value = match_size(prediction.value, target.normal.shape, spec.resize)
    notes = tuple(normal_readings(*sampled(mask, value, target.normal)))
    if protocol.pool == "image":
        metrics = measure_normals(pred=value, target=target.normal, mask=mask, names=protocol.metrics,
                                 round_digits=spec.round_per_image)  # fmt: skip
        return Scored(metrics=metrics, n_valid=n_valid, notes=notes)
    errors = angular_errors(pred=value, target=target.normal, mask=mask)
    return Scored(metrics=summarise(errors=errors, names=protocol.metrics), n_valid=n_valid,
                  stats=pixel_stats(errors), notes=notes, pixels=errors)  # fmt: skip


def pixel_stats(errors: NDArray[np.float64]) -> dict[str, float]:
    """Sums that pooled mean, RMSE and shares are made of, so that they can be checked from the records."""
    stats = {"count": float(errors.size), "sum": float(errors.sum()), "sum_sq": dot(errors, errors)}
    for name, limit in WITHIN.items():
        stats[name] = float(np.count_nonzero(errors < limit))
    return stats
