"""Which samples of a split are asked for: a limit, named ones, a shard."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from reasonx_eval.errors import UsageError


class Selection(BaseModel):
    """Which samples of the split were asked for; all None is the whole split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = None
    samples: list[str] | None = None
    shard: str | None = None

    @property
    def whole(self) -> bool:
        return self == Selection()


def select(ids: Sequence[str], selection: Selection) -> list[str]:
    """The chosen ids, in the order of the split.

    A limit is spread evenly over the split, not its first images; a shard "i/n" is every n-th id from the i-th.

    Raises
    ------
    UsageError
        An unknown sample id, a limit below 1, a shard outside 1..n, or an empty one.

    Examples
    --------
    >>> select(["a", "b", "c", "d"], Selection(limit=2))
    ['a', 'c']
    >>> select(["a", "b", "c", "d"], Selection(shard="2/3"))
    ['b']
    """
    chosen = list(ids)
    if selection.samples is not None:
        known = set(ids)
        missing = [s for s in selection.samples if s not in known]
        if missing:
            raise UsageError(f"no such sample: {', '.join(missing[:3])}; the split has {len(ids)}, e.g. {ids[0]}")
        wanted = set(selection.samples)
        chosen = [i for i in chosen if i in wanted]
    if selection.limit is not None:
        if selection.limit < 1:
            raise UsageError(f"--limit must be at least 1, not {selection.limit}")
        n = min(selection.limit, len(chosen))
        chosen = [chosen[k * len(chosen) // n] for k in range(n)]
    if selection.shard is not None:
        index, count = parse_shard(selection.shard)
        if index > len(chosen):
            raise UsageError(f"shard {selection.shard} of {len(chosen)} samples is empty", fix="fewer shards")
        chosen = chosen[index - 1 :: count]
    return chosen


def parse_shard(text: str) -> tuple[int, int]:
    """``"i/n"`` to (i, n), 1 <= i <= n.

    Raises
    ------
    UsageError
        Another form, or i outside 1..n.
    """
    left, slash, right = text.partition("/")
    if not (slash and left.isdecimal() and right.isdecimal() and 1 <= int(left) <= int(right)):
        raise UsageError(f"a shard is i/n with 1 <= i <= n, for example 1/4, not '{text}'")
    return int(left), int(right)
