"""One row for each set of rules: the numbers of the runs, their order, and which differences are significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reasonx_eval import __version__
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError
from reasonx_eval.io.results import DatasetRef, Value
from reasonx_eval.protocols.protocol import ANY
from reasonx_eval.run.saved_runs import SavedRun
from reasonx_eval.sensitivity.rescoring import PIXEL_MEANS, RunRecords
from reasonx_eval.sensitivity.variants import Variant
from reasonx_eval.statistics.aggregate import BOOTSTRAP_SEED
from reasonx_eval.statistics.bootstrap import bootstrap_ratio_ci
from reasonx_eval.statistics.columns import Column, column
from reasonx_eval.statistics.join import Joined, join
from reasonx_eval.statistics.ranks import significant
from reasonx_eval.statistics.runs import Run
from reasonx_eval.types import Record


@dataclass(frozen=True)
class RuleRow:
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


def rows_of(
    runs: Sequence[SavedRun], variant: Variant, data: Dataset, records: RunRecords, names: Sequence[str]
) -> dict[str, RuleRow] | str:
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
        if pooled_depth and name not in PIXEL_MEANS:
            why = Value(value=None, n=0, reason="not a mean of pixels, so images' values don't give the pooled one")
            found[name] = RuleRow(variant, name, (why,) * len(runs), (None,) * len(runs), (), _untested(len(runs)))
            continue
        try:
            found[name] = _row(variant, kept, absent, joined, column(joined, name))
        except DataError as error:
            return error.what
    return found


def _row(variant: Variant, kept: Sequence[int], absent: Sequence[Value], joined: Joined, data: Column) -> RuleRow:
    """The numbers of the runs that have one, their order, and what tests tell apart."""
    values, apart = list(absent), _untested(len(absent))
    signatures: list[str | None] = [None] * len(absent)
    if data.reason is None:
        apart[np.ix_(kept, kept)] = significant(data)
    for k, run, value in zip(kept, joined.runs, _values(data, joined.runs), strict=True):
        values[k], signatures[k] = value, run.signature
    known = {k: v.value for k, v in enumerate(values) if v.value is not None}
    order = sorted(known, key=lambda k: (-data.sign * known[k], k))
    return RuleRow(variant, data.name, tuple(values), tuple(signatures), tuple(order), apart)


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
                                   data=data.name if protocol.dataset == ANY else None)  # fmt: skip
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
    ends = bootstrap_ratio_ci(data.top.T, data.weight, seed=BOOTSTRAP_SEED, groups=data.groups)
    pairs = [(None, None)] * len(runs) if ends is None else [
        (data.finish(float(low)), data.finish(float(high))) for low, high in zip(*ends, strict=True)]  # fmt: skip
    return [Value(value=mean, ci_low=low, ci_high=high, n=len(data.ids))
            for mean, (low, high) in zip(data.means, pairs, strict=True)]  # fmt: skip


def _untested(runs: int) -> NDArray[np.bool_]:
    return np.zeros((runs, runs), dtype=bool)


def against_first(rows: Sequence[RuleRow]) -> tuple[RuleRow, ...]:
    """Mark in each row the pairs that are told apart the other way round than in the first."""
    if not rows:
        return ()
    first = set(rows[0].significant)
    return tuple(replace(row, reversed=tuple((b, a) for a, b in row.significant if (b, a) in first)) for row in rows)
