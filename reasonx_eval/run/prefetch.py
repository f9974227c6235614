"""Work done ahead in threads, whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


@contextmanager
def worker_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads; on an interrupt nobody waits for work that was only queued."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reasonx")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], *, ahead: int) -> Iterator[B]:
    """``work(item)`` of each item, in order, with up to `ahead` more under way.

    Examples
    --------
    >>> with worker_pool(2) as pool:
    ...     list(in_order(pool, abs, [-3, 2, -1], ahead=2))
    [3, 2, 1]
    """
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        while waiting and (len(waiting) > ahead or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def batched(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Lists of `size` items, the last one shorter.

    Examples
    --------
    >>> list(batched("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
