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
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from reasonx_ft.kernels import Estimate, from_velocity
from reasonx_ft.policies.base import Piece, Policy, Rollout, Saved, Visit
from reasonx_ft.policies.chain import Chain, Estimator, joined, rectangles
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
                spread = codes.std(dim=1, correction=0).mean()
                found[modality] = Rollout(modality, self._decode_points(codes, modality), transitions, float(spread))
        return found

    def pieces(self, rollouts: Mapping[str, Rollout], micro: int | None) -> list[list[Piece]]:
        """A portion is one step of one modality, for as many images and samples as a pass takes."""
        found = []
        for modality, rollout in rollouts.items():
            for transition in rollout.transitions:
                assert transition.state is not None
                images, states = transition.state.shape[:2]
                for part, samples in rectangles(images, states, micro):
                    # before the first noise of a shared start, one state is that of all samples
                    all_or_some = samples if states > 1 else slice(0, transition.after.shape[1])
                    found.append([Piece(modality, transition.index, part, all_or_some)])
        return found

    def replay(self, visit: Visit, rollouts: Mapping[str, Rollout], portion: Sequence[Piece]) -> list[Tensor]:
        encoder, means = self._encoder(visit.images), []
        for piece in portion:
            transition = rollouts[piece.modality].transitions[piece.transition]
            assert transition.state is not None
            state = transition.state[piece.images]
            state = state[:, piece.samples] if state.shape[1] > 1 else state
            seen = self._pass(state, transition.step, piece.modality, encoder(piece.images))
            means.append(self.chain.mean(seen, transition.step))
        return means

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        seeds, shape = _photo_seeds(images), self.flow.state_shape(images.shape[-2], images.shape[-1])
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

    def _decode_points(self, codes: Tensor, modality: str) -> Tensor:
        return self.flow.decode(codes.movedim(-1, -3), modality).movedim(-3, -1)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        tuned, self.network = self.network, self._base_network
        try:
            yield
        finally:
            self.network = tuned

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
            """Estimates in portions of `micro` states: the very batches of the replay."""
            rows: dict[int, list[Estimate]] = {}
            for images, samples in rectangles(state.shape[0], state.shape[1], self.micro):
                seen = self._pass(state[images, samples], place, modality, encoder(images))
                rows.setdefault(images.start, []).append(seen)
            return joined([joined(row, dim=1) for row in rows.values()], dim=0)

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


def _photo_seeds(images: Tensor) -> tuple[int, ...]:
    """A number for each image [B, 3, H, W], from its pixels in 8 bits."""
    pixels = (images.detach() * 255).round().to(torch.uint8).cpu().numpy()
    return tuple(int.from_bytes(hashlib.blake2b(p.tobytes(), digest_size=8).digest(), "little") for p in pixels)
