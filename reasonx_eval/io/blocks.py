"""Blocks of rows that fit the processor's cache: how maps of any size are read, written and summed."""

from __future__ import annotations

from collections.abc import Iterator

#: pixels of a block: eight float64 temporaries of it fit a 2 MB cache
BLOCK = 1 << 15


def row_blocks(height: int, width: int, block: int = BLOCK) -> Iterator[slice]:
    """Slices of whole rows that cover [0, height), each of about `block` pixels and at least one row.

    Examples
    --------
    >>> list(row_blocks(5, 100, block=200))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, block // max(1, width))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
