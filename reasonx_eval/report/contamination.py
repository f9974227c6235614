"""Whether a model has seen the dataset it is measured on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: other names of one dataset, as cards write them -> the name here
_ALIASES: Final = {
    ("nyu", "depth", "v2"): ("nyuv2",), ("nyu", "v2"): ("nyuv2",), ("nyudepthv2",): ("nyuv2",), ("nyu",): ("nyuv2",),
    ("nyud", "v2"): ("nyuv2",), ("intrinsic", "images", "in", "the", "wild"): ("iiw",), ("mit",): ("mit", "intrinsic"),
}  # fmt: skip


def seen(trained_on: Iterable[str], dataset: str) -> str | None:
    """The entry of `trained_on` that names `dataset` (or the dataset that it is a part of), else None.

    Names are compared word by word, without case, and one must begin with the other: ``NYUv2`` covers
    ``nyuv2-normals``, ``diode-indoor`` covers ``diode``, ``scenes-synthetic/train (4000)`` does not cover
    ``scenes-wild``.
    """
    wanted = _words(dataset)
    for name in trained_on:
        # the split and the number of samples don't matter: one split tells about the other
        words = _words(re.split(r"[/(@]", name, maxsplit=1)[0])
        short = min(len(words), len(wanted))
        if short and words[:short] == wanted[:short]:
            return name
    return None


def _words(name: str) -> tuple[str, ...]:
    words = tuple(re.findall(r"[a-z0-9]+", name.casefold()))
    for length in range(len(words), 0, -1):
        # a single word is another name only when it is the whole name: "mit-states" is not MIT's intrinsic images
        if words[:length] in _ALIASES and (length > 1 or len(words) == 1):
            return _ALIASES[words[:length]] + words[length:]
    return words
