"""Comparable evaluation of models that split a photo into albedo, irradiance, depth and surface normals.

Importing this package imports neither torch nor matplotlib; the public names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Sample": "reasonx_eval.types",
    "Prediction": "reasonx_eval.types",
    "Record": "reasonx_eval.types",
    "DepthTarget": "reasonx_eval.types",
    "NormalTarget": "reasonx_eval.types",
    "JudgementTarget": "reasonx_eval.types",
    "MapTarget": "reasonx_eval.types",
    "PairTarget": "reasonx_eval.types",
    "Alignment": "reasonx_eval.types",
    "Protocol": "reasonx_eval.protocols.protocol",
    "get_protocol": "reasonx_eval.protocols.protocol",
    "ReasonXError": "reasonx_eval.errors",
    "score_sample": "reasonx_eval.scoring",
    "run": "reasonx_eval.run.loop",
    "load_result": "reasonx_eval.io.results",
    "get_dataset": "reasonx_eval.registry",
    "get_model": "reasonx_eval.registry",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'reasonx_eval' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
