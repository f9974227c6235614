"""Code named in text, imported on first use: ``module:attribute``, and entry points that other packages installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from reasonx_eval.errors import ReasonXError, UsageError, unknown


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


class Registry:
    """Objects by name, imported on first use: those of this package, then those that others installed.

    Parameters
    ----------
    what : their name in messages: "dataset"
    entries : name -> "module:attribute"
    group : of entry points, where other packages may add some

    Examples
    --------
    >>> numbers = Registry("number", {"fraction": "fractions:Fraction"})
    >>> numbers.load("fraction")(1, 2)
    Fraction(1, 2)
    >>> numbers.load("fractoin")
    Traceback (most recent call last):
    reasonx_eval.errors.UsageError: unknown number 'fractoin'; did you mean 'fraction'? Known: fraction
    """

    def __init__(self, what: str, entries: Mapping[str, str], group: str | None = None) -> None:
        self.what, self.entries, self._group = what, entries, group

    def __iter__(self) -> Iterator[str]:
        return iter({**self.entries, **self._plugins()})

    def __contains__(self, name: str) -> bool:
        return name in self.entries or name in self._plugins()

    def load(self, name: str) -> Any:
        """The object of a name.

        Raises
        ------
        UsageError
            Unknown name (with the nearest match), or a plug-in that can't be imported.
        """
        if name in self.entries:
            return imported(self.entries[name])
        extra = self._plugins()
        if name in extra:
            return load_plugin(self.what, extra[name])
        raise unknown(self.what, name, list(self))

    def _plugins(self) -> dict[str, EntryPoint]:
        return {} if self._group is None else plugins(self._group)


def describe_failure(error: Exception) -> str:
    """One line for `list`: why a plug-in is not available."""
    return error.what if isinstance(error, ReasonXError) else f"{type(error).__name__}: {error}"
