"""Data sets by name, and protocols and models beside them: the meaning of a word after --dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

from reasonx_eval import datasets
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import UsageError
from reasonx_eval.io.paths import dataset_root
from reasonx_eval.io.plugins import Registry

#: modules of datasets/ that are not themselves a data set
_BESIDE = ("base", "examples", "splits")
#: A module of datasets/ is found by its name, with - for _, and calls its class DATASET; only the rendered scenes
#: share one. Other packages add entry points.
DATASETS: Final = Registry("dataset", {
    **{module.name.replace("_", "-"): f"{datasets.__name__}.{module.name}:DATASET"
       for module in iter_modules(datasets.__path__) if not module.ispkg and module.name not in _BESIDE},
    "scenes-synthetic": "reasonx_eval.datasets.scenes.dataset:ScenesSynthetic",
    "scenes-wild": "reasonx_eval.datasets.scenes.dataset:ScenesWild",
    "scenes-broad": "reasonx_eval.datasets.scenes.dataset:ScenesBroad",
}, "reasonx_eval.datasets")  # fmt: skip


def dataset_class(name: str) -> type[Dataset]:
    """The class behind a dataset name.

    Raises
    ------
    UsageError
        Unknown name, or a plug-in that can't be imported or is no `Dataset`.
    """
    found = DATASETS.load(name)
    if not (isinstance(found, type) and issubclass(found, Dataset)):
        raise UsageError("the plug-in is not a class derived from reasonx_eval.datasets.base.Dataset",
                         where=f"dataset {name}")  # fmt: skip
    return found


def load_dataset(
    name: str | Path,
    root: str | Path | None = None,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Open a dataset by name; no sample is read yet.

    Parameters
    ----------
    name : a registered or plugged-in name, or the path of a folder with a dataset.toml, or of that file
    root : where its files lie; None looks in the environment and the user's file (see io/paths)
    split : None takes the first split the dataset lists
    options : dataset options; see ``reasonx-eval info NAME``

    Raises
    ------
    UsageError, DataError
        Unknown name, split or option; no folder named; a folder that is not this dataset.

    Examples
    --------
    >>> scenes = load_dataset("scenes-wild", split="val")
    >>> len(scenes), scenes.ids[0]
    (100, 'wild/val/00000')
    """
    name = str(name)
    if described_by_card(name):
        name, root = "folder", root if root is not None else name
    cls = dataset_class(name)
    return cls(dataset_root(name, root), split or next(iter(cls.info.splits)), options)


def described_by_card(name: str) -> bool:
    """Whether a dataset's name is the path of a dataset.toml, or of a folder that has one."""
    return name not in DATASETS and (name.endswith(".toml") or (Path(name) / "dataset.toml").is_file())
