"""Rectified-flow networks as a flow policy sees them, and the embedded one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from reasonx_eval.models.tiny import working_size
from reasonx_eval.models.tiny_card import TinyCard
from reasonx_eval.models.tiny_net import MODALITIES, TinyFlow, from_state
from reasonx_ft.policies.base import Saved
from reasonx_ft.policies.predictor import decode_tiny, save_tiny


class FlowNetwork(ABC):
    """What is done with a network, which it does not hold: the same for the tuned one and its base.

    States are float32 [b, ...], (1 - t) x_0 + t noise; x_0 is what a map of one modality is written as.

    modalities : in a fixed order
    code_range : see `Policy`
    """

    modalities: tuple[str, ...]
    code_range: tuple[float, float] | None = None

    @abstractmethod
    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the state of one map, for images of a size."""

    @abstractmethod
    def encode(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """What is known of images [B, 3, H, W], each tensor with a row an image; made once an image."""

    @abstractmethod
    def velocity(
        self, network: nn.Module, state: Tensor, t: float, modality: str, condition: Sequence[Tensor]
    ) -> Tensor:  # fmt: skip
        """dx/dt = noise - x_0 at states [b, ...], float32, with a row of each condition a state."""

    @abstractmethod
    def code(self, state: Tensor, modality: str) -> Tensor:
        """Codes [b, C, H, W] of states at t = 0."""

    @abstractmethod
    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W], pixel by pixel."""

    @abstractmethod
    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which a photo is seen."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> Saved:
        """Write the network as `reasonx_eval` runs it."""


class TinyFlowNetwork(FlowNetwork):
    """`reasonx_eval.models.tiny_net.TinyFlow`: the flow lives in the pixels of codes."""

    modalities = MODALITIES

    def __init__(self, card: TinyCard) -> None:
        self._card = card

    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 3, height, width

    def encode(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(network, TinyFlow)
        return tuple(network.encode(images))

    def velocity(
        self, network: nn.Module, state: Tensor, t: float, modality: str, condition: Sequence[Tensor]
    ) -> Tensor:  # fmt: skip
        assert isinstance(network, TinyFlow)
        index = state.new_full((len(state),), MODALITIES.index(modality)).long()
        return network.velocity(state, state.new_full((len(state),), t), index, condition).float()

    def code(self, state: Tensor, modality: str) -> Tensor:
        return from_state(state, modality)

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return decode_tiny(code, modality)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return working_size(height, width)

    def save(self, network: nn.Module, folder: Path) -> Saved:
        return save_tiny(self._card, network, folder)
