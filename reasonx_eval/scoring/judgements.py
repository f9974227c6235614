"""WHDR: reflectance at the judged points, in the space the protocol names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore
from reasonx_eval.io import color
from reasonx_eval.io.resize import resize
from reasonx_eval.metrics.judgements import CompiledJudgements, compile_judgements, disagreement, lightness
from reasonx_eval.metrics.table import whdr_name
from reasonx_eval.protocols.protocol import Protocol, WhdrSpec
from reasonx_eval.scoring.scored import Scored
from reasonx_eval.types import JudgementTarget, Prediction, Sample, Target

_BILINEAR = {"image-mirror": "bilinear-mirror", "image-zeros": "bilinear-zeros"}
Curve = Callable[[NDArray[Any]], NDArray[np.float64]]


def reflectance_curve(kind: str, spec: WhdrSpec) -> Curve | None:
    """From the values a model gives to the space that ratios are taken in; None changes nothing."""
    encoded = kind == "albedo_srgb"
    if spec.space == "linear":
        return (lambda v: color.decode(v, spec.transfer)) if encoded else None
    if spec.space == "stored" or encoded:
        return None
    return lambda v: color.encode(v, "gamma2.2" if spec.space == "gamma" else "srgb")


def score_judgements(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, JudgementTarget)
    spec = protocol.whdr
    assert spec is not None
    if len(target.pairs) == 0:
        raise UndefinedScore("no judgement with weight: WHDR is undefined for this image")
    light, compiled = judged_lightness(sample, target, prediction, spec)
    metrics: dict[str, float] = {}
    for delta in spec.deltas:
        parts = disagreement(light=light, judgements=compiled, delta=delta)
        metrics |= {
            whdr_name(delta): parts["whdr"],
            whdr_name(delta, "eq"): _part(parts["whdr_eq"], spec),
            whdr_name(delta, "ineq"): _part(parts["whdr_ineq"], spec),
        }
    return Scored(metrics={k: metrics[k] for k in protocol.metrics}, n_valid=len(target.pairs))


def _part(value: float, spec: WhdrSpec) -> float:
    """The rate of "same" or "darker" judgements alone, by the protocol's rule where there is none."""
    return 0.0 if spec.absent == "zero" and math.isnan(value) else value


def judged_lightness(
    sample: Sample, target: JudgementTarget, prediction: Prediction, spec: WhdrSpec
) -> tuple[NDArray[np.float64], CompiledJudgements]:
    """Lightness at the judged points in the protocol's space, float64 [P], and the judgements at their pixels."""
    value: NDArray[Any] = prediction.value
    curve = reflectance_curve(prediction.kind, spec)
    if spec.rescale == "half-one" or spec.resize != "none":
        # these rules look at the whole map, so it is converted whole; otherwise only judged points are
        value, curve = _whole(value, curve, spec, sample), None
    compiled = compile_judgements(target=target, height=value.shape[0], width=value.shape[1])
    return lightness(reflectance=value, judgements=compiled, decode=curve), compiled


def _whole(value: NDArray[Any], curve: Curve | None, spec: WhdrSpec, sample: Sample) -> NDArray[Any]:
    full = value if curve is None else curve(value)
    if spec.resize != "none":
        height, width = sample.image.shape[:2]
        size = (width, height) if spec.resize == "image-exchanged" else (height, width)
        full = resize(full, size, _BILINEAR.get(spec.resize, "bilinear"))
    if spec.rescale == "half-one":
        if not np.isfinite(full).all():
            raise SampleError("the prediction has NaN or infinity, so it has no range to rescale from")
        low, high = float(full.min()), float(full.max())
        if not high > low:
            raise SampleError("a constant prediction can't be rescaled to [0.5, 1]")
        full = (full.astype(np.float64) - low) / (high - low) / 2 + 0.5
    return full
