"""From run folders to the study's figures: change against the base, share of the gap to supervision, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from benchmarks.study.evaluation import DOMAINS, MEASURES, Measure
from reasonx_eval.errors import DataError
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import load_result
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.statistics.bootstrap import bootstrap_ci, bootstrap_statistic_ci

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
    change = _interval(mean_after - before, before)
    closed = Interval(value=None)
    if best is not None:
        closed = _interval(before - mean_after, before - best.mean(axis=0))
    sign = 1.0 if metric_info(measure.metric).higher_is_better else -1.0
    better, worse = zip(*(_verdict(sign * (one - before)) for one in after), strict=True)
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


def _interval(above: Floats, below: Floats) -> Interval:
    """sum(above) / sum(below) with its 95 % interval over resampled images.

    Not determined where the interval of the denominator holds 0: there is no gap to speak of.
    """
    total = float(below.sum())
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without a gap has no share of it
        ends = bootstrap_statistic_ci(
            np.column_stack([above, below]),
            lambda sums: np.stack([sums[..., 0] / sums[..., 1], sums[..., 1]], axis=-1), seed=0,
        )  # fmt: skip
    if total == 0 or ends is None or ends[0][1] * ends[1][1] <= 0:
        return Interval(value=None)
    return Interval(value=float(above.sum()) / total, low=float(ends[0][0]), high=float(ends[1][0]))


def _verdict(gain: Floats) -> tuple[bool, bool]:
    """Whether the paired interval of the mean gain lies above 0, and whether it lies below."""
    ends = bootstrap_ci(gain, seed=0)
    return (False, False) if ends is None else (bool(ends[0] > 0), bool(ends[1] < 0))
