"""Reviewed results as tables: one for each protocol signature, with differences to the base and ranges of ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from reasonx_eval.errors import NotComparable
from reasonx_eval.io.results import ModelRef, Value
from reasonx_eval.leaderboard.submissions import Submission
from reasonx_eval.metrics.table import Metric, known_metric
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.report.contamination import seen
from reasonx_eval.statistics.aggregate import ROOTS, pooled_sum, repeated, with_present_intervals
from reasonx_eval.statistics.bootstrap import METHOD
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.paired import Settings, beyond_rounding, intervals
from reasonx_eval.statistics.ranks import Rank, rank_ranges
from reasonx_eval.types import TASKS, Record

Finding = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Difference:
    """Value minus that of the base on the same images, with its interval, in the metric's unit.

    finding : better or worse where the interval excludes 0 and the difference is no rounding, by the metric's direction
    """

    value: float
    low: float | None
    high: float | None
    finding: Finding


@dataclass(frozen=True)
class Cell:
    """One metric of one row; rank is None where the row is not ranked."""

    value: Value
    rank: Rank | None = None
    difference: Difference | None = None
    rewarded: bool = False


@dataclass(frozen=True)
class ModelRow:
    """One model in one table.

    unranked : why it has no rank, None where it has one
    base : name of the row it was tuned from, if that is in the table; level : how many of those are above it
    seconds : per image, in the model; date : day the run ended, as YYYY-MM-DD
    """

    submission: Submission
    cells: Mapping[str, Cell]
    unranked: str | None = None
    trained_on: str | None = None
    base: str | None = None
    level: int = 0

    @property
    def model(self) -> ModelRef:
        return self.submission.result.model

    @property
    def partial(self) -> bool:
        return self.submission.result.status != "complete"

    @property
    def truth(self) -> bool:
        """Whether the prediction is the ground truth: a check of the protocol, not a model."""
        return self.model.source == "oracle"

    @property
    def rewarded(self) -> bool:
        return self.model.reward is not None

    @property
    def seconds(self) -> float | None:
        timing = self.submission.timing
        return None if timing is None else timing.predict_seconds_per_image

    @property
    def device(self) -> str:
        """What the model ran on, as its options say; without one, the processor."""
        return str(self.model.options.get("device", "cpu"))

    @property
    def hardware(self) -> str:
        """The machine that seconds were taken on."""
        machine = self.submission.result.provenance.hardware
        return f"{self.device}; {machine.cpu}, {machine.cores} cores"

    @property
    def date(self) -> str | None:
        timing = self.submission.timing
        return None if timing is None else timing.finished[:10]


@dataclass(frozen=True)
class LeaderboardTable:
    """All results under one signature.

    signature : that of a complete run; a partial run is here under the signature its rest would give it
    rows : a base with those tuned from it below it; best family first
    """

    signature: str
    protocol: str
    task: str
    dataset: str
    n: int
    metrics: tuple[str, ...]
    rows: tuple[ModelRow, ...] = field(repr=False)

    @property
    def headline(self) -> str:
        """The metric that orders the rows: the first of the protocol."""
        return self.metrics[0]


def whole_signature(submission: Submission) -> str:
    """The signature with the number of all samples of the split in place of those scored."""
    return re.sub(r"\|n:\d+/(\d+)\|", r"|n:\1|", submission.result.signature, count=1)


def make_tables(submissions: Iterable[Submission]) -> list[LeaderboardTable]:
    """One table for each signature, by task, protocol and number of rows.

    Raises
    ------
    NotComparable
        Two results with one signature and other rules, images or ground truth; or one model twice.
    """
    groups: dict[str, list[Submission]] = {}
    for one in submissions:
        groups.setdefault(whole_signature(one), []).append(one)
    tables = [_table(signature, group) for signature, group in groups.items()]
    return sorted(tables, key=lambda t: (_task_order(t.task), t.protocol, -len(t.rows), t.signature))


def _task_order(task: str) -> int:
    return TASKS.index(task) if task in TASKS else len(TASKS)


def _table(signature: str, group: Sequence[Submission]) -> LeaderboardTable:
    _check_same(signature, group)
    first = group[0].result
    metrics = tuple(first.protocol.rules["metrics"])
    rows = _families([_plain_row(one, metrics) for one in sorted(group, key=lambda r: r.result.model.name)])
    cells: list[dict[str, Cell]] = [dict(row.cells) for row in rows]
    for metric in metrics:
        _compare(rows, cells, metric)
    rows = [replace(row, cells=cell) for row, cell in zip(rows, cells, strict=True)]
    return LeaderboardTable(
        signature=signature, protocol=f"{first.protocol.name}@{first.protocol.version}",
        task=str(first.protocol.rules["task"]), dataset=first.dataset.name, n=first.n_total, metrics=metrics,
        rows=tuple(_ordered(rows, metrics[0])),
    )  # fmt: skip


def _check_same(signature: str, group: Sequence[Submission]) -> None:
    """Everything in one table must be comparable: the signature is short, digests are exact."""
    names: set[str] = set()
    seen_truth: dict[str, str] = {}
    for one in group:
        result = one.result
        if result.model.name in names:
            raise NotComparable(f"two results of model '{result.model.name}'", where=signature,
                                fix="remove one of the two reviewed files")  # fmt: skip
        names.add(result.model.name)
        rules = {"rules of the protocol": result.protocol.digest, "ids of the split": result.dataset.ids_sha256}
        if result.status == "complete":
            rules["ground truth"] = result.data_sha256
        for what, digest in rules.items():
            if seen_truth.setdefault(what, digest) != digest:
                raise NotComparable(f"the {what} of model '{result.model.name}' differs from the others'",
                                    where=signature, fix="run it again with this version and these files")  # fmt: skip


def _plain_row(submission: Submission, metrics: Sequence[str]) -> ModelRow:
    result = submission.result
    rewarded = result.model.rewarded
    absent = Value(value=None, n=0, reason="not in the result")
    values = _values(submission)
    cells = {m: Cell(values.get(m, absent), rewarded=m in rewarded) for m in metrics}
    trained = seen(result.model.trained_on, result.dataset.name)
    row = ModelRow(submission, cells, trained_on=trained)
    return replace(row, unranked=_why_unranked(row, cells[metrics[0]].value))


def _values(submission: Submission) -> Mapping[str, Value]:
    """Its aggregates; intervals of an older method are taken again, so that all in a table are by one."""
    result, samples = submission.result, submission.samples
    if result.interval_method == METHOD or not samples.ids:
        return result.aggregate
    records = [
        Record(sample_id=i, metrics={m: column[k] for m, column in samples.values.items()},
               group=None if samples.groups is None else samples.groups[k],
               stats={name: column[k] for name, column in samples.sums.items()})
        for k, i in enumerate(samples.ids)
    ]  # fmt: skip
    return with_present_intervals(result.aggregate, records, Protocol.from_rules(result.protocol.rules))


def _why_unranked(row: ModelRow, headline: Value) -> str | None:
    if row.partial:
        return f"partial: {row.submission.result.n_scored} of {row.submission.result.n_total} images"
    if row.truth:
        return "the ground truth itself"
    if row.trained_on is not None:
        return f"trained on this dataset: {row.trained_on}"
    return None if headline.value is not None else headline.reason or "no value"


def _families(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Rows with the row they were tuned from; a base is named by the model's name or by where it came from."""
    by_name = {row.model.source: row for row in rows} | {row.model.name: row for row in rows}
    linked = []
    for row in rows:
        base = None if row.model.base is None else by_name.get(row.model.base)
        linked.append(replace(row, base=None if base is None or base is row else base.model.name))
    bases = {row.model.name: row.base for row in linked}
    return [replace(row, level=len(_above(row.model.name, bases))) for row in linked]


def _above(name: str, bases: Mapping[str, str | None]) -> list[str]:
    """Names of the bases above a row, nearest first; a circle ends where it began."""
    found: list[str] = []
    at = bases[name]
    while at is not None and at not in found and at != name:
        found.append(at)
        at = bases[at]
    return found


def _compare(rows: Sequence[ModelRow], cells: list[dict[str, Cell]], metric: str) -> None:
    """Fill in ranks and differences of one metric."""
    info = known_metric(metric)
    if info is None:
        return
    usable = [k for k, row in enumerate(rows) if not row.partial and cells[k][metric].value.value is not None]
    column = _column([rows[k].submission for k in usable], info) if usable else None
    if column is None:
        return
    ranked = [j for j, k in enumerate(usable) if rows[k].unranked is None]
    if ranked:
        for j, rank in zip(ranked, rank_ranges(_only(column, ranked)), strict=True):
            cell = cells[usable[j]]
            cell[metric] = replace(cell[metric], rank=rank)
    place = {rows[k].model.name: j for j, k in enumerate(usable)}
    tuned = [(rows[k].base, j) for j, k in enumerate(usable)]
    pairs = [(place[base], j) for base, j in tuned if base is not None and base in place]
    means = column.means
    for (from_, j), ends in zip(pairs, intervals(column, pairs, Settings()), strict=True):
        cell = cells[usable[j]]
        cell[metric] = replace(cell[metric], difference=_difference(means[from_], means[j], column.sign, ends))


def _difference(base: float, other: float, sign: int, ends: tuple[float, float] | None) -> Difference:
    low, high = ends or (None, None)
    finding: Finding = "unclear"
    if low is not None and high is not None and (low > 0 or high < 0) and beyond_rounding(base, other):
        finding = "better" if (low > 0) == (sign > 0) else "worse"
    return Difference(other - base, low, high, finding)


def _only(column: Column, runs: Sequence[int]) -> Column:
    return replace(column, values=column.values[list(runs)], top=column.top[list(runs)])


def _column(submissions: Sequence[Submission], info: Metric) -> Column | None:
    """One metric of complete results as the paired statistics read it; None where nothing can be paired."""
    name = info.name
    first = submissions[0].samples
    order = [_order(first.ids, r.samples.ids) for r in submissions]
    values = np.stack([r.samples.column(name)[o] for r, o in zip(submissions, order, strict=True)])
    kept = np.flatnonzero(np.isfinite(values).all(axis=0))
    if not len(kept):
        return None
    top, weight, root = values, np.ones(len(first.ids)), False
    if submissions[0].result.protocol.rules.get("pool") == "pixel":
        key = pooled_sum(name)
        if key is None:
            return None  # nothing per image adds up to a pooled median
        top = np.stack([np.array(r.samples.sums[key])[o] for r, o in zip(submissions, order, strict=True)])
        if any(not np.array_equal(np.array(r.samples.sums["count"])[o], first.sums["count"])
               for r, o in zip(submissions, order, strict=True)):  # fmt: skip
            raise NotComparable("models were scored on different numbers of pixels",
                                where=whole_signature(submissions[0]),
                                fix="run them again with this version and the same files")  # fmt: skip
        weight, root = np.array(first.sums["count"]), name in ROOTS
    groups = None if first.groups is None else repeated([first.groups[k] for k in kept])
    return Column(info, tuple(first.ids[k] for k in kept), values[:, kept], top[:, kept], weight[kept], root=root,
                  groups=None if groups is None else tuple(groups))  # fmt: skip


def _order(ids: Sequence[str], own: Sequence[str]) -> list[int]:
    if ids == own:
        return list(range(len(ids)))
    place = {i: k for k, i in enumerate(own)}
    return [place[i] for i in ids]


def _ordered(rows: Sequence[ModelRow], headline: str) -> list[ModelRow]:
    """Families by their best ranked member, then those without one; inside, each base before those tuned from it."""
    info = known_metric(headline)
    sign = -1.0 if info is not None and info.higher_is_better else 1.0

    def merit(row: ModelRow) -> tuple[bool, float, str]:
        value = row.cells[headline].value.value
        return row.unranked is not None, math.inf if value is None else sign * value, row.model.name

    bases = {row.model.name: row.base for row in rows}
    by_name = {row.model.name: row for row in rows}
    below: dict[str | None, list[ModelRow]] = {}
    for row in rows:
        circular = row.base is not None and row.model.name in _above(row.base, bases)
        below.setdefault(None if circular else row.base, []).append(row)

    def family(row: ModelRow) -> list[ModelRow]:
        return [row, *(r for child in sorted(below.get(row.model.name, []), key=merit) for r in family(child))]

    families = [family(root) for root in below.get(None, [])]
    families.sort(key=lambda rows_: min(map(merit, rows_)))
    found = [row for rows_ in families for row in rows_]
    assert len(found) == len(by_name)
    return found
