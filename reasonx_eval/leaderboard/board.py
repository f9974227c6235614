"""Everything a leaderboard shows: measured tables, published rows beside them, judges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reasonx_eval.errors import NotComparable
from reasonx_eval.leaderboard.submissions import JudgeSubmission, read_all
from reasonx_eval.leaderboard.tables import LeaderboardTable, make_tables
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.protocols.references import Reference, Status, references


@dataclass(frozen=True)
class PublishedRow:
    """What one source prints for one model; values in this package's units, as precise as printed."""

    model: str
    values: dict[str, float]
    source: str
    table: str
    status: Status
    difference: str | None
    note: str | None


@dataclass(frozen=True)
class PublishedTable:
    """Published rows near one protocol, never ranked and never mixed with measured ones."""

    protocol: str
    task: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class JudgeTable:
    """Judges of point pairs under one signature, in the order of their names."""

    signature: str
    dataset: str
    modalities: tuple[str, ...]
    rows: tuple[JudgeSubmission, ...]


@dataclass(frozen=True)
class Board:
    tables: tuple[LeaderboardTable, ...]
    published: tuple[PublishedTable, ...]
    judges: tuple[JudgeTable, ...]

    @property
    def models(self) -> int:
        """How many different models have a row."""
        return len({row.model.name for table in self.tables for row in table.rows})


def make_board(folder: Path) -> Board:
    """The board of a folder of reviewed results.

    Raises
    ------
    UsageError
        No such folder.
    DataError, NotComparable
        A damaged file, or results under one signature that are not comparable.
    """
    runs, judges = read_all(folder)
    return Board(tuple(make_tables(runs)), tuple(published_tables()), tuple(_judge_tables(judges)))


def published_tables() -> list[PublishedTable]:
    """The published numbers, by the nearest protocol of this package."""
    by_protocol: dict[str, list[Reference]] = {}
    for reference in references():
        by_protocol.setdefault(reference.protocol, []).append(reference)
    return [_published(name, found) for name, found in by_protocol.items()]


def _published(name: str, found: Iterable[Reference]) -> PublishedTable:
    protocol = get_protocol(name)
    rows: dict[tuple[str, str, str], PublishedRow] = {}
    for r in found:
        key = r.model, r.source, r.table
        rows.setdefault(key, PublishedRow(r.model, {}, r.source, r.table, r.status, r.difference, r.note))
        rows[key].values[r.metric] = r.value
    shown = {m for row in rows.values() for m in row.values}
    return PublishedTable(protocol.ref, protocol.task, tuple(m for m in protocol.metrics if m in shown),
                          tuple(rows.values()))  # fmt: skip


def _judge_tables(judges: Iterable[JudgeSubmission]) -> list[JudgeTable]:
    groups: dict[str, list[JudgeSubmission]] = {}
    for judge in judges:
        groups.setdefault(judge.result.signature, []).append(judge)
    tables = []
    for signature, group in sorted(groups.items()):
        names = [j.result.judge.name for j in group]
        if len(set(names)) < len(names):
            raise NotComparable("two results of one judge", where=signature, fix="remove one of the reviewed files")
        if len({j.result.dataset.ids_sha256 for j in group}) > 1:
            raise NotComparable("judges were asked about other photos", where=signature, fix="run judge-eval again")
        modalities = dict.fromkeys(m for j in group for m in j.result.modalities)
        rows = sorted(group, key=lambda j: j.result.judge.name)
        tables.append(JudgeTable(signature, group[0].result.dataset.name, tuple(modalities), tuple(rows)))
    return tables
