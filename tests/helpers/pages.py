"""The pages of this repository, their commands, and the places in them that tests and programs fill."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from reasonx_eval.io.files import write_text

ROOT: Final = Path(__file__).parents[2]
FRONT: Final = ROOT / "README.md"
EVAL: Final = ROOT / "reasonx_eval" / "README.md"
FT: Final = ROOT / "reasonx_ft" / "README.md"
STUDY: Final = ROOT / "benchmarks" / "study" / "README.md"
#: page -> first commands of the parts that need no files of an earlier one, so that two workers share them
PARTS: Final = {
    FRONT: ("reasonx-eval run --model marigold", "reasonx-ft annotate"),
    EVAL: ("reasonx-eval list models", "reasonx-eval doctor iiw --prepare"),
    FT: ("reasonx-ft annotate dataset:scenes-wild --", "reasonx-ft annotate dataset:scenes-wild/train "),
}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), flags=re.M | re.S)


def commands(page: Path) -> list[str]:
    """The lines of the shell blocks, without comments."""
    lines = [line.partition("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def parts(page: Path) -> list[list[str]]:
    """The commands but make's, in order, cut where a part starts."""
    ran = [line for line in commands(page) if not line.startswith("make ")]
    starts = [k for k, line in enumerate(ran) if line.startswith(PARTS[page])]
    return [ran[a:b] for a, b in zip(starts, [*starts[1:], len(ran)], strict=True)]


def fill(page: Path, start: str, end: str, found: str) -> None:
    """Put what was found, which has both marks around it, in the place of what stands between the marks."""
    before, _, rest = text(page).partition(start)
    _, _, after = rest.partition(end)
    write_text(page, before + found + after)
