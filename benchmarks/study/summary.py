"""From run folders to the study's figures: change against the base, share of the gap to supervision, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from benchmarks.study.evaluation import DOMAINS, MEASURES, Measure
from reasonx_eval.errors import DataError
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import load_result
from reasonx_eval.io.seeding import rng
from reasonx_eval.metrics.table import metric_info

RESAMPLES: Final = 10_000
_LEVELS: Final = (0.025, 0.975)

Floats = NDArray[np.float64]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Part):
    """A figure and both ends of its 95 % interval; None where it is not determined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Figure(_Part):
    """One metric on one domain of one kind of run, over all seeds.

    base, tuned, ceiling : mean over images; tuned and ceiling also over seeds. ceiling is the same base after
        supervised training on the domain's ground truth
    change : (tuned - base) / base, over all images and seeds; the interval resamples images
    closed : (base - tuned) / (base - ceiling), the share of the gap; on the tuned domain only
    better_in : seeds in which the paired 95 % interval of the difference excludes 0 on the good side; worse_in alike
    """

    domain: str
    measure: str
    protocol: str
    metric: str
    signature: str
    n: int
    base: float
    tuned: float
    ceiling: float | None
    by_seed: list[float]
    change: Interval
    closed: Interval
    better_in: int
    worse_in: int


class StudyRow(_Part):
    """Runs that differ in nothing but their seed.

    seconds : of the processor for a run's training, without evaluation; mean over the seeds that were not interrupted
    """

    base: str
    method: str
    judge: Literal["oracle", "tiny", "random", "labels"]
    seeds: list[int]
    seconds: float | None
    figures: list[Figure]


@cache
def values_of(folder: Path, metric: str) -> tuple[list[str], Floats, str]:
    """Sample ids, values [n] of a metric and the signature of a finished run; a base is asked for in every row.

    Raises
    ------
    DataError
        A sample that failed: a mean over the others would be of other images than the base's.
    """
    result = load_result(folder)
    records = read_records(folder / "records.jsonl")
    lost = [r.sample_id for r in records if r.error is not None or r.undefined is not None]
    if lost:
        raise DataError(f"{len(lost)} samples without a value, e.g. {lost[0]}", where=str(folder))
    return [r.sample_id for r in records], np.array([r.metrics[metric] for r in records]), result.signature


def figure(
    measure: Measure, domain: str, base: Path, tuned: Sequence[Path], ceiling: Sequence[Path]
) -> Figure:  # fmt: skip
    """Compare runs image by image.

    Parameters
    ----------
    base : run folder; tuned, ceiling : run folders, one a seed; ceiling may be empty

    Raises
    ------
    DataError
        Runs of other images, or with samples that failed.
    """
    ids, before, signature = values_of(base, measure.metric)
    after = np.stack([_same(folder, measure.metric, ids) for folder in tuned])
    best = np.stack([_same(folder, measure.metric, ids) for folder in ceiling]) if ceiling else None
    mean_after = after.mean(axis=0)
    counts = _counts(len(ids))
    change = _interval(mean_after - before, before, counts)
    closed = Interval(value=None)
    if best is not None:
        closed = _interval(before - mean_after, before - best.mean(axis=0), counts)
    sign = 1.0 if metric_info(measure.metric).higher_is_better else -1.0
    better, worse = zip(*(_verdict(sign * (one - before), counts) for one in after), strict=True)
    return Figure(
        domain=domain, measure=measure.label, protocol=measure.protocol.format(domain), metric=measure.metric,
        signature=signature, n=len(ids), base=float(before.mean()), tuned=float(after.mean()),
        ceiling=None if best is None else float(best.mean()), by_seed=[float(v) for v in after.mean(axis=1)],
        change=change, closed=closed, better_in=sum(better), worse_in=sum(worse),
    )  # fmt: skip


def figures(
    base: Mapping[str, Path], tuned: Sequence[Mapping[str, Path]], ceiling: Sequence[Mapping[str, Path]]
) -> list[Figure]:  # fmt: skip
    """All measures on both domains; maps are protocol name -> run folder."""
    found = []
    for domain in DOMAINS:
        for measure in MEASURES:
            name = measure.protocol.format(domain)
            # what labels of the other domain do to this one is no bound of anything
            best = [c[name] for c in ceiling] if domain == DOMAINS[0] else []
            found.append(figure(measure, domain, base[name], [t[name] for t in tuned], best))
    return found


def _same(folder: Path, metric: str, ids: Sequence[str]) -> Floats:
    theirs, values, _ = values_of(folder, metric)
    if list(theirs) != list(ids):
        raise DataError("scored other images than the base", where=str(folder), fix="the same --limit for all")
    return values


@lru_cache(maxsize=2)
def _counts(n: int) -> Floats:
    """How often each image is drawn in each resample, [RESAMPLES, n]; the same for every figure of n images."""
    drawn = rng(0, "study", "bootstrap", str(n)).integers(0, n, size=(RESAMPLES, n))
    drawn += np.arange(RESAMPLES)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(np.float64)


def _interval(above: Floats, below: Floats, counts: Floats) -> Interval:
    """sum(above) / sum(below) with a percentile interval over resampled images.

    Not determined where the denominator's sum changes sign between resamples: there is no gap to speak of.
    """
    total = float(below.sum())
    sums = np.einsum("rn,n->r", counts, below)
    low_sum, high_sum = np.quantile(sums, _LEVELS)
    if total == 0 or low_sum * high_sum <= 0:
        return Interval(value=None)
    spread = np.einsum("rn,n->r", counts, above) / sums
    low, high = np.quantile(spread, _LEVELS)
    return Interval(value=float(above.sum()) / total, low=float(low), high=float(high))


def _verdict(gain: Floats, counts: Floats) -> tuple[bool, bool]:
    """Whether the paired interval of the mean gain lies above 0, and whether it lies below."""
    low, high = np.quantile(np.einsum("rn,n->r", counts, gain) / len(gain), _LEVELS)
    return bool(low > 0), bool(high < 0)
