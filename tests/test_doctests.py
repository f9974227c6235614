"""The examples in public docstrings, run as they are printed by `help`."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("reasonx_eval", "reasonx_ft") for path in (_ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path) -> None:
    found = doctest.testmod(import_module(name), extraglobs={"tmp": tmp_path}, optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
