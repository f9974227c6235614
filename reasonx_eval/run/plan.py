"""From names a user types to (dataset, protocol) pairs to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import UsageError
from reasonx_eval.models.base import Model
from reasonx_eval.protocols.protocol import Protocol, all_protocols, get_protocol
from reasonx_eval.registry import get_dataset
from reasonx_eval.types import TASKS

ANY = "any"


def default_protocols(dataset: str, task: str | None = None) -> list[Protocol]:
    """The default protocol of each task of a dataset (latest version), in the order of types.TASKS."""
    latest: dict[str, Protocol] = {}
    for protocol in all_protocols().values():
        if dataset in protocol.default_for and task in (None, protocol.task):
            known = latest.get(protocol.task)
            if known is None or known.version < protocol.version:
                latest[protocol.task] = protocol
    return [latest[t] for t in TASKS if t in latest]


def plan(
    *,
    model: Model,
    datasets: Sequence[str],
    protocols: Sequence[str],
    task: str | None,
    root: Path | None,
    split: str | None,
    dataset_options: Mapping[str, Any],
) -> list[tuple[Dataset, Protocol]]:
    """What to run.

    A dataset name means its default protocol, one for each task that the model can do. A protocol name means
    its dataset; a generic protocol needs ``--dataset`` too.

    Raises
    ------
    UsageError
        Nothing named; names that don't belong together; a model that can do none of it.
    """
    if not datasets and not protocols:
        raise UsageError("say what to evaluate on", fix="--dataset scenes-wild, or: reasonx-eval list datasets")
    if protocols:
        named = [_with_dataset(get_protocol(name), datasets, task) for name in protocols]
        for _, protocol in named:
            model.kind_for(protocol.task, protocol.accepts)  # before any file is opened
    else:
        named = [pair for name in datasets for pair in _defaults(name, task, model)]
    work = [(_open(name, protocol, root, split, dataset_options), protocol) for name, protocol in named]
    return work if protocols else _offered(work)


def _offered(work: list[tuple[Dataset, Protocol]]) -> list[tuple[Dataset, Protocol]]:
    """Of default protocols, those whose ground truth is there: one's own folder seldom has all four maps."""
    kept = [(dataset, protocol) for dataset, protocol in work if protocol.reads in dataset.targets]
    if not kept:
        dataset = work[0][0]
        raise UsageError(f"it has {', '.join(dataset.targets) or 'no ground truth'}, and nothing to measure "
                         f"{', '.join(p.task for _, p in work)} with", where=dataset.name,
                         fix=f"reasonx-eval info {dataset.info.name}")  # fmt: skip
    return kept


def _with_dataset(protocol: Protocol, datasets: Sequence[str], task: str | None) -> tuple[str, Protocol]:
    if task is not None and protocol.task != task:
        raise UsageError(f"{protocol.ref} is a protocol of task {protocol.task}, not {task}")
    if protocol.dataset == ANY:
        if len(datasets) != 1:
            raise UsageError("this protocol serves any dataset: name one", where=protocol.ref,
                             fix=f"--protocol {protocol.name} --dataset folder --root DIR")  # fmt: skip
        return datasets[0], protocol
    if datasets and protocol.dataset not in datasets:
        raise UsageError(f"{protocol.ref} belongs to dataset {protocol.dataset}, not {', '.join(datasets)}",
                         fix=f"leave out --dataset, or: reasonx-eval info {datasets[0]}")  # fmt: skip
    return protocol.dataset, protocol


def _defaults(name: str, task: str | None, model: Model) -> list[tuple[str, Protocol]]:
    known = name if not _is_card(name) else "folder"
    found = default_protocols(known, task)
    if not found:
        from reasonx_eval.registry import dataset_class

        dataset_class(known)  # an unknown name is the more helpful error
        raise UsageError(f"no default protocol{f' of task {task}' if task else ''}", where=known,
                         fix="reasonx-eval list protocols, then --protocol NAME")  # fmt: skip
    able = [p for p in found if set(model.kinds.get(p.task, ())) & set(p.accepts)]
    if not able:
        model.kind_for(found[0].task, found[0].accepts)  # raises, and says what it has and what is accepted
    return [(name, p) for p in able]


def _is_card(name: str) -> bool:
    return name.endswith(".toml") or (Path(name) / "dataset.toml").is_file()


def _open(
    name: str, protocol: Protocol, root: Path | None, split: str | None, options: Mapping[str, Any]
) -> Dataset:
    """The dataset a protocol pins: its split and its choice of files can't be overridden by a flag."""
    if protocol.dataset == ANY:
        return get_dataset(name, root, split, dict(options))
    if split not in (None, protocol.split):
        raise UsageError(f"{protocol.ref} is defined on split '{protocol.split}', not '{split}'",
                         fix="reasonx-eval list protocols")  # fmt: skip
    clash = [k for k, v in protocol.dataset_options.items() if k in options and options[k] != v]
    if clash:
        raise UsageError(f"{protocol.ref} fixes {clash[0]}={protocol.dataset_options[clash[0]]}",
                         fix="reasonx-eval list protocols")  # fmt: skip
    dataset = get_dataset(name, root, protocol.split, {**options, **protocol.dataset_options})
    if protocol.n is not None and len(dataset) != protocol.n:
        raise UsageError(f"{protocol.ref} is defined on {protocol.n} samples, the split has {len(dataset)}")
    return dataset
