"""Names to classes, imported on first use; plug-ins through entry points; did-you-mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from reasonx_eval import datasets
from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.paths import dataset_root
from reasonx_eval.io.plugins import imported, load_plugin, plugins

if TYPE_CHECKING:
    from reasonx_eval.datasets.base import Dataset
    from reasonx_eval.models.base import Model

#: modules of datasets/ that are not themselves a data set
_BESIDE = ("base", "examples", "splits")
#: dataset name -> "module:class". A module of datasets/ is found by its name, with - for _, and calls its class
#: DATASET; only the rendered scenes share one
DATASETS: Mapping[str, str] = {
    **{module.name.replace("_", "-"): f"{datasets.__name__}.{module.name}:DATASET"
       for module in iter_modules(datasets.__path__) if not module.ispkg and module.name not in _BESIDE},
    "scenes-synthetic": "reasonx_eval.datasets.scenes.dataset:ScenesSynthetic",
    "scenes-wild": "reasonx_eval.datasets.scenes.dataset:ScenesWild",
    "scenes-broad": "reasonx_eval.datasets.scenes.dataset:ScenesBroad",
}  # fmt: skip


def resolve(group: str, table: Mapping[str, str], what: str, name: str) -> Any:
    """The object behind a registered or plugged-in name.

    Raises
    ------
    UsageError
        Unknown name (with the nearest match), or a plug-in that can't be imported.
    """
    if name in table:
        return imported(table[name])
    extra = plugins(group)
    if name in extra:
        return load_plugin(what, extra[name])
    raise unknown(what, name, [*table, *extra])


def dataset_class(name: str) -> type[Dataset]:
    """The class behind a dataset name.

    Raises
    ------
    UsageError
        Unknown name, or a plug-in that can't be imported or is no `Dataset`.
    """
    from reasonx_eval.datasets.base import Dataset

    found = resolve("reasonx_eval.datasets", DATASETS, "dataset", name)
    if not (isinstance(found, type) and issubclass(found, Dataset)):
        raise UsageError("the plug-in is not a class derived from reasonx_eval.datasets.base.Dataset",
                         where=f"dataset {name}")  # fmt: skip
    return found


def get_dataset(
    name: str,
    root: str | Path | None = None,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Open a dataset by name.

    Parameters
    ----------
    name : a registered or plugged-in name, or the path of a folder or TOML file for dataset ``folder``
    root : where its files lie; None looks in the environment and the user's file (config.dataset_root)
    split : None takes the first split the dataset lists
    options : dataset options; see ``reasonx-eval info NAME``

    Raises
    ------
    UsageError, DataError
        Unknown name, split or option; no folder named; a folder that is not this dataset.
    """
    if name not in DATASETS and (name.endswith(".toml") or (Path(name) / "dataset.toml").is_file()):
        name, root = "folder", root if root is not None else name
    cls = dataset_class(name)
    where = dataset_root(name, root)
    return cls(where, split or next(iter(cls.info.splits)), options)


def get_model(spec: str, **options: Any) -> Model:
    """Load a model by name, folder, file or plug-in; see models.load.load_model."""
    from reasonx_eval.models.loading.load import load_model

    return load_model(spec, **options)
