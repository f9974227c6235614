"""Pictures of predictions beside ground truth: one row a sample, errors on one shared scale with its unit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reasonx_eval import color
from reasonx_eval.files import write_bytes

Style = Literal["rgb", "linear", "depth", "normal", "error"]


@dataclass(frozen=True)
class Panel:
    """One image of a row.

    value : uint8 [H, W, 3] for rgb; linear float [H, W, 3] for linear; metres [H, W] for depth; unit vectors
        for normal; [H, W] in `unit` for error. NaN is drawn as "no ground truth".
    """

    title: str
    value: NDArray[np.generic]
    style: Style
    unit: str = ""
    caption: str = ""


def draw_rows(path: Path, rows: Sequence[Sequence[Panel]], *, title: str = "") -> None:
    """Write a PNG of rows of panels.

    All depth panels of a row share a colour scale, and so do all error panels of a column: colours can be
    compared wherever they mean the same thing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    height, width = rows[0][0].value.shape[:2]
    figure = Figure(figsize=(2.6 * columns, 0.45 + 2.6 * len(rows) * height / width + 0.32 * len(rows)),
                    dpi=110, layout="constrained")  # fmt: skip
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    limits = _error_limits(rows, columns)
    for r, row in enumerate(rows):
        span = _depth_span(row)
        for c in range(columns):
            axis = axes[r][c]
            axis.set_xticks([])
            axis.set_yticks([])
            if c >= len(row):
                axis.set_visible(False)
                continue
            panel = row[c]
            image = _draw(axis, panel, span, limits[c])
            if r == 0:
                axis.set_title(panel.title, fontsize=9)
            axis.set_xlabel(panel.caption, fontsize=7)
            if image is not None and panel.unit:
                bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02)
                bar.ax.tick_params(labelsize=6)
                bar.set_label(panel.unit, fontsize=7)
    if title:
        figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    # no date and no version in the file: the same picture is the same bytes
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _error_limits(rows: Sequence[Sequence[Panel]], columns: int) -> list[float]:
    limits = []
    for c in range(columns):
        values = [row[c].value[np.isfinite(row[c].value)] for row in rows if c < len(row) and row[c].style == "error"]
        joined = np.concatenate(values) if values else np.empty(0)
        limits.append(float(np.percentile(joined, 98)) if joined.size else 1.0)
    return limits


def _depth_span(row: Sequence[Panel]) -> tuple[float, float]:
    """The first depth panel, the ground truth, sets the scale of its row."""
    for panel in row:
        if panel.style == "depth":
            finite = panel.value[np.isfinite(panel.value)]
            if finite.size:
                low, high = np.percentile(finite, [1, 99])
                return float(low), float(high)
    return 0.0, 1.0


def _draw(axis: Any, panel: Panel, span: tuple[float, float], limit: float) -> Any:
    show = axis.imshow
    axis.set_facecolor("0.85")
    value = panel.value
    if panel.style == "rgb":
        show(value)
        return None
    if panel.style == "linear":
        show(color.linear_to_srgb(np.clip(np.nan_to_num(value.astype(np.float64), nan=0.85), 0, 1)))
        return None
    if panel.style == "normal":
        # the usual colours: right is red, up is green, towards the camera is blue
        show(np.clip(np.nan_to_num(value * np.array([1, -1, -1]), nan=0.0) / 2 + 0.5, 0, 1))
        return None
    if panel.style == "depth":
        return show(value, cmap="Spectral", vmin=span[0], vmax=span[1])
    return show(value, cmap="magma", vmin=0.0, vmax=limit)
