"""The baseline of a gate: values per sample with their signatures and digests, and why they ever changed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.documents import read_json
from reasonx_eval.io.files import canonical_json, encode_json, write_bytes
from reasonx_eval.io.results import DatasetRef, ModelRef, ProtocolRef, Value
from reasonx_eval.io.validation import explain, refuse_newer
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.statistics.runs import Run, check_values
from reasonx_eval.types import Record

SCHEMA = 1
UPDATE = 'reasonx-eval gate RUN... --update-baseline --reason "..."'


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Samples(_Part):
    """Columns with one value a sample, in the order of `ids`: smaller than a list of records, and easy to diff."""

    ids: list[str]
    data: list[str | None]
    groups: list[str | None]
    metrics: dict[str, list[float | None]]
    stats: dict[str, list[float]] = {}
    undefined: dict[str, str] = {}

    @model_validator(mode="after")
    def _even(self) -> Samples:
        lengths = [len(self.data), len(self.groups), *map(len, self.metrics.values()), *map(len, self.stats.values())]
        if any(length != len(self.ids) for length in lengths):
            raise ValueError("columns of different lengths")
        if len({*self.ids, *self.undefined}) != len(self.ids) + len(self.undefined):
            raise ValueError("a sample is there twice")
        return self


class Entry(_Part):
    """One model under one protocol, as it was when the baseline was taken."""

    model: str
    kind: str
    weights_sha256: str | None
    protocol: ProtocolRef
    dataset: DatasetRef
    signature: str
    reasonx: str
    records_sha256: str
    aggregate: dict[str, Value]
    samples: Samples

    @property
    def key(self) -> tuple[str, ...]:
        return f"{self.protocol.name}@{self.protocol.version}", self.dataset.name, self.dataset.split, self.model


class ValueChange(_Part):
    old: float | None
    new: float | None


class EntryChange(_Part):
    """What an update did to one entry; old is null for a new entry, new for one that was dropped."""

    protocol: str
    dataset: str
    model: str
    action: Literal["added", "changed", "removed"]
    old_records_sha256: str | None
    new_records_sha256: str | None
    values: dict[str, ValueChange]


class Update(_Part):
    """One change of the baseline. It has no date: version control knows when, this knows why."""

    reason: str = Field(min_length=1)
    entries: list[EntryChange] = Field(min_length=1)


class Baseline(_Part):
    """The file. sha256 is of everything else in it, so that an edit by hand is noticed."""

    schema_: int = Field(SCHEMA, alias="schema")
    entries: list[Entry]
    history: list[Update]
    sha256: str = ""

    @property
    def digest(self) -> str:
        # of the fields that the file states: those that came later have defaults in older files
        stated = self.model_dump(mode="json", by_alias=True, exclude={"sha256"}, exclude_unset=True)
        return sha256_text(canonical_json(stated))


def load_baseline(path: Path) -> Baseline:
    """Read a baseline and check that nobody edited it.

    Raises
    ------
    NotComparable
        There is none, or it is of a newer version.
    DataError
        Not a baseline, NaN in it, or edited by hand.
    """
    try:
        raw = read_json(path)
    except FileNotFoundError:
        raise NotComparable("no baseline: there is nothing to compare with", where=str(path), fix=UPDATE) from None
    refuse_newer(raw, SCHEMA, str(path))
    try:
        baseline = Baseline.model_validate(raw)
        edited = baseline.sha256 != baseline.digest
    except ValidationError as error:
        raise DataError(f"not a baseline: {explain(error, most=3)}", where=str(path)) from None
    except ValueError:  # NaN has no canonical form
        edited = True
    if edited:
        raise DataError("the baseline was edited by hand: its contents are not those of its digest", where=str(path),
                        fix=f"restore it, or change it on the record: {UPDATE}")  # fmt: skip
    return baseline


def baseline_runs(baseline: Baseline, path: Path) -> list[Run]:
    """The entries as runs, to be joined with others."""
    return [_run(entry, path) for entry in baseline.entries]


def _run(entry: Entry, path: Path) -> Run:
    protocol = Protocol.from_rules(entry.protocol.rules)
    if protocol.digest != entry.protocol.digest:
        raise NotComparable(f"the rules of {protocol.ref} are not those of their digest: the baseline is of a version "
                            "with other kinds of rules", where=str(path), fix=UPDATE)  # fmt: skip
    s = entry.samples
    records = [
        Record(sample_id=i, metrics={m: column[k] for m, column in s.metrics.items()}, data=s.data[k],
               group=s.groups[k], stats={name: column[k] for name, column in s.stats.items()})
        for k, i in enumerate(s.ids)
    ]  # fmt: skip
    records += [Record(sample_id=i, undefined=why) for i, why in s.undefined.items()]
    check_values(records, protocol, str(path))
    return Run(
        where=path, protocol=protocol, digest=entry.protocol.digest, dataset=entry.dataset,
        model=ModelRef(name=entry.model, source=str(path), kind=entry.kind, weights_sha256=entry.weights_sha256),
        signature=entry.signature, status="complete", reasonx=entry.reasonx, records_sha256=entry.records_sha256,
        aggregate=entry.aggregate, records=tuple(records),
    )  # fmt: skip


def make_entry(run: Run) -> Entry:
    """A run as an entry.

    Raises
    ------
    UsageError
        A sample failed: a baseline without it would let the next failure pass.
    """
    failed = [r.sample_id for r in run.records if r.error is not None]
    if failed:
        raise UsageError(f"{len(failed)} samples failed ({', '.join(failed[:3])}): not fit for a baseline",
                         where=str(run.where), fix="mend them, then the same run with --retry-failed")  # fmt: skip
    scored = list(run.scored.values())
    if not scored:
        raise UsageError("no sample was scored: not fit for a baseline", where=str(run.where))
    samples = Samples(
        ids=[r.sample_id for r in scored], data=[r.data for r in scored], groups=[r.group for r in scored],
        metrics={m: [r.metrics[m] for r in scored] for m in run.protocol.metrics},
        stats={name: [r.stats[name] for r in scored] for name in scored[0].stats},
        undefined={r.sample_id: r.undefined for r in run.records if r.undefined is not None},
    )  # fmt: skip
    return Entry(
        model=run.name, kind=run.model.kind, weights_sha256=run.model.weights_sha256,
        protocol=ProtocolRef(name=run.protocol.name, version=run.protocol.version, digest=run.digest,
                             rules=run.protocol.rules),
        dataset=run.dataset.model_copy(update={"options": {}}), signature=run.signature, reasonx=run.reasonx,
        records_sha256=run.records_sha256, aggregate=dict(run.aggregate), samples=samples,
    )  # fmt: skip


def update_baseline(path: Path, runs: Sequence[Run], reason: str, *, prune: bool = False) -> list[EntryChange]:
    """Replace the entries of these runs, recording the reason and the old values.

    Parameters
    ----------
    path : the baseline; made if there is none
    runs : their entries are added or replaced; others stay, unless `prune`
    reason : why, for whoever reads it in a year
    prune : drop entries that none of the runs replaces

    Returns
    -------
    list of EntryChange
        Empty, and nothing written, if all runs are those that are there.

    Raises
    ------
    UsageError
        No reason, a run with failed samples, or two runs of one model under one protocol.
    NotComparable, DataError
        As `load_baseline`, if there is one.
    """
    if not reason.strip():
        raise UsageError("a baseline changes for a reason: say which", where="--reason", fix=UPDATE)
    old = load_baseline(path) if path.exists() else Baseline(schema=SCHEMA, entries=[], history=[])
    new = {entry.key: entry for entry in map(make_entry, runs)}
    if len(new) < len(runs):
        raise UsageError("two runs of one model under one protocol", fix="name each run once")
    before = {entry.key: entry for entry in old.entries}
    gone = [key for key in before if key not in new] if prune else []
    changes = [c for key in sorted({*new, *gone}) if (c := _change(before.get(key), new.get(key))) is not None]
    if not changes:
        return []
    kept = {**before, **new}
    entries = [kept[key] for key in sorted(kept) if key not in gone]
    fresh = Baseline(schema=SCHEMA, entries=entries,
                     history=[*old.history, Update(reason=reason.strip(), entries=changes)])  # fmt: skip
    whole = Baseline.model_validate(fresh.model_dump(mode="json", by_alias=True))  # every field is stated
    sealed = whole.model_copy(update={"sha256": whole.digest})
    write_bytes(path, encode_json(_layout(sealed.model_dump(mode="json", by_alias=True))))
    return changes


def _layout(document: dict[str, Any]) -> str:
    """JSON with a list of numbers or names on one line: a column that changes is one changed line in a diff."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    # strings in JSON hold no raw newline, so that nothing inside one is touched
    flat = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text)
    return flat + "\n"


def _change(old: Entry | None, new: Entry | None) -> EntryChange | None:
    if old == new:
        return None
    some = new or old
    assert some is not None
    before, after = (old.aggregate if old else {}), (new.aggregate if new else {})

    def value(table: dict[str, Value], name: str) -> float | None:
        return table[name].value if name in table else None

    return EntryChange(
        protocol=some.key[0], dataset=some.dataset.name, model=some.model,
        action="added" if old is None else "removed" if new is None else "changed",
        old_records_sha256=old.records_sha256 if old else None, new_records_sha256=new.records_sha256 if new else None,
        values={name: ValueChange(old=value(before, name), new=value(after, name)) for name in {**before, **after}},
    )  # fmt: skip
