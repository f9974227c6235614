"""Pictures of predictions beside ground truth: one row a sample, errors on one shared scale with its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import color
from reasonx_eval.report.figures import save_png

Style = Literal["rgb", "linear", "depth", "normal", "error"]

#: style -> matplotlib's colour map, for maps of one value a pixel
COLOUR_MAPS: Mapping[str, str] = {"depth": "Spectral", "error": "magma"}


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


def draw_rows(
    path: Path, rows: Sequence[Sequence[Panel]], *, title: str = "", shared_errors: bool = False
) -> None:
    """Write a PNG of rows of panels.

    All depth panels of a row share a colour scale, and so do all error panels of a column: colours can be
    compared wherever they mean the same thing.

    Parameters
    ----------
    shared_errors : all error panels have the same unit, and share one scale
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
    if shared_errors:
        limits = [error_limit([panel for row in rows for panel in row])] * columns
    for r, row in enumerate(rows):
        span = depth_span(row)
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
    save_png(path, figure)


def _error_limits(rows: Sequence[Sequence[Panel]], columns: int) -> list[float]:
    return [error_limit([row[c] for row in rows if c < len(row)]) for c in range(columns)]


def error_limit(panels: Sequence[Panel]) -> float:
    """The end of the scale of error panels, in their unit: 98 % of their pixels lie below; 1 without any error."""
    values = [p.value[np.isfinite(p.value)] for p in panels if p.style == "error"]
    joined = np.concatenate(values) if values else np.empty(0)
    limit = float(np.percentile(joined, 98)) if joined.size else 0.0
    return limit if limit > 0 else 1.0


def depth_span(row: Sequence[Panel]) -> tuple[float, float]:
    """Lowest and highest metres of a row's scale: the first depth panel, the ground truth, sets it."""
    for panel in row:
        if panel.style == "depth":
            finite = panel.value[np.isfinite(panel.value)]
            if finite.size:
                low, high = np.percentile(finite, [1, 99])
                return float(low), float(high)
    return 0.0, 1.0


def _draw(axis: Any, panel: Panel, span: tuple[float, float], limit: float) -> Any:
    axis.set_facecolor("0.85")
    if panel.style in COLOUR_MAPS:
        low, high = span if panel.style == "depth" else (0.0, limit)
        return axis.imshow(panel.value, cmap=COLOUR_MAPS[panel.style], vmin=low, vmax=high)
    axis.imshow(colours(panel))
    return None


def colours(panel: Panel) -> NDArray[np.generic]:
    """A panel that needs no scale as RGB: uint8, or float in [0, 1]."""
    value = panel.value
    if panel.style == "linear":
        return color.linear_to_srgb(np.clip(np.nan_to_num(value.astype(np.float64), nan=0.85), 0, 1))
    if panel.style == "normal":
        # the usual colours: right is red, up is green, towards the camera is blue
        return np.asarray(np.clip(np.nan_to_num(value * np.array([1, -1, -1]), nan=0.0) / 2 + 0.5, 0, 1))
    return value
