"""THE loop: sample -> predict -> align -> score -> one appended record.

Threads load and score; the model is called from one thread, in order (unless it says it is thread-safe), and
records are appended in the order of the split, so that two runs of one command write the same bytes, however
many workers there are and however often they were killed in between.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval import __version__
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, NotComparable, PartialRun, UsageError
from reasonx_eval.io import results
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.records import RecordLog, read_records, write_records
from reasonx_eval.io.results import DatasetRef, ModelRef, ProtocolRef, Provenance, Result, RunSpec, Selection, Timing
from reasonx_eval.models.base import Model
from reasonx_eval.models.saved.predictions import write_meta
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.prefetch import Job, Outcome, evaluate
from reasonx_eval.run.provenance import collect
from reasonx_eval.scoring.readings import READING
from reasonx_eval.statistics.aggregate import CONFIDENCE, RESAMPLES, aggregate
from reasonx_eval.types import Kind, Record

#: called after every sample with (done, total, failed)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class RunOptions:
    """How a run goes; nothing here but `seed` and `selection` can change a record."""

    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    workers: int = 2
    force: bool = False
    retry_failed: bool = False
    save_predictions: bool = False
    keep_pixels: bool = False
    passed: dict[str, Any] = field(default_factory=dict)
    defaulted: dict[str, Any] = field(default_factory=dict)


def select(ids: Sequence[str], selection: Selection) -> list[str]:
    """The ids a run scores, in the order of the split.

    A limit is spread evenly over the split, not its first images; a shard "i/n" is every n-th id from the i-th.

    Raises
    ------
    UsageError
        An unknown sample id, a limit below 1, a shard outside 1..n, or an empty one.
    """
    chosen = list(ids)
    if selection.samples is not None:
        known = set(ids)
        missing = [s for s in selection.samples if s not in known]
        if missing:
            raise UsageError(f"no such sample: {', '.join(missing[:3])}; the split has {len(ids)}, e.g. {ids[0]}")
        wanted = set(selection.samples)
        chosen = [i for i in chosen if i in wanted]
    if selection.limit is not None:
        if selection.limit < 1:
            raise UsageError(f"--limit must be at least 1, not {selection.limit}")
        n = min(selection.limit, len(chosen))
        chosen = [chosen[k * len(chosen) // n] for k in range(n)]
    if selection.shard is not None:
        index, count = parse_shard(selection.shard)
        if index > len(chosen):
            raise UsageError(f"shard {selection.shard} of {len(chosen)} samples is empty", fix="fewer shards")
        chosen = chosen[index - 1 :: count]
    return chosen


def parse_shard(text: str) -> tuple[int, int]:
    """``"i/n"`` to (i, n), 1 <= i <= n."""
    left, slash, right = text.partition("/")
    if not (slash and left.isdecimal() and right.isdecimal() and 1 <= int(left) <= int(right)):
        raise UsageError(f"a shard is i/n with 1 <= i <= n, for example 1/4, not '{text}'")
    return int(left), int(right)


def make_spec(model: Model, kind: Kind, dataset: Dataset, protocol: Protocol, options: RunOptions) -> RunSpec:
    """What decides the records of this run."""
    return RunSpec(
        schema=results.SCHEMA,
        reasonx=__version__,
        model=_model_ref(model, kind),
        protocol=ProtocolRef(name=protocol.name, version=protocol.version, digest=protocol.digest,
                             rules=protocol.rules),
        dataset=DatasetRef(name=dataset.name, split=dataset.split, options=dict(dataset.options), n=len(dataset),
                           ids_sha256=dataset.ids_digest),
        selection=options.selection,
        seed=options.seed,
    )  # fmt: skip


def _model_ref(model: Model, kind: Kind) -> ModelRef:
    info = model.info
    try:
        json.dumps(dict(info.options))
        return ModelRef(
            name=info.name, source=info.source, kind=kind, weights_sha256=info.weights_sha256, licence=info.licence,
            parameters=info.parameters, base=info.base, trained_on=list(info.trained_on), reward=info.reward,
            options=dict(info.options), notes=list(info.notes),
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise UsageError(f"its ModelInfo can't be stored: {' '.join(str(error).split())[:300]}",
                         where=str(info.name)) from None  # fmt: skip


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """One process at a time writes a run; the kernel frees the lock of a killed one."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"results can't be written here: {error.strerror}", where=str(run),
                         fix="another --out") from None  # fmt: skip
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError("another process is writing this run", where=str(run),
                             fix="wait for it, or give another --out") from None  # fmt: skip
        yield
    finally:
        os.close(handle)


@contextmanager
def _writable(run: Path) -> Iterator[None]:
    """A full disk, a quota, a folder that became read-only: one message, and nothing that was finished is lost."""
    try:
        yield
    except OSError as error:
        raise PartialRun(f"can't write: {error.strerror or error}; the samples that were finished are kept",
                         where=str(error.filename or run),
                         fix="mend that (make room), then the same command again") from None  # fmt: skip


def _open_run(run: Path, spec: RunSpec, options: RunOptions) -> list[Record]:
    """Records that are already there, or a fresh folder.

    Raises
    ------
    NotComparable
        The folder holds a run with another model, protocol, dataset, selection or seed; names each difference.
    """
    records = run / "records.jsonl"
    for part in run.rglob(".*.part"):
        part.unlink(missing_ok=True)  # a killed process left it
    if options.force:
        for name in ("result.json", "timing.json", "timing.jsonl", "records.jsonl", "run.json"):
            (run / name).unlink(missing_ok=True)
    if (run / "run.json").is_file():
        different = results.spec_difference(results.load_spec(run), spec)
        if different:
            raise NotComparable("the folder holds another run: " + "; ".join(different[:6]), where=str(run),
                                fix="--force to replace it, or another --out")  # fmt: skip
    else:
        results.save(run / "run.json", spec)
    found = read_records(records, repair=True)
    if options.retry_failed and any(r.error for r in found):
        found = [r for r in found if r.error is None]
        write_records(records, found)
    return found


def run(
    model: Model,
    dataset: Dataset,
    protocol: Protocol,
    out: Path,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Evaluate one model under one protocol, resuming what is already in `out`.

    Parameters
    ----------
    model, dataset, protocol : what to evaluate, on what, by which rules
    out : folder of this run; created, resumed, or refused when it holds another run
    options : see RunOptions
    progress : called after every sample

    Returns
    -------
    Result
        Also written to ``out/result.json``. status is partial when a sample failed or was not asked for.

    Raises
    ------
    UsageError
        The model can't give what the protocol accepts; unknown samples; a bad shard.
    NotComparable
        `out` holds a different run.
    """
    options = options or RunOptions()
    kind = model.kind_for(protocol.task, protocol.accepts)
    spec = make_spec(model, kind, dataset, protocol, options)
    ids = select(dataset.ids, options.selection)
    started, clock = datetime.now(UTC), time.perf_counter()
    with _locked(out), _writable(out):
        records = _open_run(out, spec, options)
        done = {r.sample_id for r in records}
        todo = [i for i in ids if i not in done]
        provenance = collect(seed=options.seed, passed=options.passed, defaulted=options.defaulted)
        if not todo and (out / "result.json").is_file():
            with suppress(DataError):  # damaged, and made again from the records
                stored = results.load_result(out)
                _drop_pixels(out, protocol, stored, options.keep_pixels)
                return stored
        job = Job(model=model, kind=kind, dataset=dataset, protocol=protocol, seed=options.seed,
                  pixels=out / "pixels" if protocol.pool == "pixel" else None,
                  predictions=out / "predictions" if options.save_predictions else None)  # fmt: skip
        if options.save_predictions:
            write_meta(out / "predictions", kind=kind, info=model.info, seed=options.seed)
        records += _score_all(job, todo, out, options, progress, (len(ids), len(records), sum(map(_failed, records))))
        result = finish(out, spec, ids, records, protocol, provenance, keep_pixels=options.keep_pixels,
                        said=dataset.overlooked())
        _write_timing(out, started, time.perf_counter() - clock)
    return result


def _failed(record: Record) -> bool:
    return record.error is not None


def _score_all(
    job: Job, todo: list[str], out: Path, options: RunOptions, progress: Progress | None, counts: tuple[int, int, int]
) -> list[Record]:
    """Score what is left, appending as results arrive; an interrupt keeps all that arrived."""
    total, finished, failed = counts
    new: list[Record] = []
    if progress:
        progress(finished, total, failed)
    with RecordLog(out / "records.jsonl") as log, (out / "timing.jsonl").open("a", encoding="utf-8") as timing:
        outcome: Outcome
        for outcome in evaluate(job, todo, workers=options.workers):
            log.append(outcome.record)
            timing.write(outcome.timing_line())
            timing.flush()
            new.append(outcome.record)
            failed += _failed(outcome.record)
            if progress:
                progress(finished + len(new), total, failed)
    return new


def finish(
    out: Path, spec: RunSpec, ids: list[str], records: list[Record], protocol: Protocol, provenance: Provenance,
    *, keep_pixels: bool = False, said: Sequence[str] = (),
) -> Result:  # fmt: skip
    """Order the records as the split is, aggregate, and write result.json; `said` are notes on the data set."""
    by_id = {r.sample_id: r for r in records}
    ordered = [by_id[i] for i in ids if i in by_id]
    if ordered != records:
        write_records(out / "records.jsonl", ordered)
    failed = {r.sample_id: r.error for r in ordered if r.error is not None}
    undefined = {r.sample_id: r.undefined for r in ordered if r.undefined is not None}
    n_scored = len(ordered) - len(failed) - len(undefined)
    n_total = spec.dataset.n
    complete = not failed and len(ordered) == n_total
    pixels = out / "pixels" if protocol.pool == "pixel" else None
    result = Result(
        schema=results.SCHEMA,
        status="complete" if complete else "partial" if n_scored else "failed",
        signature=protocol.signature(kind=spec.model.kind, n=n_scored + len(undefined), n_total=n_total,
                                     data=spec.dataset.name if protocol.dataset == "any" else None),
        model=spec.model, protocol=spec.protocol, dataset=spec.dataset, selection=spec.selection,
        aggregate=aggregate(ordered, protocol, pixels), confidence=CONFIDENCE, resamples=RESAMPLES,
        n_total=n_total, n_scored=n_scored, n_undefined=len(undefined), failed=failed, undefined=undefined,
        notes=[*said, *_notes(ordered)],
        data_sha256=sha256_lines(f"{r.sample_id} {r.data}" for r in ordered),
        predictions_sha256=sha256_lines(f"{r.sample_id} {r.prediction}" for r in ordered),
        records_sha256=sha256_file(out / "records.jsonl"),
        provenance=provenance,
    )  # fmt: skip
    results.save(out / "result.json", result)
    _drop_pixels(out, protocol, result, keep_pixels)
    return result


def _drop_pixels(out: Path, protocol: Protocol, result: Result, keep: bool) -> None:
    """Per-pixel errors are gigabytes, and of no use once the result is written and no sample is left to retry."""
    if protocol.pool == "pixel" and not keep and not result.failed and result.selection.shard is None:
        shutil.rmtree(out / "pixels", ignore_errors=True)


def _notes(records: Sequence[Record]) -> list[str]:
    """Every kind of note with how many samples carry it and the first of them.

    Of other readings, the likeliest of those that fit every sample: one sample can be fitted by chance.
    """
    found: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            found.setdefault(note, []).append(record.sample_id)
    scored = sum(r.error is None and r.undefined is None for r in records)
    fits_all = [n for n, who in found.items() if n.startswith(READING) and len(who) == scored]
    found = {n: who for n, who in found.items() if not n.startswith(READING) or n in fits_all[:1]}
    return [f"{note}: {len(who)} samples ({', '.join(who[:3])}{', ...' if len(who) > 3 else ''})"
            for note, who in sorted(found.items())]  # fmt: skip


def _write_timing(out: Path, started: datetime, wall: float) -> None:
    seconds = np.array(_predict_seconds(out / "timing.jsonl"))
    results.save(out / "timing.json", Timing(
        started=started.isoformat(timespec="seconds"), finished=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=round(wall, 3), samples=len(seconds),
        predict_seconds_per_image=float(seconds.mean()) if len(seconds) else None,
        predict_seconds_p95=float(np.percentile(seconds, 95)) if len(seconds) else None,
    ))  # fmt: skip


def _predict_seconds(path: Path) -> list[float]:
    """Seconds of every predicted sample; a line that a killed process left unfinished is not worth an error."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)["predict"]
        except (ValueError, KeyError, TypeError):
            continue
        if value is not None:
            found.append(float(value))
    return found
