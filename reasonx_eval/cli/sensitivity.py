"""reasonx-eval sensitivity: saved predictions under every plausible protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.cli.common import listed, print_json, prints_to_stderr, progress_bar

if TYPE_CHECKING:
    from reasonx_eval.sensitivity.analysis import Sensitivity
    from reasonx_eval.sensitivity.rows import RuleRow

_SHOWN = 3


@click.command("sensitivity", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--vary", metavar="RULE[,RULE]",
              help="Rules to change one at a time: align_space, crop, range, pool for depth; all that the task has if "
                   "not given, none for registered protocols alone.")
@click.option("--metrics", metavar="NAME[,NAME]", help="Metrics that are compared; the protocol's first if not given.")
@click.option("--dataset", metavar="NAME", help="Where the data is, if the run does not say: a name or a folder.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files, if it moved.")
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Threads that load and score.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(runs: tuple[Path, ...], vary: str | None, metrics: str | None, dataset: str | None, root: Path | None,
            workers: int, as_json: bool, quiet: bool) -> int:  # fmt: skip
    """The saved predictions of RUN... under every plausible protocol: how far the numbers move, does the order hold?

    Each row is one protocol with its own signature: the run's, the registered ones of the same data, and the run's with
    one rule changed. Models are ordered within a row, the best first: "a > b" is told apart by a paired test (Holm's
    correction over the row, 5 %), "a ~ b" is not.

    \b
    reasonx-eval sensitivity results/depth/nyuv2@1/* --vary align_space,crop,range,pool
    """
    from reasonx_eval.run.saved_runs import open_dataset, open_run
    from reasonx_eval.sensitivity.analysis import analyse

    names = listed(metrics)
    rules = None if vary is None else [v for v in listed(vary) if v != "none"]
    with prints_to_stderr():
        opened = [open_run(path) for path in runs]
        with progress_bar("sensitivity", quiet) as progress:
            found = analyse(
                opened, lambda protocol: open_dataset(opened[0].result, dataset=dataset, root=root, rules=protocol),
                metrics=names, vary=rules, workers=workers, progress=progress,
            )  # fmt: skip
    if as_json:
        print_json(_document(found))
    else:
        for metric in found.rows:
            _print(found, metric)
        _print_left_out(found)
    return 0


def _names(found: Sensitivity) -> list[str]:
    """The models' names; with their folder where two are the same."""
    names = [run.name for run in found.runs]
    return [f"{n} ({r.folder})" if names.count(n) > 1 else n for n, r in zip(names, found.runs, strict=True)]


def order_text(row: RuleRow, names: Sequence[str]) -> str:
    """``a > b ~ c``, the best first."""
    parts = [names[k] for k in row.order[:1]]
    for a, b in zip(row.order, row.order[1:], strict=False):
        parts += [">" if row.apart[a, b] else "~", names[b]]
    return " ".join(parts)


def _finding(row: RuleRow, first: RuleRow, names: Sequence[str]) -> str:
    if row is first or len(row.order) < 2:
        return ""
    if row.reversed:
        return "REVERSED: " + ", ".join(f"{names[b]} over {names[a]}" for a, b in row.reversed[:_SHOWN])
    if [k for k in first.order if k in row.order] != list(row.order):
        return "swapped, but not told apart in both"
    return "same" if (row.apart == first.apart).all() else "same, other ties"


def _print(found: Sensitivity, metric: str) -> None:
    from reasonx_eval.metrics.table import metric_info
    from reasonx_eval.report.export import NumberStyle, head, written
    from reasonx_eval.report.tables import print_table, printable

    info, names, rows = metric_info(metric), _names(found), found.rows[metric]
    first = rows[0]
    click.echo(printable(f"{head(info, NumberStyle())}  {found.runs[0].result.dataset.name} "
                         f"{found.runs[0].result.dataset.split}, {found.n} samples"))  # fmt: skip
    several = len(names) > 1
    cells = []
    for k, row in enumerate(rows, 1):
        numbers = [" ".join(written(v, info, NumberStyle())) if v.value is not None else "-" for v in row.values]
        more = [order_text(row, names), _finding(row, first, names)] if several else []
        cells.append([str(k), row.variant.label, *numbers, *more])
    print_table(["", "protocol", *names, *(["best first", "order"] if several else [])], cells, right=(0,))
    if several:
        click.echo(_summary(found, metric))
    for k, row in enumerate(rows, 1):
        for reason in dict.fromkeys(v.reason for v in row.values if v.value is None):
            who = ", ".join(n for n, v in zip(names, row.values, strict=True) if v.value is None and v.reason == reason)
            click.echo(printable(f"{k} has no number for {who}: {reason}"))
        if row.variant.as_depth and any(s and "|acc:depth_affine|" in s for s in row.signatures):
            click.echo(f"{k} takes disparities for depths known up to scale and shift")
    for k, row in enumerate(rows, 1):
        for signature in dict.fromkeys(s for s in row.signatures if s):
            click.echo(printable(f"{k} {signature}"))
    click.echo()


def _summary(found: Sensitivity, metric: str) -> str:
    rows = found.rows[metric]
    flipped, others = sum(bool(row.reversed) for row in rows), len(rows) - 1
    if flipped:
        return f"the order does not survive: {flipped} of {others} other protocols reverse models told apart as run"
    return f"the order survives: none of {others} other protocols reverses models that are told apart as run"


def _print_left_out(found: Sensitivity) -> None:
    from reasonx_eval.report.tables import printable

    for label, reason in found.left_out.items():
        click.echo(printable(f"left out: {label}: {reason}"))


def _document(found: Sensitivity) -> dict[str, Any]:
    names = _names(found)
    return {
        "samples": found.n,
        "metrics": {metric: {"survives": found.survives(metric), "protocols": [_row(row, names) for row in rows]}
                    for metric, rows in found.rows.items()},
        "left_out": dict(found.left_out),
    }  # fmt: skip


def _row(row: RuleRow, names: Sequence[str]) -> dict[str, Any]:
    return {
        "protocol": row.variant.label,
        "values": {n: {**v.model_dump(mode="json"), "signature": s}
                   for n, v, s in zip(names, row.values, row.signatures, strict=True)},
        "best_first": [names[k] for k in row.order],
        "significant": [[names[a], names[b]] for a, b in row.significant],
        "reversed": [[names[a], names[b]] for a, b in row.reversed],
    }  # fmt: skip
