"""Distributions in a line or a few lines of text: for terminals, and as plain text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from reasonx_eval.report.rounding import round_step

BLOCKS = "▁▂▃▄▅▆▇█"
#: the same eight levels for a terminal that has no block characters
PLAIN = "_.:-=+*#"
#: eighths of a character, for the ends of horizontal bars
EIGHTHS = " ▏▎▍▌▋▊▉█"


def can_print(characters: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values: ArrayLike, *, width: int = 32, levels: str = BLOCKS) -> str:
    """Values in their order as one line: each character is the mean of an equal part of them.

    Parameters
    ----------
    values : float [n], finite
    width : characters at most; fewer values take a character each
    levels : characters from low to high; the lowest value is the first of them, the highest the last

    Returns
    -------
    str
        Empty for no values; the lowest level throughout where all are equal.

    Raises
    ------
    ValueError
        NaN or infinity.

    Examples
    --------
    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    '▁▂▃▄▅▆▇█'
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return ""
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinity among the values")
    means = np.array([part.mean() for part in np.array_split(array, min(width, array.size))])
    low, span = array.min(), array.max() - array.min()
    place = np.zeros(means.size) if span == 0 else (means - low) / span * len(levels)
    return "".join(levels[min(int(k), len(levels) - 1)] for k in place)


def histogram(values: ArrayLike, *, bins: int = 12, width: int = 40, unit: str = "", blocks: bool = True) -> list[str]:
    """A histogram as lines: from, to, a bar and the count.

    Parameters
    ----------
    values : float [n], finite
    bins : how many lines; round edges may make it a few less or more
    width : characters of the longest bar
    unit : of the values, after the edges
    blocks : whether block characters can be printed, else bars are of "#"
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return []
    edges = round_edges(float(array.min()), float(array.max()), bins)
    counts, _ = np.histogram(array, bins=edges)
    digits = max(0, -int(np.floor(np.log10(edges[1] - edges[0]) + 1e-9)))
    ends = [f"{edge:.{digits}f}" for edge in edges]
    longest, most = max(map(len, ends)), int(counts.max())
    lines = []
    for low, high, count in zip(ends, ends[1:], counts.tolist(), strict=False):
        label = f"{low.rjust(longest)} to {high.rjust(longest)}{' ' + unit if unit else ''}"
        lines.append(f"{label}  {_bar(count * width / most, blocks)} {count}")
    return lines


def round_edges(low: float, high: float, bins: int) -> list[float]:
    """Edges of about `bins` equal bins that cover [low, high], at multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span == 0:
        span = abs(low) or 1.0
    step = round_step(span, bins)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    # multiples of the step rather than sums of it, so that 0.3 is 0.3
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * round(length)
    whole, part = divmod(round(length * 8), 8)
    return EIGHTHS[8] * whole + (EIGHTHS[part] if part else "")


def distribution_row(ids: Sequence[str], values: Sequence[float], *, higher_is_better: bool, levels: str) -> list[str]:
    """``[sparkline from best to worst, best, median, worst, id of the worst]`` of one metric's values per image.

    Parameters
    ----------
    ids, values : as many, at least one
    levels : see `sparkline`
    """
    order = sorted(range(len(ids)), key=lambda k: (-values[k] if higher_is_better else values[k], ids[k]))
    ordered = [values[k] for k in order]
    return [sparkline(ordered, levels=levels), f"{ordered[0]:.4g}", f"{float(np.median(ordered)):.4g}",
            f"{ordered[-1]:.4g}", ids[order[-1]]]  # fmt: skip
