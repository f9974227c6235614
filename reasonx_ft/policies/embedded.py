"""The embedded networks as policies see them: the codes they share, and `tiny`, which answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.models.embedded.card import TinyCard, load_network, read_card, write_model
from reasonx_eval.models.embedded.tiny import working_size
from reasonx_eval.models.embedded.tiny_net import CODES, MODALITIES, unit
from reasonx_ft.policies.base import Policy, Saved, Source
from reasonx_ft.policies.feedforward import FeedForward, Predictor
from reasonx_ft.policies.noise import NoiseName, make_noise

#: modality -> d log(map) / d code of the embedded networks
LOG_SLOPES: Final[Mapping[str, float]] = {m: c.spread for m, c in CODES.items() if c.spread}


class Embedded:
    """An embedded network, whose codes are those of `reasonx_eval.models.embedded.tiny_net`."""

    modalities = MODALITIES

    def __init__(self, card: TinyCard) -> None:
        self._card = card

    def decode(self, code: Tensor, modality: str) -> Tensor:
        leading = code.shape[:-3]
        return CODES[modality].decode(code.reshape(-1, *code.shape[-3:])).reshape(*leading, -1, *code.shape[-2:])

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return working_size(height, width)

    def save(self, network: nn.Module, folder: Path) -> Saved:
        """Weights and card; the card names the weights that it was tuned from."""
        card = self._card
        base = card.base or f"{card.model} {card.weights_sha256[:12]}"
        path = write_model(folder, card.model_copy(update={"base": base, "scores": []}), network)
        return Saved(card.model, path.name)


class TinyPredictor(Embedded, Predictor):
    """`reasonx_eval.models.embedded.tiny_net.TinyNet`: all four maps of one pass."""

    log_slope = LOG_SLOPES

    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        found: Mapping[str, Tensor] = network(images)
        return {m: unit(c.float()) if m == "normals" else c.float() for m, c in found.items()}


def read_embedded(source: Source) -> tuple[TinyCard, nn.Module, dict[str, Any]]:
    """Card and network of a weights file, and the options that every policy of them takes."""
    assert source.path is not None
    card, runtime = read_card(source.path), source.runtime
    device = torch.device("cpu") if runtime.device == "auto" else runtime.torch_device
    network = load_network(source.path, card).to(device)
    return card, network, {"base": source.name, "licence": card.licence, "compute": source.compute}


def load_tiny(
    source: Source, *, noise: NoiseName = "pixel", frequencies: int = 8,
    sigma: float | Mapping[str, float] | None = None,
) -> Policy:  # fmt: skip
    """`tiny`, or a tuned form of it.

    Parameters
    ----------
    noise, frequencies, sigma : see `reasonx_ft.policies.noise`
    """
    card, network, options = read_embedded(source)
    return FeedForward(TinyPredictor(card), network, make_noise(noise, frequencies), sigma=sigma, **options)
