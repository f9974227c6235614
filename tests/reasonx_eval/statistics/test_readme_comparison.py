"""The comparison that the README shows is what its commands print."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from reasonx_eval.cli.main import cli, run_cli
from tests.helpers.pages import EVAL, text

START, END = "<!-- comparison -->\n```\n", "```\n<!-- end of comparison -->"


@pytest.mark.slow
def test_the_readme_shows_what_compare_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("image-as-albedo", "retinex"):
        assert run_cli(cli, ["run", "--model", model, "--protocol", "albedo/scenes-wild", "--limit", "20", "--quiet",
                             "--out", str(tmp_path)]) == 0  # fmt: skip
    runs = [str(tmp_path / "albedo/scenes-wild@1" / model) for model in ("image-as-albedo", "retinex")]
    capsys.readouterr()
    assert run_cli(cli, ["compare", *runs]) == 0
    out = capsys.readouterr().out
    shown_page = text(EVAL)
    shown = shown_page.partition(START)[2].partition(END)[0]
    assert shown
    assert shown in out
    for line in out.splitlines():
        if line.startswith(("base  ", "this  ")):
            assert line in shown_page


def test_the_commands_of_the_workflow_exist() -> None:
    workflow = text(EVAL).partition("# .github/workflows/gate.yml\n")[2].partition("```")[0]
    lines = [shlex.split(line.partition("- run: ")[2]) for line in workflow.splitlines() if "run: reasonx-eval" in line]
    assert [words[1] for words in lines] == ["run", "gate"]
    for _, verb, *arguments in lines:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        command.make_context(verb, arguments)  # an unknown option or a missing one is an error
