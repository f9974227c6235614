"""One set of saved predictions under every plausible protocol: how far the numbers move, and whether the order holds.

Nothing is predicted again. Each row has the signature of its own rules; numbers of different rows are never tested
against each other, only the order of the models within a row is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reasonx_eval import __version__
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, SampleError, UndefinedScore, UsageError, unknown
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.files import canonical_json
from reasonx_eval.io.results import DatasetRef, Value
from reasonx_eval.metrics.table import METRICS, metrics_of
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.saved_runs import SavedRun, load_sample
from reasonx_eval.scoring import score_sample, to_record
from reasonx_eval.sensitivity.variants import Variant, variants
from reasonx_eval.statistics import bootstrap
from reasonx_eval.statistics.aggregate import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES
from reasonx_eval.statistics.columns import Column, column
from reasonx_eval.statistics.join import Joined, join
from reasonx_eval.statistics.ranks import significant
from reasonx_eval.statistics.runs import Run
from reasonx_eval.types import Prediction, Record, Sample

#: called after every sample with (done, total, failed)
Progress = Callable[[int, int, int], None]
#: opens the runs' data with a protocol's own split and choice of files
Opener = Callable[[Protocol], Dataset]

ALPHA = 0.05
#: depth metrics that are means of pixels, so that an image's value and pixel count give their pooled value
_MEANS = frozenset(name for name in metrics_of("depth") if METRICS[name].root is False)


@dataclass(frozen=True)
class Row:
    """All runs under one set of rules, by one metric.

    values : one a run; absent ones say why
    signatures : one a run, None where there is no value
    order : runs with a value, the best first
    apart : bool [runs, runs], whether paired tests tell two runs apart (Holm's correction over the row's pairs)
    reversed : pairs (a, b), a better as run and b better here, told apart both times
    """

    variant: Variant
    metric: str
    values: tuple[Value, ...]
    signatures: tuple[str | None, ...]
    order: tuple[int, ...]
    apart: NDArray[np.bool_]
    reversed: tuple[tuple[int, int], ...] = ()

    @property
    def significant(self) -> list[tuple[int, int]]:
        """Pairs (better, worse) that tests tell apart."""
        return [(a, b) for k, a in enumerate(self.order) for b in self.order[k + 1 :] if self.apart[a, b]]


@dataclass(frozen=True)
class Sensitivity:
    """rows : metric -> a row for each protocol, the run's own first; left_out : protocol -> why it has no number."""

    runs: tuple[SavedRun, ...]
    n: int
    rows: Mapping[str, tuple[Row, ...]]
    left_out: Mapping[str, str]

    def survives(self, metric: str) -> bool:
        """Whether no pair of models that is told apart as run is told apart the other way round elsewhere."""
        return not any(row.reversed for row in self.rows[metric])


def analyse(
    runs: Sequence[SavedRun],
    opener: Opener,
    *,
    metrics: Sequence[str] = (),
    vary: Sequence[str] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Sensitivity:
    """Score saved predictions under every plausible protocol.

    Parameters
    ----------
    runs : under the same rules on the same data, with saved predictions
    opener : the runs' data, with a protocol's dataset options in place of theirs
    metrics : which to show; none takes the first of the protocol
    vary : rules to vary (see `sensitivity_variants.AXES`); None varies all that the task has
    workers : threads

    Raises
    ------
    NotComparable
        Runs under other rules or on other data, or other ground truth than that they were scored against.
    UsageError
        An unknown metric or rule.
    DataError
        No sample in common; predictions that are not those that were scored.
    """
    joined = join([run.run for run in runs])
    base = joined.protocol
    names = tuple(metrics) or base.metrics[:1]
    for name in names:
        if name not in base.metrics:
            raise unknown("metric", name, base.metrics, where=base.ref)
    by_data = _by_data(variants(base, names, vary))
    count = _Count(progress, len(joined.ids) * len(by_data))
    rows: list[dict[str, Row]] = []
    left_out: dict[str, str] = {}
    for group in by_data:
        data = _opened(opener, group, left_out)
        if data is None:
            continue
        known = set(data.ids)
        # only what is shown is computed: a structural similarity costs more than all else together
        lean = [replace(v, protocol=v.protocol.model_copy(update={"metrics": names})) for v in group]
        records = _score(runs, data, [i for i in joined.ids if i in known], lean, workers, count)
        for variant, theirs in zip(group, records, strict=True):
            found = _rows(runs, variant, data, theirs, names)
            if isinstance(found, str):
                left_out[variant.label] = found
            else:
                rows.append(found)
    marked = {name: _against_first([row[name] for row in rows]) for name in names}
    return Sensitivity(tuple(runs), len(joined.ids), marked, left_out)


class _Count:
    """Samples done, for the progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, 0)


def _by_data(found: Sequence[Variant]) -> list[list[Variant]]:
    """Variants grouped by the files they need, the run's own first."""
    groups: dict[str, list[Variant]] = {}
    for variant in found:
        needs = canonical_json([variant.protocol.split, dict(variant.protocol.dataset_options)])
        groups.setdefault(needs, []).append(variant)
    return list(groups.values())


def _opened(opener: Opener, group: Sequence[Variant], left_out: dict[str, str]) -> Dataset | None:
    """The data of a group; where it is not here, the group is left out, unless it is the run's own."""
    try:
        return opener(group[0].protocol)
    except (DataError, UsageError) as error:
        if any(v.label == "as run" for v in group):
            raise
        left_out.update({v.label: f"its data can't be read: {error.what}" for v in group})
        return None


Scored = list[list[Record]]


def _score(
    runs: Sequence[SavedRun], data: Dataset, ids: Sequence[str], group: Sequence[Variant], workers: int, count: _Count
) -> list[Scored]:  # fmt: skip
    """Records by variant, run and sample."""
    records: list[Scored] = [[[] for _ in runs] for _ in group]
    verified = any(v.label == "as run" for v in group)

    def one(sample_id: str) -> list[list[Record]]:
        sample = load_sample(data, runs[0], sample_id) if verified else data.load(sample_id, {runs[0].protocol.reads})
        predictions = [run.load(sample) for run in runs]
        # all variants are scored against the same ground truth
        target = sample.targets.get(runs[0].protocol.reads)
        truth = array_digest(target) if target is not None else "absent"
        return [[_record(sample, p, v, truth) for p in predictions] for v in group]

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reasonx") as pool:
        for found in pool.map(one, ids):
            for of_variant, theirs in zip(records, found, strict=True):
                for of_run, record in zip(of_variant, theirs, strict=True):
                    of_run.append(record)
            count.step()
    return records


def _record(sample: Sample, prediction: Prediction, variant: Variant, truth: str) -> Record:
    protocol = variant.protocol
    shown = replace(prediction, kind=variant.kind(prediction.kind))  # type: ignore[arg-type]  # a kind either way
    try:
        scored = score_sample(sample=sample, prediction=shown, protocol=protocol)
    except UndefinedScore as error:
        return Record(sample.id, undefined=error.what)
    except (SampleError, UsageError) as error:
        return Record(sample.id, error=error.what)
    record = to_record(sample, scored, truth, "")
    if protocol.pool == "pixel" and protocol.target == "depth":
        sums = {m: v * record.n_valid for m, v in record.metrics.items() if m in _MEANS and v is not None}
        record = replace(record, stats={"count": float(record.n_valid), **sums})
    return record


def _rows(
    runs: Sequence[SavedRun], variant: Variant, data: Dataset, records: Scored, names: Sequence[str]
) -> dict[str, Row] | str:
    """A row for each metric, or why no run has a number."""
    reasons = [_reason(theirs) for theirs in records]
    kept = [k for k, reason in enumerate(reasons) if reason is None]
    if not kept:
        return " / ".join(dict.fromkeys(r for r in reasons if r))
    joined = join([_run(runs[k], variant, data, records[k]) for k in kept])
    absent = [Value(value=None, n=0, reason=reason or "absent") for reason in reasons]
    pooled_depth = variant.protocol.pool == "pixel" and variant.protocol.target == "depth"
    found = {}
    for name in names:
        if pooled_depth and name not in _MEANS:
            why = Value(value=None, n=0, reason="not a mean of pixels, so images' values don't give the pooled one")
            found[name] = Row(variant, name, (why,) * len(runs), (None,) * len(runs), (), _untested(len(runs)))
            continue
        try:
            found[name] = _row(variant, kept, absent, joined, column(joined, name))
        except DataError as error:
            return error.what
    return found


def _row(variant: Variant, kept: Sequence[int], absent: Sequence[Value], joined: Joined, data: Column) -> Row:
    """The numbers of the runs that have one, their order, and what tests tell apart."""
    values, apart = list(absent), _untested(len(absent))
    signatures: list[str | None] = [None] * len(absent)
    if data.reason is None:
        apart[np.ix_(kept, kept)] = significant(data)
    for k, run, value in zip(kept, joined.runs, _values(data, joined.runs), strict=True):
        values[k], signatures[k] = value, run.signature
    known = {k: v.value for k, v in enumerate(values) if v.value is not None}
    order = sorted(known, key=lambda k: (-data.sign * known[k], k))
    return Row(variant, data.name, tuple(values), tuple(signatures), tuple(order), apart)


def _reason(records: Sequence[Record]) -> str | None:
    """Why a run has no number under a protocol: a value over fewer samples than the others would be another number."""
    failed = [r for r in records if r.error is not None]
    if not records:
        return "no sample of the run is in its split"
    if not failed:
        return None if any(r.undefined is None for r in records) else (records[0].undefined or "undefined")
    if len(failed) == len(records):
        return failed[0].error
    return f"{len(failed)} of {len(records)} samples fail, the first: {failed[0].sample_id}: {failed[0].error}"


def _run(run: SavedRun, variant: Variant, data: Dataset, records: Sequence[Record]) -> Run:
    kind = variant.kind(run.result.model.kind)
    protocol = variant.protocol
    n = sum(1 for r in records if r.error is None)
    absent = Value(value=None, n=n, reason="not aggregated")
    signature = protocol.signature(kind=kind, n=n, n_total=len(data),
                                   data=data.name if protocol.dataset == "any" else None)  # fmt: skip
    return Run(
        where=run.folder, model=run.result.model.model_copy(update={"kind": kind}), protocol=protocol,
        digest=protocol.digest, signature=signature, status="complete" if n == len(data) else "partial",
        dataset=DatasetRef(name=data.name, split=data.split, options=dict(data.options), n=len(data),
                           ids_sha256=data.ids_digest),
        reasonx=__version__, records_sha256="", records=tuple(records),
        aggregate=run.result.aggregate if variant.label == "as run" else dict.fromkeys(protocol.metrics, absent),
    )  # fmt: skip


def _values(data: Column, runs: Sequence[Run]) -> list[Value]:
    """The aggregate of each run with its interval, as its result has it; all runs see the same resamples."""
    if data.stored is not None:
        return [run.aggregate[data.name] for run in runs]
    if data.reason is not None:
        return [Value(value=None, n=len(data.ids), reason=data.reason)] * len(runs)
    ends = bootstrap.bootstrap_ratio_ci(data.top.T, data.weight, confidence=CONFIDENCE, resamples=RESAMPLES,
                                    seed=BOOTSTRAP_SEED, groups=data.groups)  # fmt: skip
    pairs = [(None, None)] * len(runs) if ends is None else [
        (data.finish(float(low)), data.finish(float(high))) for low, high in zip(*ends, strict=True)]  # fmt: skip
    return [Value(value=mean, ci_low=low, ci_high=high, n=len(data.ids))
            for mean, (low, high) in zip(data.means, pairs, strict=True)]  # fmt: skip


def _untested(runs: int) -> NDArray[np.bool_]:
    return np.zeros((runs, runs), dtype=bool)


def _against_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Mark in each row the pairs that are told apart the other way round than in the first."""
    if not rows:
        return ()
    first = set(rows[0].significant)
    return tuple(replace(row, reversed=tuple((b, a) for a, b in row.significant if (b, a) in first)) for row in rows)

