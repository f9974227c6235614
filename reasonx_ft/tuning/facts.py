"""What a tuning is, for the card of the model that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What a card says of a run: see `TunedCard`; pairs : judged pairs used, by modality; config : all of it."""

    name: str
    base: str
    method: str
    reward: str
    data: tuple[str, ...]
    judge: str
    seed: int
    licence: str | None = None
    pairs: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
