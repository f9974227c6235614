"""Signs that a run hacks its reward instead of earning it, each against the base and with a limit of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reasonx_eval.metrics.table import metric_info
from reasonx_ft.tuning.check import Check
from reasonx_ft.tuning.config import Guard


class Guardrails:
    """Watches one check after the other; its state goes into checkpoints.

    Attributes
    ----------
    base : the check before the first step
    best : (step, held-out agreement) of the best check that nothing was wrong with; (0, -inf) before any
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.base: Check | None = None
        self.best: tuple[int, float] = (0, -math.inf)
        self._low = 0
        self._least_away = math.inf

    def look(self, check: Check) -> tuple[str | None, bool]:
        """Take a check in: (why the run has to stop, or None; whether it is the best so far)."""
        if self.base is None:
            self.base = check
            self.best = (check.step, _known(check.mean_agreement))
            return None, True
        wrong = self._contrast(check) or self._away(check) or self._canaries(check)
        if wrong is not None:
            return wrong, False
        now = _known(check.mean_agreement)
        top = max(self.best[1], _known(self.base.mean_agreement))
        self._low = self._low + 1 if now < top - self._guard.agreement_drop else 0
        if self._low >= self._guard.patience:
            return (f"held-out agreement fell to {now:.4f}, more than {self._guard.agreement_drop:g} below {top:.4f} "
                    f"at {self._low} checks in a row (guard.agreement_drop, guard.patience)"), False  # fmt: skip
        if now > self.best[1]:
            self.best = (check.step, now)
            return None, True
        return None, False

    def _contrast(self, check: Check) -> str | None:
        assert self.base is not None
        low, high = self._guard.flatness
        for what, now, before in (("spread", check.spread, self.base.spread), ("edges", check.edges, self.base.edges)):
            for modality, value in now.items():
                quotient = value / before[modality] if before[modality] > 0 else math.nan
                if quotient < low or quotient > high:
                    how = "flat" if quotient < low else "overdrawn"
                    return (f"maps of {modality} became {how}: {what} of the codes is {quotient:.2f} times the base's, "
                            f"allowed {low:g} to {high:g} (guard.flatness)")  # fmt: skip
        return None

    def _away(self, check: Check) -> str | None:
        assert self.base is not None
        # a base that is bad at it may have many, and a better network that turns normals over again has fewer still
        least = min(self.base.away, self._least_away)
        most = least + self._guard.away
        if check.away > most:
            return (f"{check.away:.1%} of the normals point away from the camera, {least:.1%} at an earlier check, "
                    f"allowed {most:.1%} (guard.away)")  # fmt: skip
        self._least_away = min(least, check.away)
        return None

    def _canaries(self, check: Check) -> str | None:
        assert self.base is not None
        for canary in self._guard.canaries:
            value, before = check.canaries.get(canary.label), self.base.canaries.get(canary.label, math.nan)
            if value is None or math.isnan(before):
                continue
            worse = before / value if metric_info(canary.metric).higher_is_better else value / before
            if math.isnan(worse) or worse > canary.most:
                return (f"{canary.label}, which is not rewarded, went from {before:.4f} to {value:.4f} "
                        f"(guard.canaries, most {canary.most:g})\n  {check.signatures[canary.label]}")  # fmt: skip
        return None

    def state_dict(self) -> dict[str, Any]:
        base = None if self.base is None else vars(self.base)
        return {"base": base, "best": list(self.best), "low": self._low, "least_away": self._least_away}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.base = None if state["base"] is None else Check(**state["base"])
        self.best = (int(state["best"][0]), float(state["best"][1]))
        self._low = int(state["low"])
        self._least_away = float(state.get("least_away", math.inf))


def _known(value: float) -> float:
    """Without anything held out, nothing is better than anything."""
    return -math.inf if math.isnan(value) else value
