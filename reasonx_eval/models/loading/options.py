"""Options of model factories: ``key=value`` strings become the types that a factory's signature states."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from reasonx_eval.errors import UsageError, unknown

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


def parse_options(
    factory: Callable[..., Any], options: Mapping[str, Any], *, where: str, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Options for one call of `factory`, converted to the annotated types (or the type of the default).

    Parameters
    ----------
    factory : class or function that takes keyword options
    options : name -> value; strings are parsed, other values are passed on as they are
    where : shown in errors
    hidden : parameters that are not options (the caller passes them itself)

    Raises
    ------
    UsageError
        An unknown option (with the nearest match), text that is not of the option's type, or a type that can't be
        resolved.
    """
    known = option_parameters(factory, hidden)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in _signature(factory))
    names = _names(factory)
    parsed = {}
    for name, value in options.items():
        if name not in known and (not open_ended or name in hidden):
            raise unknown("option", name, known, where=where)
        if name in known and isinstance(value, str):
            parsed[name] = convert(value, _hint(known[name], names, where), f"option {name}", where)
        else:
            parsed[name] = value
    return parsed


def option_parameters(factory: Callable[..., Any], hidden: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """The parameters of a factory that can be given by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in _signature(factory) if p.kind in named and p.name not in hidden}


def _signature(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return []


def _hint(parameter: inspect.Parameter, names: dict[str, Any], where: str) -> Any:
    """The type of one option: its annotation, the type of its default where there is none, else text.

    One at a time, so that an annotation that can't be resolved spoils no other option.
    """
    empty = inspect.Parameter.empty
    if parameter.annotation is not empty:
        alone = types.SimpleNamespace(__annotations__={"hint": parameter.annotation})
        try:
            return typing.get_type_hints(alone, names)["hint"]
        except Exception as error:  # an annotation may be any expression
            failure = error
    if parameter.default is not empty and parameter.default is not None:
        return type(parameter.default)
    if parameter.annotation is empty:
        return str
    raise UsageError(f"the type of option {parameter.name}, '{parameter.annotation}', can't be resolved: {failure}",
                     where=where, fix="import what it names at run time, not under TYPE_CHECKING alone")  # fmt: skip


def _names(factory: Callable[..., Any]) -> dict[str, Any]:
    """What a factory's annotations may name."""
    target = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    return getattr(target, "__globals__", {})


def convert(value: Any, hint: Any, what: str, where: str) -> Any:
    """One value, parsed from text to the type `hint`; anything that is not text is returned unchanged."""
    if not isinstance(value, str):
        return value
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in args and value.lower() in ("none", "null"):
            return None
        return _first_that_fits(value, [a for a in args if a is not type(None)], what, where)
    if origin is Literal:
        by_text = {str(choice): choice for choice in args}
        if value not in by_text:
            raise unknown(f"value of {what}", value, by_text, where=where)
        return by_text[value]
    if origin in (tuple, list):
        element = args[0] if args else str
        items = [convert(v.strip(), element, what, where) for v in value.split(",")]
        if origin is tuple and args and args[-1] is not Ellipsis and len(items) != len(args):
            raise _bad(value, f"{len(args)} values with commas between them", what, where)
        return origin(items)
    return _scalar(value, hint, what, where)


def _first_that_fits(value: str, hints: list[Any], what: str, where: str) -> Any:
    for hint in hints[:-1]:
        try:
            return convert(value, hint, what, where)
        except UsageError:
            continue
    return convert(value, hints[-1], what, where)


def _scalar(value: str, hint: Any, what: str, where: str) -> Any:
    if hint is bool:
        if value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
        raise _bad(value, "true or false", what, where)
    if hint is int:
        try:
            return int(value)
        except ValueError:
            raise _bad(value, "a whole number", what, where) from None
    if hint is float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _bad(value, "a finite number", what, where)
        return number
    return Path(value) if hint is Path else value


def _bad(value: str, expected: str, what: str, where: str) -> UsageError:
    return UsageError(f"{what} is '{value}'; expected {expected}", where=where)
