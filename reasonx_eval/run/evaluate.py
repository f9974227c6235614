"""Evaluate a model by names or objects: what `reasonx-eval run` and `score` call, and a notebook may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from numpy.typing import ArrayLike

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import UsageError
from reasonx_eval.io.results import Result, run_folder
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.base import Model
from reasonx_eval.models.loading.load import as_model
from reasonx_eval.models.saved.arrays import Arrays
from reasonx_eval.models.saved.predictions import Saved
from reasonx_eval.protocols.protocol import ANY, Protocol, default_protocols, get_protocol
from reasonx_eval.registry import dataset_class, described_by_card, load_dataset
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.types import Progress

#: where the runs of the commands and of `evaluate` go
OUT: Final = Path("results")

Work: TypeAlias = list[tuple[Dataset, Protocol]]


def evaluate(
    *,
    model: str | Path | Model | object,
    dataset: str | Path | Dataset | None = None,
    protocol: str | Protocol | None = None,
    task: str | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    kind: str | None = None,
    out: str | Path = OUT,
    limit: int | None = None,
    samples: Sequence[str] | None = None,
    shard: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    **how: Any,
) -> Result:
    """Evaluate a model on a dataset under one protocol; resume a run that is already in `out`.

    Parameters
    ----------
    model : a name, hub id, folder or file (see `load_model`), a Model, or an object with ``predict(images)``
    dataset : a name, the folder of a dataset.toml, or a Dataset; may be left out where `protocol` names one
    protocol : name or object; None is the dataset's default protocol
    task : "depth", "normals", "albedo" or "irradiance", where the dataset has a default protocol for several
    root, split, dataset_options : where the files lie, and which part of them; see `load_dataset`
    kind : the predictions' kind, where the model does not say
    out : the run goes to ``OUT/PROTOCOL@VERSION/MODEL``
    limit, samples, shard : only these samples; see `Selection`
    progress : called after every sample with (done, total, failed)
    say : called with a sentence on the comparison before samples of an earlier process are used again
    how : seed, workers, force, retry_failed, save_predictions, keep_pixels; see `RunOptions`

    Returns
    -------
    Result
        Numbers with intervals in ``result.aggregate``, provenance, failures; ``result.folder`` is the run's folder.

    Raises
    ------
    UsageError
        Unknown names, names that don't belong together, or several protocols where one is meant.
    NotComparable
        The folder holds another run, or the data or the model changed since.

    Examples
    --------
    >>> import tempfile
    >>> out = tempfile.mkdtemp()
    >>> result = evaluate(model="plane-depth", dataset="scenes-wild", limit=2, out=out)
    >>> result.n_scored, round(result.aggregate["abs_rel"].value, 2) < 1
    (2, True)
    """
    loaded = as_model(model, kind=kind)
    work = find_work(loaded, [] if dataset is None else [dataset], [] if protocol is None else [protocol], task=task,
                     root=root, split=split, dataset_options=dataset_options)  # fmt: skip
    if len(work) > 1:
        several = ", ".join(p.ref for _, p in work)
        raise UsageError(f"it has a default protocol for each of several tasks: {several}", where=work[0][0].name,
                         fix='task="depth", or protocol="..."')  # fmt: skip
    (data, rules), selection = work[0], Selection(limit=limit, samples=_listed(samples), shard=shard)
    how.setdefault("passed", _passed(model=model, datasets=dataset, protocols=protocol, task=task, root=root,
                                     split=split, dataset_options=dataset_options, kind=kind, limit=limit,
                                     samples=samples, shard=shard))  # fmt: skip
    folder = run_folder(Path(out), rules.ref, _run_name(loaded, data, rules), shard)
    try:
        result = run(_for(rules, loaded), data, rules, folder, RunOptions(selection=selection, **how), progress, say)
    finally:
        if loaded is not model:
            loaded.close()
    return result.at(folder)


def score(
    predictions: str | Path | Mapping[str, ArrayLike],
    *,
    kind: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    **evaluation: Any,
) -> Result:
    """Score saved predictions against ground truth.

    Parameters
    ----------
    predictions : a folder with one .npy, .npz, .png, .exr or .h5 file a sample id, or sample id -> array
    kind : of the predictions, e.g. "depth_metric", "disparity_affine", "normal", "albedo_srgb"
    name : of the model in the result
    options : how files are read: png_scale, normals_frame, h5_key, ...; see `Saved`
    evaluation : dataset, protocol and the rest, as of `evaluate`

    Returns
    -------
    Result

    Raises
    ------
    DataError
        No such folder, or no predictions in it.
    UsageError, NotComparable
        As `evaluate`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from reasonx_eval import load_dataset
    >>> scenes = load_dataset("scenes-wild")
    >>> maps = {scenes.ids[0]: scenes.load(scenes.ids[0]).targets["depth"].depth * 2}
    >>> result = score(maps, kind="depth_scale", dataset=scenes, task="depth", samples=list(maps),
    ...                out=tempfile.mkdtemp())
    >>> abs(result.aggregate["abs_rel"].value) < 1e-6
    True
    """
    if isinstance(predictions, Mapping):
        if kind is None:
            raise UsageError("arrays don't state the kind of prediction", fix='kind="depth_metric"')
        return evaluate(model=Arrays(predictions, kind=kind, name=name or "arrays", **(options or {})), **evaluation)
    return evaluate(model=Saved(predictions, kind=kind, name=name, **(options or {})), **evaluation)


def find_work(
    model: Model,
    datasets: Sequence[str | Path | Dataset] = (),
    protocols: Sequence[str | Protocol] = (),
    *,
    task: str | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    dataset_options: Mapping[str, Any] | None = None,
) -> Work:
    """The dataset and protocol of each run that names stand for.

    A dataset means its default protocol, one for each task that the model can do. A protocol means its dataset; a
    generic protocol needs a dataset too.

    Raises
    ------
    UsageError
        Nothing named; names that don't belong together; a model that can do none of it.
    """
    if not datasets and not protocols:
        raise UsageError("say what to evaluate on", fix="--dataset scenes-wild, or: reasonx-eval list datasets")
    options = dict(dataset_options or {})
    if protocols:
        named = [_with_dataset(get_protocol(p) if isinstance(p, str) else p, datasets, task) for p in protocols]
        for _, protocol in named:
            model.kind_for(protocol.task, protocol.accepts)  # before any file is opened
    else:
        named = [pair for dataset in datasets for pair in _defaults(dataset, task, model)]
    work = [(_open(dataset, protocol, root, split, options), protocol) for dataset, protocol in named]
    return work if protocols else _offered(work)


def _offered(work: Work) -> Work:
    """Of default protocols, those whose ground truth is there: one's own folder seldom has all four maps."""
    kept = [(dataset, protocol) for dataset, protocol in work if protocol.reads in dataset.targets]
    if not kept:
        dataset = work[0][0]
        raise UsageError(f"it has {', '.join(dataset.targets) or 'no ground truth'}, and nothing to measure "
                         f"{', '.join(p.task for _, p in work)} with", where=dataset.name,
                         fix=f"reasonx-eval info {dataset.info.name}")  # fmt: skip
    return kept


def _with_dataset(
    protocol: Protocol, datasets: Sequence[str | Path | Dataset], task: str | None
) -> tuple[str | Dataset, Protocol]:
    if task is not None and protocol.task != task:
        raise UsageError(f"{protocol.ref} is a protocol of task {protocol.task}, not {task}")
    given = {_name(d): d for d in datasets}
    if protocol.dataset == ANY:
        if len(datasets) != 1:
            raise UsageError("this protocol serves any dataset: name one", where=protocol.ref,
                             fix=f"--protocol {protocol.name} --dataset folder --root DIR")  # fmt: skip
        (only,) = datasets
        return str(only) if isinstance(only, Path) else only, protocol
    if datasets and protocol.dataset not in given:
        raise UsageError(f"{protocol.ref} belongs to dataset {protocol.dataset}, not {', '.join(given)}",
                         fix=f"leave out --dataset, or: reasonx-eval info {next(iter(given))}")  # fmt: skip
    found = given.get(protocol.dataset)
    return found if isinstance(found, Dataset) else protocol.dataset, protocol


def _name(dataset: str | Path | Dataset) -> str:
    return dataset.info.name if isinstance(dataset, Dataset) else str(dataset)


def _defaults(
    dataset: str | Path | Dataset, task: str | None, model: Model
) -> list[tuple[str | Dataset, Protocol]]:
    name = _name(dataset)
    known = "folder" if described_by_card(name) else name
    found = default_protocols(known, task)
    if not found:
        if not isinstance(dataset, Dataset):
            dataset_class(known)  # an unknown name is the more helpful error
        raise UsageError(f"no default protocol{f' of task {task}' if task else ''}", where=known,
                         fix="reasonx-eval list protocols, then --protocol NAME")  # fmt: skip
    able = [p for p in found if set(model.kinds.get(p.task, ())) & set(p.accepts)]
    if not able:
        model.kind_for(found[0].task, found[0].accepts)  # raises, and names its kinds and the accepted ones
    return [(dataset if isinstance(dataset, Dataset) else name, p) for p in able]


def _open(
    dataset: str | Dataset, protocol: Protocol, root: str | Path | None, split: str | None, options: Mapping[str, Any]
) -> Dataset:
    """The dataset a protocol pins: its split and its choice of files can't be overridden."""
    if protocol.dataset == ANY:
        return dataset if isinstance(dataset, Dataset) else load_dataset(dataset, root, split, options)
    if split not in (None, protocol.split):
        raise UsageError(f"{protocol.ref} is defined on split '{protocol.split}', not '{split}'",
                         fix="reasonx-eval list protocols")  # fmt: skip
    given = dataset.options if isinstance(dataset, Dataset) else options
    clash = [k for k, v in protocol.dataset_options.items() if k in given and given[k] != v]
    if clash:
        raise UsageError(f"{protocol.ref} fixes {clash[0]}={protocol.dataset_options[clash[0]]}",
                         fix="reasonx-eval list protocols")  # fmt: skip
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, root, protocol.split, {**options, **protocol.dataset_options})
    elif dataset.split != protocol.split:
        raise UsageError(f"{protocol.ref} is defined on split '{protocol.split}', not '{dataset.split}'",
                         fix=f'load_dataset("{dataset.info.name}", split="{protocol.split}")')  # fmt: skip
    if protocol.n is not None and len(dataset) != protocol.n:
        raise UsageError(f"{protocol.ref} is defined on {protocol.n} samples, the split has {len(dataset)}")
    return dataset


def _for(protocol: Protocol, model: Model) -> Model:
    """The model, or both of its maps where a protocol asks whether its depth and normals agree."""
    if protocol.target != "agreement":
        return model
    from reasonx_eval.models.adapters.derived import DepthBesideNormals

    return DepthBesideNormals(model)


def _run_name(model: Model, dataset: Dataset, protocol: Protocol) -> str:
    """Generic protocols serve many datasets: the folder says which."""
    return f"{model.info.name}.{dataset.name}" if protocol.dataset == ANY else model.info.name


def _listed(samples: Sequence[str] | None) -> list[str] | None:
    return None if samples is None else [samples] if isinstance(samples, str) else list(samples)


def _passed(**given: Any) -> dict[str, Any]:
    """Arguments as the provenance stores them: named as the options of the command, objects by their names."""
    return {key: _plain(value) for key, value in given.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Protocol):
        return value.ref
    if isinstance(value, Dataset):
        return value.info.name
    if isinstance(value, Mapping):
        return [f"{k}={v}" for k, v in value.items()]
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    return ",".join(value) if isinstance(value, Sequence) else getattr(value, "name", type(value).__name__)
