"""Round numbers for axes and bins."""

from __future__ import annotations

import math


def round_step(span: float, parts: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten of which at most `parts` fit into `span` > 0.

    Examples
    --------
    >>> round_step(1.0, 5), round_step(1.0, 4), round_step(70.0, 5)
    (0.2, 0.5, 20.0)
    """
    raw = span / parts
    power = 10.0 ** math.floor(math.log10(raw))
    # a hair below, so that a step that fits but for rounding is taken
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
