"""A rectified flow as a policy: from noise to a map in a few steps, of which some are made random and scored.

All samples of all images take the same steps at random, or a group's rewards would differ for more reasons than the
noise. The last step is deterministic and never scored: its noise would stay in the map. What is known of a photo is
encoded once and serves all samples and modalities.

The answer is the estimate of one step, which for the embedded network scores as well as any. It starts from noise that
is keyed by the photo's pixels, as the evaluation draws noise for every photo: a loss on answers to one noise for all
photos would teach the network that noise by heart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from reasonx_ft.grpo.kernels import Estimate, from_velocity
from reasonx_ft.policies.base import Piece, Policy, Rollout, Saved, Visit
from reasonx_ft.policies.chain import Chain, Estimator, in_parts, parts_of, photo_seeds
from reasonx_ft.policies.feedforward import portions
from reasonx_ft.policies.flow_network import FlowNetwork
from reasonx_ft.policies.noise import standard_normal

#: what is known of some of a visit's images, made once
Encoder = Callable[[slice], tuple[Tensor, ...]]


class FlowPolicy(Policy):
    """A network that turns noise into maps.

    Parameters
    ----------
    network : in any mode; it is put in evaluation mode, in which tuning keeps it
    chain : how rollouts step and explore
    base : name of the model that it starts as
    micro : states in one pass
    dtype : in which the network computes where it may (autocast); states, means and codes are float32 in any case
    """

    def __init__(
        self, flow: FlowNetwork, network: nn.Module, chain: Chain, *, base: str, licence: str | None = None,
        micro: int | None = None, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.flow, self.chain = flow, chain
        self.base, self.licence, self.micro, self.modalities = base, licence, micro, flow.modalities
        self.code_range = flow.code_range
        self.network = network.eval()
        self._base_network = copy.deepcopy(network).requires_grad_(False)
        self._dtype = dtype

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return self.flow.working_size(height, width)

    def rollout(self, visit: Visit, group: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        shape = self.flow.state_shape(visit.images.shape[-2], visit.images.shape[-1])
        found = {}
        with torch.no_grad():
            tuned, frozen = self._encoder(visit.images), self._encoder(visit.images)
            for modality, judged in visit.judged.items():
                final, transitions = self.chain.sample(
                    self._estimator(modality, tuned), shape, visit.seeds, group, step, device=visit.images.device,
                    reference=self._of_base(self._estimator(modality, frozen)) if reference else None, keys=(modality,),
                )  # fmt: skip
                codes = judged.at_points(self._code(final, modality))
                values, spread = self.flow.decode_points(codes, modality), codes.std(dim=1, correction=0).mean()
                found[modality] = Rollout(modality, values, transitions, float(spread))
        return found

    def pieces(self, rollouts: Mapping[str, Rollout], micro: int | None) -> list[list[Piece]]:
        """A portion is one step of one modality, for as many images and samples as a pass takes."""
        found = []
        for modality, rollout in rollouts.items():
            for transition in rollout.transitions:
                found += [[Piece(modality, transition.index, *part)] for part in parts_of(transition, micro)]
        return found

    def replay(self, visit: Visit, rollouts: Mapping[str, Rollout], portion: Sequence[Piece]) -> list[Tensor]:
        encoder, means = self._encoder(visit.images), []
        for piece in portion:
            transition = rollouts[piece.modality].transitions[piece.transition]
            assert transition.state is not None
            seen = self._pass(piece.of(transition.state), transition.step, piece.modality, encoder(piece.images))
            means.append(self.chain.mean(seen, transition.step))
        return means

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        seeds, shape = photo_seeds(images), self.flow.state_shape(images.shape[-2], images.shape[-1])
        found: dict[str, list[Tensor]] = {m: [] for m in modalities}
        for part in portions(len(images), self.micro):
            condition = self._encode(images[part])
            for modality, codes in found.items():
                noise = standard_normal(seeds[part], shape, "answer", modality, device=images.device)
                clean = noise - self._velocity(noise, 1.0, modality, condition)
                codes.append(self.flow.code(clean, modality))
        return {m: torch.cat(codes) for m, codes in found.items()}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self.flow.decode(code, modality)

    def as_base(self) -> AbstractContextManager[None]:
        return self.exchanged(self._base_network)

    def save(self, folder: Path) -> Saved:
        return self.flow.save(self.network, folder)

    def _encoder(self, images: Tensor) -> Encoder:
        """Encodes images when they are first asked for, by the network that is asked."""
        known: dict[tuple[int, int], tuple[Tensor, ...]] = {}

        def encode(part: slice) -> tuple[Tensor, ...]:
            key = part.start, part.stop
            if key not in known:
                known[key] = self._encode(images[part])
            return known[key]

        return encode

    def _estimator(self, modality: str, encoder: Encoder) -> Estimator:
        def estimate(state: Tensor, place: int) -> Estimate:
            def one(images: slice, samples: slice) -> Estimate:
                return self._pass(state[images, samples], place, modality, encoder(images))

            return in_parts(one, state, self.micro)

        return estimate

    def _of_base(self, estimate: Estimator) -> Estimator:
        def frozen(state: Tensor, place: int) -> Estimate:
            with self.as_base():
                return estimate(state, place)

        return frozen

    def _pass(self, state: Tensor, place: int, modality: str, condition: Sequence[Tensor]) -> Estimate:
        """The network's estimate for states [b, g, ...]: one pass, each image's condition repeated for its samples."""
        t, told = self.chain.schedule.times[place], self.chain.schedule.told[place]
        repeated = [c.repeat_interleave(state.shape[1], dim=0) for c in condition]
        velocity = self._velocity(state.flatten(0, 1), told, modality, repeated)
        return from_velocity(state, velocity.reshape(state.shape), t)

    def _encode(self, images: Tensor) -> tuple[Tensor, ...]:
        with self._autocast(images):
            return self.flow.encode(self.network, images)

    def _velocity(self, state: Tensor, t: float, modality: str, condition: Sequence[Tensor]) -> Tensor:
        with self._autocast(state):
            return self.flow.velocity(self.network, state, t, modality, condition)

    def _code(self, state: Tensor, modality: str) -> Tensor:
        """Codes [B, G, C, H, W] of states [B, G, ...] at t = 0."""
        code = self.flow.code(state.flatten(0, 1), modality)
        return code.reshape(*state.shape[:2], *code.shape[1:])

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self._dtype, enabled=self._dtype != torch.float32)
