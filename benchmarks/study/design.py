"""What the study compares: bases, methods, judges, seeds; and what it measures, on which domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from reasonx_eval.errors import UsageError, unknown

BASES: Final = ("tiny", "tiny-flow")
METHODS: Final = ("grpo", "ranking", "expected", "default")
#: judge -> options of `oracle`, or None for the small network. A random judge is a
#: sure one that is wrong half the time
JUDGES: Final = {
    "oracle": {"preset": "paper"},
    "tiny": None,
    "random": {"depth": 0.5, "normals": 0.5, "irradiance": 0.5, "albedo": 0.5, "hard": True},
}
#: a closed-form expected reward needs a feed-forward network; and what the default preset does with a flow is ranking
LEFT_OUT: Final = {("tiny-flow", "expected"), ("tiny-flow", "default")}
#: where photos without labels come from, and where nobody looks until the end
TRAIN: Final = ("scenes-wild", "train")


@dataclass(frozen=True)
class Cell:
    """One tuning run of the study."""

    base: str
    method: str
    judge: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.base}-{self.method}-{self.judge}-s{self.seed}"


def cells(
    bases: Sequence[str], methods: Sequence[str], judges: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:  # fmt: skip
    """All combinations that exist (see LEFT_OUT).

    Raises
    ------
    UsageError
        An unknown base, method or judge (with the nearest match), or no seed.
    """
    for what, given, known in (("base", bases, BASES), ("method", methods, METHODS), ("judge", judges, JUDGES)):
        for name in given:
            if name not in known:
                raise unknown(what, name, known, where="study")
    if not seeds:
        raise UsageError("no seed", where="study", fix="--seeds 0,1,2")
    return [
        Cell(base, method, judge, seed)
        for base in bases
        for method in methods
        if (base, method) not in LEFT_OUT
        for judge in judges
        for seed in seeds
    ]
