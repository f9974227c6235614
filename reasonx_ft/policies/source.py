"""Where a policy's weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime


@dataclass(frozen=True)
class Source:
    """Where a policy's weights come from.

    name : of the model, as a card names its base
    micro : network inputs in one pass, None is all at once
    path : a weights file of an embedded network
    checkpoint : a transformers or diffusers folder
    """

    name: str
    runtime: Runtime
    micro: int | None
    path: Path | None = None
    checkpoint: Checkpoint | None = None
