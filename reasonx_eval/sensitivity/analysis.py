"""One set of saved predictions under every plausible protocol: how far the numbers move, and whether the order holds.

Nothing is predicted again. Each row has the signature of its own rules; numbers of different rows are never tested
against each other, only the order of the models within a row is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reasonx_eval.errors import unknown
from reasonx_eval.run.saved_runs import SavedRun
from reasonx_eval.sensitivity.rescoring import Opener, SampleCount, by_data, opened, rescore
from reasonx_eval.sensitivity.rows import RuleRow, against_first, rows_of
from reasonx_eval.sensitivity.variants import variants
from reasonx_eval.statistics.join import join
from reasonx_eval.types import Progress


@dataclass(frozen=True)
class Sensitivity:
    """rows : metric -> a row for each protocol, the run's own first; left_out : protocol -> why it has no number."""

    runs: tuple[SavedRun, ...]
    n: int
    rows: Mapping[str, tuple[RuleRow, ...]]
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
    vary : rules to vary (see `variants.AXES`); None varies all that the task has
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
    groups = by_data(variants(base, names, vary))
    count = SampleCount(progress, len(joined.ids) * len(groups))
    rows: list[dict[str, RuleRow]] = []
    left_out: dict[str, str] = {}
    for group in groups:
        data = opened(opener, group, left_out)
        if data is None:
            continue
        known = set(data.ids)
        # only what is shown is computed: a structural similarity costs more than all else together
        lean = [replace(v, protocol=v.protocol.model_copy(update={"metrics": names})) for v in group]
        records = rescore(runs, data, [i for i in joined.ids if i in known], lean, workers, count)
        for variant, theirs in zip(group, records, strict=True):
            found = rows_of(runs, variant, data, theirs, names)
            if isinstance(found, str):
                left_out[variant.label] = found
            else:
                rows.append(found)
    marked = {name: against_first([row[name] for row in rows]) for name in names}
    return Sensitivity(tuple(runs), len(joined.ids), marked, left_out)
