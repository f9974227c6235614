"""Paired differences as a picture: every sample's difference, sorted, with the mean and its interval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.report.figures import plain, save_png
from reasonx_eval.statistics.columns import column
from reasonx_eval.statistics.comparison import Comparison
from reasonx_eval.statistics.paired import Paired

_BETTER, _WORSE = "#2b6ca3", "#c8682a"
_COLUMNS = 3


def picture_paths(path: Path, comparisons: Sequence[Comparison]) -> list[Path]:
    """A file for each comparison: `path`, or with the protocol in the name where there are several."""
    if len(comparisons) == 1:
        return [path]
    rules = [f"{c.joined.protocol.ref} {c.base.dataset.name}" for c in comparisons]
    return [path.with_stem(f"{path.stem}.{re.sub(r'[^A-Za-z0-9@.-]+', '-', name)}") for name in rules]


def draw_differences(path: Path, comparison: Comparison) -> None:
    """Write a PNG with a panel for each metric of each compared run.

    Parameters
    ----------
    path : where to; the same comparison gives the same bytes
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(k + 1, row) for k, rows in enumerate(comparison.rows) for row in rows]
    lines = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 0.9 + 2.4 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axis, (k, row) in zip(axes, panels, strict=False):
        _panel(axis, comparison, k, row)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(plain("\n".join([f"minus {comparison.base.name}, per sample, sorted; blue is better, orange worse",
                                      *dict.fromkeys(r.signature for r in comparison.joined.runs)])),
                    fontsize=7)  # fmt: skip
    save_png(path, figure)


def _panel(axis: Any, c: Comparison, k: int, row: Paired) -> None:
    data = column(c.joined, row.name)
    gap = np.sort(data.values[k] - data.values[0])
    better = gap * data.sign > 0
    place = np.arange(len(gap))
    axis.bar(place, gap, width=1.0, color=np.where(better, _BETTER, _WORSE), linewidth=0)
    axis.axhline(0, color="0.3", linewidth=0.6)
    if row.reason is None:
        axis.axhline(row.difference, color="black", linewidth=1.0, linestyle="--")
        if row.ci_low is not None and row.ci_high is not None:
            axis.axhspan(row.ci_low, row.ci_high, color="black", alpha=0.15, linewidth=0)
    unit = f" [{row.info.unit}]" if row.info.unit else ""
    axis.set_title(plain(f"{c.joined.runs[k].name}: {row.info.label}{unit}, {row.finding}"), fontsize=8)
    axis.tick_params(labelsize=6)
    axis.set_xlabel(f"{row.wins} better, {row.losses} worse, {row.ties} equal", fontsize=7)
