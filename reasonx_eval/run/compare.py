"""Runs held against a base, by folders or results: what `reasonx-eval compare` computes."""

from __future__ import annotations

from pathlib import Path

from reasonx_eval.errors import UsageError
from reasonx_eval.io.results import Result
from reasonx_eval.statistics.comparison import Comparison, compare_folders
from reasonx_eval.statistics.paired import Settings


def compare(
    base: str | Path | Result, *others: str | Path | Result, seed: int = 0, resamples: int = 10_000,
    confidence: float = 0.95,
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


def folder_of(run: str | Path | Result) -> Path:
    """The folder of a run.

    Raises
    ------
    UsageError
        A result that lies in none.
    """
    if not isinstance(run, Result):
        return Path(run)
    if run.folder is None:
        raise UsageError("this result was not read from a folder, so its records are unknown", where=run.signature,
                         fix="load_result(FOLDER)")  # fmt: skip
    return run.folder
