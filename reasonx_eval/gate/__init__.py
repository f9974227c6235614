"""A regression gate: paired non-inferiority against a stored baseline.

The room is called by its name: ``reasonx_eval.gate(runs, baseline=..., policy=...)`` is `reasonx_eval.gate.gate.gate`,
and what the command ``reasonx-eval gate`` calls.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasonx_eval.gate.gate import GateResult


class _CallableRoom(ModuleType):
    """A function and the package that holds its code have one name, so the package is what is called."""

    def __call__(self, runs: Any, **options: Any) -> GateResult:
        """As `reasonx_eval.gate.gate.gate`."""
        from reasonx_eval.gate.gate import gate

        return gate(runs, **options)


sys.modules[__name__].__class__ = _CallableRoom
