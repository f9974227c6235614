"""Options of factories: ``key=value`` texts become the types that a factory's signature states."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from reasonx_eval.errors import UsageError, unknown

#: pydantic's kind of error -> the form that is expected
_EXPECTED: Final[Mapping[str, str]] = {
    "int_parsing": "a whole number", "int_parsing_size": "a whole number", "float_parsing": "a finite number",
    "finite_number": "a finite number", "bool_parsing": "true or false",
}  # fmt: skip


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
                     where=where, fix="import the names in it at run time, not under TYPE_CHECKING alone")  # fmt: skip


def _names(factory: Callable[..., Any]) -> dict[str, Any]:
    """The names that a factory's annotations may use."""
    target = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    return getattr(target, "__globals__", {})


def convert(text: str, hint: Any, what: str, where: str) -> Any:
    """Text as a value of type `hint`.

    Commas separate the items of a tuple or list, ``none`` is None, a union takes the first of its types that fits. A
    type that has no form as text gets the text.

    Raises
    ------
    UsageError
        Text that is not of this type; names the type.

    Examples
    --------
    >>> convert("0.5, 1", tuple[float, ...], "option std", "net")
    (0.5, 1.0)
    """
    if get_origin(hint) in (Union, types.UnionType):
        members = get_args(hint)
        if type(None) in members and text.lower() in ("none", "null"):
            return None
        *first, last = (m for m in members if m is not type(None))
        for member in first:
            try:
                return convert(text, member, what, where)
            except UsageError:
                continue
        return convert(text, last, what, where)
    if get_origin(hint) is Literal:
        by_text = {str(choice): choice for choice in get_args(hint)}
        if text not in by_text:
            raise unknown(f"value of {what}", text, by_text, where=where)
        return by_text[text]
    several = get_origin(hint) in (tuple, list)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
        return adapter.validate_python([t.strip() for t in text.split(",")] if several else text)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return text
    except ValidationError as error:
        kind = error.errors()[0]["type"]
        expected = _EXPECTED.get(kind, error.errors()[0]["msg"])
        if several and kind in ("missing", "too_long"):
            expected = f"{len(get_args(hint))} values with commas between them"
        raise UsageError(f"{what} is '{text}'; expected {expected}", where=where) from None
