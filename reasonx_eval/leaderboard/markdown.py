"""The board as Markdown, for a repository's front page."""

from __future__ import annotations

from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.board import Board, JudgeTable, PublishedTable
from reasonx_eval.leaderboard.formatting import (
    ABSENT,
    LEGEND,
    judge_marks,
    marks,
    metric_head,
    published_value,
    seconds_text,
    shown_difference,
    shown_value,
)
from reasonx_eval.leaderboard.tables import LeaderboardTable, ModelRow
from reasonx_eval.report import markdown
from reasonx_eval.report.markdown import escape

#: metrics of a table; the page and the CSV have all
_MOST = 5

_HEAD = """# Leaderboard

One table for each protocol signature; numbers of different tables are not comparable. Values with 95 % bootstrap
intervals; differences (Δ) are to the model's base on the same images. A rank is the range of places that paired tests
leave open (Holm's correction over all pairs, 5 %), by the first metric. All metrics, with plots, pictures and filters:
[index.html](index.html); for programs: [leaderboard.csv](leaderboard.csv),
[leaderboard.json](leaderboard.json).
"""


def board_markdown(board: Board) -> str:
    """All tables as Markdown."""
    parts = [_HEAD, "\n".join(f"* {line}" for line in LEGEND) + "\n"]
    protocol = None
    for table in board.tables:
        if table.protocol != protocol:
            protocol = table.protocol
            parts.append(f"## {escape(protocol)}\n")
        parts.append(_table(table))
    if board.judges:
        parts.append("## Judges of point pairs\n")
        parts += [_judges(table) for table in board.judges]
    if board.published:
        parts.append("## Published elsewhere, not measured here\n\nNumbers as their sources print them, beside the "
                     "protocol here that is nearest. They are not ranked.\n")  # fmt: skip
        parts += [_published(table) for table in board.published]
    return "\n".join(parts)


def _table(table: LeaderboardTable) -> str:
    metrics = table.metrics[:_MOST]
    columns = ["rank", "model", *map(metric_head, metrics), "n", "s/image", "date"]
    rows = []
    for row in table.rows:
        rank = row.cells[table.headline].rank
        rows.append([
            ABSENT if rank is None else str(rank), _name(row), *(_cell(row, m) for m in metrics),
            str(row.submission.result.n_scored), seconds_text(row.seconds), row.date or ABSENT,
        ])  # fmt: skip
    return f"{markdown.table(columns, rows)}\n\n{markdown.code(table.signature)}\n"


def _name(row: ModelRow) -> str:
    name = f"**{escape(row.model.name)}**"
    notes = [mark for mark, _ in marks(row)]
    if row.base is not None:
        notes.append(f"from {escape(row.base)}")
    return " ".join(["↳"] * bool(row.level) + [name, *notes])


def _cell(row: ModelRow, metric: str) -> str:
    cell = row.cells[metric]
    value, interval = shown_value(cell.value)
    if cell.value.value is None:
        return f"{value} ({escape(interval)})"
    text = f"{value}{'‡' if cell.rewarded else ''} {interval}"
    shown = shown_difference(cell)
    return text if shown is None else f"{text}<br>Δ {shown[0]} {shown[1]}"


def _judges(table: JudgeTable) -> str:
    rows = []
    for judge in table.rows:
        found = judge.result.modalities
        values = [_judged(found[m].headline) if m in found else ABSENT for m in table.modalities]
        name = " ".join([f"**{escape(judge.result.judge.name)}**", *(mark for mark, _ in judge_marks(judge))])
        rows.append([name, *values, judge.result.status])
    columns = ["judge", *(f"{escape(m)}: share right ↑" for m in table.modalities), "status"]
    return f"{markdown.table(columns, rows)}\n\n{markdown.code(table.signature)}\n"


def _judged(value: Value) -> str:
    shown, interval = shown_value(value)
    return f"{shown} ({escape(interval)})" if value.value is None else f"{shown} {interval}"


def _published(table: PublishedTable) -> str:
    rows = [
        [escape(r.model), *(published_value(r.values.get(m)) for m in table.metrics),
         escape(f"{r.source}, {r.table}"), r.status,
         escape("; ".join(t for t in (r.difference, r.note) if t) or ABSENT)]
        for r in table.rows
    ]  # fmt: skip
    columns = ["model", *map(metric_head, table.metrics), "source", "status", "what differs from the protocol here"]
    return f"### {escape(table.protocol)}\n\n{markdown.table(columns, rows)}\n"
