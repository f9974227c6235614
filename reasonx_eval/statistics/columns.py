"""One metric of joined runs as arrays: values per image, and the sums that its aggregate is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import DataError, NotComparable
from reasonx_eval.metrics.table import Metric, metric_info
from reasonx_eval.statistics.aggregate import ROOTS, may_lack, pooled_sum, repeated
from reasonx_eval.statistics.bootstrap import sum_by_group
from reasonx_eval.statistics.join import Joined
from reasonx_eval.types import Record

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One metric on the samples of joined runs that have it.

    A run's aggregate is ``finish(sum of top / sum of weight)``: a mean over images (weight 1), a mean over pixels
    (top the sum of errors of an image, weight its pixels), or the root of one.

    ids : samples, those of the join but for samples whose ground truth does not define this metric
    values : float64 [runs, n], per image, in the metric's unit
    top : float64 [runs, n]
    weight : float64 [n], > 0
    root : whether `finish` is the square root, else it is the identity
    groups : scene of each sample where scenes repeat
    reason : why there is no aggregate to test, although each image has a value
    stored : each run's aggregate as its result has it, where it can't be had from `top` but is of these very samples
    """

    info: Metric
    ids: tuple[str, ...]
    values: Floats = field(repr=False)
    top: Floats = field(repr=False)
    weight: Floats = field(repr=False)
    root: bool = False
    groups: tuple[str, ...] | None = None
    reason: str | None = None
    stored: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def finish(self) -> Callable[[float], float]:
        return math.sqrt if self.root else float

    @property
    def means(self) -> list[float]:
        """The aggregate of each run on these samples; NaN where `reason` says why there is none."""
        if self.reason is not None:
            return [math.nan] * len(self.top)
        below = math.fsum(self.weight)
        return [self.finish(math.fsum(row) / below) for row in self.top]

    @property
    def sign(self) -> int:
        """+1 if a higher value is better, -1 if a lower one is."""
        return 1 if self.info.higher_is_better else -1

    def cluster_sums(self, *runs: int) -> tuple[Floats, Floats]:
        """(top, weight) of some runs summed over scenes where scenes repeat: float64 [runs, clusters] and [clusters].

        Units are what is resampled and what tests exchange, in order of first appearance.
        """
        top = self.top[list(runs)]
        return (top, self.weight) if self.groups is None else sum_by_group(top, self.weight, self.groups)


def column(joined: Joined, name: str) -> Column:
    """One metric of joined runs.

    Parameters
    ----------
    name : one of the metrics of the runs' protocol

    Raises
    ------
    UsageError
        Not a metric.
    DataError
        A sample has the metric in one run and not in another, or the records lack the sums of a pooled metric.
    NotComparable
        A sample was scored on another number of pixels.
    """
    info = metric_info(name)
    rows = [[r.metrics.get(name) for r in records] for records in joined.records]
    kept = _defined(joined, name, rows)
    ids = tuple(joined.ids[k] for k in kept)
    groups = _kept_groups(joined, kept)
    values = np.array([[row[k] for k in kept] for row in rows], dtype=np.float64).reshape(len(rows), len(kept))
    reason = None
    if len(kept) < len(joined.ids) and not (may_lack(name) and kept):
        has = set(kept)
        lacking = [i for k, i in enumerate(joined.ids) if k not in has]
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        reason = f"undefined for {len(lacking)} samples: {shown}"
    if joined.protocol.pool == "image":
        return Column(info, ids, values, values, np.ones(len(kept)), groups=groups, reason=reason)
    key = pooled_sum(name)
    if key is None:
        reason = reason or "no test: a pooled median is not made of sums over images"
        return Column(info, ids, values, values, np.ones(len(kept)), groups=groups, reason=reason,
                      stored=_stored(joined, name))  # fmt: skip
    top, weight = _sums(joined, key, kept)
    return Column(info, ids, values, top, weight, root=name in ROOTS, groups=groups, reason=reason)


def columns(joined: Joined) -> list[Column]:
    """Every metric of the protocol, in its order."""
    return [column(joined, name) for name in joined.protocol.metrics]


def _stored(joined: Joined, name: str) -> tuple[float, ...] | None:
    values = [run.aggregate[name].value for run in joined.runs]
    whole = all(len(run.scored) == len(joined.ids) for run in joined.runs)
    known = tuple(v for v in values if v is not None)
    return known if whole and len(known) == len(values) else None


def _defined(joined: Joined, name: str, rows: list[list[float | None]]) -> list[int]:
    kept = []
    for k, sample in enumerate(joined.ids):
        there = [row[k] is not None for row in rows]
        if all(there):
            kept.append(k)
        elif any(there):
            run = joined.runs[there.index(False)]
            raise DataError(f"sample {sample} has no {name} here, and has one in the other run", where=str(run.where),
                            fix="run again with --force")  # fmt: skip
    return kept


def _kept_groups(joined: Joined, kept: list[int]) -> tuple[str, ...] | None:
    if joined.groups is None:
        return None
    names = repeated([joined.groups[k] for k in kept])
    return None if names is None else tuple(names)


def _sums(joined: Joined, key: str, kept: list[int]) -> tuple[Floats, Floats]:
    def read(record: Record, what: str, where: str) -> float:
        if what not in record.stats:
            raise DataError(f"sample {record.sample_id} lacks the sum '{what}' of a pooled metric", where=where,
                            fix="run again with --force")  # fmt: skip
        return record.stats[what]

    sources = [(str(run.where), [records[k] for k in kept])
               for run, records in zip(joined.runs, joined.records, strict=True)]  # fmt: skip
    top = np.array([[read(r, key, where) for r in records] for where, records in sources], dtype=np.float64)
    counts = np.array([[read(r, "count", where) for r in records] for where, records in sources], dtype=np.float64)
    other = np.flatnonzero((counts != counts[0]).any(axis=0))
    if len(other):
        k = int(other[0])
        raise NotComparable(f"sample {joined.ids[kept[k]]} was scored on {counts[0, k]:.0f} pixels and on "
                            f"{counts[counts[:, k] != counts[0, k], k][0]:.0f}",
                            where=" and ".join(where for where, _ in sources))  # fmt: skip
    return top, counts[0]
