"""Outcomes as a table and as JSON: one row for each oracle, expectation and kind of ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reasonx_eval import __version__
from reasonx_eval.selftest.checks import CHECKS
from reasonx_eval.selftest.engine import ITSELF, OPENED, READ, REFUSED, CheckResult

_GROUPS: Final = ("depth", "normals", "judgements", "albedo", "irradiance", "pairs", "agreement")


@dataclass(frozen=True)
class CheckRow:
    """Outcomes of one check on the protocols of one kind of ground truth.

    seen : the worst number of all that hold, None where there is none; shown : the same as text
    """

    oracle: str
    target: str
    protocols: int
    expected: str
    seen: float | None
    shown: str
    checks: int
    failed: int

    @property
    def ok(self) -> bool:
        return self.failed == 0

    @property
    def cells(self) -> list[str]:
        verdict = "ok" if self.ok else "FAIL"
        return [self.oracle, f"{self.target} ({self.protocols})", self.expected, self.shown, str(self.checks), verdict]


COLUMNS: Final = ("prediction", "ground truth (protocols)", "expected", "worst seen", "checks", "outcome")


def summarise(outcomes: Sequence[CheckResult]) -> list[CheckRow]:
    """Rows in the order of the table of checks, then of the kinds of ground truth."""
    grouped: dict[tuple[str, str, str], list[CheckResult]] = {}
    for outcome in outcomes:
        key = (outcome.check.oracle, outcome.check.expected, outcome.protocol.target)
        grouped.setdefault(key, []).append(outcome)
    order = {(c.oracle, c.expected): k for k, c in enumerate((OPENED, READ, ITSELF, REFUSED, *CHECKS))}
    keys = sorted(grouped, key=lambda key: (order[key[:2]], _GROUPS.index(key[2])))
    return [_row(grouped[key]) for key in keys]


def _row(found: Sequence[CheckResult]) -> CheckRow:
    check = found[0].check
    failed = sum(o.error is not None for o in found)
    numbers = [o.seen for o in found if o.error is None and o.seen is not None]
    seen = (min if check.smallest else max)(numbers) if numbers else None
    shown = check.expected if seen is None else "exact" if seen == 0 else check.shown.format(seen)
    return CheckRow(
        oracle=check.oracle, target=found[0].protocol.target, protocols=len({o.protocol.ref for o in found}),
        expected=check.expected, seen=seen, shown=f"{failed} of {len(found)} fail" if failed else shown,
        checks=len(found), failed=failed,
    )  # fmt: skip


def failures(outcomes: Sequence[CheckResult]) -> list[str]:
    """One line a failure: what, where, and what was seen instead."""
    return [f"{o.check.oracle} ({o.check.expected}): {o.protocol.ref} on {o.source}"
            f"{'' if o.kind is None else f', {o.kind}'}: {o.error}"
            for o in outcomes if o.error is not None]  # fmt: skip


def as_json(outcomes: Sequence[CheckResult]) -> dict[str, Any]:
    rows = summarise(outcomes)
    return {
        "schema": 1,
        "reasonx": __version__,
        "ok": all(r.ok for r in rows),
        "protocols": len({o.protocol.ref for o in outcomes}),
        "checks": len(outcomes),
        "failed": sum(r.failed for r in rows),
        "rows": [{"prediction": r.oracle, "target": r.target, "protocols": r.protocols, "expected": r.expected,
                  "seen": r.seen, "checks": r.checks, "failed": r.failed} for r in rows],
        "failures": [{"prediction": o.check.oracle, "expected": o.check.expected, "protocol": o.protocol.ref,
                      "source": o.source, "kind": o.kind, "reason": o.error}
                     for o in outcomes if o.error is not None],
    }  # fmt: skip
