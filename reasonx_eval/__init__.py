"""Comparable numbers for models that split a photo into albedo, irradiance, depth and surface normals.

>>> import reasonx_eval as rx
>>> result = rx.evaluate(model="plane-depth", dataset="scenes-wild", limit=2, out=tmp)
>>> sorted(result.aggregate)[:3]
['abs_rel', 'delta1', 'delta2']

    evaluate(model=, dataset=, protocol=, ...)      run a model, resume, give a Result
    score(predictions, kind=, dataset=, ...)        the same for saved predictions: a folder, or id -> array
    compare(base, tuned, ...)                       runs held against a base, paired by sample
    gate(runs, baseline=, policy=)                  runs held against a stored baseline
    load_result(folder)   load_model(name)   load_dataset(name, root=)   get_protocol(name)
    metrics.abs_rel, metrics.angular_error, metrics.whdr, metrics.depth_metrics, ...

A model is a name (``reasonx-eval list models``), a hub id, a file, a `Model`, or an object with ``kind`` and
``predict(images)``; a dataset is a name, the folder of a dataset.toml, or a `Dataset`. Each function has a help of its
own: ``help(rx.evaluate)``. Importing this package imports neither torch nor matplotlib; names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasonx_eval.datasets.base import Dataset as Dataset
    from reasonx_eval.errors import ReasonXError as ReasonXError
    from reasonx_eval.io.results import Result as Result
    from reasonx_eval.io.results import load_result as load_result
    from reasonx_eval.models.base import Model as Model
    from reasonx_eval.models.loading.load import load_model as load_model
    from reasonx_eval.protocols.protocol import Protocol as Protocol
    from reasonx_eval.protocols.protocol import get_protocol as get_protocol
    from reasonx_eval.registry import load_dataset as load_dataset
    from reasonx_eval.run.evaluate import evaluate as evaluate
    from reasonx_eval.run.evaluate import score as score
    from reasonx_eval.statistics.comparison import compare as compare
    from reasonx_eval.types import Prediction as Prediction
    from reasonx_eval.types import Sample as Sample

__version__ = "0.1.0"

_PUBLIC = {
    "evaluate": "reasonx_eval.run.evaluate",
    "score": "reasonx_eval.run.evaluate",
    "compare": "reasonx_eval.statistics.comparison",
    "load_result": "reasonx_eval.io.results",
    "load_model": "reasonx_eval.models.loading.load",
    "load_dataset": "reasonx_eval.registry",
    "get_protocol": "reasonx_eval.protocols.protocol",
    "Dataset": "reasonx_eval.datasets.base",
    "Model": "reasonx_eval.models.base",
    "Prediction": "reasonx_eval.types",
    "Protocol": "reasonx_eval.protocols.protocol",
    "ReasonXError": "reasonx_eval.errors",
    "Result": "reasonx_eval.io.results",
    "Sample": "reasonx_eval.types",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in ("gate", "metrics"):  # rooms that are called or read by their own name
        return import_module(f"reasonx_eval.{name}")
    raise AttributeError(f"module 'reasonx_eval' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(["__version__", "gate", "metrics", *_PUBLIC])
