"""LaTeX from `export` and `compare`, read by a strict parser and, where there is one, by TeX itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pylatexenc import latex2text
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexMacroNode, LatexSpecialsNode, LatexWalker

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.report import latex
from tests.reasonx_eval.statistics.planted import depth_records, edit_result, write_run

NAMES = ["[1em]a|b & 50% _x_ $y$ #1 {z} ^~ \\cmd <script>alert(1)</script> [opt] *", "\\end{tabular} \\\\ \\input{x}",
         "a -- b --- c '' ''' ,, \"quoted\" `code` ``x''", "é ß ü", "net_v2-small"]  # fmt: skip
COMMANDS = {"export": ("--ci",), "export-percent": ("--percent", "--metrics", "delta1"), "compare": ()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs whose models are called what breaks tables; one was tuned by a metric, on the data."""
    root, error = tmp_path_factory.mktemp("runs"), np.linspace(0.1, 0.3, 30)
    made = []
    for k, name in enumerate(NAMES):
        values = {"abs_rel": error + 0.01 * k, "delta1": 1 - error}
        made.append(write_run(root / str(k), depth_records(values), name=f"net{k}"))
        edit_result(made[-1], lambda d, name=name: d["model"].update(name=name))
    tuned = {"trained_on": ["fake"], "options": {"tuning": {"rewarded": ["abs_rel"]}}}
    edit_result(made[1], lambda d: d["model"].update(tuned))
    return made


@pytest.fixture
def written(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def write(command: str) -> str:
        verb = command.partition("-")[0]
        assert run_cli(cli, [verb, *map(str, runs), "--format", "latex", *COMMANDS[command]]) == 0
        return capsys.readouterr().out

    return write


def environments(nodes: list[Any], name: str) -> Iterator[Any]:
    for node in nodes:
        if isinstance(node, LatexEnvironmentNode):
            if node.environmentname == name:
                yield node
            yield from environments(node.nodelist, name)


def cells(table: Any) -> list[int]:
    """How many cells each line of a tabular has."""
    found, at = [], 1
    for node in table.nodelist:
        at += isinstance(node, LatexSpecialsNode) and node.specials_chars == "&"
        if isinstance(node, LatexMacroNode) and node.macroname == "\\":
            found.append(at)
            at = 1
    assert at == 1, "the last line has no end"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_line_has_the_cells_that_its_table_declares(written: Callable[[str], str], command: str) -> None:
    text = written(command)
    nodes, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    tables = list(environments(nodes, "tabular"))
    assert len(tables) == (len(NAMES) - 1 if command == "compare" else 1)
    for table in tables:
        declared = table.nodeargd.argnlist[-1].nodelist[0].chars
        lines = cells(table)
        assert set(lines) == {len(declared)}
        assert len(lines) > 1
    assert text.count(r"\begin{tabular}") == len(tables)


def test_a_name_reads_as_it_is_written() -> None:
    context = latex2text.get_default_latex_context_db()
    signs = {"textbar": "|", "textless": "<", "textgreater": ">", "textquotedbl": '"', "textasciigrave": "`",
             "textasciicircum": "^"}  # fmt: skip
    context.add_context_category("signs", prepend=True, macros=[
        latex2text.MacroTextSpec(name, simplify_repl=sign) for name, sign in signs.items()])  # fmt: skip
    reader = latex2text.LatexNodes2Text(context, strict_latex_spaces=True)
    for name in NAMES:
        assert reader.latex_to_text(latex.escape(name), tolerant_parsing=False) == name


@pytest.mark.parametrize("command", COMMANDS)
def test_tex_sets_it(written: Callable[[str], str], command: str, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex is installed")
    text = written(command)
    (tmp_path / "x.tex").write_text("\\documentclass{article}\n\\usepackage{booktabs,threeparttable}\n"
                                    "\\usepackage[T1]{fontenc}\n\\begin{document}\n" + text + "\\end{document}\n")
    done = subprocess.run(["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
                          cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)  # fmt: skip
    if ".sty' not found" in done.stdout:
        pytest.skip("TeX has not both of booktabs and threeparttable")
    assert done.returncode == 0, done.stdout[-2000:]
