"""Ordinal agreement at point pairs: the relation a map implies against the one that holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io import color
from reasonx_eval.metrics.ordinal import agreement, relation
from reasonx_eval.protocols.protocol import PairsSpec, Protocol
from reasonx_eval.scoring.scored import Scored
from reasonx_eval.types import LEFT_OUT, PairTarget, Prediction, Sample, Target


def score_pairs(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, PairTarget)
    spec = protocol.pairs
    assert spec is not None
    reference = target.relation.get(spec.modality)
    if reference is None:
        raise SampleError(f"the ground truth has no relations for {spec.modality}, only {sorted(target.relation)}")
    predicted = implied_relation(target, prediction, spec)
    counted = int(np.count_nonzero(reference != LEFT_OUT))
    return Scored(metrics={"agreement": agreement(predicted, reference)}, n_valid=counted)


def implied_relation(target: PairTarget, prediction: Prediction, spec: PairsSpec) -> NDArray[np.int8]:
    """The relations that a prediction says, int8 [J], by the rules of a protocol's pairs."""
    value = prediction.value
    if prediction.kind == "albedo_srgb":
        value = color.srgb_to_linear(value)
    return relation(
        value=value, points=target.points, pairs=target.pairs, modality=spec.modality, margin=0.0,
        same_distance=spec.same_distance, larger_is_closer=prediction.kind == "disparity_affine",
    )  # fmt: skip
