"""Code named in text, imported on first use: ``module:attribute``, and entry points that other packages installed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from reasonx_eval.errors import ReasonXError, UsageError


def imported(target: str) -> Any:
    """The object behind ``module:attribute`` of this package.

    Examples
    --------
    >>> imported("fractions:Fraction")(1, 2)
    Fraction(1, 2)
    """
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of ``reasonx_eval.models`` or ``reasonx_eval.datasets`` by name."""
    return {e.name: e for e in entry_points(group=group)}


def load_plugin(what: str, entry: EntryPoint) -> Any:
    """The object of an entry point.

    Raises
    ------
    UsageError
        It can't be imported; says why.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise UsageError(f"the plug-in can't be imported: {type(error).__name__}: {error}",
                         where=f"{what} {entry.name} ({entry.value})") from error  # fmt: skip


def describe_failure(error: Exception) -> str:
    """One line for `list`: why a plug-in is not available."""
    return error.what if isinstance(error, ReasonXError) else f"{type(error).__name__}: {error}"
