"""Ctrl-C between two steps of a loop instead of in the middle of one, and in one process of many."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to their parent; spawned, because threads of torch don't survive a fork."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"),
                               initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))  # fmt: skip


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C (and a batch system's SIGTERM) sets the event; a second one ends the step under way at once.

    Only in the main thread, where Python delivers signals; elsewhere the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
