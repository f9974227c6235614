"""Runs joined on sample ids: common samples, missing ones, and the reasons why two runs can't be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonx_eval.errors import DataError, NotComparable
from reasonx_eval.io.digests import algorithm_of, comparable_digests
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.statistics.aggregate import repeated
from reasonx_eval.statistics.runs import Run
from reasonx_eval.types import Record


@dataclass(frozen=True)
class Joined:
    """Several runs under one protocol on one dataset, on the samples that all of them scored.

    ids : samples scored in every run, in the order of the split
    groups : the scene of each id where scenes repeat, for clustered statistics; else None
    records : for each run, its records of `ids`, in that order
    missing : for each run, sample -> why it has no score there although another run has one
    undefined : samples whose ground truth defines no value in any run
    """

    runs: tuple[Run, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None
    records: tuple[tuple[Record, ...], ...] = field(repr=False)
    missing: tuple[Mapping[str, str], ...]
    undefined: tuple[str, ...]

    @property
    def protocol(self) -> Protocol:
        return self.runs[0].protocol

    @property
    def notes(self) -> list[str]:
        """Things that could not be compared, a sentence each."""
        return unlike_digests(self.runs)

    @property
    def whole(self) -> bool:
        """Whether no sample is missing on any side."""
        return not any(self.missing)


def join(runs: Sequence[Run]) -> Joined:
    """Pair runs by sample id.

    Parameters
    ----------
    runs : two or more, the first of them the base

    Raises
    ------
    NotComparable
        Other rules, another dataset or split, other ground truth of a sample; names every field that differs.
    DataError
        No sample in common, or one that is in two different scenes.
    """
    base = runs[0]
    for other in runs[1:]:
        different = differences(base, other)
        if different:
            raise NotComparable(
                "numbers under different rules or on different data are not compared:\n    " + "\n    ".join(different),
                where=f"{base.where} and {other.where}",
                fix="run both under one protocol on one dataset; `reasonx-eval show` prints them without comparing",
            )
    scored = [run.scored for run in runs]
    there = [{r.sample_id: r for r in run.records} for run in runs]
    order = list(dict.fromkeys(r.sample_id for run in runs for r in run.records))
    ids = tuple(i for i in order if all(i in s for s in scored))
    anywhere = {i for s in scored for i in s}
    missing = tuple({i: _why(known.get(i)) for i in order if i in anywhere and i not in s}
                    for known, s in zip(there, scored, strict=True))  # fmt: skip
    if not ids:
        raise DataError("no sample is scored in all of them", where=", ".join(str(r.where) for r in runs))
    records = tuple(tuple(s[i] for i in ids) for s in scored)
    for run, theirs in zip(runs[1:], records[1:], strict=True):
        _check_truth(base, run, records[0], theirs)
    undefined = tuple(i for i in order if all(i in t and t[i].undefined is not None for t in there))
    return Joined(tuple(runs), ids, _groups(records[0]), records, missing, undefined)


def unlike_digests(runs: Sequence[Run]) -> list[str]:
    """A sentence where digests of ground truth are of several algorithms, else nothing."""
    kinds = {algorithm_of(r.data) for run in runs for r in run.records if r.data is not None}
    return [] if len(kinds) < 2 else [
        "ground truth was compared by the number of valid points alone: one of the runs is of an older version, whose "
        "digests are of another kind"]  # fmt: skip


def differences(a: Run, b: Run) -> list[str]:
    """The fields that forbid comparing two runs: ``field: a -> b``; empty if nothing does.

    What a model gives (its kind) and how a dataset's files are laid out may differ; rules, ids and ground truth may
    not. Rules differ when their digests do.
    """
    found = []
    if a.digest != b.digest:
        found += _fields(a.protocol.rules, b.protocol.rules, "protocol") or [
            f"protocol.digest: {a.digest[:16]} -> {b.digest[:16]}"
        ]
    for name in ("name", "split", "n", "ids_sha256"):
        found += _fields(getattr(a.dataset, name), getattr(b.dataset, name), f"dataset.{name}")
    return found


def _fields(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        # a list of both keys' union, in a fixed order
        return [line for key in sorted({*old, *new}) for line in _fields(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    if value is None:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _why(record: Record | None) -> str:
    if record is None:
        return "not in the run"
    return f"failed: {record.error}" if record.error is not None else f"undefined: {record.undefined}"


def _check_truth(a: Run, b: Run, first: Sequence[Record], second: Sequence[Record]) -> None:
    for x, y in zip(first, second, strict=True):
        if not comparable_digests(x.data, y.data):
            if x.n_valid != y.n_valid:
                raise NotComparable(f"sample {x.sample_id} has {x.n_valid} valid points in one and {y.n_valid} in the "
                                    "other: other ground truth", where=f"{a.where} and {b.where}")  # fmt: skip
        elif x.data != y.data:
            raise NotComparable(f"sample {x.sample_id} was scored against different ground truth: {x.data} -> {y.data}",
                                where=f"{a.where} and {b.where}",
                                fix="reasonx-eval doctor checks the files of the dataset")  # fmt: skip
        if x.group != y.group:
            raise DataError(f"sample {x.sample_id} belongs to scene {x.group!r} in one and {y.group!r} in the other",
                            where=f"{a.where} and {b.where}")  # fmt: skip


def _groups(records: Sequence[Record]) -> tuple[str, ...] | None:
    """As aggregates have them: scenes count where every sample has one and one repeats."""
    found = repeated([r.group for r in records])
    return None if found is None else tuple(found)
