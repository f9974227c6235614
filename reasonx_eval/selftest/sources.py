"""The made-up files of all data sets, and the protocols that each serves."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from reasonx_eval.datasets.examples import Example
from reasonx_eval.protocols.protocol import ANY, Protocol
from reasonx_eval.registry import DATASETS


@cache
def all_examples() -> tuple[Example, ...]:
    """EXAMPLES of the modules of all data sets.

    A folder with a card comes first: the first example that serves a protocol goes through every check, and only
    this one has masks beside all four maps.
    """
    modules = dict.fromkeys(place.partition(":")[0] for place in DATASETS.entries.values())
    found = [example for module in modules for example in import_module(module).EXAMPLES]
    return tuple(sorted(found, key=lambda example: example.dataset != "folder"))


def serves(example: Example, protocol: Protocol) -> bool:
    """Whether a protocol is checked on these files."""
    if protocol.dataset == ANY:
        return protocol.target in example.offers
    return protocol.dataset == example.dataset and (not example.only or protocol.name in example.only)
