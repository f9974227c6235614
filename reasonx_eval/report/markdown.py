"""Text and tables in Markdown: nothing of a name from a file becomes markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from reasonx_eval.report.tables import printable


def escape(text: str) -> str:
    """Any text as Markdown that shows it: no markup, no table cell ends, no HTML, no line break."""
    plain = " ".join(printable(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", plain)
    # nothing to turn into a link by itself
    return plain.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table of cells that are Markdown already; `right` are the columns to align right.

    Examples
    --------
    >>> print(table(["model", "AbsRel"], [["a", "0.1"]], right=[1]))
    | model | AbsRel |
    |---|---:|
    | a | 0.1 |
    """
    rule = "|" + "".join("---:|" if k in right else "---|" for k in range(len(columns)))
    head, *body = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    return "\n".join([head, rule, *body])


def code(*lines: str) -> str:
    """Lines as a block of code: signatures."""
    return "\n".join(["```", *(printable(line).replace("`", "'") for line in lines), "```"])
