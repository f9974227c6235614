"""Text from the command line becomes the types of a factory's signature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.options import parse_options

if TYPE_CHECKING:
    from fractions import Fraction


def factory(
    where: Path,
    *,
    n: int = 1,
    x: float = 1.0,
    flag: bool = False,
    mode: Literal["a", "b"] = "a",
    size: int | Literal["native"] = "native",
    maybe: float | None = None,
    pair: tuple[float, float] = (0.0, 0.0),
    names: tuple[str, ...] = (),
    text: str = "",
    file: Path | None = None,
) -> None: ...


def untyped(scale=2.0, count=3, on=True, label="x", thing=None) -> None:  # type: ignore[no-untyped-def]  # on purpose
    ...


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "12", 12), ("x", "1e-3", 1e-3), ("x", "-2", -2.0), ("flag", "true", True), ("flag", "No", False),
        ("mode", "b", "b"), ("size", "64", 64), ("size", "native", "native"), ("maybe", "none", None),
        ("maybe", "0.5", 0.5), ("pair", "1, 2.5", (1.0, 2.5)), ("names", "a,b", ("a", "b")), ("text", "12", "12"),
        ("file", "a/b.json", Path("a/b.json")),
    ],
)  # fmt: skip
def test_types(name: str, text: str, value: Any) -> None:
    parsed = parse_options(factory, {name: text}, where="m", hidden=("where",))[name]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n", "1.5", "option n is '1.5'; expected a whole number"),
        ("x", "fast", "expected a finite number"),
        ("x", "nan", "expected a finite number"),
        ("flag", "maybe", "expected true or false"),
        ("mode", "c", "unknown value of option mode 'c'. Known: a, b"),
        ("pair", "1", "expected 2 values"),
        ("where", "x", "unknown option 'where'"),
        ("nn", "1", "unknown option 'nn'; did you mean 'n'"),
    ],
)
def test_errors_say_what_is_expected(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(factory, {name: text}, where="m", hidden=("where",))
    assert message in str(caught.value)
    assert str(caught.value).startswith("m: ")


def test_types_of_defaults_where_nothing_is_annotated() -> None:
    options = {"scale": "1", "count": "2", "on": "false", "label": "3", "thing": "4"}
    assert parse_options(untyped, options, where="m") == {"scale": 1.0, "count": 2, "on": False, "label": "3",
                                                          "thing": "4"}  # fmt: skip


def test_values_that_are_no_text_pass() -> None:
    assert parse_options(factory, {"n": 3, "pair": (1.0, 2.0)}, where="m") == {"n": 3, "pair": (1.0, 2.0)}


def test_open_ended_factories_take_anything() -> None:
    def free(**options: Any) -> None: ...

    assert parse_options(free, {"anything": "1"}, where="m") == {"anything": "1"}


def partly(*, n: int = 1, maybe: int | None = None, share: Fraction | None = None, known: Fraction = 1.5) -> None:  # type: ignore[assignment]  # the default's type is what counts
    ...


class Partly:
    def __init__(self, *, n: int = 1, maybe: int | None = None, share: Fraction | None = None) -> None: ...


@pytest.mark.parametrize("made_by", [partly, Partly])
def test_a_type_that_only_checkers_import_spoils_no_other_option(made_by: Any) -> None:
    given = {"n": "2", "maybe": "3", "share": 0.5}
    assert parse_options(made_by, given, where="m") == {"n": 2, "maybe": 3, "share": 0.5}
    with pytest.raises(UsageError, match="TYPE_CHECKING") as caught:
        parse_options(made_by, {"share": "0.5"}, where="m")
    assert "the type of option share, 'Fraction | None', can't be resolved: name 'Fraction'" in str(caught.value)
    assert parse_options(partly, {"known": "2.5"}, where="m") == {"known": 2.5}
