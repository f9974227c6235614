"""The findings of checks, and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from reasonx_eval.errors import EXIT_NOT_COMPARABLE, EXIT_OK

Status: TypeAlias = Literal["ok", "warn", "fail"]
SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    check : the subject: files, split, samples, units, ...
    status : ok, warn (look at it) or fail (the data are wrong)
    message : the finding, with numbers and names
    fix : the command or change that mends it
    """

    check: str
    status: Status
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class Report:
    """All findings about one split.

    n : samples of the split
    checked : ids of the samples that were opened
    """

    dataset: str
    split: str
    root: str | None
    n: int
    checked: Sequence[str] = field(repr=False)
    findings: Sequence[Finding]

    @property
    def status(self) -> Status:
        """The worst status of all findings."""
        states = {f.status for f in self.findings}
        return "fail" if "fail" in states else "warn" if "warn" in states else "ok"

    @property
    def exit_code(self) -> int:
        """4 if anything failed, else 0."""
        return EXIT_NOT_COMPARABLE if self.status == "fail" else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "split": self.split,
            "root": self.root,
            "status": self.status,
            "n": self.n,
            "checked": list(self.checked),
            "findings": [asdict(f) for f in self.findings],
        }


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
