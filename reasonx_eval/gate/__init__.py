"""A regression gate: paired non-inferiority against a stored baseline.

The room is called by its name: ``reasonx_eval.gate(runs, baseline=..., policy=...)`` is ``reasonx-eval gate``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reasonx_eval.gate.gate import GateResult, Inconclusive
    from reasonx_eval.io.results import Result


class _CallableRoom(ModuleType):
    """A function and the package that holds its code have one name, so the package is what is called."""

    def __call__(
        self, runs: str | Path | Result | Sequence[str | Path | Result], *, baseline: str | Path, policy: str | Path,
        inconclusive: Inconclusive = "report", seed: int = 0,
    ) -> GateResult:  # fmt: skip
        """Hold runs against a stored baseline, with the margins of a policy.

        Parameters
        ----------
        runs : one or several: run folders, folders that hold many, or results that lie in one
        baseline, policy : files
        inconclusive : "report", "fail" or "pass": what "cannot tell" comes to
        seed : of the bootstrap and of random permutations

        Returns
        -------
        GateResult
            ``outcome`` is "pass", "regressed", "cannot tell" or "not comparable".

        Raises
        ------
        UsageError, NotComparable, DataError
            As ``reasonx_eval.gate.gate.run_gate``.
        """
        from reasonx_eval.gate.gate import run_gate
        from reasonx_eval.run.compare import folder_of

        several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
        return run_gate([folder_of(run) for run in several], Path(baseline), Path(policy), inconclusive=inconclusive,
                        seed=seed)  # fmt: skip


sys.modules[__name__].__class__ = _CallableRoom
