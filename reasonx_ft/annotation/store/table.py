"""Judgements as training reads them: per photo, points and one probability a pair."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reasonx_ft.annotation.store.schema import Columns, pack


@dataclass(frozen=True)
class Table:
    """Answers of one judge about one modality, both colour orders averaged.

    digests : hex [P] of the photos, sorted
    offsets : int64 [P + 1], photo k has the rows offsets[k] to offsets[k + 1]
    points : int16 [N, 2, 2], (pair, first or second, (x, y)) in canonical pixels
    probability : float32 [N], that FIRST is closer, faces more, has more light; for albedo that both are the SAME.
        The mean over the orders that were answered; never NaN: pairs without any answer are left out
    gap : float32 [N], difference between the two orders, in [0, 1]; NaN where only one was answered
    """

    modality: str
    judge: str
    digests: tuple[str, ...]
    offsets: NDArray[np.int64] = field(repr=False)
    points: NDArray[np.int16] = field(repr=False)
    probability: NDArray[np.float32] = field(repr=False)
    gap: NDArray[np.float32] = field(repr=False)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {d: k for k, d in enumerate(self.digests)}

    def __contains__(self, digest: object) -> bool:
        return digest in self._rows

    def __len__(self) -> int:
        return len(self.probability)

    def of(self, digest: str) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Points int16 [n, 2, 2] and probabilities float32 [n] of a photo; n is 0 for an unknown one."""
        k = self._rows.get(digest)
        rows = slice(0, 0) if k is None else slice(int(self.offsets[k]), int(self.offsets[k + 1]))
        return self.points[rows], self.probability[rows]

    def kept(self, *, min_confidence: float = 0.0, max_gap: float = 1.0, min_distance: float = 0.0) -> Table:
        """Fewer pairs, by rules that see the pair and the judge, never a prediction.

        Parameters
        ----------
        min_confidence : least abs(2 p - 1) of the averaged probability, in [0, 1]
        max_gap : greatest difference between the colour orders; pairs with one order pass
        min_distance : of the points, canonical pixels
        """
        step = (self.points[:, 0].astype(np.int64) - self.points[:, 1]).astype(np.float64)
        # ~(gap > max): NaN passes
        keep = (np.abs(2 * self.probability - 1) >= min_confidence) & ~(self.gap > max_gap)
        keep &= (step**2).sum(axis=-1) >= min_distance**2
        counts = np.concatenate([[0], np.cumsum(keep)])
        return replace(self, offsets=counts[self.offsets], points=self.points[keep],
                       probability=self.probability[keep], gap=self.gap[keep])  # fmt: skip


def make_table(columns: Columns, modality: str, judge: str) -> Table:
    """The table of answers that are all about one modality, by one judge and wording."""
    columns = columns.take(~np.isnan(columns.probability))
    names, renumbered = _sorted_photos(columns)
    pair = pack(columns.points, np.zeros(len(columns), np.int64))
    order = np.lexsort((pair, renumbered))
    photo, pair, p = renumbered[order], pair[order], columns.probability[order].astype(np.float64)
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (photo[1:] != photo[:-1]) | (pair[1:] != pair[:-1])
    start = np.flatnonzero(new)
    count = np.diff(np.append(start, len(order)))
    mean, gap = np.zeros(0), np.zeros(0)
    if len(start):
        mean = np.add.reduceat(p, start) / count
        gap = np.where(count > 1, np.maximum.reduceat(p, start) - np.minimum.reduceat(p, start), np.nan)
    return Table(modality, judge, names, np.searchsorted(photo[start], np.arange(len(names) + 1)).astype(np.int64),
                 columns.points[order][start].reshape(-1, 2, 2), mean.astype(np.float32),
                 gap.astype(np.float32))  # fmt: skip


def _sorted_photos(columns: Columns) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Digests in use, sorted, and each row's number among them."""
    used = np.unique(columns.photo)
    rank = sorted(used.tolist(), key=lambda k: columns.photos[k])
    number = np.zeros(len(columns.photos), dtype=np.int64)
    number[rank] = np.arange(len(rank))
    return tuple(columns.photos[k].hex() for k in rank), number[columns.photo]
