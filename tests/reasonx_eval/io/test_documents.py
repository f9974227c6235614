"""Documents that others wrote: within limits, and one clear error for each kind of damage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from reasonx_eval.errors import DataError, NotComparable, SampleError, UsageError
from reasonx_eval.io.documents import parse_json, parse_toml, read_json, read_model, read_toml
from reasonx_eval.io.limits import LIMITS, check_limit, limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 10**6 + b"]" * 10**6, "nested too deep"),
        (b"[" * 300 + b"]" * 300, "nested 300 deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested 200 deep"),
        (b"9" * 10**5, "thousands of digits"),
        (b"-" + b"9" * 10**5, "thousands of digits"),
        (b'{"a": 1', "not readable JSON"),
        (b"", "not readable JSON"),
        (b"\xff\xfe{}", "not readable JSON"),
    ],
)
def test_damaged_json_is_one_clear_error(text: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        parse_json(text, "a/b.json", fix="write it again")
    assert "a/b.json" in str(caught.value)


def test_json_passes_what_is_sound() -> None:
    value = {"a": [1, 2.5, None, "é\ud83d"], "b": {"c": [[[]]]}}
    assert parse_json(json.dumps(value).encode(), "x") == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode(), "x") == value
    assert parse_json("\ufeff" + json.dumps(value), "x") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 10**5 + "]" * 10**5, "nested too deep"),
        (".".join(["a"] * 100_000) + " = 1", "more than 64 parts"),
        ("x = {" + " . ".join(['"a"'] * 50_000) + " = 1}", "more than 64 parts"),
        ("[" + ".".join(["a"] * 50_000) + "]", "more than 64 parts"),
        ("a = " + "9" * 10**5, "thousands of digits"),
        ("a = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
    ],
)
def test_damaged_toml_is_one_clear_error_at_once(text: str | bytes, said: str) -> None:
    started = time.process_time()
    with pytest.raises(UsageError, match=said):
        parse_toml(text, "x.toml")
    assert time.process_time() - started < 5  # tomllib takes minutes for a key of many parts


def test_toml_passes_what_is_sound() -> None:
    text = '"a.b".c = "1.2.3"\n[roots]\nx.y = """\n' + "word. " * 200 + '"""\n' + "z = '" + "a" * 10**5 + "'\n"
    found = parse_toml("\ufeff" + text, "x")
    assert found["a.b"] == {"c": "1.2.3"}
    assert len(found["roots"]["z"]) == 10**5


def test_files_that_are_missing_or_unreadable(tmp_path: Path) -> None:
    for read in (read_json, read_toml):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")
        with pytest.raises((DataError, UsageError), match="can't be read"):
            read(tmp_path)


def test_a_file_above_the_limit_is_refused_with_the_setting_that_raises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.json"
    path.write_text("[" + "1," * 1000 + "1]")
    monkeypatch.setenv("REASONX_MAX_JSON_BYTES", "1e3")
    with pytest.raises(DataError, match="REASONX_MAX_JSON_BYTES=2003"):
        read_json(path)
    monkeypatch.setenv("REASONX_MAX_JSON_BYTES", "2003")
    assert len(read_json(path)) == 1001
    monkeypatch.setenv("REASONX_MAX_JSON_BYTES", "many")
    with pytest.raises(UsageError, match="not a number"):
        read_json(path)


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_holds_at_its_value(name: str) -> None:
    check_limit(name, limit(name), "just right")
    with pytest.raises(SampleError, match=f"REASONX_MAX_{name}={limit(name) + 1}"):
        check_limit(name, limit(name) + 1, "one more")


class _Small(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_: int = 1
    n: int


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"n": 3}')
    assert read_model(path, _Small, "thing").n == 3
    path.write_text('{"n": "three", "m": 1}')
    with pytest.raises(DataError, match=r"not a thing: n: .*; m: unknown key"):
        read_model(path, _Small, "thing")
    path.write_text('{"schema": 2, "k": 1}')
    with pytest.raises(NotComparable, match="newer"):
        read_model(path, _Small, "thing", newest=1)
    path.write_text("[]")
    with pytest.raises(DataError, match="not a thing"):
        read_model(path, _Small, "thing", newest=1)
