"""Rows in the order of their keys: the keys are sorted, the columns stay where they are.

A key has more bits than one number holds. Rows are sorted by their photo first, then a block of photos at a time by
points and stream, so no more than a block of packed keys is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import DataError
from reasonx_ft.annotation.store.schema import Columns, Joiner, allocate

#: rows of a block; one photo's rows are never divided
BLOCK: Final = 1 << 16


def sort_rows(
    n: int, take: Callable[[NDArray[np.uint32]], Columns]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Rows 0 to n - 1 by photo and place in it, uint32 [n], and which of these repeat the key before, bool [n].

    Of equal keys, the row that counts comes first: one with a probability before one without, then the first.

    Parameters
    ----------
    take : columns of some rows, whose photos and streams are numbered in the order wanted

    Raises
    ------
    DataError
        More rows than 32 bits can number.
    """
    rows, ends = _rows_by_photo(n, take)
    repeats = np.zeros(n, dtype=np.bool_)
    for block in _blocks(ends):
        columns = take(rows[block])
        place = columns.place
        order = np.lexsort((np.isnan(columns.probability), place, columns.photo))
        rows[block] = rows[block][order]
        number, place = columns.photo[order], place[order]
        repeats[block][1:] = (number[1:] == number[:-1]) & (place[1:] == place[:-1])
    return rows, repeats


def _rows_by_photo(
    n: int, take: Callable[[NDArray[np.uint32]], Columns]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Rows by photo, then as they come, and where each photo's rows end."""
    if n >= 1 << 32:
        raise DataError(f"{n:,} answers: a store can have {(1 << 32) - 1:,}")
    # photo and row in one number, sorted in place: nothing else of this length is made
    packed = np.empty(n, dtype=np.uint64)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n), dtype=np.uint32)
        packed[start : start + BLOCK] = take(rows).photo.astype(np.uint64) << np.uint64(32) | rows
    packed.sort()
    photos = int(packed[-1] >> np.uint64(32)) + 1 if n else 0
    ends = np.searchsorted(packed, np.arange(1, photos + 1, dtype=np.uint64) << np.uint64(32))
    return packed.astype(np.uint32), ends  # the lower half


def _blocks(ends: NDArray[np.integer]) -> Iterator[slice]:
    """Ranges of at most BLOCK rows that end where a photo ends, or of one photo's rows."""
    start = 0
    while len(ends) and start < ends[-1]:
        fitting = int(np.searchsorted(ends, start + BLOCK, side="right"))
        end = int(ends[fitting - 1]) if fitting and ends[fitting - 1] > start else int(ends[fitting])
        yield slice(start, end)
        start = end


class Canonical:
    """Rows of several parts, one after another, as they are: photos numbered by digest and streams by their texts.

    The numbers depend on what is in the parts, and not on their order.
    """

    def __init__(self, parts: Sequence[Columns]) -> None:
        joiner = Joiner()
        numbers = [joiner.number(part) for part in parts]
        photos, names, streams = joiner.texts
        by_digest = sorted(range(len(photos)), key=photos.__getitem__)
        by_text = sorted(range(len(streams)), key=streams.__getitem__)
        self._texts = (tuple(photos[k] for k in by_digest), tuple(names[k] for k in by_digest),
                       tuple(streams[k] for k in by_text))  # fmt: skip
        self._parts = [(part, _inverse(by_digest)[photo], _inverse(by_text)[stream])
                       for part, (photo, stream) in zip(parts, numbers, strict=True)]  # fmt: skip
        self._starts = np.cumsum([0, *map(len, parts)])

    def sorted_rows(self) -> NDArray[np.uint32]:
        """The rows that count, each key once, sorted by photo and place; uint32."""
        rows, repeats = sort_rows(int(self._starts[-1]), self.take)
        return rows[~repeats] if repeats.any() else rows

    def take(self, rows: NDArray[np.integer]) -> Columns:
        """Some rows, by index."""
        if len(self._parts) == 1:
            return self._of_part(0, rows)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        arrays: dict[str, Any] = allocate(len(rows))
        for k in range(len(self._parts)):
            ours = part_of == k
            for name, values in self._of_part(k, rows[ours] - self._starts[k]).arrays().items():
                arrays[name][ours] = values
        return Columns(*self._texts, **arrays)

    def _of_part(self, k: int, rows: NDArray[np.integer]) -> Columns:
        part, photo, stream = self._parts[k]
        found = part.take(rows)
        photos, names, streams = self._texts
        return replace(found, photos=photos, names=names, streams=streams, photo=photo[found.photo],
                       stream=stream[found.stream])  # fmt: skip


def _inverse(order: Sequence[int]) -> NDArray[np.int32]:
    """The place of each number in an order of all."""
    places = np.empty(len(order), dtype=np.int32)
    places[list(order)] = np.arange(len(order))
    return places
