"""A gate's answer as text."""

from __future__ import annotations

from collections.abc import Sequence

from reasonx_eval.gate.baseline import EntryChange
from reasonx_eval.gate.verdict import CheckVerdict, Verdict
from reasonx_eval.io.results import Value
from reasonx_eval.report.tables import arrow, decimals, print_table, printable

_COLUMNS = ("protocol", "model", "metric", "baseline", "run", "worse by", "interval", "margin", "n", "outcome")
_RIGHT = (3, 4, 5, 7, 8)


def print_verdict(verdict: Verdict) -> None:
    """The table, refused comparisons, method, and both signatures of every run."""
    if verdict.checks:
        print_table(_COLUMNS, [_cells(c) for c in verdict.checks], right=_RIGHT)
    for c in verdict.checks:
        if c.outcome != "pass":
            print(printable(f"{c.outcome}: {c.protocol} {c.model} {describe(c)}"))
            if c.worst:
                worst = ", ".join(f"{w.sample} ({w.baseline:.4g} -> {w.value:.4g})" for w in c.worst)
                print(printable(f"  worst: {worst}"))
    for line in verdict.refused:
        print("\n".join(printable(part) for part in f"not compared: {line}".splitlines()))
    for line in verdict.notes:
        print(printable(f"note: {line}"))
    for baseline, run in dict.fromkeys((c.baseline_signature, c.signature) for c in verdict.checks):
        same = baseline == run
        print(printable(f"{'baseline and run' if same else 'baseline'}  {baseline}"))
        if not same:
            print(printable(f"run       {run}"))
    if verdict.checks and verdict.confidence is not None:
        print(f"{100 * verdict.confidence:g}% intervals, bootstrap, {verdict.resamples:,} resamples; tests that hold "
              f"for skewed differences, Holm over {sum(not c.exact for c in verdict.checks)}; seed {verdict.seed}")
    print(f"{verdict.outcome}: exit {verdict.exit_code}")


def describe(c: CheckVerdict) -> str:
    """One metric in a sentence: ``abs_rel: worse by 0.0004 [-0.0002, 0.0010], margin 0.0020, n 120``."""
    if c.exact:
        return f"{c.metric}: {c.beyond} of {c.n} samples are worse by more than {c.margin:.3g}"
    _, _, _, _, _, worse, interval, margin, n, _ = _cells(c)
    text = f"{c.metric}: worse by {worse} {interval}, margin {margin}, n {n}"
    if c.outcome == "cannot tell":
        unit = "samples" if c.clusters == c.n else "scenes"
        text += (f"; about {c.samples_needed:,} {unit} would settle it" if c.samples_needed is not None
                 else f"; no practical number of {unit} would settle it")  # fmt: skip
    return text


def print_changes(changes: Sequence[EntryChange]) -> None:
    """What an update did to the baseline, old values beside new ones."""
    if not changes:
        print("nothing changed: the baseline already is these runs")
    for change in changes:
        print(printable(f"{change.action}: {change.protocol} {change.dataset} {change.model}"))
        rows = [[name, _number(v.old), _number(v.new)] for name, v in change.values.items() if v.old != v.new]
        if rows:
            print_table(("metric", "old", "new"), rows, right=(1, 2))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _cells(c: CheckVerdict) -> list[str]:
    digits = decimals(Value(value=c.worse_by, ci_low=c.ci_good, ci_high=c.ci_bad, n=c.n))
    ends = ("-" if c.ci_good is None or c.ci_bad is None
            else f"[{c.ci_good:z.{digits}f}, {c.ci_bad:z.{digits}f}]")  # fmt: skip
    unit = f" [{c.unit}]" if c.unit else ""
    return [c.protocol, c.model, f"{c.metric} {arrow(c.metric)}{unit}", f"{c.baseline:.{digits}f}",
            f"{c.value:.{digits}f}", f"{c.worse_by:z.{digits}f}", ends,
            f"{c.margin:.3g}" + (" exact" if c.exact else ""), str(c.n), c.outcome]  # fmt: skip
