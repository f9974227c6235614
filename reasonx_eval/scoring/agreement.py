"""Agreement of a model's normals with the surface of its own depth, fitted to ground truth where it has no metres."""

from __future__ import annotations

import numpy as np

from reasonx_eval.errors import SampleError
from reasonx_eval.metrics import align
from reasonx_eval.metrics.consistency import depth_normal_consistency
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.scoring.depth import evaluation_mask, fit_depth, match_size
from reasonx_eval.scoring.scored import Scored, check_shape
from reasonx_eval.types import DepthTarget, Prediction, Sample, Target


def score_agreement(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, DepthTarget)
    spec = protocol.agreement
    assert spec is not None
    if prediction.beside is None:
        raise SampleError("the model gave normals without the depth beside them")
    if target.intrinsics is None:
        raise SampleError("the dataset gives no intrinsics, so depth has no surface normals")
    check_shape(prediction.beside)
    mask = evaluation_mask(target, spec)
    if not mask.any():
        raise SampleError("the ground truth has no valid pixel to fit the depth to")
    pairs, alignment = fit_depth(prediction.beside, target, mask, spec)
    depth = align.apply(pred=pairs.pred, alignment=alignment, disparity_floor=spec.align.disparity_floor)
    if spec.clip_m is not None:
        depth = np.clip(depth, *spec.clip_m)
    normal = match_size(prediction.value, target.depth.shape, spec.resize)
    metrics = depth_normal_consistency(depth=depth, normal=normal, mask=mask, intrinsics=target.intrinsics)
    return Scored(metrics={k: metrics[k] for k in protocol.metrics}, n_valid=int(np.count_nonzero(mask)),
                  alignment=alignment, notes=align.alignment_notes(alignment))  # fmt: skip
