"""Load, predict and score a list of samples with threads, giving outcomes in order."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, ReasonXError, SampleError, UndefinedScore, UsageError
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.files import safe_name
from reasonx_eval.io.images import write_npy
from reasonx_eval.models.base import Model
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.scoring import score_sample, to_record
from reasonx_eval.types import Kind, Prediction, Record, Sample


@dataclass(frozen=True)
class Job:
    """What every sample of a run goes through.

    pixels, predictions : folders to keep per-pixel errors and predictions in, or None
    """

    model: Model
    kind: Kind
    dataset: Dataset
    protocol: Protocol
    seed: int
    pixels: Path | None = None
    predictions: Path | None = None


@dataclass(frozen=True)
class Outcome:
    record: Record
    load_seconds: float | None = None
    predict_seconds: float | None = None
    score_seconds: float | None = None

    def timing_line(self) -> str:
        row = {"id": self.record.sample_id, "load": self.load_seconds, "predict": self.predict_seconds,
               "score": self.score_seconds}  # fmt: skip
        return json.dumps(row) + "\n"


@dataclass(frozen=True)
class _Loaded:
    sample: Sample
    data: str
    seconds: float


@dataclass(frozen=True)
class _Predicted:
    loaded: _Loaded
    prediction: Prediction
    seconds: float


def evaluate(job: Job, ids: Sequence[str], *, workers: int) -> Iterator[Outcome]:
    """Outcomes of `ids`, in order.

    Few more than `workers` samples are in memory at a time: one of ETH3D takes 300 MB with its prediction. A sample
    that fails gives an outcome with its error; the rest goes on.
    """
    if workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    batch_size = max(1, job.model.batch_size)
    ahead = max(workers, batch_size)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reasonx")
    try:
        if job.model.thread_safe:
            yield from _all_in_pool(job, ids, pool, ahead)
        else:
            yield from _predict_here(job, ids, pool, ahead, batch_size)
    finally:
        # on an interrupt nobody waits for what was only queued
        pool.shutdown(wait=True, cancel_futures=True)


def _all_in_pool(job: Job, ids: Sequence[str], pool: ThreadPoolExecutor, ahead: int) -> Iterator[Outcome]:
    job.model.load()
    waiting: deque[Future[Outcome]] = deque()
    for sample_id in ids:
        waiting.append(pool.submit(_whole, job, sample_id))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _whole(job: Job, sample_id: str) -> Outcome:
    loaded = _load(job, sample_id)
    if isinstance(loaded, Outcome):
        return loaded
    predicted = _predict(job, [loaded])[0]
    return predicted if isinstance(predicted, Outcome) else _score(job, predicted)


def _predict_here(
    job: Job, ids: Sequence[str], pool: ThreadPoolExecutor, ahead: int, batch_size: int
) -> Iterator[Outcome]:
    loading: deque[Future[_Loaded | Outcome]] = deque()
    scoring: deque[Future[Outcome]] = deque()
    # the network is read while the first samples are decoded
    ready = pool.submit(job.model.load)
    queue = iter(ids)
    for sample_id in (next(queue, None) for _ in range(ahead)):
        if sample_id is not None:
            loading.append(pool.submit(_load, job, sample_id))
    ready.result()
    while loading:
        batch = [loading.popleft().result() for _ in range(min(batch_size, len(loading)))]
        for _ in batch:
            following = next(queue, None)
            if following is not None:
                loading.append(pool.submit(_load, job, following))
        for item in _predict_mixed(job, batch):
            scoring.append(pool.submit(_score, job, item) if isinstance(item, _Predicted) else _ready(item))
        while scoring and (not loading or len(loading) + len(scoring) > ahead + 1):
            yield scoring.popleft().result()


def _ready(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


def _failure(sample_id: str, error: BaseException, stage: str, **seconds: float) -> Outcome:
    """A failed sample as a record: one line, without a traceback."""
    # only ground truth leaves a score undefined; a model that says so would drop the images it finds hard
    if isinstance(error, UndefinedScore) and not stage.startswith("model"):
        return Outcome(Record(sample_id=sample_id, undefined=error.what), **seconds)
    if isinstance(error, ReasonXError):
        text = f"{error.where}: {error.what}" if error.where else error.what
    elif isinstance(error, MemoryError):
        text = f"out of memory ({stage}): fewer --workers need less"
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    return Outcome(Record(sample_id=sample_id, error=f"{stage}: {text}"), **seconds)


def _load(job: Job, sample_id: str) -> _Loaded | Outcome:
    clock = time.perf_counter()
    try:
        want = {job.protocol.reads, *(set(job.model.needs_targets) & set(job.dataset.targets))}
        sample = job.dataset.load(sample_id, want)
        if job.model.needs_image:
            _ = sample.image  # decoded here, in the worker, not where the model waits for it
        target = sample.targets.get(job.protocol.reads)
        data = array_digest(target) if target is not None else "absent"
    except Exception as error:
        if isinstance(error, DataError) and not isinstance(error, SampleError):
            raise  # the data set as a whole, not this sample
        return _failure(sample_id, error, "load", load_seconds=time.perf_counter() - clock)
    return _Loaded(sample, data, time.perf_counter() - clock)


def _predict_mixed(job: Job, batch: Sequence[_Loaded | Outcome]) -> list[_Predicted | Outcome]:
    """Predict what could be loaded; what could not keeps its place."""
    predicted = iter(_predict(job, [b for b in batch if isinstance(b, _Loaded)]))
    return [next(predicted) if isinstance(b, _Loaded) else b for b in batch]


def _predict(job: Job, loaded: Sequence[_Loaded]) -> list[_Predicted | Outcome]:
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
    return [_Predicted(replace(item, sample=replace(item.sample)), p, each if p.seconds is None else p.seconds)
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


def _score(job: Job, item: _Predicted) -> Outcome:
    clock = time.perf_counter()
    sample = item.loaded.sample
    try:
        if job.predictions is not None:
            # before scoring: a prediction that scores badly is the one a user wants to look at
            from reasonx_eval.models.saved.predictions import write_prediction

            write_prediction(job.predictions, sample.id, item.prediction)
        scored = score_sample(sample=sample, prediction=item.prediction, protocol=job.protocol)
        if job.pixels is not None and scored.pixels is not None:
            write_npy(job.pixels / f"{safe_name(sample.id)}.npy", scored.pixels)
        record = to_record(sample, scored, item.loaded.data, array_digest(item.prediction))
    except OSError:
        raise  # the run's folder can't be written: no fault of this sample
    except Exception as error:
        return _failure(sample.id, error, "score", load_seconds=item.loaded.seconds, predict_seconds=item.seconds)
    return Outcome(record, item.loaded.seconds, item.seconds, time.perf_counter() - clock)
