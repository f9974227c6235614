"""Several runs under one protocol, each held against the first: every metric, one family of tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.results import Result
from reasonx_eval.statistics.bootstrap import CONFIDENCE, RESAMPLES
from reasonx_eval.statistics.columns import columns
from reasonx_eval.statistics.join import Joined, join
from reasonx_eval.statistics.paired import Finding, Paired, Settings, adjust, paired
from reasonx_eval.statistics.pairing import pair_up
from reasonx_eval.statistics.runs import Run, find_runs, folder_of

SCHEMA = 2


@dataclass(frozen=True)
class Comparison:
    """Runs of one protocol; `rows[k]` are the metrics of run k + 1 against run 0, in the protocol's order."""

    joined: Joined
    rows: tuple[tuple[Paired, ...], ...]
    settings: Settings

    @property
    def base(self) -> Run:
        return self.joined.runs[0]

    @property
    def others(self) -> tuple[Run, ...]:
        return self.joined.runs[1:]

    @property
    def rewarded(self) -> tuple[str, ...]:
        """Metrics of the protocol that any of the runs was tuned on."""
        told = {m for run in self.joined.runs for m in run.rewarded}
        return tuple(m for m in self.joined.protocol.metrics if m in told)

    @property
    def samples(self) -> str:
        """How many samples were paired, in words: ``454 samples in 13 scenes``."""
        count = f"{len(self.joined.ids)} samples"
        return count if self.joined.groups is None else f"{count} in {len(set(self.joined.groups))} scenes"


def compare_runs(runs: Sequence[Run], settings: Settings | None = None) -> Comparison:
    """Hold every run against the first.

    Parameters
    ----------
    runs : two or more under one protocol; the first is the base
    settings : see Settings. Holm's correction is over all metrics of all runs here: the rows of one table.

    Raises
    ------
    NotComparable, DataError
        As `join` and `column`.
    """
    chosen = settings or Settings()
    joined = join(runs)
    metrics = columns(joined)
    flat = [paired(c, other=k, settings=chosen) for k in range(1, len(runs)) for c in metrics]
    corrected = adjust(flat)
    width = len(metrics)
    rows = tuple(tuple(corrected[k * width : (k + 1) * width]) for k in range(len(runs) - 1))
    return Comparison(joined, rows, chosen)


def compare_folders(
    paths: Sequence[Path], settings: Settings | None = None, *, by: str | None = None, need_reward: bool = False
) -> tuple[list[Comparison], list[str]]:
    """Compare the runs of run folders, or of folders that hold many.

    Parameters
    ----------
    paths : two or more; the first holds the base
    by : a metric that every comparison must have
    need_reward : whether it is an error that no run says what it was rewarded for

    Returns
    -------
    (comparisons, left over)
        One comparison a protocol, and a line for each run without a partner.

    Raises
    ------
    UsageError
        Fewer than two folders, no run in one, an unknown metric, or no rewarded run.
    NotComparable, DataError
        As `load_run`, `pair_up` and `join`.
    """
    if len(paths) < 2:
        raise UsageError("name at least two runs; the first is the base", fix="reasonx-eval compare BASE TUNED")
    groups, left = pair_up([find_runs(path) for path in paths])
    metrics = dict.fromkeys(m for group in groups for m in group[0].protocol.metrics)
    if by is not None and any(by not in group[0].protocol.metrics for group in groups):
        if by not in metrics:
            raise unknown("metric", by, metrics, where="--by")
        raise UsageError(f"not every protocol here reports {by}", where="--by", fix="compare one protocol at a time")
    if need_reward and not any(run.rewarded for group in groups for run in group):
        raise UsageError("no run says which metrics it was rewarded for, so there are none beside them to watch",
                         where="--unrewarded", fix="evaluate a checkpoint of reasonx-ft by its folder")  # fmt: skip
    return [compare_runs(group, settings) for group in groups], left


def compare(
    base: str | Path | Result, *others: str | Path | Result, seed: int = 0, resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:  # fmt: skip
    """Hold runs against a base, paired by sample.

    Parameters
    ----------
    base, others : run folders, or results that were read from or written to one; all under one protocol
    seed, resamples : of the bootstrap and the permutation test
    confidence : of the intervals

    Returns
    -------
    Comparison
        ``rows[k]`` are the metrics of ``others[k]``: difference, interval, corrected p-value, finding.

    Raises
    ------
    UsageError
        No other run, or folders of several protocols.
    NotComparable, DataError
        Other rules or data, or records that are not those of their result.

    Examples
    --------
    >>> import tempfile
    >>> from reasonx_eval import evaluate
    >>> a, b = (evaluate(model=m, dataset="scenes-wild", task="albedo", limit=5, out=tempfile.mkdtemp())
    ...         for m in ("image-as-albedo", "retinex"))
    >>> comparison = compare(a, b)
    >>> [row.name for row in comparison.rows[0]][:2], comparison.samples
    (['si_mse', 'lmse'], '5 samples')
    """
    folders = [folder_of(run) for run in (base, *others)]
    settings = Settings(seed=seed, resamples=resamples, permutations=resamples, confidence=confidence)
    found, _ = compare_folders(folders, settings)
    if len(found) > 1:
        refs = ", ".join(c.joined.protocol.ref for c in found)
        raise UsageError(f"the folders hold runs of several protocols: {refs}", where=str(folders[0]),
                         fix="name one run folder on each side, or: reasonx-eval compare")  # fmt: skip
    return found[0]


def reward_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """Findings on rewarded metrics and on the others, over all protocols; for each tuned run.

    A model that got better at its reward and worse at the metrics that the reward is not made of may
    have learnt to please the judge. A run that was not rewarded gives no line.
    """
    lines = []
    names = dict.fromkeys(run.name for c in comparisons for run in c.others if run.rewarded)
    for name in names:
        found = [(c, run, row) for c in comparisons for run, rows in zip(c.others, c.rows, strict=True)
                 for row in rows if run.name == name]  # fmt: skip
        rewarded = [(c, row) for c, run, row in found if row.name in run.rewarded]
        unrewarded = [(c, row) for c, run, row in found if row.name not in run.rewarded]
        lines += _summary(f"{name}: rewarded ‡", rewarded) + _summary(f"{name}: not rewarded", unrewarded)
        if any(r.finding == "worse" for _, r in unrewarded) and any(r.finding == "improved" for _, r in rewarded):
            lines.append(f"{name}: better at what it was rewarded for and worse elsewhere: look at the pictures "
                         "before you believe the reward")  # fmt: skip
    return lines


def _summary(head: str, rows: Sequence[tuple[Comparison, Paired]]) -> list[str]:
    if not rows:
        return [f"{head}  none measured here"]
    counts = Counter(row.finding for _, row in rows)
    words = ", ".join(f"{counts[f]} {f}" for f in get_args(Finding) if counts[f])
    worse = [f"{c.joined.protocol.ref} {r.name} {r.difference:+.4g}" for c, r in rows if r.finding == "worse"]
    return [f"{head}  {words}" + (f" ({'; '.join(worse)})" if worse else "")]


def as_json(comparisons: Sequence[Comparison], left_over: Sequence[str] = (), *, worst: int = 5) -> dict[str, Any]:
    """The comparison as a JSON document; absent numbers are null, with the reason beside them."""
    return {"schema": SCHEMA, "comparisons": [_one(c, worst) for c in comparisons],
            "reward": reward_lines(comparisons), "unpaired": list(left_over)}  # fmt: skip


def _one(c: Comparison, worst: int) -> dict[str, Any]:
    joined, s = c.joined, c.settings
    return {
        "protocol": joined.protocol.ref,
        "protocol_digest": c.base.digest,
        "dataset": {"name": c.base.dataset.name, "split": c.base.dataset.split,
                    "ids_sha256": c.base.dataset.ids_sha256},
        "n": len(joined.ids),
        "clusters": "images" if joined.groups is None else "scenes",
        "undefined": list(joined.undefined),
        "notes": joined.notes,
        "confidence": s.confidence, "resamples": s.resamples, "permutations": s.permutations, "seed": s.seed,
        "base": _run(c.base, joined.missing[0]),
        "others": [
            {**_run(run, missing), "metrics": {row.name: _row(row, run, worst) for row in rows}}
            for run, missing, rows in zip(c.others, joined.missing[1:], c.rows, strict=True)
        ],
    }  # fmt: skip


def _run(run: Run, missing: Any) -> dict[str, Any]:
    return {"model": run.name, "where": str(run.where), "signature": run.signature, "status": run.status,
            "records_sha256": run.records_sha256, "rewarded": list(run.rewarded), "missing": dict(missing)}  # fmt: skip


def _row(row: Paired, run: Run, worst: int) -> dict[str, Any]:
    untested = row.reason is not None
    base, other, difference = (None if math.isnan(x) else x for x in (row.base, row.other, row.difference))
    return {
        "unit": row.info.unit, "higher_is_better": row.info.higher_is_better, "rewarded": row.name in run.rewarded,
        "base": base, "other": other, "difference": difference, "ci_low": row.ci_low, "ci_high": row.ci_high,
        "p": None if untested else row.p, "p_adjusted": None if untested else row.p_adjusted, "p_exact": row.exact,
        "p_least": None if untested else row.least_p,
        "better": row.wins, "worse": row.losses, "equal": row.ties, "n": row.n, "clusters": row.clusters,
        "finding": row.finding, "reason": row.reason,
        "worst": [{"sample": w.sample_id, "base": w.base, "other": w.other, "worse_by": w.worse_by}
                  for w in row.worst[:worst]],
    }  # fmt: skip
