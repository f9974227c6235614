"""Tuning of intrinsic predictors on unlabelled photos, rewarded by a judge's answers to relative questions.

Importing this package imports no torch; the public names load on first use:

annotate : ask a judge about pairs of points of photos, and keep its answers
tune : make a predictor better on photos that nobody labelled, by a judge's stored answers
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from reasonx_eval import __version__

_PUBLIC = {"annotate": "reasonx_ft.judges.api", "tune": "reasonx_ft.tuning.api"}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'reasonx_ft' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
