"""One prediction of one sample under one protocol: the numbers, and the record that is kept of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.scoring.scored import Scored, check_shape
from reasonx_eval.types import Prediction, Record, Sample, Target

#: networks round sides to multiples of 8 or 14: 480 x 640 becomes 476 x 644, 1.5 % wider
MAX_STRETCH = 1.02


def score_sample(*, sample: Sample, prediction: Prediction, protocol: Protocol) -> Scored:
    """Score one prediction under one protocol.

    Parameters
    ----------
    sample : Sample
        With the target that the protocol measures against.
    prediction : Prediction
        As the model gave it: any size, not aligned.
    protocol : Protocol

    Raises
    ------
    UsageError
        The protocol does not accept this kind of prediction.
    SampleError
        Wrong shape, NaN under the mask, empty mask, undetermined alignment: never a made-up number.
    UndefinedScore
        The ground truth of this sample defines no value (no judgement with weight).
    """
    if prediction.kind not in protocol.accepts:
        raise UsageError(f"{protocol.ref} accepts {', '.join(protocol.accepts)}, not {prediction.kind}")
    target = sample.targets.get(protocol.reads)
    if target is None:
        raise SampleError(f"the dataset has no target '{protocol.reads}' for this sample", where=sample.id)
    check_shape(prediction)
    _check_orientation(prediction, target)
    scored = _score(sample, target, prediction, protocol)
    note = _aspect_note(prediction, target, sample)
    return replace(scored, notes=(*scored.notes, note)) if note else scored


def _score(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    # imported here so that a depth run never loads scikit-image
    if protocol.target == "depth":
        from reasonx_eval.scoring.depth import score_depth as score
    elif protocol.target == "normals":
        from reasonx_eval.scoring.normals import score_normals as score
    elif protocol.target == "judgements":
        from reasonx_eval.scoring.judgements import score_judgements as score
    elif protocol.target == "agreement":
        from reasonx_eval.scoring.agreement import score_agreement as score
    elif protocol.target == "pairs":
        from reasonx_eval.scoring.pairs import score_pairs as score
    else:
        from reasonx_eval.scoring.maps import score_map as score
    return score(sample, target, prediction, protocol)


def _check_orientation(prediction: Prediction, target: Target) -> None:
    """Predictions may have any size, and are resized; one with both sides exchanged was never meant to be."""
    valid = getattr(target, "valid", None)
    if valid is None or valid.shape[0] == valid.shape[1]:
        return
    if prediction.value.shape[:2] == valid.shape[::-1]:
        raise SampleError(f"the prediction is {list(prediction.value.shape[:2])}, the ground truth "
                          f"{list(valid.shape)}: transposed?")  # fmt: skip


def _aspect_note(prediction: Prediction, target: Target, sample: Sample) -> str | None:
    """A note where resizing would stretch the prediction by more than 2 %."""
    valid = getattr(target, "valid", None)
    shape = valid.shape if valid is not None else sample.meta.get("photo_size")
    if shape is None and isinstance(sample.source, np.ndarray):
        shape = sample.source.shape[:2]
    if shape is None:
        return None
    height, width = prediction.value.shape[:2]
    stretch = (width * shape[0]) / (height * shape[1])
    if max(stretch, 1 / stretch) <= MAX_STRETCH:
        return None
    return ("the prediction's aspect ratio differs from the photo's by more than 2 %: cropped, padded, or of another "
            "photo?")  # fmt: skip


def to_record(sample: Sample, scored: Scored, data: str, prediction: str) -> Record:
    """The line that is kept: NaN becomes null, never a number."""
    fit = scored.alignment
    alignment = None if fit is None else {
        "mode": fit.mode, "space": fit.space, "scale": fit.scale, "shift": fit.shift, "n_valid": fit.n_valid,
    }  # fmt: skip
    return Record(
        sample_id=sample.id,
        metrics={k: float(v) if math.isfinite(v) else None for k, v in scored.metrics.items()},
        n_valid=scored.n_valid,
        alignment=alignment,
        group=sample.group,
        stats=dict(scored.stats),
        data=data,
        prediction=prediction,
        notes=scored.notes,
    )
