"""The embedded rectified flow as a policy: from noise to a map in a few steps, or the estimate of a single one.

The photo's features are encoded once and serve all samples and modalities. The answer is the estimate of one step,
which scores as well as any. It starts from noise that is keyed by the photo's pixels, as the evaluation draws noise for
every photo: a loss on answers to one noise for all photos would teach the network that noise by heart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasonx_eval.models.embedded.card import TinyCard
from reasonx_eval.models.embedded.tiny_net import MODALITIES, TinyFlow, from_state
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.kernels import Estimate, Kernel, Name, from_velocity
from reasonx_ft.grpo.loss import KlWeighting
from reasonx_ft.grpo.schedules import linear
from reasonx_ft.policies.base import Policy, Saved, Source, portions
from reasonx_ft.policies.chain import Chain, ChainPolicy, Encoder, photo_seeds
from reasonx_ft.policies.embedded import LOG_SLOPES, Embedded, read_embedded
from reasonx_ft.policies.frozen import frozen_copy
from reasonx_ft.policies.noise import Explore, NoiseName, make_noise, standard_normal


class FlowPolicy(ChainPolicy):
    """`reasonx_eval.models.embedded.tiny_net.TinyFlow`: the flow lives in the pixels of codes.

    Parameters
    ----------
    card : of the base's weights
    options : see `ChainPolicy`
    """

    modalities = MODALITIES
    log_slope = LOG_SLOPES

    def __init__(self, card: TinyCard, network: TinyFlow, **options: Any) -> None:
        self._maps = Embedded(card)
        super().__init__(network, frozen_copy(network), **options)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return self._maps.working_size(height, width)

    def tracks(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        return [(m,) for m in modalities]

    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 3, height, width

    def encoder(self, images: Tensor) -> Encoder:
        known: dict[tuple[int, int], tuple[Tensor, ...]] = {}

        def encode(part: slice) -> tuple[Tensor, ...]:
            key = part.start, part.stop
            if key not in known:
                with self.compute.autocast(images):
                    known[key] = tuple(self._net.encode(images[part]))
            return known[key]

        return encode

    def estimate(
        self, state: Tensor, t: float, timestep: float, track: tuple[str, ...], condition: Sequence[Tensor]
    ) -> Estimate:
        repeated = [c.repeat_interleave(state.shape[1], dim=0) for c in condition]
        velocity = self._velocity(state.flatten(0, 1), timestep, track[0], repeated)
        return from_velocity(state, velocity.reshape(state.shape), t)

    def at_points(self, final: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        code = from_state(final.flatten(0, 1), judged.modality)
        return self.decode_points(judged.at_points(code.reshape(*final.shape[:2], *code.shape[1:])), judged.modality)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        seeds, shape = photo_seeds(images), self.state_shape(images.shape[-2], images.shape[-1])
        found: dict[str, list[Tensor]] = {m: [] for m in modalities}
        encode = self.encoder(images)
        for part in portions(len(images), self.compute.microbatch):
            for modality, codes in found.items():
                noise = standard_normal(seeds[part], shape, "answer", modality, device=images.device)
                clean = noise - self._velocity(noise, 1.0, modality, encode(part))
                codes.append(from_state(clean, modality))
        return {m: torch.cat(codes) for m, codes in found.items()}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self._maps.decode(code, modality)

    def save(self, folder: Path) -> Saved:
        return self._maps.save(self.network, folder)

    @property
    def _net(self) -> TinyFlow:
        assert isinstance(self.network, TinyFlow)
        return self.network

    def _velocity(self, state: Tensor, t: float, modality: str, condition: Sequence[Tensor]) -> Tensor:
        index = torch.full((len(state),), MODALITIES.index(modality), device=state.device)
        with self.compute.autocast(state):
            return self._net.velocity(state, state.new_full((len(state),), t), index, condition).float()


def load_tiny_flow(
    source: Source, *, explore: Explore = "output", noise: NoiseName = "pixel", frequencies: int = 8,
    sigma: float | Mapping[str, float] | None = None, kernel: Name = "flow-sde", noise_level: float = 0.7,
    steps: int = 2, window: int | None = None, within: float = 1.0, cells: int | None = None, seed: int = 0,
    kl_weighting: KlWeighting = "exact",
) -> Policy:  # fmt: skip
    """`tiny-flow`, or a tuned form of it.

    Parameters
    ----------
    explore : in the output, around the estimate of one step, or in the steps of a chain
    noise, frequencies, sigma : of the output, see `reasonx_ft.policies.noise`
    kernel, noise_level : of the steps, see `kernels.Kernel`
    steps : of a rollout; window, within, cells, kl_weighting, seed : see `Chain`
    """
    card, network, options = read_embedded(source)
    assert isinstance(network, TinyFlow)
    chain = Chain(linear(steps), Kernel(kernel, noise_level), window, within, kl_weighting, seed, cells=cells)
    around = make_noise(noise, frequencies) if explore == "output" else None
    return FlowPolicy(card, network, chain=chain, noise=around, sigma=sigma, **options)
