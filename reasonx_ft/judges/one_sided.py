"""Notices a judge that gives one answer whatever it is asked: always the same colour, always yes or always no."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_ft.types import ORDERS

#: fewer decided answers may be alike by chance
_FEWEST: Final = 20
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
        found = []
        for modality, n in self._decided.items():
            red = self._red[modality]
            most = max(red, n - red)
            # most pairs may truly differ in colour, so that only answers without exception are suspicious
            if n < _FEWEST or most < (n if modality == "albedo" else _MOST * n):
                continue
            if modality == "albedo":
                said = "yes" if red else "no"
                found.append(f"albedo: all {n:,} answers are {said}: does this judge look at the points?")
            else:
                colour = "red" if red == most else "green"
                found.append(f"{modality}: {most:,} of {n:,} answers name {colour}, whichever point is {colour}: "
                             "this judge doesn't look at the points")  # fmt: skip
        return found
