"""The study as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.study.evaluation import DOMAINS, MEASURES, Measure
from benchmarks.study.summary import Figure, Interval, StudyRow
from reasonx_eval.metrics.table import metric_info

_DIGITS: Final = {"normals": 2}


def markdown(rows: Sequence[StudyRow]) -> str:
    """A table a domain, then every signature."""
    if not rows:
        return "no run of the study is finished\n"
    parts = [
        f"On held-out `{DOMAINS[0]}`: mean over seeds, change against the base with its 95 % interval over images, "
        "share of the gap to supervision that is closed, and in how many seeds the change is significant "
        "(better / worse).\n",
        *_table(rows, DOMAINS[0]),
        f"\nOn `{DOMAINS[1]}`, where the bases come from: what is forgotten.\n",
        *_table(rows, DOMAINS[1]),
        "\n```",
        *sorted({f.signature for row in rows for f in row.figures}),
        "```",
    ]
    return "\n".join(parts) + "\n"


def brief(rows: Sequence[StudyRow]) -> str:
    """One table: changes on the tuned domain, and the worst of what is forgotten; then the signatures."""
    heads = [_head(m) for m in MEASURES]
    lines = ["| base | method | judge | " + " | ".join(heads) + " | forgotten |",
             "|---|---|---|" + "---|" * (len(heads) + 1)]  # fmt: skip
    for row in rows:
        cells = []
        for figure in _of_domain(row, DOMAINS[0]):
            share = figure.closed.value
            # of the ceiling itself it is 100 % by definition
            shown = "" if share is None or row.judge == "labels" else f", {100 * share:.0f} %"
            cells.append(f"{_percent(figure.change)}{shown}")
        lines.append(f"| `{row.base}` | {row.method} | {row.judge} | " + " | ".join(cells) + f" | {_forgotten(row)} |")
    signatures = sorted({f.signature for row in rows for f in row.figures})
    return "\n".join([*lines, "", "```", *signatures, "```"]) + "\n"


def _forgotten(row: StudyRow) -> str:
    """The metric of the other domain that got worst, and by how much."""
    worst, name = 0.0, ""
    for figure in _of_domain(row, DOMAINS[1]):
        change = figure.change.value
        if change is None:
            continue
        loss = -change if metric_info(figure.metric).higher_is_better else change
        if loss > worst:
            worst, name = loss, figure.measure
    return f"{name} {100 * worst:.1f} % worse" if name else "nothing"


def _head(measure: Measure) -> str:
    return f"{measure.label} {'↑' if metric_info(measure.metric).higher_is_better else '↓'}"


def _table(rows: Sequence[StudyRow], domain: str) -> list[str]:
    heads = [_head(m) for m in MEASURES]
    lines = ["| base | method | judge | " + " | ".join(heads) + " |", "|---|---|---|" + "---|" * len(heads)]
    for base in dict.fromkeys(r.base for r in rows):
        ours = [r for r in rows if r.base == base]
        first = _of_domain(ours[0], domain)
        lines.append(f"| `{base}` | none |  | " + " | ".join(_number(f, f.base) for f in first) + " |")
        for row in ours:
            cells = [_cell(f, len(row.seeds)) for f in _of_domain(row, domain)]
            lines.append(f"| `{base}` | {row.method} | {row.judge} | " + " | ".join(cells) + " |")
    return lines


def _of_domain(row: StudyRow, domain: str) -> list[Figure]:
    return [f for f in row.figures if f.domain == domain]


def _number(figure: Figure, value: float) -> str:
    return f"{value:.{_DIGITS.get(figure.measure, 3)}f}"


def _cell(figure: Figure, seeds: int) -> str:
    text = f"{_number(figure, figure.tuned)} {_percent(figure.change)}"
    if figure.closed.value is not None and figure.ceiling is not None and figure.tuned != figure.ceiling:
        text += f", closes {100 * figure.closed.value:.0f} %"
    return f"{text} ({figure.better_in}/{figure.worse_in} of {seeds})"


def _percent(interval: Interval) -> str:
    if interval.value is None or interval.low is None or interval.high is None:
        return "n/a"
    return f"{100 * interval.value:+.1f} % [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def plot(rows: Sequence[StudyRow], path: Path) -> None:
    """Change of each metric on the tuned domain with intervals, a panel a metric, and supervision as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bases = list(dict.fromkeys(r.base for r in rows))
    shape = (len(bases), len(MEASURES))
    # a row a run: names are long, panels are not
    figure, axes = pyplot.subplots(*shape, figsize=(3.2 * shape[1], 0.8 + 0.32 * len(rows)), squeeze=False,
                                   sharey="row", layout="constrained")  # fmt: skip
    for line, base in zip(axes, bases, strict=True):
        ours = [r for r in rows if r.base == base]
        for axis, measure in zip(line, MEASURES, strict=True):
            _panel(axis, ours, measure.label)
            axis.set_title(f"{base}: {measure.label}" if axis is line[0] else measure.label, fontsize=9)
    figure.supxlabel(f"change against the base on {DOMAINS[0]}, % (95 % interval; all seeds)", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[StudyRow], label: str) -> None:
    names = [r.method if r.judge == "labels" else f"{r.method}, {r.judge} judge" for r in rows]
    for height, row in enumerate(rows):
        found = next(f for f in row.figures if f.domain == DOMAINS[0] and f.measure == label)
        change = found.change
        if change.value is None or change.low is None or change.high is None:
            continue
        good = change.value > 0 if metric_info(found.metric).higher_is_better else change.value < 0
        axis.errorbar(100 * change.value, height, xerr=[[100 * (change.value - change.low)],
                                                        [100 * (change.high - change.value)]],
                      fmt="o" if good else "x", color="tab:green" if good else "tab:red", capsize=2)  # fmt: skip
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.invert_yaxis()
