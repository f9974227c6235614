"""One step ahead: the same items in order, one waiting at most, errors where their item would have been."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reasonx_ft.training.prefetch import ahead


class Made:
    """Gives out numbers, and remembers how many were made and by which threads."""

    def __init__(self, n: int, fails_at: int | None = None) -> None:
        self.n, self.fails_at = n, fails_at
        self.made, self.closed = 0, False
        self.threads: set[int] = set()
        self.reached = threading.Condition()

    def items(self) -> Iterator[int]:
        try:
            for k in range(self.n):
                if k == self.fails_at:
                    raise ValueError("no such item")
                with self.reached:
                    self.made += 1
                    self.reached.notify_all()
                self.threads.add(threading.get_ident())
                yield k
        finally:
            self.closed = True

    def wait_for(self, n: int) -> bool:
        with self.reached:
            return self.reached.wait_for(lambda: self.made >= n, timeout=30)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_the_same_items_in_order_from_another_thread(n: int) -> None:
    source = Made(n)
    assert list(ahead(source.items())) == list(range(n))
    assert source.closed
    assert threading.get_ident() not in source.threads


def test_nothing_is_lost_that_looks_like_an_end() -> None:
    assert list(ahead([None, 0, False, None])) == [None, 0, False, None]


def test_the_next_is_made_meanwhile_and_no_more_than_that() -> None:
    source = Made(10)
    items = ahead(source.items())
    assert source.made == 0
    for k in range(9):
        assert next(items) == k
        assert source.wait_for(k + 2), "the next one isn't made while this one is used"
        assert source.made == k + 2
    items.close()
    assert source.closed


def test_an_error_comes_in_the_place_of_its_item() -> None:
    source = Made(5, fails_at=3)
    items = ahead(source.items())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no such item"):
        next(items)
    assert source.closed
    assert list(items) == []


def test_closing_stops_what_makes_them() -> None:
    source = Made(1000)
    items = ahead(source.items())
    next(items)
    items.close()
    assert source.closed
    assert source.made <= 2
