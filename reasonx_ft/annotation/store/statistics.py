"""What is in a store: counts, answers without a probability, agreement between the colour orders, histograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reasonx_ft.annotation.store.schema import Columns, pack
from reasonx_ft.types import FLAGS, ORDERS

BINS = 20


@dataclass(frozen=True)
class StreamStats:
    """One judge's answers about one modality in one wording.

    answers, photos, pairs : counts; a pair may have two answers, one a colour order
    flags : flag -> count; all but "ok" have no probability
    both_orders : pairs that have a probability in both orders
    order_agreement : share of these whose two probabilities lie on one side of 1/2; None without any
    order_gap : their mean difference; None without any
    histogram : [20] counts of the single probabilities, in equal bins over [0, 1]
    seconds : spent, in all
    """

    judge: str
    judge_name: str
    modality: str
    template: str
    answers: int
    photos: int
    pairs: int
    flags: Mapping[str, int]
    both_orders: int
    order_agreement: float | None
    order_gap: float | None
    histogram: tuple[int, ...]
    seconds: float


def stream_stats(columns: Columns, names: Mapping[str, str]) -> list[StreamStats]:
    """Statistics by judge, modality and template, sorted.

    Parameters
    ----------
    columns : without duplicates
    names : revision -> the judge's name
    """
    groups = sorted({(s[3], s[0], s[2]) for s in columns.streams})
    found = []
    for judge, modality, template in groups:
        wanted = np.array([(s[3], s[0], s[2]) == (judge, modality, template) for s in columns.streams])
        part = columns.take(wanted[columns.stream])
        if len(part):
            found.append(_of(part, judge, names.get(judge, ""), modality, template))
    return found


def _of(part: Columns, judge: str, name: str, modality: str, template: str) -> StreamStats:
    red = np.array([s[1] == ORDERS[0] for s in part.streams], dtype=np.bool_)[part.stream]
    pair = pack(part.points, np.zeros(len(part), np.int64))
    order = np.lexsort((red, pair, part.photo))
    photo, pair, red, p = part.photo[order], pair[order], red[order], part.probability[order].astype(np.float64)
    # no duplicates: a pair has at most two rows, green first
    twice = (photo[1:] == photo[:-1]) & (pair[1:] == pair[:-1])
    both = np.flatnonzero(twice & ~np.isnan(p[1:]) & ~np.isnan(p[:-1]))
    a, b = p[both], p[both + 1]
    return StreamStats(
        judge=judge, judge_name=name, modality=modality, template=template, answers=len(part),
        photos=len(np.unique(photo)), pairs=len(part) - int(np.count_nonzero(twice)),
        flags={f: int(np.count_nonzero(part.flag == k)) for k, f in enumerate(FLAGS)},
        both_orders=len(both),
        order_agreement=float((np.sign(a - 0.5) == np.sign(b - 0.5)).mean()) if len(both) else None,
        order_gap=float(np.abs(a - b).mean()) if len(both) else None,
        histogram=tuple(int(n) for n in np.histogram(p[~np.isnan(p)], bins=BINS, range=(0.0, 1.0))[0]),
        seconds=float(part.seconds.astype(np.float64).sum()),
    )  # fmt: skip
