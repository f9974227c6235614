"""Ranks as ranges: which runs a test can tell apart, and which it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.permutation import holm, pair_p_values

ALPHA = 0.05


@dataclass(frozen=True)
class Rank:
    """Places that a run may hold, 1 the best: ``best`` to ``worst``, both included."""

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def significant(column: Column, *, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Which runs paired tests tell apart, bool [runs, runs]: all pairs, with Holm's correction over them."""
    runs = len(column.top)
    top, weight = column.cluster_sums(*range(runs))
    rows, cols = np.triu_indices(runs, 1)
    p = pair_p_values(top, weight, root=column.root)[rows, cols]
    apart = np.zeros((runs, runs), dtype=bool)
    apart[rows, cols] = apart[cols, rows] = np.array(holm(list(p))) < alpha
    return apart


def rank_ranges(column: Column, *, alpha: float = ALPHA) -> list[Rank]:
    """The range of ranks of every run, in the order of the join.

    A run's best place is 1 + the number of runs that are significantly better, its worst the number of runs less
    those that are significantly worse. Tests are paired, between all pairs, with Holm's correction over them.

    Parameters
    ----------
    column : a metric of joined runs
    alpha : chance of any false difference among all pairs, at most

    Raises
    ------
    ValueError
        The column has no aggregate to rank by.
    """
    if column.reason is not None:
        raise ValueError(f"{column.name}: {column.reason}")
    runs, apart = len(column.top), significant(column, alpha=alpha)
    score = column.sign * np.array(column.means)
    better = apart & (score[:, None] > score[None, :])
    return [Rank(1 + int(b), runs - int(w)) for b, w in zip(better.sum(axis=0), better.sum(axis=1), strict=True)]


def tie_group(ranks: Sequence[Rank]) -> list[int]:
    """Indices of the runs that may be the best: those that nothing beats significantly."""
    return [k for k, rank in enumerate(ranks) if rank.best == 1]
