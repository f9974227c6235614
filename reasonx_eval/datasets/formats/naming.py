"""Names of files by a pattern with {id} in it, and sentences about files that are not read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from reasonx_eval.io.walk import PICTURES


def ids_in(pattern: str, names: Iterable[str], *, loose: bool = False) -> dict[str, str]:
    """Those of the names that have a card's pattern -> their ids.

    Parameters
    ----------
    loose : in any letter case, and with the suffix of any picture
    """
    head, *rest = pattern.split("{id}")
    suffix = PurePosixPath(pattern).suffix
    if loose and suffix.casefold() in PICTURES:
        rest[-1] = rest[-1].removesuffix(suffix)
    # a second {id} must repeat the first
    expression = re.escape(head) + "(?P<id>.+)" + "(?P=id)".join(map(re.escape, rest))
    if loose and suffix.casefold() in PICTURES:
        expression += f"(?:{'|'.join(map(re.escape, PICTURES))})"
    matches = ((n, re.fullmatch(expression, n, re.IGNORECASE if loose else 0)) for n in names)
    return {n: m["id"] for n, m in matches if m}


def sentence(what: str, names: Sequence[str]) -> str:
    """A sentence with the number of names and the first of them; empty where there are none."""
    if not names:
        return ""
    more = ", ..." if len(names) > 5 else ""
    return f"{what}: {len(names)} ({', '.join(names[:5])}{more})"
