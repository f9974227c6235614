"""Runs read for comparison: a result with its records, checked against each other before any number is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasonx_eval import __version__
from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import DatasetRef, ModelRef, Result, Value, load_result, result_path
from reasonx_eval.protocols.protocol import ANY, Protocol
from reasonx_eval.statistics.aggregate import pooled_from_stats
from reasonx_eval.types import Record

_AGAIN = "run its command again with --force"


@dataclass(frozen=True)
class Run:
    """One model under one protocol, with one record a sample, whether from a run folder or from a baseline file.

    where : the folder or file it was read from, for messages
    digest : sha256 of the protocol's rules
    reasonx : version of the program that made it
    aggregate : metric -> value, as stored
    records : in the order of the split
    """

    where: Path
    model: ModelRef
    protocol: Protocol
    digest: str
    dataset: DatasetRef
    signature: str
    status: str
    reasonx: str
    records_sha256: str
    aggregate: Mapping[str, Value]
    records: tuple[Record, ...]

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def scored(self) -> dict[str, Record]:
        """Sample id -> record, of the samples that have a score."""
        return {r.sample_id: r for r in self.records if r.error is None and r.undefined is None}

    @property
    def rewarded(self) -> tuple[str, ...]:
        """Metrics that the model was tuned on, see `ModelRef.rewarded`."""
        return self.model.rewarded


def load_run(path: str | Path, *, records: str | Path | None = None) -> Run:
    """Read one finished run and check that its records are those its numbers were computed from.

    Parameters
    ----------
    path : run folder, or a result file
    records : its records; default ``records.jsonl`` beside the result

    Raises
    ------
    DataError
        No records; records that were edited, reordered or are there twice; NaN; a metric that vanished; numbers
        that are not those of the records.
    NotComparable
        Written by a newer version of the program.
    """
    where = Path(path)
    file = result_path(where)
    result = load_result(where)
    lines = Path(records) if records is not None else file.with_name("records.jsonl")
    if not lines.is_file():
        raise DataError("no records beside the result: without values per image there is nothing to pair",
                        where=str(lines), fix="copy the whole run folder, or run again")  # fmt: skip
    found = tuple(read_records(lines))
    protocol = Protocol.from_rules(result.protocol.rules)
    _check_digests(result, protocol, found, lines, file)
    check_values(found, protocol, str(lines))
    _check_numbers(result, protocol, found, file)
    return Run(
        where=where, model=result.model, protocol=protocol, digest=result.protocol.digest, dataset=result.dataset,
        signature=result.signature, status=result.status, reasonx=result.provenance.reasonx,
        records_sha256=result.records_sha256, aggregate=result.aggregate, records=found,
    )  # fmt: skip


def find_runs(folder: str | Path) -> list[Run]:
    """The run of a run folder, or every run below a folder that holds many, in the order of their paths.

    Raises
    ------
    UsageError
        No such folder, or no result in it.
    DataError, NotComparable
        As `load_run`.
    """
    path = Path(folder)
    if path.is_file() or (path / "result.json").is_file():
        return [load_run(path)]
    if not path.is_dir():
        raise UsageError("no such run", where=str(path), fix="reasonx-eval run writes one into results/")
    found = [load_run(p.parent) for p in sorted(path.rglob("result.json"))]
    if not found:
        raise UsageError("no result.json in this folder or below it", where=str(path),
                         fix="name a run folder, or finish the run")  # fmt: skip
    return found


def folder_of(run: str | Path | Result) -> Path:
    """The folder of a run.

    Raises
    ------
    UsageError
        A result that lies in none.
    """
    if not isinstance(run, Result):
        return Path(run)
    if run.folder is None:
        raise UsageError("this result was not read from a folder, so its records are unknown", where=run.signature,
                         fix="load_result(FOLDER)")  # fmt: skip
    return run.folder


def check_values(records: Sequence[Record], protocol: Protocol, where: str) -> None:
    """Every scored record has every metric of the protocol, each a finite number or null.

    Raises
    ------
    DataError
        Names the sample and the metric.
    """
    for record in records:
        if record.error is not None or record.undefined is not None:
            continue
        for name in protocol.metrics:
            if name not in record.metrics:
                raise DataError(f"sample {record.sample_id} has no metric '{name}', which {protocol.ref} reports: "
                                "it vanished", where=where, fix=_AGAIN)  # fmt: skip
        for name, value in (*record.metrics.items(), *record.stats.items()):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value)):
                raise DataError(f"sample {record.sample_id}: {name} is {value!r}, not a finite number", where=where,
                                fix=_AGAIN)  # fmt: skip


def _check_digests(result: Result, protocol: Protocol, records: Sequence[Record], lines: Path, file: Path) -> None:
    if sha256_file(lines) != result.records_sha256:
        raise DataError("the records are not those of the result: they were edited, reordered, cut or replaced",
                        where=str(lines), fix=_AGAIN)  # fmt: skip
    if protocol.digest != result.protocol.digest:
        raise NotComparable("the protocol's rules are not those of its digest: the result was edited, or was made by "
                            "a version with other kinds of rules", where=str(file), fix=_AGAIN)  # fmt: skip
    if sha256_lines(f"{r.sample_id} {r.data}" for r in records) != result.data_sha256:
        raise DataError("the digest of the ground truth is not that of the records", where=str(file), fix=_AGAIN)
    failed = {r.sample_id: r.error for r in records if r.error is not None}
    undefined = {r.sample_id: r.undefined for r in records if r.undefined is not None}
    if (failed, undefined) != (result.failed, result.undefined) or (
        result.n_scored != len(records) - len(failed) - len(undefined)
    ):
        raise DataError("scored, failed and undefined samples are not those of the records", where=str(file),
                        fix=_AGAIN)  # fmt: skip
    data = result.dataset.name if protocol.dataset == ANY else None
    signature = protocol.signature(kind=result.model.kind, n=result.n_scored + result.n_undefined,
                                   n_total=result.n_total, data=data)  # fmt: skip
    if result.provenance.reasonx == __version__ and result.signature != signature:
        raise NotComparable(f"the signature is not that of its rules: it says {result.signature}, they say {signature}",
                            where=str(file), fix=_AGAIN)  # fmt: skip


def _check_numbers(result: Result, protocol: Protocol, records: Sequence[Record], file: Path) -> None:
    """Aggregates by the records; intervals are left to ``show --verify``, which takes longer."""
    try:
        missing = [m for m in protocol.metrics if m not in result.aggregate]
        if missing:
            raise DataError(f"no '{missing[0]}' among its numbers, which {protocol.ref} reports: it vanished",
                            where=str(file), fix=_AGAIN)  # fmt: skip
        scored = [r for r in records if r.error is None and r.undefined is None]
        for name in protocol.metrics:
            stored, value = result.aggregate[name].value, _recomputed(scored, protocol, name)
            if stored is not None and value is not None and not math.isclose(stored, value, rel_tol=1e-12):
                raise DataError(f"{name}: the result says {stored}, its records say {value}", where=str(file),
                                fix=_AGAIN)  # fmt: skip
    except KeyError as error:
        raise DataError(f"the records lack {error}", where=str(file), fix=_AGAIN) from None


def _recomputed(scored: Sequence[Record], protocol: Protocol, name: str) -> float | None:
    """None where the records alone don't say: a pooled median."""
    if protocol.pool == "pixel":
        return pooled_from_stats(scored, name) if scored else None
    values = [v for r in scored if (v := r.metrics[name]) is not None]
    return math.fsum(values) / len(values) if values else None
