"""When two base colours of a map say "the same".

A judge answers about the paint; where a map draws the line between same and different decides what its answers ask of
the map. In linear RGB the line of a bright colour is some percent away and that of a dark one is beyond black: a map
can satisfy it by growing darker and flatter. In logarithms it is the same ratio everywhere, whatever the map's scale,
as WHDR has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from torch import Tensor

Space: TypeAlias = Literal["linear", "log"]
#: added before logarithms are taken: below a hundredth of white, ratios are noise
_DARK: Final = 0.01


@dataclass(frozen=True)
class Sameness:
    """Two colours are the SAME if they are closer than this.

    distance : Euclidean, > 0; space : of linear RGB, or of its natural logarithm
    """

    distance: float = 0.05
    space: Space = "linear"

    def place(self, colours: Tensor) -> Tensor:
        """Where linear RGB [..., 3] lies in the space; NaN stays NaN."""
        return (colours.clamp_min(0) + _DARK).log() if self.space == "log" else colours

    def slope(self, colours: Tensor) -> Tensor:
        """Of `place` by the colour's own logarithm, [..., 3]: what a small relative change of a colour moves it by."""
        return colours / (colours + _DARK) if self.space == "log" else colours

    def __str__(self) -> str:
        return f"{self.distance:g}" if self.space == "linear" else f"{self.distance:g}-log"


#: that of the published question's ground truth
PUBLISHED: Final = Sameness()
