"""JSON and TOML documents: read in one place, within limits, with one clear error.

A byte-order mark is skipped. Nesting, size and the length of integers are limited, so that no document of a few
kilobytes takes gigabytes or ends the process.
"""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from reasonx_eval.errors import DataError, ReasonXError, UsageError
from reasonx_eval.io.limits import check_limit
from reasonx_eval.io.old_names import current_names
from reasonx_eval.io.validation import explain, refuse_newer

M = TypeVar("M", bound=BaseModel)

_PART: Final = r"""(?:(?<![\w-])[\w-]+|"[^"\n]*"|'[^'\n]*')"""
#: a key of several parts up to its last dot; possessive, so that a long text is looked through once
_DOTTED: Final = re.compile(rf"(?:{_PART}[ \t]*\.[ \t]*)++")
_END_OF_KEY: Final = re.compile(rf"{_PART}[ \t]*[=\]]")
#: tomllib takes minutes for a key of thousands of parts
_MOST_PARTS: Final = 64


def parse_json(data: bytes | str, where: str, *, error: type[ReasonXError] = DataError, fix: str | None = None) -> Any:
    """The value of a JSON text.

    Parameters
    ----------
    data : UTF-8, with or without a byte-order mark, or text
    where : file, or file and line
    error, fix : class and advice of the error

    Raises
    ------
    ReasonXError
        `error`: not UTF-8, not JSON, nested too deep, an integer with too many digits, or too large.

    Examples
    --------
    >>> parse_json(b'{"n": 654}', "example.json")
    {'n': 654}
    """
    check_limit("JSON_BYTES", len(data), f"{len(data):,} bytes of JSON", where=where, error=error)
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
        value = json.loads(text)
    except RecursionError:
        raise error("not readable JSON: arrays or objects are nested too deep", where=where, fix=fix) from None
    except ValueError as problem:
        raise error(f"not readable JSON: {_short(problem)}", where=where, fix=fix) from None
    depth = _depth(value)
    check_limit("JSON_DEPTH", depth, f"not readable JSON: nested {depth} deep", where=where, error=error)
    return value


def _short(problem: ValueError) -> str:
    text = " ".join(str(problem).split())
    return "an integer has thousands of digits" if "int_max_str_digits" in text else text[:200]


def _depth(value: Any) -> int:
    """Levels of arrays and objects; without recursion."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return depth


def read_json(
    path: Path | Traversable, *, error: type[ReasonXError] = DataError, fix: str | None = None
) -> Any:
    """The value of a JSON file.

    Raises
    ------
    FileNotFoundError
        There is no such file; the caller says which one is missing.
    ReasonXError
        `error`, as `parse_json`; or the file can't be read.
    """
    return parse_json(_read(path, "JSON_BYTES", error), str(path), error=error, fix=fix)


def read_model(
    path: Path,
    model: type[M],
    what: str,
    *,
    kind: str | None = None,
    newest: int | None = None,
    error: type[ReasonXError] = DataError,
    fix: str | None = None,
) -> M:
    """A JSON file as a pydantic model.

    Parameters
    ----------
    model : its class
    what : its name in messages: "result", "baseline"
    kind : of `OLD_NAMES`, for files whose fields had other names
    newest : the newest schema number that is known here
    error, fix : class and advice of the error

    Raises
    ------
    FileNotFoundError
        As `read_json`.
    NotComparable
        Written by a newer version of the program.
    ReasonXError
        `error`: not JSON, or not such a document; names each field.
    """
    try:
        raw = read_json(path, error=error, fix=fix)
    except ReasonXError as problem:
        raise error(f"not a {what}: {problem.what}", where=str(path), fix=problem.fix) from None
    if newest is not None:
        refuse_newer(raw, newest, str(path))
    try:
        return model.model_validate(raw if kind is None else current_names(kind, raw))
    except ValidationError as problem:
        raise error(f"not a {what}: {explain(problem, most=3)}", where=str(path), fix=fix) from None


def parse_toml(data: bytes | str, where: str, *, error: type[ReasonXError] = UsageError) -> dict[str, Any]:
    """The table of a TOML text.

    Raises
    ------
    ReasonXError
        `error`: not UTF-8, not TOML, nested too deep, a key of too many parts, or too large.

    Examples
    --------
    >>> parse_toml('name = "nyuv2"', "example.toml")
    {'name': 'nyuv2'}
    """
    check_limit("TOML_BYTES", len(data), f"{len(data):,} bytes of TOML", where=where, error=error)
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
        for found in _DOTTED.finditer(text):
            if found[0].count(".") >= _MOST_PARTS and _END_OF_KEY.match(text, found.end()):
                raise error(f"not valid TOML: a key of more than {_MOST_PARTS} parts", where=where)
        return tomllib.loads(text)
    except RecursionError:
        raise error("not valid TOML: nested too deep", where=where) from None
    except ValueError as problem:
        raise error(f"not valid TOML: {_short(problem)}", where=where) from None


def read_toml(path: Path | Traversable, *, error: type[ReasonXError] = UsageError) -> dict[str, Any]:
    """The table of a TOML file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ReasonXError
        `error`, as `parse_toml`; or the file can't be read.
    """
    return parse_toml(_read(path, "TOML_BYTES", error), str(path), error=error)


def _read(path: Path | Traversable, limit: str, error: type[ReasonXError]) -> bytes:
    try:
        if isinstance(path, Path):
            size = path.stat().st_size
            check_limit(limit, size, f"{size:,} bytes", where=str(path), error=error)
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"can't be read: {problem.strerror or problem}", where=str(path)) from None
