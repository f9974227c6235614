"""Rectified-flow networks as a flow policy sees them, and the embedded one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from reasonx_eval.models.embedded.tiny_net import MODALITIES, TinyFlow, from_state
from reasonx_ft.policies.predictor import Embedded, MapNetwork


class FlowNetwork(MapNetwork):
    """A network whose states are float32 [b, ...], (1 - t) x_0 + t noise; x_0 is what a map is written as.

    code_range : see `Policy`
    """

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


class TinyFlowNetwork(Embedded, FlowNetwork):
    """`reasonx_eval.models.embedded.tiny_net.TinyFlow`: the flow lives in the pixels of codes."""

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
