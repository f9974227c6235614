"""Which run is held against which, where folders hold many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from reasonx_eval.errors import NotComparable, UsageError
from reasonx_eval.statistics.runs import Run

#: protocol, dataset and split; with the model's name where a side has several models under one protocol
Key: TypeAlias = tuple[str, ...]


def pair_up(sides: Sequence[Sequence[Run]]) -> tuple[list[tuple[Run, ...]], list[str]]:
    """Runs of every side that belong together, and those left over.

    Where every side is one run, they belong together whatever they are: whether they are comparable is for
    `join` to say. Else runs are paired by protocol and dataset, and by the model's name too where any side has two
    models under one protocol.

    Parameters
    ----------
    sides : the runs of A, of B, ...

    Returns
    -------
    (groups, left over)
        A tuple of one run a side for each group, in the order of the first side; a line for each run that has no
        partner on every side.

    Raises
    ------
    UsageError
        Two runs of one side that nothing tells apart.
    NotComparable
        Nothing to pair.
    """
    if all(len(side) == 1 for side in sides):
        return [tuple(side[0] for side in sides)], []
    counts = [[_rules(r) for r in side] for side in sides]
    several = {key for side in counts for key in side if side.count(key) > 1}
    tables = [_table(side, several) for side in sides]
    everywhere = [key for key in tables[0] if all(key in t for t in tables)]
    left = [f"{' '.join(key)}: only in {table[key].where}"
            for table in tables for key in table if key not in everywhere]  # fmt: skip
    if not everywhere:
        raise NotComparable("no protocol that all of them were run under:\n    " + "\n    ".join(left),
                            fix="run both under one protocol on one dataset")  # fmt: skip
    return [tuple(table[key] for table in tables) for key in everywhere], left


def _rules(run: Run) -> Key:
    return run.protocol.ref, run.dataset.name, run.dataset.split


def _table(side: Sequence[Run], several: set[Key]) -> dict[Key, Run]:
    table: dict[Key, Run] = {}
    for run in side:
        key = _rules(run)
        if key in several:
            key = (*key, run.name)
        if key in table:
            raise UsageError(f"two runs of {run.name} under {run.protocol.ref}: {table[key].where} and {run.where}",
                             fix="name one run folder on each side")  # fmt: skip
        table[key] = run
    return table
