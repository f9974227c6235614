"""Tuning of intrinsic predictors on unlabelled photos, rewarded by a judge's answers to relative questions."""

from __future__ import annotations

from reasonx_eval import __version__

__all__ = ["__version__"]
