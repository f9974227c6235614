"""One step ahead: what comes next is made in a thread while what is there is worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Generator[T]:
    """The same items, the next of which is made in another thread while one is used.

    No more than one is ever waiting. What making one raises is raised where it would have been given out. A generator
    is closed when this one is.
    """
    source = iter(items)
    none = object()
    with ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(next, source, none)
            while (item := coming.result()) is not none:
                coming = pool.submit(next, source, none)
                yield item  # type: ignore[misc]  # not the mark of the end
        finally:
            coming.cancel()
            close = getattr(source, "close", None)
            if close is not None:
                pool.submit(close)  # in the thread that may still be making one
