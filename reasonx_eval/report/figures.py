"""Figures as files, and text in them; matplotlib itself is imported by whoever draws."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from reasonx_eval.io.files import write_bytes
from reasonx_eval.report.tables import printable


def save_png(path: Path, figure: Any) -> None:
    """Write a matplotlib figure: no date and no version in the file, so the same picture is the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def plain(text: str) -> str:
    """Lines of text as matplotlib shows them: "$" would start a formula."""
    return "\n".join(printable(line).replace("$", r"\$") for line in text.split("\n"))
