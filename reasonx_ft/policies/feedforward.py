"""A deterministic predictor as a policy: noise around its codes explores, the mean is the answer.

All maps come from one pass and all samples of a photo share it: a rollout is a forward pass of B photos, a replay a
forward and a backward pass of the same, whatever G is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reasonx_ft.policies.base import Policy, Saved, portions
from reasonx_ft.policies.frozen import frozen_copy
from reasonx_ft.policies.noise import Noise


class Predictor(ABC):
    """What is done with a deterministic network, which it does not hold: the same for the tuned one and its base.

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


class FeedForward(Policy):
    """A network that answers at once.

    Parameters
    ----------
    predictor : how the network is called, decoded and saved
    adapted : the network has adapters, and is its base without them; otherwise a copy is kept
    options : see `Policy`
    """

    def __init__(
        self, predictor: Predictor, network: nn.Module, noise: Noise, *, adapted: bool = False, **options: Any
    ) -> None:
        self.predictor, self.modalities, self.log_slope = predictor, predictor.modalities, predictor.log_slope
        super().__init__(network, None if adapted else frozen_copy(network), noise=noise, **options)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return self.predictor.working_size(height, width)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        parts = []
        for part in portions(len(images), self.compute.microbatch):
            with self.compute.autocast(images):
                parts.append(self.predictor.codes(self.network, images[part]))
        return {m: parts[0][m] if len(parts) == 1 else torch.cat([p[m] for p in parts]) for m in modalities}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self.predictor.decode(code, modality)

    def save(self, folder: Path) -> Saved:
        return self.predictor.save(self.network, folder)
