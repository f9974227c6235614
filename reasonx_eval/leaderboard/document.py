"""leaderboard.json and leaderboard.csv: the board for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.board import Board, PublishedTable
from reasonx_eval.leaderboard.tables import LeaderboardTable, ModelRow
from reasonx_eval.metrics.table import known_metric
from reasonx_eval.report.tables import spreadsheet

#: raise it when a field changes its meaning
BOARD_SCHEMA: Final = 1

#: significant digits of what is computed here; far fewer than differ between processors
_DIGITS: Final = 6


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DifferenceOut(_Part):
    """Minus the base, in the metric's unit, with its 95 % interval."""

    value: float
    ci_low: float | None
    ci_high: float | None
    finding: Literal["better", "worse", "unclear"]


class CellOut(Value):
    """A value with its interval; rank is the range of places it may hold; rewarded: the model was tuned on it."""

    rank: tuple[int, int] | None = None
    difference: DifferenceOut | None = None
    rewarded: bool = False


class RowOut(_Part):
    model: str
    source: str
    kind: str
    base: str | None
    reward: str | None
    trained_on: list[str]
    unranked: str | None
    status: str
    n_scored: int
    seconds_per_image: float | None
    hardware: str
    date: str | None
    values: dict[str, CellOut]


class TableOut(_Part):
    signature: str
    protocol: str
    task: str
    dataset: str
    n: int
    metrics: list[str]
    rows: list[RowOut]


class PublishedOut(_Part):
    protocol: str
    model: str
    values: dict[str, float]
    source: str
    table: str
    status: str
    difference: str | None
    note: str | None


class JudgeOut(_Part):
    """values : modality -> share right; balanced over same and different for albedo."""

    signature: str
    judge: str
    status: str
    values: dict[str, Value]
    calibration_error: dict[str, float | None]


class BoardOut(_Part):
    """leaderboard.json."""

    schema_: int = Field(BOARD_SCHEMA, alias="schema")
    what: Literal["leaderboard"] = "leaderboard"
    tables: list[TableOut]
    published: list[PublishedOut]
    judges: list[JudgeOut]


def board_document(board: Board) -> BoardOut:
    """The board as typed JSON."""
    return BoardOut(
        schema=BOARD_SCHEMA,
        tables=[
            TableOut(signature=t.signature, protocol=t.protocol, task=t.task, dataset=t.dataset, n=t.n,
                     metrics=list(t.metrics), rows=[_row(t, row) for row in t.rows])
            for t in board.tables
        ],
        published=[
            PublishedOut(protocol=t.protocol, model=r.model, values=r.values, source=r.source, table=r.table,
                         status=r.status, difference=r.difference, note=r.note)
            for t in board.published for r in t.rows
        ],
        judges=[
            JudgeOut(signature=t.signature, judge=j.result.judge.name, status=j.result.status,
                     values={m: r.headline for m, r in j.result.modalities.items()},
                     calibration_error={m: r.calibration_error for m, r in j.result.modalities.items()})
            for t in board.judges for j in t.rows
        ],
    )  # fmt: skip


def _row(table: LeaderboardTable, row: ModelRow) -> RowOut:
    model, result = row.model, row.submission.result
    cells = {}
    for name in table.metrics:
        cell = row.cells[name]
        d = cell.difference
        cells[name] = CellOut(
            **cell.value.model_dump(), rank=None if cell.rank is None else (cell.rank.best, cell.rank.worst),
            difference=None if d is None else DifferenceOut(value=_rounded(d.value), ci_low=_optional(d.low),
                                                            ci_high=_optional(d.high), finding=d.finding),
            rewarded=cell.rewarded,
        )  # fmt: skip
    return RowOut(model=model.name, source=model.source, kind=model.kind, base=model.base, reward=model.reward,
                  trained_on=model.trained_on, unranked=row.unranked, status=result.status,
                  n_scored=result.n_scored, seconds_per_image=_optional(row.seconds), hardware=row.hardware,
                  date=row.date, values=cells)  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _optional(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def board_json(document: BoardOut) -> str:
    """One row of a table on each line."""
    data = document.model_dump(mode="json", by_alias=True)
    lines: list[str] = []
    for key, value in data.items():
        if not isinstance(value, list):
            lines.append(f"{json.dumps(key)}: {_dumped(value)}")
            continue
        parts = [_table_text(v) if "rows" in v else _dumped(v) for v in value]
        lines.append(f"{json.dumps(key)}: [" + ("\n" + ",\n".join(parts) + "\n]" if parts else "]"))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _table_text(table: dict[str, Any]) -> str:
    head = _dumped({k: v for k, v in table.items() if k != "rows"})
    return head[:-1] + ', "rows": [\n' + ",\n".join(map(_dumped, table["rows"])) + "\n]}"


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


CSV_COLUMNS: Final = (
    "section", "signature", "protocol", "model", "base", "metric", "unit", "higher_is_better", "value", "ci_low",
    "ci_high", "n", "rank_best", "rank_worst", "difference", "difference_low", "difference_high", "rewarded",
    "unranked", "status", "seconds_per_image", "hardware", "date", "source", "source_table", "protocol_difference",
)  # fmt: skip


def board_csv(board: Board, document: BoardOut) -> str:
    """One line for each number; section is measured, published or judge."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in [*_measured(document), *_published(board.published), *_judged(document)]:
        writer.writerow({k: spreadsheet(v) for k, v in line.items()})
    return buffer.getvalue()


def _about(metric: str) -> dict[str, object]:
    info = known_metric(metric)
    if info is None:
        return {"metric": metric}
    return {"metric": metric, "unit": info.unit, "higher_is_better": str(info.higher_is_better).lower()}


def _measured(document: BoardOut) -> Iterator[dict[str, object]]:
    for table in document.tables:
        for row in table.rows:
            for metric, cell in row.values.items():
                d, rank = cell.difference, cell.rank or (None, None)
                yield {
                    "section": "measured", "signature": table.signature, "protocol": table.protocol,
                    "model": row.model, "base": row.base, **_about(metric), "value": cell.value,
                    "ci_low": cell.ci_low, "ci_high": cell.ci_high, "n": cell.n, "rank_best": rank[0],
                    "rank_worst": rank[1], "rewarded": str(cell.rewarded).lower(), "unranked": row.unranked,
                    "status": row.status, "seconds_per_image": row.seconds_per_image,
                    "hardware": row.hardware, "date": row.date,
                    **({} if d is None else {"difference": d.value, "difference_low": d.ci_low,
                                             "difference_high": d.ci_high}),
                }  # fmt: skip


def _published(tables: tuple[PublishedTable, ...]) -> Iterator[dict[str, object]]:
    for table in tables:
        for row in table.rows:
            for metric, value in row.values.items():
                yield {"section": "published", "protocol": table.protocol, "model": row.model, **_about(metric),
                       "value": value, "status": row.status, "source": row.source, "source_table": row.table,
                       "protocol_difference": row.difference}  # fmt: skip


def _judged(document: BoardOut) -> Iterator[dict[str, object]]:
    for judge in document.judges:
        for modality, value in judge.values.items():
            yield {"section": "judge", "signature": judge.signature, "model": judge.judge,
                   "metric": f"right on {modality} pairs", "higher_is_better": "true", "value": value.value,
                   "ci_low": value.ci_low, "ci_high": value.ci_high, "n": value.n, "status": judge.status}  # fmt: skip
