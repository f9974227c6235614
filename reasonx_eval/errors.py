"""One exception family; every class maps to one exit code.

A message says what, where, the likely cause, and the command that mends it:
``error: nyuv2: sample 0017: median depth is 2431: millimetres? try: reasonx-eval doctor nyuv2 --root DIR``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_REGRESSION = 3
EXIT_NOT_COMPARABLE = 4
EXIT_CANNOT_TELL = 5
EXIT_PARTIAL = 6


class ReasonXError(Exception):
    """Base of all errors that are the user's to mend, printed as one message without a traceback.

    Parameters
    ----------
    what : str
        What is wrong, with the offending value and the likely cause.
    where : str, optional
        Dataset, file, sample or option it was found in; printed first.
    fix : str, optional
        The command or change that mends it; printed after "try:".
    """

    exit_code: ClassVar[int] = EXIT_CRASH

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  try: {self.fix}" if self.fix else head

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments survive pickling between worker processes
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(cls: type[ReasonXError], what: str, where: str | None, fix: str | None) -> ReasonXError:
    return cls(what, where=where, fix=fix)


class UsageError(ReasonXError):
    """A wrong name, flag, option or configuration key."""

    exit_code = EXIT_USAGE


class DataError(ReasonXError):
    """Data that are missing, damaged, or not what their manifest says."""

    exit_code = EXIT_NOT_COMPARABLE


class SampleError(DataError):
    """One sample can't be read, predicted or scored; the run records it and goes on."""


class UndefinedScore(SampleError):
    """Nothing failed, yet this sample has no value (for example no judgement with weight)."""


class NotComparable(ReasonXError):
    """Two things whose protocol, data or model differ; or no baseline to compare with."""

    exit_code = EXIT_NOT_COMPARABLE


class RegressionFound(ReasonXError):
    """A number got worse than a stored or a stated bound."""

    exit_code = EXIT_REGRESSION


class PartialRun(ReasonXError):
    """A run that ended with samples that were not scored."""

    exit_code = EXIT_PARTIAL


def one_line(error: BaseException, most: int = 300) -> str:
    """Class and text of a library's error on one line of at most `most` characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:most]


def unknown(what: str, name: str, known: Iterable[str], *, where: str | None = None) -> UsageError:
    """The error for an unknown name: lists the valid ones and the nearest match."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return UsageError(f"unknown {what} '{name}'{hint} Known: {shown}" if near
                      else f"unknown {what} '{name}'. Known: {shown}", where=where)  # fmt: skip
