"""Start of the command line and of the package, each in a process of its own."""

from __future__ import annotations

import sys

import pytest

from benchmarks.speed.conftest import Measure, Role
from benchmarks.speed.memory import Command


def _python(code: str) -> Command:
    return Command((sys.executable, "-c", code))


BARE = _python("pass")
# what the installed script does
HELP = _python("from reasonx_eval.cli.main import main; main(['--help'])")
_ROUNDS = 21


@pytest.mark.benchmark(group="command: --help")
@pytest.mark.parametrize(("role", "form", "command"), [
    ("ours", "reasonx-eval --help", HELP),
    ("library", "import click alone", _python("import click")),
    ("bound", "bare interpreter", BARE),
])  # fmt: skip
def test_help(measure: Measure, role: Role, form: str, command: Command) -> None:
    _measure(measure, role, form, command)


@pytest.mark.benchmark(group="import reasonx_eval")
@pytest.mark.parametrize(("role", "form", "command"), [
    ("ours", "import reasonx_eval", _python("import reasonx_eval")),
    ("library", "import numpy alone", _python("import numpy")),
    ("bound", "bare interpreter", BARE),
])  # fmt: skip
def test_import(measure: Measure, role: Role, form: str, command: Command) -> None:
    _measure(measure, role, form, command)


def _measure(measure: Measure, role: Role, form: str, command: Command) -> None:
    against = BARE if role == "ours" else None
    measure(role, command, form=form, against=against, against_form="bare interpreter", memory=command.peak,
            rounds=_ROUNDS)  # fmt: skip
