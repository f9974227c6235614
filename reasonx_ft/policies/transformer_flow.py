"""Rectified-flow transformers between an autoencoder's latents, as a flow policy sees them.

The photo's latent is put beside the state's channels, the prompt says which map is asked for: networks of PRISM's type.
There is no file format of theirs to load by name; whoever has weights builds the policy:

    flow = TransformerFlow(codec, prompts, maps)
    policy = FlowPolicy(flow, transformer, Chain(shifted(15, 3.0), Kernel("flow-sde", 0.7), window=4), base="my-prism")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_ft.policies.base import Saved
from reasonx_ft.policies.flow_network import FlowNetwork

#: the transformers are told times as training steps
_STEPS_OF_TRAINING: Final = 1000.0


class Codec(Protocol):
    """A frozen autoencoder.

    channels : of a latent
    factor : pixels per latent along one side, times the transformer's patch
    """

    channels: int
    factor: int

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B, channels, h, w] of photos [B, 3, H, W] in [0, 1]; without sampling."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [b, 3, H, W] in [-1, 1] of latents; passes the gradient on."""


@dataclass(frozen=True)
class Prompt:
    """What the transformer is told of a modality: tokens [1, L, E] and their pooled embedding [1, P]."""

    tokens: Tensor = field(repr=False)
    pooled: Tensor = field(repr=False)


class TransformerFlow(FlowNetwork):
    """A transformer called as diffusers' SD3Transformer2DModel, with state and photo in its input channels.

    Parameters
    ----------
    prompts : modality -> its prompt
    maps : modality -> what makes maps [..., C, H, W] of pictures [..., 3, H, W] in [-1, 1], pixel by pixel
    long_side : pixels of a photo's long side

    Raises
    ------
    UsageError
        Prompts and maps of different modalities.
    """

    code_range = (-1.0, 1.0)

    def __init__(
        self, codec: Codec, prompts: Mapping[str, Prompt], maps: Mapping[str, Callable[[Tensor], Tensor]], *,
        long_side: int = 512,
    ) -> None:  # fmt: skip
        if set(prompts) != set(maps):
            raise UsageError(f"prompts of {', '.join(sorted(prompts))}, but maps of {', '.join(sorted(maps))}")
        self.modalities = tuple(prompts)
        self._codec, self._prompts, self._maps, self._long_side = codec, dict(prompts), dict(maps), long_side

    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        scale = self._codec.factor
        if height % scale or width % scale:
            raise UsageError(f"photos of {height} x {width} pixels; needs multiples of {scale}")
        return self._codec.channels, height // scale, width // scale

    def encode(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        return (self._codec.encode(images).detach(),)

    def velocity(
        self, network: nn.Module, state: Tensor, t: float, modality: str, condition: Sequence[Tensor]
    ) -> Tensor:  # fmt: skip
        prompt, count = self._prompts[modality], len(state)
        found = network(
            hidden_states=torch.cat([state, condition[0]], dim=1),
            timestep=state.new_full((count,), _STEPS_OF_TRAINING * t),
            encoder_hidden_states=prompt.tokens.to(state).expand(count, -1, -1),
            pooled_projections=prompt.pooled.to(state).expand(count, -1), return_dict=False,
        )  # fmt: skip
        velocity: Tensor = found[0]
        return velocity.float()

    def code(self, state: Tensor, modality: str) -> Tensor:
        return self._codec.decode(state).float()

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self._maps[modality](code)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        scale, factor = self._codec.factor, self._long_side / max(height, width)
        return max(scale, round(height * factor / scale) * scale), max(scale, round(width * factor / scale) * scale)

    def save(self, network: nn.Module, folder: Path) -> Saved:
        raise UsageError("reasonx-eval has no runner for rectified-flow transformers, so none is written for it",
                         fix="save the network by save_pretrained, and evaluate it as FILE.py:Class")  # fmt: skip
