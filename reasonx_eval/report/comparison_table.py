"""A comparison as text: for a terminal or pipe, Markdown, CSV and LaTeX; never without both signatures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

from reasonx_eval.io.results import Value
from reasonx_eval.report import latex, markdown
from reasonx_eval.report.tables import arrow, decimals, print_table, printable, spreadsheet
from reasonx_eval.statistics.bootstrap import ROUGH_BELOW
from reasonx_eval.statistics.comparison import Comparison, reward_lines
from reasonx_eval.statistics.paired import Paired
from reasonx_eval.statistics.permutation import least_p
from reasonx_eval.statistics.runs import Run

_RIGHT = (1, 2, 3, 5, 6)
_SHOWN = 5


def head(c: Comparison) -> list[str]:
    """Protocol, data, who is compared with their signatures, and what is missing where."""
    base, joined = c.base, c.joined
    undefined = f", {len(joined.undefined)} without a defined value" if joined.undefined else ""
    lines = [f"{joined.protocol.ref}  {base.dataset.name} {base.dataset.split}  {c.samples} paired{undefined}",
             *(f"{_label(c, run)}  {_named(c, run)}  {run.signature}" for run in joined.runs)]  # fmt: skip
    versions = dict.fromkeys(run.reasonx for run in joined.runs)
    if len(versions) > 1:
        lines.append(f"note: made by versions {', '.join(versions)}, under the same rules")
    lines += [f"note: {_named(c, run)} was tuned for a reward ({run.model.reward}), and its card does not say of which "
              "metrics it is made" for run in joined.runs if run.model.reward and not run.rewarded]  # fmt: skip
    for run, missing in zip(joined.runs, joined.missing, strict=True):
        listed = list(missing.items())
        lines += [f"missing  {_named(c, run)}: {sample}: {why}" for sample, why in listed[:_SHOWN]]
        if len(listed) > _SHOWN:
            lines.append(f"missing  {_named(c, run)}: ... {len(listed)} samples in all; --json lists them")
    return [printable(line) for line in lines]


def foot(c: Comparison) -> list[str]:
    """Seed, resamples and family of the correction; and the limits that few clusters set."""
    s = c.settings
    tested = [row for rows in c.rows for row in rows if row.reason is None]
    exact = any(row.exact for row in tested)
    how = "all permutations (exact p)" if exact else f"{s.permutations:,} random permutations"
    what = "images" if c.joined.groups is None else "scenes"
    lines = [f"seed {s.seed}; bootstrap, {s.resamples:,} resamples, and {how} of {what}; Holm over {len(tested)} tests"]
    few = [row for row in tested if row.finding == "too few"]
    if few:
        needed = next(k for k in range(1, 64) if len(tested) * least_p(k) < s.alpha)
        lines.append(f"too few: whatever the differences in {max(row.clusters for row in few)} {what} are, no p below "
                     f"{min(row.least_p for row in few):.2g} is possible; it takes {needed} {what} that differ")
    clusters = max((row.clusters for row in tested), default=0)
    if 1 < clusters < ROUGH_BELOW:
        lines.append(f"intervals of {clusters} {what} are rough: they cover less than they say")
    return [*lines, "‡ a metric that the model was rewarded for"] if c.rewarded else lines


def columns(c: Comparison, run: Run) -> list[str]:
    percent = f"{100 * c.settings.confidence:g}% interval"
    names = [c.base.name, run.name] if c.base.name != run.name else [_label(c, c.base), _label(c, run)]
    return ["metric", *names, "difference", percent, "p (Holm)", "better/worse/equal",
            "finding"]  # fmt: skip


def cells(row: Paired, rewarded: Sequence[str] = ()) -> list[str]:
    """One metric as text: the difference to the digits its interval supports, the values to as many."""
    mark = " ‡" if row.name in rewarded else ""
    unit = f" [{row.info.unit}]" if row.info.unit else ""
    first = f"{row.name} {arrow(row.name)}{unit}{mark}"
    counts = f"{row.wins}/{row.losses}/{row.ties}"
    if row.reason is not None:
        numbers = ["-"] * 3 if math.isnan(row.difference) else [f"{row.base:.4f}", f"{row.other:.4f}",
                                                               f"{row.difference:+z.4f}"]  # fmt: skip
        return [first, *numbers, row.reason, "-", counts, row.finding]
    digits = decimals(Value(value=row.difference, ci_low=row.ci_low, ci_high=row.ci_high, n=row.n))
    ends = (f"no interval from one {'image' if row.n == 1 else 'scene'}" if row.ci_low is None or row.ci_high is None
            else f"[{row.ci_low:+z.{digits}f}, {row.ci_high:+z.{digits}f}]")  # fmt: skip
    return [first, f"{row.base:.{digits}f}", f"{row.other:.{digits}f}", f"{row.difference:+z.{digits}f}", ends,
            f"{row.p_adjusted:.2g}", counts, row.finding]  # fmt: skip


def print_comparisons(
    comparisons: Sequence[Comparison], form: str, *, worst: int = 5, by: str | None = None, unrewarded: bool = False
) -> None:
    """The answer on stdout.

    Parameters
    ----------
    form : table, md, csv or latex
    worst, by : how many of the worst samples are named below a table, and under which metric
    unrewarded : rewarded metrics first in a table
    """
    if form == "table":
        _print_text(comparisons, worst=worst, by=by, unrewarded=unrewarded)
    else:
        print({"md": _markdown, "csv": _csv, "latex": _latex}[form](comparisons), end="")


def _print_text(comparisons: Sequence[Comparison], *, worst: int, by: str | None, unrewarded: bool) -> None:
    """The tables on stdout, with the samples that got worst below each."""
    for c in comparisons:
        print("\n".join(head(c)))
        for run, rows in zip(c.others, c.rows, strict=True):
            shown = sorted(rows, key=lambda r: r.name not in run.rewarded) if unrewarded else rows
            print_table(columns(c, run), [cells(r, run.rewarded) for r in shown], right=_RIGHT)
            for line in worst_lines(c, run, rows, worst=worst, by=by):
                print(printable(line))
        print("\n".join(foot(c)) + "\n")
    for line in reward_lines(comparisons):
        print(printable(line))


def worst_lines(c: Comparison, run: Run, rows: Sequence[Paired], *, worst: int, by: str | None) -> list[str]:
    """The samples on which a run is worse than the base by most, under one metric."""
    row = next(r for r in rows if by in (None, r.name))
    got_worse = [f"{w.sample_id} ({w.other - w.base:+.4g}: {w.base:.4g} -> {w.other:.4g})" for w in row.worst[:worst]]
    if worst == 0:
        return []
    return [f"worst for {_named(c, run)} by {row.name}: {', '.join(got_worse) or 'no sample got worse'}"]


def _markdown(comparisons: Sequence[Comparison]) -> str:
    return _document(comparisons, markdown.table, markdown.escape, lambda text: f"`{text.replace('`', chr(39))}`  ")


def _latex(comparisons: Sequence[Comparison]) -> str:
    """booktabs tables; signatures as comments, so that they can't get lost on the way to a paper."""
    return _document(comparisons, latex.tabular, latex.label, lambda text: f"% {text}")


def _document(
    comparisons: Sequence[Comparison], table: Callable[..., str], escape: Callable[[str], str],
    note: Callable[[str], str],
) -> str:  # fmt: skip
    lines: list[str] = []
    for c in comparisons:
        lines += [*map(note, head(c)), ""]
        for run, rows in zip(c.others, c.rows, strict=True):
            shown = [[escape(x) for x in cells(r, run.rewarded)] for r in rows]
            lines += [table([escape(x) for x in columns(c, run)], shown, right=_RIGHT), ""]
        lines += [*map(note, foot(c)), ""]
    return "\n".join(lines)


_FIELDS = ("protocol", "metric", "unit", "higher_is_better", "rewarded", "base_model", "model", "base", "value",
        "difference", "ci_low", "ci_high", "confidence", "p", "p_adjusted", "better", "worse", "equal", "n", "clusters",
        "finding", "reason", "missing_in_base", "missing", "seed", "base_signature", "signature")  # fmt: skip


def _csv(comparisons: Sequence[Comparison]) -> str:
    """One line a metric of a model, numbers unrounded; absent ones are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    for c in comparisons:
        gone = [" ".join(m) for m in c.joined.missing]
        for run, lost, rows in zip(c.others, gone[1:], c.rows, strict=True):
            for r in rows:
                numbers = [None if math.isnan(x) else x for x in (r.base, r.other, r.difference)]
                p = [None] * 2 if r.reason is not None else [r.p, r.p_adjusted]
                line = [c.joined.protocol.ref, r.name, r.info.unit, r.info.higher_is_better,
                                 r.name in run.rewarded, c.base.name, run.name, *numbers, r.ci_low, r.ci_high,
                                 c.settings.confidence, *p, r.wins, r.losses, r.ties, r.n, r.clusters, r.finding,
                                 r.reason, gone[0], lost, c.settings.seed, c.base.signature,
                                 run.signature]  # fmt: skip
                writer.writerow([spreadsheet(cell) for cell in line])
    return out.getvalue()


def _label(c: Comparison, run: Run) -> str:
    """What a run is called where names are too long or the same: base; this, or run 2, run 3, ..."""
    place = next(k for k, other in enumerate(c.joined.runs) if other is run)
    return "base" if place == 0 else "this" if len(c.joined.runs) == 2 else f"run {place + 1}"


def _named(c: Comparison, run: Run) -> str:
    """The model's name; with its folder where two runs have the same."""
    twice = sum(other.name == run.name for other in c.joined.runs) > 1
    return f"{run.name} ({run.where})" if twice else run.name
