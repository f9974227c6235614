"""Errors per image of one run or several, as a picture, a table of sparklines and a histogram in text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.errors import unknown
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import Result
from reasonx_eval.metrics.table import known_metric, metric_info
from reasonx_eval.report.figures import plain, save_png
from reasonx_eval.report.sparklines import BLOCKS, EIGHTHS, PLAIN, can_print, distribution_row, histogram
from reasonx_eval.report.tables import arrow, print_table, printable
from reasonx_eval.statistics.columns import column
from reasonx_eval.statistics.join import Joined, join
from reasonx_eval.statistics.runs import load_run
from reasonx_eval.types import Record

#: line colour and dash of each run: told apart without colour, and by readers of any colour vision (Okabe and Ito)
STYLES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#cc79a7", ":"), ("#000000", "-"), ("#e69f00", "--"),
          ("#56b4e9", "-."))  # fmt: skip
_COLUMNS = 3


def print_distributions(result: Result, folder: Path) -> None:
    """A line for each metric: the images' values as a sparkline from best to worst, with best, median and worst.

    Prints nothing where the records are not beside the result, or hold no value.
    """
    records = _records(result, folder)
    if records is None:
        return
    levels = BLOCKS if can_print(BLOCKS) else PLAIN
    rows = []
    for name in result.aggregate:
        ids, values = per_image(records, name)
        info = known_metric(name)
        if values and info is not None:
            cells = distribution_row(ids, values, higher_is_better=info.higher_is_better, levels=levels)
            rows.append([f"{name} {arrow(name)}", *cells])
    if rows:
        print_table(["per image", "best to worst", "best", "median", "worst", "worst image"], rows, right=(2, 3, 4))
        print()


def _records(result: Result, folder: Path) -> list[Record] | None:
    path = folder / "records.jsonl"
    if not path.is_file():
        return None
    if sha256_file(path) != result.records_sha256:
        print("note: records.jsonl is not what the result was computed from: --verify says more\n", file=sys.stderr)
        return None
    return read_records(path)


def per_image(records: Sequence[Record], name: str) -> tuple[list[str], list[float]]:
    """Ids and values of the samples that have one."""
    found = [(r.sample_id, v) for r in records if r.error is None and (v := r.metrics.get(name)) is not None]
    return [i for i, _ in found], [v for _, v in found]


def print_histogram(result: Result, folder: Path, metric: str | None) -> None:
    """The distribution of one metric over images, as bars of text with its signature.

    Raises
    ------
    UsageError
        The result has no such metric.
    DataError
        Records that are not those of the result.
    """
    name = chosen_metric(result, metric)
    run = load_run(folder)
    _, values = per_image(run.records, name)
    info = metric_info(name)
    print(printable(f"{info.label} {arrow(name)} per image, {len(values)} images, {result.model.name}"))
    for line in histogram(values, unit=info.unit, blocks=can_print(EIGHTHS)):
        print(line)
    print(printable(result.signature) + "\n")


def chosen_metric(result: Result, metric: str | None) -> str:
    """The metric that was named, or the first of the result.

    Raises
    ------
    UsageError
        The result has no such metric.
    """
    if metric is not None and metric not in result.aggregate:
        raise unknown("metric", metric, result.aggregate, where=result.signature)
    return metric or next(iter(result.aggregate))


def draw_distributions(path: Path, folders: Sequence[Path], metric: str | None = None) -> None:
    """Write a PNG: for each metric the share of images up to each value, one line a run.

    Parameters
    ----------
    path : where to; the same runs give the same bytes
    folders : runs under the same rules on the same data
    metric : only this one

    Raises
    ------
    NotComparable
        Runs under other rules or on other data.
    UsageError
        No such metric.
    DataError
        Records that are not those of the result.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    joined = join([load_run(folder) for folder in folders])
    names = joined.protocol.metrics
    if metric is not None and metric not in names:
        raise unknown("metric", metric, names, where=joined.protocol.ref)
    names = (metric,) if metric is not None else names
    across = min(_COLUMNS, len(names))
    lines = -(-len(names) // across)
    figure = Figure(figsize=(max(7.0, 3.8 * across), 0.9 + 2.7 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, across, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        _curves(axis, joined, name)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    if len(joined.runs) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8,
                      ncols=min(4, len(joined.runs)))  # fmt: skip
    signatures = dict.fromkeys(printable(run.signature) for run in joined.runs)
    whose = f"{joined.runs[0].name}, " if len(joined.runs) == 1 else ""
    heading = f"{whose}{len(joined.ids)} images; thin lines are medians"
    figure.suptitle("\n".join(plain(line) for line in [heading, *signatures]), fontsize=7)
    save_png(path, figure)


def _curves(axis: Any, joined: Joined, name: str) -> None:
    info = metric_info(name)
    data = column(joined, name)
    for k, run in enumerate(joined.runs):
        colour, dash = STYLES[k % len(STYLES)]
        ordered = np.sort(data.values[k])
        share = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        # a label that begins with "_" would not be shown
        label = f" {plain(run.name)}" if run.name.startswith("_") else plain(run.name)
        axis.step(ordered, share, where="post", color=colour, linestyle=dash, linewidth=1.4, label=label)
        if len(ordered):
            axis.axvline(float(np.median(ordered)), color=colour, linestyle=dash, linewidth=0.6)
    better = "higher is better" if info.higher_is_better else "lower is better"
    unit = f" [{info.unit}]" if info.unit else ""
    axis.set_title(f"{info.label}{unit}, {better}", fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("share of images", fontsize=7)
    axis.tick_params(labelsize=6)
    axis.grid(linewidth=0.3)
