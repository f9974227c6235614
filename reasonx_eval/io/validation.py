"""Files that a pydantic model describes: what is said of one that does not fit, or is of a newer version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from reasonx_eval.errors import NotComparable

#: place of an error in a document: keys and positions from its top
Place = tuple[int | str, ...]


def explain(
    error: ValidationError, *, most: int | None = None, tables: Mapping[Place, type[BaseModel]] | None = None
) -> str:
    """What does not fit, one after the other in a line: ``depth.crop: Input should be ...; spit: unknown key``.

    Parameters
    ----------
    most : how many are told; None tells all
    tables : place of a part of the document -> its model, whose keys are listed beside an unknown one
    """
    return "; ".join(_line(e["loc"], e["type"], e["msg"], tables or {}) for e in error.errors()[:most])


def _line(place: Place, kind: str, message: str, tables: Mapping[Place, type[BaseModel]]) -> str:
    where = ".".join(map(str, place)) or "file"
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    table = tables.get(place[:-1])
    return f"{where}: unknown key{'' if table is None else near(str(place[-1]), table.model_fields)}"


def near(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest match, and all known names."""
    names = list(known)
    matches = get_close_matches(name, names, n=1, cutoff=0.5)
    return (f"; did you mean '{matches[0]}'?" if matches else ".") + " Known: " + ", ".join(names)


def refuse_newer(document: object, newest: int, where: str) -> None:
    """Refuse a document whose schema number is above the newest that is known here.

    Raises
    ------
    NotComparable
        It is: an older program can't know what its fields mean.
    """
    schema = document.get("schema") if isinstance(document, Mapping) else None
    if isinstance(schema, int) and schema > newest:
        raise NotComparable(f"schema {schema} is newer than this program reads ({newest})", where=where,
                            fix="pip install --upgrade reasonx")  # fmt: skip
