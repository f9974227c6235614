"""Networks that write maps, as policies see them: what all of them offer, deterministic ones, the embedded one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from reasonx_eval.models.embedded.card import TinyCard, write_model
from reasonx_eval.models.embedded.tiny import working_size
from reasonx_eval.models.embedded.tiny_net import CODES, MODALITIES, unit
from reasonx_ft.policies.base import Saved


class MapNetwork(ABC):
    """What is done with a network, which it does not hold: the same for the tuned one and its base.

    modalities : in a fixed order
    """

    modalities: tuple[str, ...]

    @abstractmethod
    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W], pixel by pixel."""

    @abstractmethod
    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which a photo is seen."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> Saved:
        """Write the network as `reasonx_eval` runs it."""

    def decode_points(self, codes: Tensor, modality: str) -> Tensor:
        """Values [..., N, 2, C] of codes at points: pairs are rows of a map two pixels wide."""
        return self.decode(codes.movedim(-1, -3), modality).movedim(-3, -1)


class Embedded(MapNetwork):
    """An embedded network, whose codes are those of `reasonx_eval.models.embedded.tiny_net`."""

    modalities = MODALITIES

    def __init__(self, card: TinyCard) -> None:
        self._card = card

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return decode_tiny(code, modality)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return working_size(height, width)

    def save(self, network: nn.Module, folder: Path) -> Saved:
        """Weights and card; the card names the weights that it was tuned from."""
        card = self._card
        base = card.base or f"{card.model} {card.weights_sha256[:12]}"
        path = write_model(folder, card.model_copy(update={"base": base, "scores": []}), network)
        return Saved(card.model, path.name)


class Predictor(MapNetwork):
    """A deterministic network.

    log_slope : modality -> d log(map) / d code; modalities without one are unit vectors, their own code
    """

    log_slope: Mapping[str, float]

    @abstractmethod
    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Codes float32 [B, C, H, W] of all modalities, at the size of the images [B, 3, H, W]; normals at length 1."""


class TinyPredictor(Embedded, Predictor):
    """`reasonx_eval.models.embedded.tiny_net.TinyNet`: all four maps of one pass."""

    def __init__(self, card: TinyCard) -> None:
        super().__init__(card)
        self.log_slope = {m: c.spread for m, c in CODES.items() if c.spread}

    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        found: Mapping[str, Tensor] = network(images)
        return {m: unit(c.float()) if m == "normals" else c.float() for m, c in found.items()}


def decode_tiny(code: Tensor, modality: str) -> Tensor:
    """Maps of the embedded networks' codes [..., C, H, W]."""
    leading = code.shape[:-3]
    return CODES[modality].decode(code.reshape(-1, *code.shape[-3:])).reshape(*leading, -1, *code.shape[-2:])
