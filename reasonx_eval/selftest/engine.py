"""Every check on every protocol, on made-up official-format files or on the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.datasets.examples import Example, Written
from reasonx_eval.errors import DataError, ReasonXError, SampleError, UsageError
from reasonx_eval.protocols.protocol import ANY, Protocol, all_protocols
from reasonx_eval.registry import load_dataset
from reasonx_eval.selftest import expect
from reasonx_eval.selftest.case import Case, Failed
from reasonx_eval.selftest.checks import CHECKS, OracleCheck
from reasonx_eval.selftest.reading import agrees_with_itself, reads_what_was_written
from reasonx_eval.selftest.sources import all_examples, serves
from reasonx_eval.types import Progress, Sample

OPENED = OracleCheck("files", "open", lambda c: True, lambda c: None)
REFUSED = OracleCheck("an option the layout lacks", "refused", lambda c: True, lambda c: None)
READ = OracleCheck("files", "read as written", lambda c: True, lambda c: None, "{:.2g} of allowed")
ITSELF = OracleCheck("rendered maps", "agree", lambda c: True, lambda c: None, "{:.2g} deg")


@dataclass(frozen=True)
class CheckResult:
    """One check on one case; `error` says what was seen instead, None if it holds."""

    check: OracleCheck = field(repr=False)
    protocol: Protocol = field(repr=False)
    source: str
    kind: str | None
    seen: float | None = None
    error: str | None = None


def check_made_up(
    protocols: Sequence[Protocol], *, quick: bool = False, progress: Progress | None = None
) -> list[CheckResult]:
    """All checks on files written into a temporary folder.

    Parameters
    ----------
    protocols : which to check
    quick : only the first source of each protocol and the first kind it accepts
    progress : called after every protocol on every source
    """
    work = [(p, s, k) for p in protocols for k, s in enumerate(s for s in all_examples() if serves(s, p))]
    work = sorted((item for item in work if not quick or item[2] == 0), key=lambda item: item[1].name)
    with tempfile.TemporaryDirectory(prefix="reasonx-selftest-") as folder:
        shelf = _Shelf(Path(folder))
        units = (_on_source(shelf, p, s, first=k == 0, quick=quick) for p, s, k in work)
        outcomes = _collect(units, len(work), progress)
    served = {p.ref for p, _, _ in work}
    return outcomes + [CheckResult(OPENED, p, p.dataset, None, error="no made-up files of this dataset")
                       for p in protocols if p.ref not in served]  # fmt: skip


def check_own_data(
    dataset_name: str, protocols: Sequence[Protocol], *, root: Path | None, options: Mapping[str, Any], limit: int,
    progress: Progress | None = None,
) -> list[CheckResult]:  # fmt: skip
    """The perfect and the refused checks on the first samples of files that the user has.

    Parameters
    ----------
    protocols : those to check; all must belong to the dataset, or serve any
    options : of the dataset; those a protocol fixes win
    limit : how many samples, of those whose files are all there
    """
    units = (_on_own(dataset_name, p, root, options, limit) for p in protocols)
    return _collect(units, len(protocols), progress)


def protocols_for(dataset_name: str, *, root: Path | None, options: Mapping[str, Any]) -> list[Protocol]:
    """The protocols of a dataset; of one that has none of its own, the generic ones that its targets serve.

    Raises
    ------
    UsageError, DataError
        Unknown dataset, a folder that is not this dataset, or nothing to check it with.
    """
    protocols = list(all_protocols().values())
    own = [p for p in protocols if p.dataset == dataset_name]
    if own:
        return own
    dataset = load_dataset(dataset_name, root, None, options)
    generic = [p for p in protocols if p.dataset == ANY and p.target in dataset.targets]
    if not generic:
        raise UsageError(f"no protocol measures {', '.join(dataset.targets) or 'nothing'}", where=dataset.name,
                         fix="reasonx-eval list protocols")  # fmt: skip
    return generic


def _collect(units: Iterator[list[CheckResult]], total: int, progress: Progress | None) -> list[CheckResult]:
    outcomes: list[CheckResult] = []
    if progress:
        progress(0, total, 0)
    for done, found in enumerate(units, start=1):
        outcomes += found
        if progress:
            progress(done, total, sum(o.error is not None for o in outcomes))
    return outcomes


class _Shelf:
    """Sources are written once, on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, Mapping[str, Written]] = {}
        self._seen: set[str] = set()
        self._samples: tuple[str, tuple[Sample, ...]] = ("", ())

    def samples(self, source: Example, protocol: Protocol, dataset: Dataset) -> tuple[Sample, ...]:
        """The samples of a source that are there, or two of a rendered dataset.

        Those of the last call are kept: protocols of one dataset follow each other, and mostly read the same.
        """
        key = f"{source.name} {dataset.split} {dataset.options} {protocol.reads} {protocol.task}"
        if self._samples[0] != key:
            written = self._written.get(source.name)
            ids = list(dataset.ids[:2]) if written is None else [i for i in dataset.ids if i in written]
            self._samples = (key, _load(dataset, protocol, ids))
        return self._samples[1]

    def is_new(self, source: Example) -> bool:
        """Whether this is asked for the first time: rendered maps need one look, whatever the protocols."""
        new = source.name not in self._seen
        self._seen.add(source.name)
        return new

    def open(self, source: Example, protocol: Protocol) -> tuple[Dataset, Mapping[str, Written]]:
        root = self._folder / source.name.replace(", ", "-").replace(" ", "-")
        if source.write is not None and source.name not in self._written:
            root.mkdir()
            self._written[source.name] = source.write(root)
        split = source.split if protocol.dataset == ANY else protocol.split
        dataset = load_dataset(source.dataset, root if source.write is not None else None, split,
                              {**source.options, **protocol.dataset_options})  # fmt: skip
        return dataset, self._written.get(source.name, {})


def _on_source(shelf: _Shelf, protocol: Protocol, source: Example, *, first: bool, quick: bool) -> list[CheckResult]:
    if any(protocol.dataset_options.get(k) == v for k, v in source.refused.items()):
        return [_look(REFUSED, protocol, source.name, None,
                      lambda: expect.refuses(lambda: shelf.open(source, protocol), UsageError))]  # fmt: skip
    try:
        dataset, written = shelf.open(source, protocol)
        samples = shelf.samples(source, protocol, dataset)
    except Exception as error:
        return [CheckResult(OPENED, protocol, source.name, None, error=_line(error))]
    # what is predicted has nothing to do with how files lie, so further layouts see one kind
    kinds = protocol.accepts if first and not quick else protocol.accepts[:1]
    cases = [Case(protocol, kind, source.name, dataset, samples, written) for kind in kinds]
    outcomes = []
    if written:
        outcomes.append(_look(READ, protocol, source.name, None, lambda: reads_what_was_written(cases[0], source)))
    elif shelf.is_new(source):
        outcomes.append(_look(ITSELF, protocol, source.name, None, lambda: agrees_with_itself(cases[0])))
    for case in cases:
        outcomes += _apply(case, [c for c in CHECKS if first or c.every_source])
    return outcomes


def _on_own(
    name: str, protocol: Protocol, root: Path | None, options: Mapping[str, Any], limit: int
) -> list[CheckResult]:  # fmt: skip
    try:
        split = None if protocol.dataset == ANY else protocol.split
        dataset = load_dataset(name, root, split, {**options, **protocol.dataset_options})
        samples = _load(dataset, protocol, _present(dataset, limit))
    except Exception as error:
        return [CheckResult(OPENED, protocol, name, None, error=_line(error))]
    return [outcome for kind in protocol.accepts
            for outcome in _apply(Case(protocol, kind, name, dataset, samples), [c for c in CHECKS if c.own_data])]


def _present(dataset: Dataset, limit: int) -> list[str]:
    """The first ids whose files are all there."""
    found: list[str] = []
    for sample_id in dataset.ids:
        if len(found) == limit:
            break
        try:
            whole = all(path.is_file() for path in dataset.files(sample_id))
        except SampleError:
            whole = False
        if whole:
            found.append(sample_id)
    if not found:
        raise DataError(f"none of the {len(dataset)} samples has all its files", where=dataset.name,
                        fix=f"reasonx-eval doctor {dataset.name} --root DIR")  # fmt: skip
    return found


def _load(dataset: Dataset, protocol: Protocol, ids: Sequence[str]) -> tuple[Sample, ...]:
    """The samples with the protocol's target and what the oracle copies (the dense map, where there is one)."""
    if not ids:
        raise DataError("no sample", where=dataset.name)
    want = {protocol.reads, *({protocol.task} & set(dataset.targets))}
    return tuple(dataset.load(i, want) for i in ids)


def _apply(case: Case, checks: Sequence[OracleCheck]) -> list[CheckResult]:
    return [_look(check, case.protocol, case.source, case.kind, partial(check.look, case))
            for check in checks if check.applies(case)]  # fmt: skip


def _look(
    check: OracleCheck, protocol: Protocol, source: str, kind: str | None, look: Callable[[], float | None]
) -> CheckResult:  # fmt: skip
    try:
        return CheckResult(check, protocol, source, kind, seen=look())
    except Exception as error:
        return CheckResult(check, protocol, source, kind, error=_line(error))


def _line(error: Exception) -> str:
    """One line: the reason alone where it is one of ours, the error's type too where it is not expected."""
    text = " ".join(str(error).split())[:600]
    return text if isinstance(error, Failed | ReasonXError) else f"{type(error).__name__}: {text}"
