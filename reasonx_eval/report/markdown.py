"""Text in Markdown: nothing of a name from a file becomes markup."""

from __future__ import annotations

import re

from reasonx_eval.report.tables import printable


def escape(text: str) -> str:
    """Any text as Markdown that shows it: no markup, no table cell ends, no HTML, no line break."""
    plain = " ".join(printable(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", plain)
    # nothing to turn into a link by itself
    return plain.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")
