"""All checks of one dataset, in the order in which a failure explains the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.doctor.checks import check_samples, check_values
from reasonx_eval.doctor.findings import Finding, Report, some
from reasonx_eval.doctor.gather import evenly, gather
from reasonx_eval.doctor.manifest import (
    MANIFEST_NAME,
    Manifest,
    frozen_manifest,
    official_manifest,
    verify_frozen,
    verify_official,
    verify_split,
)
from reasonx_eval.errors import ReasonXError, SampleError
from reasonx_eval.io.walk import near_names

#: samples whose values are looked at unless all are asked for
DEFAULT_LIMIT = 24
#: splits that must share nothing, by the beginning of their names
_DISJOINT = ("train", "val", "test")

#: called with the name of the work, the number of items that are done, and the number of all
Progress: TypeAlias = Callable[[str, int, int], None]


def diagnose(
    dataset: Dataset,
    *,
    manifest: Manifest | None = None,
    limit: int | None = None,
    full: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check files, splits and the meaning of the values.

    Parameters
    ----------
    manifest : a frozen or official manifest to check against; None takes the frozen one in the dataset's folder,
        and the official one of the package
    limit : look at the values of so many samples, spread evenly; None: 24
    full : look at all samples, and compute digests of official files
    """
    ids = list(dataset.ids) if full else evenly(dataset.ids, DEFAULT_LIMIT if limit is None else limit)
    findings = [*_files(dataset, manifest, full, progress), *_splits(dataset)]
    found = gather(dataset, ids, _step(progress, "samples"))
    findings += check_samples(found, len(ids))
    if len(ids) < len(dataset.ids):
        findings.append(Finding("values", "ok", f"looked at {len(ids)} of {len(dataset.ids)} samples, spread evenly; "
                                "--full looks at all"))  # fmt: skip
    findings += check_values(found, dataset.info)
    root = str(dataset.root) if dataset.root is not None else None
    return Report(dataset.name, dataset.split, root, len(dataset.ids), tuple(ids), tuple(findings))


def _step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def _files(dataset: Dataset, manifest: Manifest | None, full: bool, progress: Progress | None) -> Iterator[Finding]:
    yield from _present(dataset)
    frozen = manifest if manifest is not None and manifest.kind == "frozen" else frozen_manifest(dataset)
    if frozen is not None:
        if frozen.kind != "frozen" or frozen.dataset != dataset.name:
            yield Finding("manifest", "warn", f"{MANIFEST_NAME} is of kind {frozen.kind}, of dataset {frozen.dataset}: "
                          "not used")  # fmt: skip
        else:
            yield from verify_frozen(dataset, frozen, progress=_step(progress, "sha256"))
    given = manifest is not None and manifest.kind == "official"
    official = manifest if given else official_manifest(dataset.info.name)
    if official is not None:
        yield from verify_split(dataset, official)
        if dataset.root is not None:
            yield from verify_official(dataset.root, official.archives, hashes=full)


def _present(dataset: Dataset) -> Iterator[Finding]:
    """All files of all samples are there and not empty (their content is looked at elsewhere)."""
    found: set[Path] = set()
    missing = []
    for sample_id in dataset.ids:
        try:
            found.update(dataset.files(sample_id))
        except SampleError as error:
            missing.append(" ".join(str(error).split()))
    paths = sorted(found)
    if not paths and not missing:
        return
    for path in (p for p in paths if not p.is_file()):
        near = near_names(path)
        missing.append(str(path) + (f" (there is {', '.join(near[:3])})" if near else ""))
    empty = [str(p) for p in paths if p.is_file() and p.stat().st_size == 0]
    for what, names in (("missing", missing), ("empty", empty)):
        if names:
            yield Finding("files", "fail", f"{len(names)} {what}, of {len(paths)}: {some(names)}",
                          f"reasonx-eval doctor {dataset.info.name} --prepare")  # fmt: skip
    if not missing and not empty:
        yield Finding("files", "ok", f"{len(paths)} of {len(paths)} present")
    for what in dataset.overlooked():
        yield Finding("files", "warn", what, "rename them, or correct the pattern of names")


def _splits(dataset: Dataset) -> Iterator[Finding]:
    yield Finding("split", "ok", f"{len(dataset.ids)} ids in '{dataset.split}', digest {dataset.ids_digest[:12]}")
    twice = [i for i, count in Counter(dataset.ids).items() if count > 1]
    if twice:
        yield Finding("split", "fail", f"ids that are listed twice: {some(twice)}")
    apart = [n for n in dataset.splits if n.startswith(_DISJOINT)]
    ids: dict[str, set[str]] = {}
    for name in apart:
        try:
            ids[name] = set((dataset if name == dataset.split else dataset.sibling(name)).ids)
        except ReasonXError as error:
            yield Finding("split", "warn", f"split '{name}' can't be compared: {' '.join(str(error).split())}")
    for one, other in combinations(ids, 2):
        if _kind(one) == _kind(other):
            continue
        shared = sorted(ids[one] & ids[other])
        if shared:
            yield Finding("split", "fail", f"'{one}' and '{other}' share {len(shared)} samples: {some(shared)}")
        else:
            yield Finding("split", "ok", f"'{one}' ({len(ids[one])}) and '{other}' ({len(ids[other])}) are disjoint")


def _kind(split: str) -> str:
    return next(k for k in _DISJOINT if split.startswith(k))
