"""reasonx-eval reproduce: a result beside the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.cli.common import print_json

if TYPE_CHECKING:
    from reasonx_eval.run.reproduce import Check
    from reasonx_eval.statistics.runs import Run


@click.command("reproduce")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--as", "published_as", metavar="NAME", help="Name of the model in the source, e.g. 'Marigold v1.0'.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(run: Path, published_as: str | None, as_json: bool) -> int:
    """RUN beside the published numbers of its model under its protocol.

    A number printed with d decimals stands for every value within half a unit of its last one. "as printed": ours is
    one of them. "consistent": they meet our 95% interval. "not the same protocol": the known difference is printed.

    Exit code 0 if every number made by the same protocol agrees, 3 if one does not, 4 if there is none.

    \b
    reasonx-eval reproduce results/normals/nyuv2@1/dsine --as DSINE
    """
    from reasonx_eval.run.reproduce import check, exit_code
    from reasonx_eval.statistics.runs import load_run

    loaded = load_run(run)
    checks = check(loaded, published_as)
    code = exit_code(checks)
    if as_json:
        print_json({"signature": loaded.signature, "judged": sum(c.judged for c in checks),
                    "checks": [_document(c) for c in checks], "exit_code": code})  # fmt: skip
    else:
        _print(loaded, checks)
    return code


def _document(c: Check) -> dict[str, Any]:
    r = c.reference
    return {"metric": r.metric, "published": r.value, "step": c.step, "model": r.model, "source": r.source,
            "table": r.table, "status": r.status, "ours": c.ours.value, "ci_low": c.ours.ci_low,
            "ci_high": c.ours.ci_high, "verdict": c.verdict, "why": c.why, "note": r.note}  # fmt: skip


def _print(run: Run, checks: Sequence[Check]) -> None:
    from reasonx_eval.report.tables import arrow, format_value, print_table, printable
    from reasonx_eval.run.reproduce import RULE

    click.echo(printable(f"{run.name} beside '{checks[0].reference.model}'"))
    rows = []
    for c in checks:
        r = c.reference
        value, interval = format_value(c.ours)
        copied = " (a copy)" if r.status == "third-party" else ""
        rows.append([f"{r.metric} {arrow(r.metric)}", value, interval, _as_printed(r.value, c.step), c.verdict,
                     f"{r.source}, {r.table}{copied}"])  # fmt: skip
    print_table(["metric", "ours", "95% interval", "published", "", "source"], rows, right=(1, 3))
    for line in _counts(checks):
        click.echo(printable(line))
    for note in dict.fromkeys(f"published: {c.reference.note}" for c in checks if c.reference.note):
        click.echo(printable(note))
    options = ", ".join(f"{k}={v}" for k, v in run.model.options.items())
    click.echo(printable(f"ours: {run.model.kind}{', ' + options if options else ''}"))
    click.echo(f"rule: {RULE}")
    click.echo(printable(run.signature))


def _counts(checks: Sequence[Check]) -> list[str]:
    """How many numbers are judged, and why the others are not."""
    from collections import Counter

    judged = Counter(c.verdict for c in checks if c.judged)
    found = ", ".join(f"{n} {verdict}" for verdict, n in judged.items())
    others = Counter(f"{c.verdict}: {c.why}" for c in checks if not c.judged)
    return [f"judged: {judged.total()} of {len(checks)}{' (' + found + ')' if found else ''}",
            *(f"not judged: {n}, {why}" for why, n in others.items())]  # fmt: skip


def _as_printed(value: float, step: float) -> str:
    places = len(f"{step:f}".rstrip("0").partition(".")[2])
    return f"{value:.{places}f}"
