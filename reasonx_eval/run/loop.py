"""One run: load, predict, score, append.

Threads load and score; the model is called from one thread, in order (unless it says it is thread-safe), and
records are appended in the order of the split, so that two runs of one command write the same bytes, however
many workers there are and however often they were killed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io import results
from reasonx_eval.io.records import RecordLog
from reasonx_eval.io.results import Result
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.models.base import Model
from reasonx_eval.models.saved.predictions import write_meta
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.folder import claimed, drop_pixels, finish, make_spec, write_timing
from reasonx_eval.run.prefetch import batched, in_order, worker_pool
from reasonx_eval.run.provenance import collect
from reasonx_eval.run.resume import keep_files, take_over
from reasonx_eval.run.stages import Job, LoadStage, PredictStage, SampleOutcome, load, predict, score
from reasonx_eval.types import Progress, Record


@dataclass(frozen=True)
class RunOptions:
    """How a run goes; nothing here but `seed` and `selection` can change a record.

    workers : threads that load and score
    force : replace the run in the folder
    retry_failed : score failed samples again
    save_predictions, keep_pixels : files that are kept beside the records
    passed, defaulted : options of the call, for the provenance
    """

    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    workers: int = 2
    force: bool = False
    retry_failed: bool = False
    save_predictions: bool = False
    keep_pixels: bool = False
    passed: dict[str, Any] = field(default_factory=dict)
    defaulted: dict[str, Any] = field(default_factory=dict)


def run(
    model: Model,
    dataset: Dataset,
    protocol: Protocol,
    out: Path,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Evaluate one model under one protocol, resuming a run that is already in `out`.

    Parameters
    ----------
    model, dataset, protocol : what to evaluate, on what, by which rules
    out : folder of this run; created, resumed, or refused when it holds another run
    options : see RunOptions
    progress : called after every sample with (done, total, failed)
    say : called with a sentence on the comparison before samples of an earlier process are used again

    Returns
    -------
    Result
        Also written to ``out/result.json``. status is partial when a sample failed or was not asked for.

    Raises
    ------
    UsageError
        The model gives no kind that the protocol accepts; unknown samples; a bad shard.
    NotComparable
        `out` holds a different run, or one whose data or model changed since.
    """
    options = options or RunOptions()
    if options.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {options.workers}")
    kind = model.kind_for(protocol.task, protocol.accepts)
    spec = make_spec(model, kind, dataset, protocol, options.selection, options.seed)
    ids = select(dataset.ids, options.selection)
    started, clock = datetime.now(UTC), time.perf_counter()
    with claimed(out):
        job = Job(model, kind, dataset, protocol, options.seed,
                  pixels=out / "pixels" if protocol.pool == "pixel" else None,
                  predictions=out / "predictions" if options.save_predictions else None)  # fmt: skip
        earlier = take_over(out, spec, job, force=options.force, retry_failed=options.retry_failed,
                            keep_pixels=options.keep_pixels, ids=ids, workers=options.workers,
                            progress=progress)  # fmt: skip
        if say is not None and earlier.said:
            say(earlier.said)
        done = {r.sample_id for r in earlier.records}
        todo = [i for i in ids if i not in done]
        if not todo and (stored := _finished(out)) is not None:
            drop_pixels(out, protocol, stored, options.keep_pixels)
            return stored
        if options.save_predictions:
            write_meta(out / "predictions", kind=kind, info=model.info, seed=options.seed)
        provenance = collect(seed=options.seed, passed=options.passed, defaulted=options.defaulted)
        count = _Count(progress, len(ids), earlier.records)
        new = [count(o) for o in score_samples(earlier.job, todo, out, options.workers)]
        result = finish(out, spec, ids, [*earlier.records, *new], protocol, provenance,
                        keep_pixels=options.keep_pixels, said=dataset.overlooked())  # fmt: skip
        keep_files(out, model)
        write_timing(out, started, time.perf_counter() - clock)
    return result


def score_samples(job: Job, ids: Sequence[str], out: Path, workers: int) -> Iterator[SampleOutcome]:
    """Load, predict, score and append each sample, in the order of `ids`.

    Few more than `workers` samples are in memory at a time: one of ETH3D takes 300 MB with its prediction. A sample
    that fails gives an outcome with its error; the rest goes on. Appended records outlive the process.
    """
    if not ids:
        return
    with worker_pool(workers) as pool, RecordLog(out) as log:
        network = pool.submit(job.model.load)  # read while the first samples are decoded
        if job.model.thread_safe:
            network.result()
            outcomes = in_order(pool, partial(_whole, job), ids, ahead=workers)
        else:
            loaded = in_order(pool, partial(load, job), ids, ahead=max(workers, job.model.batch_size))
            predicted = _predicted(job, loaded, network)
            outcomes = in_order(pool, partial(score, job), predicted, ahead=workers - 1)
        for outcome in outcomes:
            log.append(outcome.record, outcome.timing_line(), outcome.photo)
            yield outcome


def _predicted(job: Job, loaded: Iterator[LoadStage], network: Future[None]) -> Iterator[PredictStage]:
    """Predictions batch by batch, in this thread, once the network is read."""
    for batch in batched(loaded, max(1, job.model.batch_size)):
        network.result()
        yield from predict(job, batch)


def _whole(job: Job, sample_id: str) -> SampleOutcome:
    """All stages of one sample in one thread, for models that may be called from several."""
    (predicted,) = predict(job, [load(job, sample_id)])
    return score(job, predicted)


def _finished(out: Path) -> Result | None:
    """The result that is there; None where it is damaged, and made again from the records."""
    with suppress(DataError):
        return results.load_result(out) if (out / "result.json").is_file() else None
    return None


class _Count:
    """Counts outcomes and tells the caller's progress bar."""

    def __init__(self, progress: Progress | None, total: int, earlier: Sequence[Record]) -> None:
        self._progress, self._total = progress, total
        self._done, self._failed = len(earlier), sum(r.error is not None for r in earlier)
        self._tell()

    def __call__(self, outcome: SampleOutcome) -> Record:
        self._done += 1
        self._failed += outcome.record.error is not None
        self._tell()
        return outcome.record

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, self._failed)
