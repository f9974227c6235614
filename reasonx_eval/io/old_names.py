"""Fields that stored files had under other names: the one table that whatever reads such a file looks into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: kind of file -> old name of a field -> today's name
OLD_NAMES: Final[Mapping[str, Mapping[str, str]]] = {}


def current_names(kind: str, document: Any) -> Any:
    """A document with today's names of its fields, at any depth; one that has no old name is given back as it is.

    Examples
    --------
    >>> current_names("result", {"status": "complete"})
    {'status': 'complete'}
    """
    names = OLD_NAMES.get(kind)
    return _renamed(document, names) if names else document


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(inner, names) for key, inner in value.items()}
    return [_renamed(inner, names) for inner in value] if isinstance(value, list) else value
