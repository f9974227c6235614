"""Plots of one table as inline SVG: accuracy against time, base to tuned, distributions over images.

Drawn when the page is built, so that they need no script; colours are the page's, and shapes say what colours say.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reasonx_eval.leaderboard.formatting import difference_digits, metric_head, seconds_text, shown_value, signed
from reasonx_eval.leaderboard.tables import LeaderboardTable, ModelRow
from reasonx_eval.report.rounding import round_step
from reasonx_eval.report.tables import printable

WIDTH: Final = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 34
#: rows in a plot with one line a row; the first ones of the table
MOST: Final = 16
_BINS: Final = 36
_LONGEST: Final = 20  # characters of a name beside a line


@dataclass(frozen=True)
class Scale:
    """A linear map of [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], at most `most` + 1 of them."""
    if not high > low:
        return [low]
    step = round_step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    tag = f' class="{kind}"' if kind else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{tag}>{html.escape(text)}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _svg(height: float, name: str, about: str, parts: Sequence[str]) -> str:
    """An image with a name and a description for whoever can't see it."""
    return (f'<svg viewBox="0 0 {WIDTH} {_n(height)}" role=img aria-label="{html.escape(name)}. '
            f'{html.escape(printable(about))}">{"".join(parts)}</svg>')  # fmt: skip


def _x_axis(scale: Scale, values: Sequence[tuple[float, str]], y: float, top: float, title: str) -> list[str]:
    lines = "".join(f"M{_n(scale(v))} {_n(top)}V{_n(y)}" for v, _ in values)
    return [f'<path class=x d="{lines}"/>', *(_text(scale(v), y + 13, label, "t c") for v, label in values),
            _text((scale.start + scale.end) / 2, y + 28, title, "t c")]  # fmt: skip


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Limits with a little air, also around a single value."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def scatter(table: LeaderboardTable) -> str | None:
    """The first metric against seconds per image, on a logarithmic axis; None with fewer than two points."""
    points = [(row, row.seconds, row.cells[table.headline].value.value) for row in table.rows if not row.truth]
    known_ = [(row, max(s, 1e-5), v) for row, s, v in points if s is not None and v is not None]
    if len(known_) < 2:
        return None
    height = 260.0
    low, high = _span([math.log10(s) for _, s, _ in known_])
    xs = Scale(low, high, _LEFT, WIDTH - _RIGHT)
    ys = Scale(*_span([v for *_, v in known_]), height - _BOTTOM, _TOP)
    marks = ticks(ys.low, ys.high)
    lines = "".join(f"M{_LEFT} {_n(ys(v))}H{WIDTH - _RIGHT}" for v in marks)
    parts = [f'<path class=x d="{lines}"/>', *(_text(_LEFT - 6, ys(v) + 4, f"{v:g}", "t e") for v in marks)]
    decades = [(float(k), f"{10.0**k:g}") for k in range(math.ceil(low), math.floor(high) + 1)]
    decades = decades or [((low + high) / 2, f"{10 ** ((low + high) / 2):.2g}")]
    parts += _x_axis(xs, decades, height - _BOTTOM, _TOP, "seconds per image")
    places = [(xs(math.log10(s)), ys(v), row) for row, s, v in known_]
    parts += [_point(x, y, row) for x, y, row in places]
    parts += _labels(places)
    about = "; ".join(f"{row.model.name} {shown_value(row.cells[table.headline].value)[0]} in {seconds_text(s)} s"
                      for row, s, _ in known_[:MOST])  # fmt: skip
    return _svg(height, f"{metric_head(table.headline)} against seconds per image", about, parts)


def _point(x: float, y: float, row: ModelRow) -> str:
    """A circle; a triangle for a tuned model; hollow where the row is not ranked."""
    kind = "p" if row.unranked is None else "h"
    if row.base is not None:
        return f'<path class={kind} d="M{_n(x - 5)} {_n(y + 4)}h10l-5-9z"/>'
    return f'<circle class={kind} cx="{_n(x)}" cy="{_n(y)}" r="4"/>'


def _labels(places: Sequence[tuple[float, float, ModelRow]]) -> list[str]:
    """Names beside their points, as many as there is room for."""
    taken = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y, _ in places]
    found = []
    for x, y, row in places:
        name = _short(row.model.name)
        long = 6.8 * len(name)
        for left, base, kind in ((x + 8, y + 4, ""), (x - 8 - long, y + 4, ""), (x - long / 2, y - 9, ""),
                                 (x - long / 2, y + 18, "")):  # fmt: skip
            box = (left, base - 10, left + long, base + 2)
            inside = box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= 0
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                found.append(_text(left, base, name, kind))
                break
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _lanes(rows: Sequence[str]) -> float:
    """Where lines begin, right of the names."""
    return 14 + 6.8 * min(max(len(_short(row)) for row in rows), _LONGEST)


def arrows(table: LeaderboardTable) -> str | None:
    """From the base's value to the tuned one's, a line for each tuned model; None where there is none."""
    tuned = [row for row in table.rows if row.cells[table.headline].difference is not None][:MOST]
    if not tuned:
        return None
    names = [row.model.name for row in tuned]
    spans = [(_base_value(row, table.headline), row.cells[table.headline].value.value) for row in tuned]
    ends = [(b, v) for b, v in spans if v is not None]
    left = _lanes(names)
    height = 24.0 * len(tuned) + _BOTTOM + 6
    xs = Scale(*_span([e for pair in ends for e in pair]), left, WIDTH - 74)
    parts = _x_axis(xs, [(v, f"{v:g}") for v in ticks(xs.low, xs.high, 4)], height - _BOTTOM, 4,
                    metric_head(table.headline))  # fmt: skip
    told = []
    for k, (row, (base, value)) in enumerate(zip(tuned, ends, strict=True)):
        cell = row.cells[table.headline]
        d = cell.difference
        assert d is not None
        y, x0, x1 = 18 + 24.0 * k, xs(base), xs(value)
        kind = {"better": "g", "worse": "w", "unclear": "n"}[d.finding]
        head = 6 if x1 >= x0 else -6
        parts += [
            _text(left - 8, y + 4, _short(row.model.name), "e"),
            f'<g class={kind}><path d="M{_n(x0)} {_n(y)}H{_n(x1)}"/><circle cx="{_n(x0)}" cy="{_n(y)}" r="2.5"/>'
            f'<path stroke-dasharray="none" d="M{_n(x1)} {_n(y)}l{-head}-4v8z"/></g>',
            _text(WIDTH - 70, y + 4, d.finding, "t"),
        ]
        told.append(f"{row.model.name} {signed(d.value, difference_digits(cell, d))} {d.finding}")
    return _svg(height, f"{metric_head(table.headline)} from base to tuned", "; ".join(told), parts)


def _base_value(row: ModelRow, metric: str) -> float:
    cell = row.cells[metric]
    assert cell.value.value is not None
    assert cell.difference is not None
    return cell.value.value - cell.difference.value


def distributions(table: LeaderboardTable) -> str | None:
    """Histograms of the first metric over images, one line a row, on one axis; None without values."""
    rows = [row for row in table.rows if not row.truth and len(row.submission.samples.ids) > 1][:MOST]
    columns = [row.submission.samples.values.get(table.headline) for row in rows]
    values = [np.array([v for v in column or [] if v is not None]) for column in columns]
    found = [(row, v) for row, v in zip(rows, values, strict=True) if v.size > 1]
    if not found:
        return None
    joined = np.concatenate([v for _, v in found])
    low, high = (float(q) for q in np.percentile(joined, [0.5, 99]))
    low, high = _span([low, high]) if high <= low else (low, high)
    left, step = _lanes([row.model.name for row, _ in found]), 30.0
    height = step * len(found) + _BOTTOM + 4
    xs = Scale(low, high, left, WIDTH - _RIGHT)
    parts = _x_axis(xs, [(v, f"{v:g}") for v in ticks(low, high, 4)], height - _BOTTOM, 4,
                    f"{metric_head(table.headline)}, one image each")  # fmt: skip
    edges = np.linspace(low, high, _BINS + 1)
    told = []
    for k, (row, v) in enumerate(found):
        base = step * (k + 1)
        parts.append(_text(left - 8, base - 6, _short(row.model.name), "e"))
        parts.append(_ridge(v, edges, base, xs))
        quarters = np.percentile(v, [25, 50, 75])
        told.append(f"{row.model.name} median {quarters[1]:.4g}, half of the images in {quarters[0]:.4g} to "
                    f"{quarters[2]:.4g}")  # fmt: skip
    return _svg(height, f"Distribution of {metric_head(table.headline)} over images", "; ".join(told), parts)


def _ridge(values: np.ndarray[tuple[int], np.dtype[np.float64]], edges: np.ndarray[tuple[int], np.dtype[np.float64]],
           base: float, xs: Scale) -> str:  # fmt: skip
    """A histogram as a filled line, values beyond the axis in its end bins, and a tick at the median."""
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0]
    heights = 25.0 * counts / counts.max()
    width = (xs.end - xs.start) / len(counts)
    path = f"M{_n(xs.start)} {_n(base)}" + "".join(
        f"L{xs.start + (k + 0.5) * width:.0f} {base - h:.0f}" for k, h in enumerate(heights)
    )
    middle = xs(float(np.median(values)))
    return (f'<path class=a d="{path}L{_n(xs.end)} {_n(base)}z"/>'
            f'<path class=k d="M{_n(middle)} {_n(base)}v-14"/>')  # fmt: skip
