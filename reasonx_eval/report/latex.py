"""Text and tables in LaTeX: every special character of a name escaped, labels of metrics in mathematics."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from reasonx_eval.report.tables import printable

_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "[": "{[}", "*": "{*}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "°": r"$^\circ$", "Δ": r"$\Delta$", "δ": r"$\delta$",
    "†": r"$\dagger$", "‡": r"$\ddagger$",
})  # fmt: skip


def escape(text: str) -> str:
    """Any text as LaTeX that shows it: no command, no mathematics, no comment, no option of the line before it.

    Examples
    --------
    >>> escape("a_b & 5%")
    'a\\\\_b \\\\& 5\\\\%'
    """
    # two hyphens, apostrophes or commas would become one character
    return re.sub(r"([-',])(?=\1)", r"\1{}", printable(text).translate(_SPECIAL))


def label(text: str) -> str:
    """A metric's label: a number after a Greek letter is its index."""
    return re.sub(r"\$\\(delta|Delta)\$(\d)", r"$\\\1_{\2}$", escape(text))


def breakable(signature: str) -> str:
    """A signature in typewriter letters that may break after each of its parts."""
    return r"\texttt{" + escape(signature).replace(r"\textbar{}", r"\textbar{}\allowbreak{}") + "}"


def tabular(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table with booktabs' rules, of cells that are LaTeX already; `right` are the columns to align right."""
    align = "".join("r" if k in right else "l" for k in range(len(columns)))
    head, *body = [" & ".join(row) + r" \\" for row in (columns, *rows)]
    return "\n".join([rf"\begin{{tabular}}{{{align}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
                      r"\end{tabular}"])  # fmt: skip
