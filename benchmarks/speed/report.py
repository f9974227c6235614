"""benchmarks/speed/README.md from one run: ``python -m benchmarks.speed.report build/bench.json``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.goals import GOALS, LIMITS, PLOTS, Goal
from benchmarks.speed.measured import Form, Run, growth, is_met, measured, read_run
from reasonx_eval.io.files import write_bytes, write_text
from reasonx_eval.report.markdown import escape

_INTRO = """# Speed

Generated from one run of `make bench`; every time is of that run and of this machine: ratios carry over, milliseconds
do not. **ours** is what the package does, **peer** the plain formulation that published evaluation code uses (written
from the formulas, not copied), **library** a package's own function, **bound** what no form can beat (decoding alone,
reading the inputs). Forms of a group are asserted to agree before they are timed. Times are medians of a call, with the
interquartile range; "x peer" is the fastest peer form's time over this one's, "x bound" this one's over the bound's.
Memory is the peak above the inputs; of commands, the whole process.
Where a ratio near 1 decides, two forms are timed in turns, and the median of neighbours' ratios counts.

What the published run costs at full size, counted rather than timed: [full_size](../full_size/README.md).
"""
_WORDS = {
    "peer": "times as fast as the peer form", "library": "times as fast as the library",
    "bound": "times the bound", "against": "times what it is timed in turns with", "seconds": "s",
    "memory": "MiB above the inputs", "growth": "as the exponent of time over size (1: linear)",
    "rate": "a second",
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Write the report and its plots beside this file (or into a second argument); the exit code."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m benchmarks.speed.report build/bench.json [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).parent
    run = read_run(Path(arguments[0]))
    drawn = {group: name for group, name in PLOTS.items() if run.of(group)}
    for group, name in drawn.items():
        write_bytes(folder / name, _plot(run.of(group), group))
    write_text(folder / "README.md", render(run, GOALS, drawn))
    return 0


def render(run: Run, goals: Sequence[Goal], plots: dict[str, str]) -> str:
    """The whole report as Markdown; `plots` are group -> file of those that were drawn."""
    parts = [_INTRO, _machine(run), "## Goals\n\n" + _goal_table(run, goals)]
    for group in run.groups:
        parts.append(f"## {escape(group)}\n\n{_group_table(run, group)}")
        parts += [f"The limit: {escape(LIMITS[group])}\n"] if group in LIMITS else []
        parts += [f"![{escape(group)}: time over size]({plots[group]})\n"] if group in plots else []
    return "\n".join(parts)


def _machine(run: Run) -> str:
    machine = run.machine
    versions = ", ".join(f"{name} {v}" for name, v in machine.get("versions", {}).items() if v is not None)
    cpu = machine.get("cpu", {}).get("brand_raw", "an unknown processor")
    return f"Machine: {escape(cpu)}, {machine.get('cores', '?')} cores, {machine.get('system', '?')}; " \
           f"Python {machine.get('python', '?')}, {escape(versions)}.\n"  # fmt: skip


def _goal_table(run: Run, goals: Sequence[Goal]) -> str:
    rows = []
    for goal in goals:
        value = measured(run, goal)
        limit = goal.at_least if goal.at_least is not None else goal.at_most
        turns = next((f.turns for f in run.of(goal.group, "ours") if f.turns is not None), None)
        words = f"times {turns.form}" if goal.quantity == "against" and turns is not None else _WORDS[goal.quantity]
        aim = f"at {'least' if goal.at_least is not None else 'most'} {limit:g} {words}"
        aim += f" at {goal.size:g}" if goal.size is not None else ""
        verdict = "not measured" if value is None else "met" if is_met(goal, value) else "**not met**"
        rows.append([escape(goal.group), escape(aim), "" if value is None else _measured(value), verdict])
    return _table(["group", "goal", "measured", ""], rows, right=(2,))


def _measured(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _group_table(run: Run, group: str) -> str:
    forms = run.of(group)
    sized = any(f.size is not None for f in forms)
    rows = [_row(run, f, sized) for f in forms]
    blank = [""] * (4 + sized)
    rows += [[a.role, f"{escape(a.form)} (not measured: {escape(a.reason)})", *blank]
             for a in run.absent if a.group == group]  # fmt: skip
    size = [next((f.unit for f in forms if f.unit), "size")] if sized else []
    table = _table(["", "form", *size, "ms", "x peer", "x bound", "MiB"], rows, right=tuple(range(2, 6 + sized)))
    return table + "".join(f"\n{line}\n" for line in [*_turns(forms), *_growths(forms)])


def _row(run: Run, form: Form, sized: bool) -> list[str]:
    def fastest(role: str) -> float | None:
        return min((f.seconds for f in run.of(form.group, role) if f.size == form.size), default=None)

    peer, bound = fastest("peer"), fastest("bound")
    return [
        f"**{form.role}**" if form.role == "ours" else form.role,
        escape(form.form),
        *([] if not sized else ["" if form.size is None else f"{form.size:,.0f}"]),
        f"{significant(1e3 * form.seconds)} ± {significant(1e3 * form.spread, 1)}",
        "" if peer is None or form.role == "bound" else f"{significant(peer / form.seconds)}x",
        "" if bound is None else f"{significant(form.seconds / bound)}x",
        "" if form.memory is None else f"{form.memory:,.1f}",
    ]


def _turns(forms: Sequence[Form]) -> list[str]:
    return [
        f"In turns: {escape(f.form)}{'' if f.size is None else f' at {f.size:,.0f}'} takes "
        f"{significant(f.turns.ratio)} times as long as {escape(f.turns.form)} "
        f"({significant(1e3 * f.turns.seconds)} ms); {f.rounds} pairs."
        for f in forms if f.turns is not None
    ]  # fmt: skip


def _growths(forms: Sequence[Form]) -> list[str]:
    """The exponent of each form that was measured at several sizes."""
    lines = []
    for role, form in dict.fromkeys((f.role, f.form) for f in forms):
        slope = growth(f for f in forms if (f.role, f.form) == (role, form))
        if slope is not None:
            lines.append(f"Time of {escape(form)} grows as size to the power of {slope:.2f}.")
    return lines


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent: 0.0853, 18.7, 1,461."""
    if value == 0:
        return "0"
    places = digits - 1
    scaled = abs(value)
    while scaled >= 10:
        scaled, places = scaled / 10, places - 1
    while scaled < 1:
        scaled, places = scaled * 10, places + 1
    return f"{round(value, places):,.{max(0, places)}f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    rule = ["---:" if k in right else "---" for k in range(len(columns))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, rule, *rows))


def _plot(forms: Sequence[Form], title: str) -> bytes:
    """Time over size, both logarithmic, a line a form; SVG, the same bytes for the same run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    with pyplot.rc_context({"svg.hashsalt": "benchmarks"}):
        figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
        for role, form in dict.fromkeys((f.role, f.form) for f in forms if f.size):
            same = [f for f in forms if (f.role, f.form) == (role, form)]
            line = sorted((f.size, 1e3 * f.seconds) for f in same if f.size)
            axes.loglog([x for x, _ in line], [y for _, y in line], marker="o", label=f"{role}: {form}")
        axes.set(title=title, xlabel=next((f.unit for f in forms if f.unit), "size"), ylabel="ms")
        axes.set_xticks(sorted({f.size for f in forms if f.size}), minor=False)
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        for level in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            level(ticker.LogFormatter(labelOnlyBase=False))
        axes.grid(True, which="both", alpha=0.3)
        figure.legend(loc="outside lower center")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
