"""The board as one HTML file: everything inline, nothing fetched, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

from reasonx_eval.errors import UsageError
from reasonx_eval.leaderboard import page_plots as plots
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
from reasonx_eval.leaderboard.submissions import JudgeSubmission, Picture, judge_path, submission_path
from reasonx_eval.leaderboard.tables import LeaderboardTable, ModelRow
from reasonx_eval.metrics.table import known_metric
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.report.tables import printable

#: characters of pictures in the whole page, and rows of a table that may show some
_PICTURE_ROOM: Final = 900_000
_PICTURED_ROWS: Final = 12

_WHY: Final = {"best": "best image", "worst": "worst image", "better": "most improved", "worse": "most worsened"}


@dataclass(frozen=True)
class Head:
    """One column: key in the page's address, label, a smaller second line, whether a high value comes first."""

    key: str
    label: str
    sub: str = ""
    up: bool = False

    @property
    def choice(self) -> str:
        """Its name in the menu of columns, which all tables share."""
        return self.label if self.key == "rank" else f"{self.label} {self.sub}".strip()


def render_page(board: Board, results: str) -> str:
    """The page.

    Parameters
    ----------
    results : address of the folder of reviewed results, relative to the page; rows link to their files
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    style, script = _asset("page.css"), _asset("page.js")
    environment = Environment(loader=PackageLoader("reasonx_eval.leaderboard", "assets"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    sections = _Sections(board, results)
    return environment.get_template("page.html.j2").render(
        style=Markup(style), style_hash=_hash(style), script=Markup(script), script_hash=_hash(script),
        legend=LEGEND, models=board.models, count=_count, **sections.parts(),
    )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _asset(name: str) -> str:
    """A style or script as it goes between its tags; neither may contain its end."""
    text = (resources.files("reasonx_eval.leaderboard") / "assets" / name).read_text(encoding="utf-8")
    assert "</" not in text
    return text


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


class _Sections:
    """The board in the words of the template; ids are unique over the page."""

    def __init__(self, board: Board, results: str) -> None:
        self._board, self._results = board, results
        self._ids: set[str] = {"judges"}
        self._room = _PICTURE_ROOM

    def parts(self) -> dict[str, Any]:
        published = {t.protocol: t for t in self._board.published}
        by_protocol: dict[str, list[LeaderboardTable]] = {}
        for table in self._board.tables:
            by_protocol.setdefault(table.protocol, []).append(table)
        measured = [
            {"id": self._id(ref), "protocol": ref, "title": _title(ref), "task": tables[0].task,
             "tables": [self._measured(t) for t in tables],
             "published": self._published(published.pop(ref)) if ref in published else None}
            for ref, tables in by_protocol.items()
        ]  # fmt: skip
        others = [
            {"id": self._id(ref), "protocol": ref, "title": _title(ref), "task": table.task,
             "published": self._published(table)}
            for ref, table in published.items()
        ]  # fmt: skip
        judges = [self._judges(t) for t in self._board.judges]
        return {"measured": measured, "published": others, "judges": judges, "nav": _nav(measured, judges, others)}

    def _id(self, text: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "table"
        number, name = 1, slug
        while name in self._ids:
            number += 1
            name = f"{slug}-{number}"
        self._ids.add(name)
        return name

    def _measured(self, table: LeaderboardTable) -> dict[str, Any]:
        kind = next(iter(table.rows)).model.kind
        drawn = [
            ("Accuracy against time. Circles: measured; triangles: tuned; hollow: not ranked.", plots.scatter(table)),
            ("From base (dot) to tuned (arrow head). Whole line: better; dashes: worse; dots: unclear.",
             plots.arrows(table)),
            ("Distribution over images, each row to its own height; the tick is the median, the ends "
             f"hold what lies beyond."
             f"{_first(len(table.rows))}", plots.distributions(table)),
        ]  # fmt: skip
        pictures, omitted = self._pictures(table)
        families = _families(table.rows)
        return {
            "id": self._id(f"{table.protocol} {kind}"), "signature": printable(table.signature),
            "protocol": table.protocol, "title": f"{table.dataset}, {kind.replace('_', ' ')}",
            "columns": [Head("rank", "rank", known_label(table.headline)), Head("model", "model"),
                        *map(_head, table.metrics), Head("n", "n", up=True), Head("seconds", "s/image"),
                        Head("date", "date", up=True)],
            "rows": [self._row(row, table, families.get(row.model.name, "")) for row in table.rows],
            "plots": [(caption, _markup(svg)) for caption, svg in drawn if svg is not None],
            "pictures": pictures, "omitted": omitted,
        }  # fmt: skip

    def _row(self, row: ModelRow, table: LeaderboardTable, family: str) -> dict[str, Any]:
        cells = []
        for metric in table.metrics:
            cell = row.cells[metric]
            value, interval = shown_value(cell.value)
            finding = "" if cell.difference is None else {"better": "g", "worse": "w"}.get(cell.difference.finding, "")
            cells.append((value, f"{'‡ ' if cell.rewarded else ''}{interval}", finding, shown_difference(cell)))
        rank = row.cells[table.headline].rank
        model = row.model
        about = [_origin(row), _size(model.parameters), model.licence or ""]
        styles = ["u"] * (row.unranked is not None) + ["l"] * (row.level > 0)
        return {
            "style": " ".join(styles), "family": family, "rank": ABSENT if rank is None else str(rank),
            "href": self._link(submission_path(row.submission).as_posix()), "name": _clipped(model.name),
            "marks": [(mark, _clipped(why, 300)) for mark, why in marks(row)],
            "about": _clipped(" · ".join(t for t in about if t)), "cells": cells,
            "n": _n_text(row), "seconds": seconds_text(row.seconds),
            "device": _clipped(row.device, 12), "date": row.date or ABSENT,
        }  # fmt: skip

    def _link(self, path: str) -> str:
        return quote(f"{self._results}/{path}")

    def _pictures(self, table: LeaderboardTable) -> tuple[list[dict[str, Any]], str]:
        shown, omitted = [], 0
        for k, row in enumerate(table.rows):
            for picture in [] if row.truth else row.submission.pictures:
                if k >= _PICTURED_ROWS or len(picture.webp) > self._room:
                    omitted += 1
                    continue
                self._room -= len(picture.webp)
                shown.append(_picture(row, picture))
        return shown, f"{_count(omitted, 'picture')} of further rows left out." if omitted else ""

    def _published(self, table: PublishedTable) -> dict[str, Any]:
        return {
            "id": self._id(f"{table.protocol} published"), "protocol": table.protocol,
            "columns": [Head("model", "model"), *map(_head, table.metrics), Head("source", "source and table"),
                        Head("status", "status"), Head("differs", "what differs from the protocol here")],
            "rows": [{"model": r.model, "cells": [published_value(r.values.get(m)) for m in table.metrics],
                      "source": f"{r.source}: {r.table}", "status": r.status,
                      "difference": "; ".join(t for t in (r.difference, r.note) if t) or ABSENT}
                     for r in table.rows],
        }  # fmt: skip

    def _judges(self, table: JudgeTable) -> dict[str, Any]:
        columns = [Head(f"right-{m}", m, "share right ↑", up=True) for m in table.modalities]
        columns += [Head(f"ece-{m}", m, "calibration error ↓") for m in table.modalities]
        return {
            "id": self._id(f"judges {table.dataset}"), "title": table.dataset, "signature": printable(table.signature),
            "columns": [Head("model", "judge"), *columns, Head("n", "photos", up=True)],
            "rows": [self._judge(row, table) for row in table.rows],
        }  # fmt: skip

    def _judge(self, row: JudgeSubmission, table: JudgeTable) -> dict[str, Any]:
        result = row.result
        cells: list[tuple[str, str]] = []
        for m in table.modalities:
            found = result.modalities.get(m)
            cells.append((ABSENT, "") if found is None else shown_value(found.headline))
        for m in table.modalities:
            error = None if m not in result.modalities else result.modalities[m].calibration_error
            cells.append((ABSENT if error is None else f"{error:.3f}", ""))
        marked = judge_marks(row)
        about = [_size(result.judge.parameters), result.judge.licence or ""]
        return {
            "style": "u" if marked else "", "name": _clipped(result.judge.name), "cells": cells,
            "href": self._link(judge_path(row).as_posix()), "about": _clipped(" · ".join(t for t in about if t)),
            "marks": [(mark, _clipped(why, 300)) for mark, why in marked],
            "n": str(result.n_scored),
        }  # fmt: skip


def _origin(row: ModelRow) -> str:
    if row.model.base is None:
        return ""
    return f"from {row.base}" if row.base else f"from {row.model.base}, which has no row here"


def _clipped(text: str, length: int = 120) -> str:
    """Text from a result, without control characters, and no longer than a cell can bear."""
    shown = printable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _nav(*groups: Iterable[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    measured, judges, published = (list(g) for g in groups)
    lines: dict[str, list[tuple[str, str]]] = {}
    for section in measured:
        lines.setdefault(section["task"], []).append((section["id"], section["protocol"]))
    if judges:
        lines["judges"] = [(t["id"], t["title"]) for t in judges]
    if published:
        lines["published only"] = [(s["id"], s["protocol"]) for s in published]
    return list(lines.items())


def _title(ref: str) -> str:
    try:
        return get_protocol(ref).title
    except UsageError:
        return "a protocol that this version does not know"


def _head(metric: str) -> Head:
    info = known_metric(metric)
    if info is None:
        return Head(metric, metric)
    arrow = "↑" if info.higher_is_better else "↓"
    return Head(metric, f"{info.label} {arrow}", info.unit, info.higher_is_better)


def known_label(metric: str) -> str:
    """What the rank is by."""
    info = known_metric(metric)
    return f"by {metric if info is None else info.label}"


def _first(rows: int) -> str:
    return f" The first {plots.MOST} rows." if rows > plots.MOST else ""


def _size(parameters: int | None) -> str:
    if parameters is None:
        return ""
    millions = parameters / 1e6
    return f"{millions:.2g} M" if millions < 10 else f"{millions:.0f} M"


def _n_text(row: ModelRow) -> str:
    result = row.submission.result
    return str(result.n_scored) if not row.partial else f"{result.n_scored} of {result.n_total}"


def _families(rows: Sequence[ModelRow]) -> dict[str, str]:
    """Row name -> number of its family, for rows that have a base or are one."""
    roots: dict[str, str] = {}
    found: dict[str, str] = {}
    root = ""
    for row in rows:
        if row.level == 0:
            root = row.model.name
            continue
        number = roots.setdefault(root, str(len(roots) + 1))
        found[root] = found[row.model.name] = number
    return found


def _picture(row: ModelRow, picture: Picture) -> dict[str, Any]:
    name = row.model.name
    change = "" if picture.base_value is None else f", base {picture.base_value:.4g}"
    value = f"{metric_head(picture.metric)} {picture.value:.4g}{change}"
    return {
        "webp": picture.webp, "width": picture.width, "height": picture.height,
        "alt": printable(f"{', '.join(picture.panels)}: image {picture.sample_id}"),
        "caption": _clipped(f"{name}, {_WHY[picture.why]}: {picture.sample_id}, {value}", 300),
    }  # fmt: skip
