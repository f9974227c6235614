"""Results of several runs as tables for papers and programs: one table a protocol and dataset, never mixed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.results import Value
from reasonx_eval.metrics.table import Metric, metric_info
from reasonx_eval.report import latex, markdown
from reasonx_eval.report.contamination import seen
from reasonx_eval.report.tables import arrow, spreadsheet
from reasonx_eval.statistics.columns import column
from reasonx_eval.statistics.join import differences, join
from reasonx_eval.statistics.ranks import Rank, rank_ranges
from reasonx_eval.statistics.runs import Run

BOLD = ("Bold: not told apart from the best by paired tests on the same images "
        "(Holm's correction over all pairs, 5 %).")  # fmt: skip
_MARKS = {"†": "trained on this dataset: not tested", "*": "other images than the rest: not tested"}


@dataclass(frozen=True)
class NumberStyle:
    """How numbers are written.

    interval : with both ends of the 95 % interval
    percent : shares as 100 times their value
    """

    interval: bool = False
    percent: bool = False


@dataclass(frozen=True)
class ExportTable:
    """Runs under one protocol on one dataset.

    ranks : metric -> the places that paired tests leave each run; None for runs that could not be tested
    marks : for each run, why it was not tested: a key of the footnotes, or ""
    """

    runs: tuple[Run, ...]
    metrics: tuple[str, ...]
    ranks: dict[str, tuple[Rank | None, ...]]
    marks: tuple[str, ...]

    @property
    def ref(self) -> str:
        return self.runs[0].protocol.ref

    @property
    def data(self) -> str:
        return f"{self.runs[0].dataset.name} {self.runs[0].dataset.split}"

    @property
    def signatures(self) -> list[str]:
        return list(dict.fromkeys(run.signature for run in self.runs))

    def names(self) -> list[str]:
        """The models' names; with their folder where two are the same."""
        names = [run.name for run in self.runs]
        return [f"{n} ({run.where})" if names.count(n) > 1 else n for n, run in zip(names, self.runs, strict=True)]

    def bold(self, metric: str, k: int) -> bool:
        """Whether run `k` is in the group that may be the best; nothing is where only one run was tested."""
        ranks = [r for r in self.ranks[metric] if r is not None]
        mine = self.ranks[metric][k]
        return len(ranks) > 1 and mine is not None and mine.best == 1


def tabulate(runs: Sequence[Run], metrics: Sequence[str] = ()) -> list[ExportTable]:
    """Group runs that are comparable, and test each group's runs in pairs.

    Parameters
    ----------
    runs : verified runs, of any protocols
    metrics : which to show; a table shows those that its protocol reports

    Raises
    ------
    UsageError
        A metric that none of the protocols reports.
    """
    known = list(dict.fromkeys(m for run in runs for m in run.protocol.metrics))
    for name in metrics:
        if name not in known:
            raise unknown("metric", name, known)
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if not differences(group[0], run):
                group.append(run)
                break
        else:
            groups.append([run])
    wanted = [(group, tuple(m for m in metrics or group[0].protocol.metrics if m in group[0].protocol.metrics))
              for group in groups]  # fmt: skip
    return [_table(group, names) for group, names in wanted if names]


def _table(runs: list[Run], metrics: tuple[str, ...]) -> ExportTable:
    most = max((set(run.scored) for run in runs), key=len)
    marks = ["†" if seen(run.model.trained_on, run.dataset.name) else "*" if set(run.scored) != most else ""
             for run in runs]  # fmt: skip
    tested = [k for k, mark in enumerate(marks) if not mark and most]
    ranks: dict[str, tuple[Rank | None, ...]] = {}
    joined = join([runs[k] for k in tested]) if len(tested) > 1 else None
    for name in metrics:
        places: list[Rank | None] = [None] * len(runs)
        if joined is not None and (data := column(joined, name)).reason is None:
            for k, rank in zip(tested, rank_ranges(data), strict=True):
                places[k] = rank
        ranks[name] = tuple(places)
    return ExportTable(tuple(runs), metrics, ranks, tuple(marks))


def digits_of(low: float | None, high: float | None) -> int | None:
    """Digits after the point that an interval supports: two significant ones of its half-width, 0 to 8.

    None without an interval, or where it has no width: nothing then says how many digits count.

    Examples
    --------
    >>> digits_of(0.0531, 0.0575), digits_of(16.1, 16.9)
    (4, 2)
    """
    if low is None or high is None or not high > low:
        return None
    return min(8, max(0, 1 - math.floor(math.log10((high - low) / 2))))


def written(value: Value, info: Metric, style: NumberStyle) -> tuple[str, str]:
    """Value and interval as text, rounded by the interval; ``("-", reason)`` where there is no value."""
    if value.value is None:
        return "-", value.reason or "absent"
    scale = 100.0 if style.percent and info.percent else 1.0
    low = None if value.ci_low is None else value.ci_low * scale
    high = None if value.ci_high is None else value.ci_high * scale
    digits = digits_of(low, high)
    if digits is None:
        return f"{value.value * scale:.4g}", ""
    return f"{value.value * scale:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def head(info: Metric, style: NumberStyle) -> str:
    unit = "%" if style.percent and info.percent else info.unit
    return f"{info.label} {arrow(info.name)}" + (f" [{unit}]" if unit else "")


def _count(run: Run) -> str:
    total = run.dataset.n
    scored = len(run.scored)
    return str(scored) if scored == total else f"{scored}/{total}"


def to_markdown(tables: Sequence[ExportTable], style: NumberStyle) -> str:
    """GitHub's tables, each with its signatures below."""
    parts = []
    for table in tables:
        infos = [metric_info(m) for m in table.metrics]
        rows = []
        for k, (name, run) in enumerate(zip(table.names(), table.runs, strict=True)):
            cells = []
            for info in infos:
                text, interval = written(run.aggregate[info.name], info, style)
                shown = f"**{text}**" if table.bold(info.name, k) else text
                cells.append(f"{shown} {interval}" if interval and (style.interval or text == "-") else shown)
            rows.append([markdown.escape(name + table.marks[k]), *map(_cell, cells), _count(run)])
        heads = ["model", *(markdown.escape(head(i, style)) for i in infos), "n"]
        notes = [f"{markdown.escape(mark)} {why}".strip() + "  " for mark, why in _notes(table)]
        parts.append("\n".join([
            f"**{markdown.escape(table.ref)}**, {markdown.escape(table.data)}", "",
            markdown.table(heads, rows, right=range(1, len(heads))), "", *notes, markdown.code(*table.signatures),
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """A reason may hold a sample id; brackets and bold are ours."""
    return text.replace("|", r"\|").replace("<", "&lt;")


def _notes(table: ExportTable) -> list[tuple[str, str]]:
    bold = any(table.bold(m, k) for m in table.metrics for k in range(len(table.runs)))
    return [*([("", BOLD)] if bold else []), *((m, why) for m, why in _MARKS.items() if m in table.marks)]


def to_latex(tables: Sequence[ExportTable], style: NumberStyle) -> str:
    """Tables with booktabs' rules and threeparttable's notes, which hold the signatures; letters are T1's."""
    parts = [r"% \usepackage{booktabs,threeparttable} \usepackage[T1]{fontenc}"]
    for table in tables:
        infos = [metric_info(m) for m in table.metrics]
        rows = []
        for k, (name, run) in enumerate(zip(table.names(), table.runs, strict=True)):
            cells = [_latex_cell(run.aggregate[i.name], i, style, table.bold(i.name, k)) for i in infos]
            mark = rf"\tnote{{{latex.escape(table.marks[k])}}}" if table.marks[k] else ""
            rows.append([latex.escape(name) + mark, *cells, latex.escape(_count(run))])
        heads = ["model", *(latex.label(head(i, style)) for i in infos), "$n$"]
        notes = [rf"\item[{latex.escape(mark)}] {latex.escape(why)}" for mark, why in _notes(table)]
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{latex.escape(f'{table.ref}, {table.data}')}}}",
            r"\begin{threeparttable}", latex.tabular(heads, rows, right=range(1, len(heads))),
            r"\begin{tablenotes}\footnotesize", *notes, *(rf"\item[] {latex.breakable(s)}" for s in table.signatures),
            r"\end{tablenotes}", r"\end{threeparttable}", r"\end{table}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _latex_cell(value: Value, info: Metric, style: NumberStyle, bold: bool) -> str:
    text, interval = written(value, info, style)
    if text == "-":
        return "--"
    number = f"$\\mathbf{{{text}}}$" if bold else f"${text}$"
    return f"{number} {{\\scriptsize ${interval}$}}" if style.interval and interval else number


_FIELDS = ("protocol", "dataset", "split", "model", "metric", "unit", "higher_is_better", "value", "ci_low", "ci_high",
           "confidence", "n", "n_total", "status", "rank_best", "rank_worst", "tie_group", "trained_on_dataset",
           "reason", "signature")  # fmt: skip


def records(tables: Sequence[ExportTable]) -> list[dict[str, Any]]:
    """One object a metric of a run, numbers unrounded; absent ones are None."""
    found = []
    for table in tables:
        for k, run in enumerate(table.runs):
            for name in table.metrics:
                info, value, rank = metric_info(name), run.aggregate[name], table.ranks[name][k]
                row = (table.ref, run.dataset.name, run.dataset.split, run.name, name, info.unit,
                       info.higher_is_better, value.value, value.ci_low, value.ci_high, 0.95, value.n, run.dataset.n,
                       run.status, rank and rank.best, rank and rank.worst, table.bold(name, k),
                       table.marks[k] == "†", value.reason, run.signature)  # fmt: skip
                found.append(dict(zip(_FIELDS, row, strict=True)))
    return found


def to_json(tables: Sequence[ExportTable]) -> str:
    return json.dumps(records(tables), indent=1, allow_nan=False) + "\n"


def to_csv(tables: Sequence[ExportTable]) -> str:
    """One line a metric of a run. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    for row in records(tables):
        writer.writerow([spreadsheet(cell) for cell in row.values()])
    return out.getvalue()


def render(tables: Sequence[ExportTable], form: str, style: NumberStyle) -> str:
    """The tables in one of the formats md, csv, latex and json.

    Raises
    ------
    UsageError
        No table: nothing to export.
    """
    if not tables:
        raise UsageError("no run reports these metrics", fix="reasonx-eval export RUN... --metrics NAME[,NAME]")
    if form in ("csv", "json"):
        return to_csv(tables) if form == "csv" else to_json(tables)
    return to_markdown(tables, style) if form == "md" else to_latex(tables, style)
