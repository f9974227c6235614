"""The stages of one sample: load, predict, score. Each gives the input of the next one, or why the sample failed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, ReasonXError, SampleError, UndefinedScore
from reasonx_eval.io.digests import Algorithm, array_digest, image_digest
from reasonx_eval.io.files import safe_name
from reasonx_eval.io.images import write_npy
from reasonx_eval.models.base import Model
from reasonx_eval.models.saved.predictions import write_prediction
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.scoring import score_sample, to_record
from reasonx_eval.types import Kind, Prediction, Record, Sample


@dataclass(frozen=True)
class Job:
    """The work on every sample of a run.

    pixels, predictions : folders to keep per-pixel errors and predictions in, or None
    algorithm : of the digests; that of the records that are already there
    """

    model: Model
    kind: Kind
    dataset: Dataset
    protocol: Protocol
    seed: int
    pixels: Path | None = None
    predictions: Path | None = None
    algorithm: Algorithm = "blake3"


@dataclass(frozen=True)
class Loaded:
    """A sample that was read.

    data, photo : digests of the ground truth and of the photo; None for a photo that the model does not look at
    """

    sample: Sample
    data: str
    photo: str | None
    seconds: float


@dataclass(frozen=True)
class Predicted:
    loaded: Loaded
    prediction: Prediction
    seconds: float


@dataclass(frozen=True)
class SampleOutcome:
    """The record of a sample that is done, the digest of its photo, and the seconds of its stages."""

    record: Record
    load_seconds: float | None = None
    predict_seconds: float | None = None
    score_seconds: float | None = None
    photo: str | None = None

    def timing_line(self) -> str:
        row = {"id": self.record.sample_id, "load": self.load_seconds, "predict": self.predict_seconds,
               "score": self.score_seconds}  # fmt: skip
        return json.dumps(row) + "\n"


LoadStage: TypeAlias = Loaded | SampleOutcome
PredictStage: TypeAlias = Predicted | SampleOutcome


def load(job: Job, sample_id: str) -> LoadStage:
    """Read a sample: the target that the protocol measures, the inputs of the model, and their digests.

    Raises
    ------
    DataError
        The data set as a whole can't be read; a single sample becomes an outcome with its error.
    """
    clock = time.perf_counter()
    try:
        want = {job.protocol.reads, *(set(job.model.needs_targets) & set(job.dataset.targets))}
        sample = job.dataset.load(sample_id, want)
        # decoded here, in the worker, not where the model waits for it
        photo = image_digest(sample.image) if job.model.needs_image else None
        target = sample.targets.get(job.protocol.reads)
        data = array_digest(target, job.algorithm) if target is not None else "absent"
    except Exception as error:
        if isinstance(error, DataError) and not isinstance(error, SampleError):
            raise
        return _failure(sample_id, error, "load", load_seconds=time.perf_counter() - clock)
    return Loaded(sample, data, photo, time.perf_counter() - clock)


def predict(job: Job, batch: Sequence[LoadStage]) -> list[PredictStage]:
    """Predict what could be loaded; what could not keeps its place."""
    predicted = iter(_predict(job, [b for b in batch if isinstance(b, Loaded)]))
    return [next(predicted) if isinstance(b, Loaded) else b for b in batch]


def _predict(job: Job, loaded: Sequence[Loaded]) -> list[PredictStage]:
    if not loaded:
        return []
    clock = time.perf_counter()
    try:
        predictions = job.model.predict([item.sample for item in loaded], job.kind, job.seed)
        _check(job, predictions, len(loaded))
    except (Exception, SystemExit) as error:  # no model ends the run
        if len(loaded) > 1:
            # one bad image must not take its batch along
            return [out for item in loaded for out in _predict(job, [item])]
        return [_failure(loaded[0].sample.id, error, f"model {job.model.info.name}", load_seconds=loaded[0].seconds)]
    each = (time.perf_counter() - clock) / len(loaded)
    # a copy without the decoded photo, which scoring hardly ever looks at: 73 MB of an ETH3D sample
    return [Predicted(replace(item, sample=replace(item.sample)), p, each if p.seconds is None else p.seconds)
            for item, p in zip(loaded, predictions, strict=True)]  # fmt: skip


def _check(job: Job, predictions: Sequence[Prediction], n: int) -> None:
    if len(predictions) != n:
        raise ReasonXError(f"gave {len(predictions)} predictions for {n} images")
    for prediction in predictions:
        if not isinstance(prediction, Prediction):
            raise ReasonXError(f"gave a {type(prediction).__name__}, not a Prediction")
        seconds = prediction.seconds
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 <= seconds < float("inf")):
            raise ReasonXError(f"gave {seconds!r} as the seconds it took")
        if prediction.kind != job.kind:
            raise ReasonXError(f"was asked for {job.kind} and gave {prediction.kind}")


def score(job: Job, item: PredictStage) -> SampleOutcome:
    """Score a prediction, and keep it and its per-pixel errors where the run keeps them.

    Raises
    ------
    OSError
        The run's folder can't be written: no fault of this sample.
    """
    if isinstance(item, SampleOutcome):
        return item
    clock = time.perf_counter()
    loaded, sample = item.loaded, item.loaded.sample
    try:
        if job.predictions is not None:
            # before scoring: a prediction that scores badly is the one a user wants to look at
            write_prediction(job.predictions, sample.id, item.prediction)
        scored = score_sample(sample=sample, prediction=item.prediction, protocol=job.protocol)
        if job.pixels is not None and scored.pixels is not None:
            write_npy(job.pixels / f"{safe_name(sample.id)}.npy", scored.pixels)
        record = to_record(sample, scored, loaded.data, array_digest(item.prediction, job.algorithm))
    except OSError:
        raise
    except Exception as error:
        return _failure(sample.id, error, "score", load_seconds=loaded.seconds, predict_seconds=item.seconds)
    return SampleOutcome(record, loaded.seconds, item.seconds, time.perf_counter() - clock, loaded.photo)


def _failure(
    sample_id: str, error: BaseException, stage: str, load_seconds: float, predict_seconds: float | None = None
) -> SampleOutcome:
    """A failed sample as a record: one line, without a traceback."""
    # only ground truth leaves a score undefined; a model that says so would drop the images it finds hard
    if isinstance(error, UndefinedScore) and not stage.startswith("model"):
        return SampleOutcome(Record(sample_id=sample_id, undefined=error.what), load_seconds, predict_seconds)
    if isinstance(error, ReasonXError):
        text = f"{error.where}: {error.what}" if error.where else error.what
    elif isinstance(error, MemoryError):
        text = f"out of memory ({stage}): fewer --workers need less"
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    return SampleOutcome(Record(sample_id=sample_id, error=f"{stage}: {text}"), load_seconds, predict_seconds)
