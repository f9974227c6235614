"""Many paired differences at once: the interval that `compare` prints for one pair, for a whole table in one pass."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import seeding
from reasonx_eval.statistics import bootstrap
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.paired import Settings, interval, widened

Floats = NDArray[np.float64]

#: columns held at once, with 10,000 resamples each
_BLOCK: Final = 256


def intervals(
    column: Column, pairs: list[tuple[int, int]], settings: Settings | None = None
) -> list[tuple[float, float] | None]:
    """BCa bootstrap intervals of ``other - base`` for pairs (base, other) of one metric's runs, in its unit.

    The same draws and formulas as `paired.interval`, with one matrix product for all pairs: equal but for the last
    digits, which depend on the processor; what is published is rounded far above them.

    Returns
    -------
    (low, high) for each pair, or None with fewer than two clusters.
    """
    chosen = settings or Settings()
    tops, weight = column.cluster_sums(*range(len(column.top)))
    if column.root or len(weight) < 2:
        return [interval(tops[b], tops[o], weight, root=column.root, settings=chosen) for b, o in pairs]
    drawn = _draws(len(weight), chosen)
    level = widened(chosen.confidence, len(weight))
    out: list[tuple[float, float] | None] = []
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        gap = np.stack([tops[other] - tops[base] for base, other in block])
        out += _bca(gap, weight, drawn, level)
    return out


@lru_cache(maxsize=1)
def _draws(clusters: int, settings: Settings) -> Floats:
    """How often each resample holds each unit, [resamples, clusters]: the stream that `stats` draws.

    The metrics of a table share it.
    """
    stream = seeding.rng(settings.seed, "bootstrap")
    drawn = stream.integers(0, clusters, size=(settings.resamples, clusters))
    drawn += np.arange(settings.resamples)[:, None] * clusters
    counts = np.bincount(drawn.ravel(), minlength=settings.resamples * clusters)
    return counts.reshape(-1, clusters).astype(np.float64)


def _bca(gap: Floats, weight: Floats, drawn: Floats, confidence: float) -> list[tuple[float, float] | None]:
    theta = gap.sum(axis=1) / weight.sum()
    residual = gap - theta[:, None] * weight
    spread = (residual @ drawn.T) / (drawn @ weight)  # [pairs, resamples]
    return [bootstrap.spread_ends(*one, weight, confidence=confidence) for one in zip(spread, theta, gap, strict=True)]
