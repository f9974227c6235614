"""Records to aggregate: means over images with bootstrap intervals, or pooled pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import DataError
from reasonx_eval.io.files import safe_name
from reasonx_eval.io.results import Value
from reasonx_eval.metrics.normals import pooled_normal_metrics
from reasonx_eval.metrics.table import METRICS
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.statistics.bootstrap import (
    ROUGH_BELOW,
    bootstrap_ci,
    bootstrap_ratio_ci,
    bootstrap_statistic_ci,
    sum_by_group,
)
from reasonx_eval.types import Record

#: the bootstrap has a seed of its own: the interval of a set of records never depends on the run's seed
BOOTSTRAP_SEED = 12345
#: metrics that are the root of a mean over pixels
ROOTS = frozenset(metric.name for metric in METRICS.values() if metric.root)
#: pooled metric -> name of its sum in a record's stats, where the two differ
_SUMS = {"mean_deg": "sum", "rmse_deg": "sum_sq"}


def aggregate(records: Sequence[Record], protocol: Protocol, pixels: Path | None = None) -> dict[str, Value]:
    """The aggregate of every metric of a protocol.

    Parameters
    ----------
    records : those of the run; failed and undefined ones are left out (the result counts them)
    pixels : folder with per-pixel errors, for protocols that pool pixels
    """
    scored = [r for r in records if r.error is None and r.undefined is None]
    if not scored:
        return {m: Value(value=None, n=0, reason="no sample was scored") for m in protocol.metrics}
    if protocol.pool == "pixel":
        return _pooled(scored, protocol, pixels)
    return _image_means(scored, protocol)


def may_lack(name: str) -> bool:
    """Metrics that some ground truth does not define: their authors average over the images that have them."""
    return name.startswith("whdr") and name.endswith(("_eq", "_ineq"))


def _image_means(records: Sequence[Record], protocol: Protocol) -> dict[str, Value]:
    out: dict[str, Value] = {}
    complete: list[str] = []
    for name in protocol.metrics:
        missing = [r.sample_id for r in records if r.metrics.get(name) is None]
        if missing and not (may_lack(name) and len(missing) < len(records)):
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            out[name] = Value(value=None, n=len(records) - len(missing),
                              reason=f"undefined for {len(missing)} samples: {shown}")  # fmt: skip
        elif missing:
            out |= _means([r for r in records if r.metrics.get(name) is not None], [name])
        else:
            complete.append(name)
    out |= _means(records, complete)
    return {name: out[name] for name in protocol.metrics}


def with_present_intervals(
    stored: Mapping[str, Value], records: Sequence[Record], protocol: Protocol
) -> dict[str, Value]:
    """Aggregates of an older result with intervals by the present method, from its records; a pooled median keeps its.

    Parameters
    ----------
    stored : metric -> aggregate
    records : those that were scored
    """
    if protocol.pool == "image":
        found: Mapping[str, Value] = _image_means(records, protocol)
        ends = {name: (value.ci_low, value.ci_high) for name, value in found.items()}
    else:
        ends = {name: _ratio_interval(records, name) for name in protocol.metrics if pooled_sum(name) is not None}
    return {name: value if value.value is None or name not in ends
            else value.model_copy(update={"ci_low": ends[name][0], "ci_high": ends[name][1]})
            for name, value in stored.items()}  # fmt: skip


def repeated(groups: Sequence[str | None]) -> list[str] | None:
    """The scene of each sample if scenes repeat, else None: images of one scene are not independent."""
    known = [g for g in groups if g is not None]
    return known if len(known) == len(groups) and len(set(known)) < len(known) else None


def _groups(records: Sequence[Record]) -> list[str] | None:
    return repeated([r.group for r in records])


def rough_note(records: Sequence[Record]) -> list[str]:
    """What to say of intervals of few images, or of images of few scenes; empty where there are enough."""
    scored = [r for r in records if r.error is None and r.undefined is None]
    groups = _groups(scored)
    count, what = (len(scored), "images") if groups is None else (len(set(groups)), "scenes")
    if not 1 < count < ROUGH_BELOW:
        return []
    return [f"{count} {what}: intervals of fewer than {ROUGH_BELOW} are rough, they cover less than they say"]


def _means(records: Sequence[Record], names: Sequence[str]) -> dict[str, Value]:
    if not names:
        return {}
    values = np.array([[r.metrics[m] for m in names] for r in records], dtype=np.float64)  # [n, metrics]
    ends = bootstrap_ci(values, seed=BOOTSTRAP_SEED, groups=_groups(records))
    low, high = ends or (None, None)
    # fsum: the mean does not depend on the order of the records
    return {
        name: Value(value=math.fsum(values[:, k]) / len(values), n=len(values),
                    ci_low=_end(low, k), ci_high=_end(high, k))
        for k, name in enumerate(names)
    }  # fmt: skip


def _end(ends: NDArray[np.float64] | None, k: int) -> float | None:
    return None if ends is None else float(ends[k])


class _PixelFiles:
    """Per-pixel errors of each record, read again on every pass: never all in memory at once."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._paths = [folder / f"{safe_name(r.sample_id)}.npy" for r in records]
        self._counts = [int(r.stats["count"]) for r in records]

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for path, count in zip(self._paths, self._counts, strict=True):
            try:
                errors = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"per-pixel errors can't be read: {error}", where=str(path),
                                fix="run again with --force") from None  # fmt: skip
            if errors.shape != (count,):
                raise DataError(f"{errors.shape[0]} pixels, the record says {count}", where=str(path),
                                fix="run again with --force")  # fmt: skip
            yield errors


def _pooled(records: Sequence[Record], protocol: Protocol, pixels: Path | None) -> dict[str, Value]:
    if pixels is None:
        raise DataError("pooled metrics need the per-pixel errors of the run, which are gone",
                        fix="run again with --keep-pixels")  # fmt: skip
    files = _PixelFiles(pixels, records)
    values = pooled_normal_metrics(errors=files, names=protocol.metrics)
    n = len(records)
    out: dict[str, Value] = {}
    for name in protocol.metrics:
        low, high = (_median_interval(files, records) if name == "median_deg"
                     else _ratio_interval(records, name))  # fmt: skip
        out[name] = Value(value=values[name], ci_low=low, ci_high=high, n=n)
    return out


def pooled_sum(name: str) -> str | None:
    """What a record's ``stats`` calls the sum that, over ``count``, gives a pooled metric; None for the median."""
    return None if name == "median_deg" else _SUMS.get(name, name)


def pooled_finish(name: str, ratio: float) -> float:
    """A pooled metric from its sum over ``count``."""
    return math.sqrt(ratio) if name in ROOTS else ratio


def pooled_value(sums: Mapping[str, Sequence[float]], name: str) -> float | None:
    """A pooled metric from the sums of each image, by their names; None for the median, which sums don't hold.

    Raises
    ------
    KeyError
        The sums lack one that it is made of.
    """
    key = pooled_sum(name)
    return None if key is None else pooled_finish(name, math.fsum(sums[key]) / math.fsum(sums["count"]))


def pooled_from_stats(records: Sequence[Record], name: str) -> float | None:
    """The same from records."""
    key = pooled_sum(name)
    return None if key is None else pooled_value({k: [r.stats[k] for r in records] for k in (key, "count")}, name)


def _ratio_interval(records: Sequence[Record], name: str) -> tuple[float | None, float | None]:
    key = pooled_sum(name)
    assert key is not None
    ends = bootstrap_ratio_ci([r.stats[key] for r in records], [r.stats["count"] for r in records],
                              seed=BOOTSTRAP_SEED, groups=_groups(records))  # fmt: skip
    return (None, None) if ends is None else (pooled_finish(name, float(ends[0])), pooled_finish(name, float(ends[1])))


def _median_interval(files: _PixelFiles, records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Interval of the pooled median, from per-image histograms with bins of 0.05 degrees.

    Only the interval is read off the histograms (linear inside a bin); the median itself is exact.
    """
    edges = np.linspace(0.0, 180.0, 3601)
    counts = np.stack([np.histogram(e, bins=edges)[0] for e in files]).astype(np.float64)  # [n, bins]
    groups = _groups(records)
    if groups is not None:
        counts = sum_by_group(counts.T, np.ones(len(counts)), groups)[0].T
    counts, edges = _around_medians(counts, edges)
    ends = bootstrap_statistic_ci(counts, lambda c: _histogram_medians(c, edges)[..., None], seed=BOOTSTRAP_SEED)
    return (None, None) if ends is None else (float(ends[0][0]), float(ends[1][0]))


def _around_medians(
    counts: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bins between the lowest and the highest median of an image, with all below and all above as one bin each.

    The median of any mixture of images lies between theirs, so that a resample needs no other bins.
    """
    cumulative = counts.cumsum(axis=1)
    middle = (cumulative < cumulative[:, -1:] / 2).sum(axis=1)
    low, high = int(middle.min()), int(middle.max()) + 1
    below, above = counts[:, :low].sum(axis=1), counts[:, high:].sum(axis=1)
    return np.column_stack([below, counts[:, low:high], above]), np.concatenate([edges[:1], edges[low : high + 1]])


def _histogram_medians(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of histograms [..., bins], linear inside the bin that holds the middle, which is neither end bin."""
    cumulative = counts.cumsum(axis=-1)
    half = cumulative[..., -1:] / 2
    bin_of = (cumulative < half).sum(axis=-1, keepdims=True)
    inside = np.take_along_axis(counts, bin_of, -1)
    before = np.take_along_axis(cumulative, bin_of, -1) - inside
    medians: NDArray[np.float64] = edges[bin_of] + (edges[bin_of + 1] - edges[bin_of]) * (half - before) / inside
    return medians[..., 0]
