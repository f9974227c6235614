"""Results as tables: rich on a terminal, the same columns as plain text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonx_eval.io.results import Result, Value
from reasonx_eval.metrics.table import known_metric


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table on stdout; `right` are the columns to align right.

    A pipe gets every character: nothing is cut to a terminal's width.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for k, name in enumerate(columns):
            table.add_column(name, justify="right" if k in right else "left", overflow="fold")
        for row in rows:
            # Text, not str: a model may be called "[red]"
            table.add_row(*(Text(printable(cell)) for cell in row))
        Console().print(table)
        return
    columns, rows = [printable(c) for c in columns], [[printable(c) for c in row] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


def printable(text: str) -> str:
    r"""Control characters as ``\x1b``: a name in somebody's result must not steer the terminal."""
    return "".join(c if c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in text)


def spreadsheet(cell: Any) -> Any:
    """A cell for a CSV file: text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(cell, str):
        return cell
    shown = printable(cell)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def arrow(name: str) -> str:
    info = known_metric(name)
    return "" if info is None else "↑" if info.higher_is_better else "↓"


def decimals(value: Value) -> int:
    """Digits after the point: two significant ones of the interval's width, 4 without an interval."""
    if value.value is None or value.ci_low is None or value.ci_high is None:
        return 4
    width = value.ci_high - value.ci_low
    if not width > 0:
        return 4
    digits = 1
    while digits < 8 and width * 10**digits < 10:
        digits += 1
    return max(digits, 4 if abs(value.value) < 10 else 2)


def format_value(value: Value) -> tuple[str, str]:
    """``("0.0553", "[0.0531, 0.0575]")``; an absent value shows its reason."""
    if value.value is None:
        return "-", value.reason or "absent"
    digits = decimals(value)
    if value.ci_low is None or value.ci_high is None:
        return f"{value.value:.{digits}f}", "no interval from one image" if value.n < 2 else "no interval"
    return f"{value.value:.{digits}f}", f"[{value.ci_low:.{digits}f}, {value.ci_high:.{digits}f}]"


def metric_rows(aggregate: Mapping[str, Value]) -> list[list[str]]:
    rows = []
    for name, value in aggregate.items():
        info = known_metric(name)
        unit = "" if info is None else info.unit or ""
        number, interval = format_value(value)
        rows.append([f"{name} {arrow(name)}", number, interval, unit, str(value.n)])
    return rows


def status_line(result: Result) -> str:
    parts = [f"{result.n_scored}/{result.n_total} scored"]
    if result.n_undefined:
        parts.append(f"{result.n_undefined} without a defined value")
    if result.failed:
        parts.append(f"{len(result.failed)} failed")
    if not result.selection.whole:
        asked = result.selection
        parts.append(f"shard {asked.shard}" if asked.shard else "a selection of the split")
    return f"{result.status}: " + ", ".join(parts)


def print_result(result: Result, path: Path | None = None) -> None:
    """One result: model, status, metrics with intervals, signature."""
    print(printable(f"{result.model.name} on {result.dataset.name} ({result.dataset.split})  "
                         f"{status_line(result)}"))  # fmt: skip
    print_table(["metric", "value", "95% interval", "unit", "n"], metric_rows(result.aggregate), right=(1, 4))
    for note in result.notes:
        print(f"note: {printable(note)}")
    for sample, reason in list(result.failed.items())[:5]:
        print(printable(f"failed: {sample}: {reason}"))
    if len(result.failed) > 5:
        print(f"failed: ... and {len(result.failed) - 5} more, in records.jsonl")
    print(printable(result.signature))
    if path is not None:
        print(f"-> {path / 'result.json'}")
    print()


def print_overview(results: Sequence[Result], *, metrics: int = 3) -> None:
    """Several results: one small table for each protocol, its signatures below it, never mixed."""
    by_protocol: dict[str, list[Result]] = {}
    for result in results:
        by_protocol.setdefault(f"{result.protocol.name}@{result.protocol.version}", []).append(result)
    for ref, group in by_protocol.items():
        names = list(group[0].aggregate)[:metrics]
        print(f"{ref}  {group[0].dataset.name} {group[0].dataset.split}")
        rows = []
        for result in group:
            cells = [" ".join(format_value(result.aggregate[name])) for name in names]
            rows.append([result.model.name, *cells, str(result.n_scored + result.n_undefined), result.status])
        columns = ["model", *(f"{n} {arrow(n)} [95% interval]" for n in names), "n", "status"]
        print_table(columns, rows, right=(len(columns) - 2,))
        for signature in dict.fromkeys(r.signature for r in group):
            print(signature)
        print()
