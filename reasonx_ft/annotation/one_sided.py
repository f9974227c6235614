"""Notices a judge that gives one answer whatever it is asked: always the same colour, always yes or always no."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_ft.types import ORDERS

#: fewer decided answers may all be alike by chance; so many may be all but alike by no chance
_FEWEST: Final = 12
_MANY: Final = 20
#: share of answers that name one colour; a sound judge names each for half of the pairs
_MOST: Final = 0.95


class OneSided:
    """Counts by question how often the answers name red (albedo: the same colour).

    Examples
    --------
    >>> counts = OneSided()
    >>> counts.add("depth", np.tile([0, 1], 15), np.tile([0.9, 0.1], 15))  # the first point is red, then green
    >>> print(counts.warnings()[0])
    depth: 30 of 30 answers name red, whichever point is red: this judge doesn't look at the points
    """

    def __init__(self) -> None:
        self._red: Counter[str] = Counter()
        self._decided: Counter[str] = Counter()

    def add(self, modality: str, order: NDArray[np.integer], probability: NDArray[np.floating]) -> None:
        """Count answers about one modality.

        Parameters
        ----------
        order : [N], rows of ORDERS
        probability : [N], of FIRST or SAME; NaN and exactly one half are no decision
        """
        decided = np.isfinite(probability) & (probability != 0.5)
        red = probability > 0.5
        if modality != "albedo":
            red = red == (order == ORDERS.index("red-first"))
        self._red[modality] += int(np.count_nonzero(red & decided))
        self._decided[modality] += int(np.count_nonzero(decided))

    def warnings(self) -> list[str]:
        """One line a modality whose answers are all but alike."""
        found = [line for m, n in self._decided.items() if (line := _suspicious(m, self._red[m], n, _MOST)) is not None]
        colours = [m for m in self._decided if m != "albedo"]
        if not found and len(colours) > 1:
            together = _suspicious(", ".join(colours), sum(self._red[m] for m in colours),
                                   sum(self._decided[m] for m in colours), 1.0)  # fmt: skip
            found += [] if together is None else [together]
        return found


def _suspicious(modality: str, red: int, n: int, share: float) -> str | None:
    """The warning where at least `share` of n answers, `red` of which name red, are alike."""
    most = max(red, n - red)
    if modality == "albedo":
        # most pairs may truly differ in colour: only many answers without exception are suspicious
        if most < n or n < _MANY:
            return None
        return f"albedo: all {n:,} answers are {'yes' if red else 'no'}: perhaps the judge does not look at the points"
    if most < n * (share if n >= _MANY else 1) or n < _FEWEST:
        return None
    colour = "red" if red == most else "green"
    return (f"{modality}: {most:,} of {n:,} answers name {colour}, whichever point is {colour}: "
            "this judge doesn't look at the points")  # fmt: skip
