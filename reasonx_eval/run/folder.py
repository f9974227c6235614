"""A run's folder: one process at a time writes it; it is finished with a result computed from its records."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval import __version__
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, PartialRun, UsageError
from reasonx_eval.io import results
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.documents import parse_json
from reasonx_eval.io.records import write_records
from reasonx_eval.io.results import DatasetRef, ModelRef, ProtocolRef, Provenance, Result, RunSpec, Timing
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.base import Model
from reasonx_eval.protocols.protocol import ANY, Protocol
from reasonx_eval.scoring.readings import READING
from reasonx_eval.statistics.aggregate import aggregate, rough_note
from reasonx_eval.statistics.bootstrap import CONFIDENCE, METHOD, RESAMPLES
from reasonx_eval.types import Kind, Record


def make_spec(
    model: Model, kind: Kind, dataset: Dataset, protocol: Protocol, selection: Selection, seed: int
) -> RunSpec:
    """All that decides the records of a run, as run.json states it.

    Raises
    ------
    UsageError
        The model's description of itself can't be stored.
    """
    return RunSpec(
        schema=results.SCHEMA,
        reasonx=__version__,
        model=_model_ref(model, kind),
        protocol=ProtocolRef(name=protocol.name, version=protocol.version, digest=protocol.digest,
                             rules=protocol.rules),
        dataset=DatasetRef(name=dataset.name, split=dataset.split, options=dict(dataset.options), n=len(dataset),
                           ids_sha256=dataset.ids_digest),
        selection=selection,
        seed=seed,
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
def claimed(run: Path) -> Iterator[None]:
    """The folder for this process alone; the kernel frees it when the process ends, however that is.

    Raises
    ------
    UsageError
        It can't be written, or another process writes it.
    PartialRun
        It can't be written any more: a full disk, a quota. Nothing that was finished is lost.
    """
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
        for part in run.rglob(".*.part"):
            part.unlink(missing_ok=True)  # a killed process left it
        yield
    except OSError as error:
        raise PartialRun(f"can't write: {error.strerror or error}; the samples that were finished are kept",
                         where=str(error.filename or run),
                         fix="mend that (make room), then the same command again") from None  # fmt: skip
    finally:
        os.close(handle)


def empty(run: Path) -> None:
    """Remove the files of an earlier run, but for predictions, which are replaced one by one."""
    lines = ("records.jsonl", "photos.jsonl", "timing.jsonl")
    for name in ("result.json", "timing.json", "files.json", "run.json", *lines):
        (run / name).unlink(missing_ok=True)


def finish(
    out: Path, spec: RunSpec, ids: Sequence[str], records: Sequence[Record], protocol: Protocol,
    provenance: Provenance, *, keep_pixels: bool = False, said: Sequence[str] = (),
) -> Result:  # fmt: skip
    """Order the records as the split is, aggregate, and write result.json; `said` are notes on the data set."""
    by_id = {r.sample_id: r for r in records}
    ordered = [by_id[i] for i in ids if i in by_id]
    if ordered != list(records):
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
                                     data=spec.dataset.name if protocol.dataset == ANY else None),
        model=spec.model, protocol=spec.protocol, dataset=spec.dataset, selection=spec.selection,
        aggregate=aggregate(ordered, protocol, pixels), confidence=CONFIDENCE, resamples=RESAMPLES,
        interval_method=METHOD,
        n_total=n_total, n_scored=n_scored, n_undefined=len(undefined), failed=failed, undefined=undefined,
        notes=[*said, *_notes(ordered), *rough_note(ordered)],
        data_sha256=sha256_lines(f"{r.sample_id} {r.data}" for r in ordered),
        predictions_sha256=sha256_lines(f"{r.sample_id} {r.prediction}" for r in ordered),
        records_sha256=sha256_file(out / "records.jsonl"),
        provenance=provenance,
    )  # fmt: skip
    results.save(out / "result.json", result)
    drop_pixels(out, protocol, result, keep_pixels)
    return result


def drop_pixels(out: Path, protocol: Protocol, result: Result, keep: bool) -> None:
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


def write_timing(out: Path, started: datetime, wall_seconds: float) -> None:
    """Write timing.json: dates, and the seconds of every predicted sample of all processes that worked on the run."""
    seconds = np.array(_predict_seconds(out / "timing.jsonl"))
    results.save(out / "timing.json", Timing(
        started=started.isoformat(timespec="seconds"), finished=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=round(wall_seconds, 3), samples=len(seconds),
        predict_seconds_per_image=float(seconds.mean()) if len(seconds) else None,
        predict_seconds_p95=float(np.percentile(seconds, 95)) if len(seconds) else None,
    ))  # fmt: skip


def _predict_seconds(path: Path) -> list[float]:
    found: list[float] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row: Any = parse_json(line, str(path))
        except DataError:
            continue  # a killed process left it unfinished
        value = row.get("predict") if isinstance(row, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return found
