"""The comparison that the README shows is what its commands print."""

from __future__ import annotations

from pathlib import Path

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
