"""Saved predictions scored under other rules: the records of each variant, run and sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, SampleError, UndefinedScore, UsageError
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.files import canonical_json
from reasonx_eval.metrics.table import METRICS, metrics_of
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.saved_runs import SavedRun, load_sample
from reasonx_eval.scoring import score_sample, to_record
from reasonx_eval.sensitivity.variants import Variant
from reasonx_eval.types import Prediction, Progress, Record, Sample

#: opens the runs' data with a protocol's own split and choice of files
Opener = Callable[[Protocol], Dataset]
#: depth metrics that are means of pixels, so that an image's value and pixel count give their pooled value
PIXEL_MEANS = frozenset(name for name in metrics_of("depth") if METRICS[name].root is False)


class SampleCount:
    """Samples done, for the progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, 0)


def by_data(found: Sequence[Variant]) -> list[list[Variant]]:
    """Variants grouped by the files they need, the run's own first."""
    groups: dict[str, list[Variant]] = {}
    for variant in found:
        needs = canonical_json([variant.protocol.split, dict(variant.protocol.dataset_options)])
        groups.setdefault(needs, []).append(variant)
    return list(groups.values())


def opened(opener: Opener, group: Sequence[Variant], left_out: dict[str, str]) -> Dataset | None:
    """The data of a group; where it is not here, the group is left out, unless it is the run's own."""
    try:
        return opener(group[0].protocol)
    except (DataError, UsageError) as error:
        if any(v.label == "as run" for v in group):
            raise
        left_out.update({v.label: f"its data can't be read: {error.what}" for v in group})
        return None


#: by run and sample
RunRecords = list[list[Record]]


def rescore(
    runs: Sequence[SavedRun],
    data: Dataset,
    ids: Sequence[str],
    group: Sequence[Variant],
    workers: int,
    count: SampleCount,
) -> list[RunRecords]:
    """Records by variant, run and sample."""
    records: list[RunRecords] = [[[] for _ in runs] for _ in group]
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
        sums = {m: v * record.n_valid for m, v in record.metrics.items() if m in PIXEL_MEANS and v is not None}
        record = replace(record, stats={"count": float(record.n_valid), **sums})
    return record
