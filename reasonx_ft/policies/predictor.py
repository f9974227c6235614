"""Deterministic networks as a feed-forward policy sees them, and the embedded one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from reasonx_eval.models.tiny import working_size
from reasonx_eval.models.tiny_card import TinyCard, write_model
from reasonx_eval.models.tiny_net import CODES, MODALITIES, unit
from reasonx_ft.policies.base import Saved


class Predictor(ABC):
    """What is done with a network, which it does not hold: the same for the tuned one and its base.

    modalities : in a fixed order
    log_slope : modality -> d log(map) / d code; modalities without one are unit vectors, their own code
    """

    modalities: tuple[str, ...]
    log_slope: Mapping[str, float]

    @abstractmethod
    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Codes float32 [B, C, H, W] of all modalities, at the size of the images [B, 3, H, W]; normals at length 1."""

    @abstractmethod
    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W], pixel by pixel."""

    @abstractmethod
    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which a photo is seen."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> Saved:
        """Write the network as `reasonx_eval` runs it."""


class TinyPredictor(Predictor):
    """`reasonx_eval.models.tiny_net.TinyNet`: all four maps of one pass."""

    modalities = MODALITIES

    def __init__(self, card: TinyCard) -> None:
        self._card = card
        self.log_slope = {m: c.spread for m, c in CODES.items() if c.spread}

    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        found: Mapping[str, Tensor] = network(images)
        return {m: unit(c.float()) if m == "normals" else c.float() for m, c in found.items()}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return decode_tiny(code, modality)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return working_size(height, width)

    def save(self, network: nn.Module, folder: Path) -> Saved:
        return save_tiny(self._card, network, folder)


def decode_tiny(code: Tensor, modality: str) -> Tensor:
    """Maps of the embedded networks' codes [..., C, H, W]."""
    leading = code.shape[:-3]
    return CODES[modality].decode(code.reshape(-1, *code.shape[-3:])).reshape(*leading, -1, *code.shape[-2:])


def save_tiny(card: TinyCard, network: nn.Module, folder: Path) -> Saved:
    """Weights and card of an embedded network; the card names the weights that it was tuned from."""
    base = card.base or f"{card.model} {card.weights_sha256[:12]}"
    path = write_model(folder, card.model_copy(update={"base": base, "scores": []}), network)
    return Saved(card.model, path.name)
