"""A sampler of many steps as a policy: which steps are noisy and scored, and what is kept of them.

Steps outside the scored window, and the last one always, are deterministic, in the rollout as in training: noise of the
last step would stay in the map. The gradient leaves out the deterministic steps' own dependence on the weights (a bias
that windows trade for speed; see the tests). All samples of all photos take the same steps at random, or a group's
rewards would differ for more reasons than the noise.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.batch import Batch, Judged, Microbatch, Rollout, Transition
from reasonx_ft.grpo.kernels import Estimate, Kernel, step, to_rf, transition
from reasonx_ft.grpo.loss import KlWeighting, kl_scale
from reasonx_ft.grpo.schedules import Schedule, scored_steps
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.noise import standard_normal

#: the network's estimate for a state [B, G or 1, ...] at a place of the schedule, float32
Estimator: TypeAlias = Callable[[Tensor, int], Estimate]
#: features of some of a batch's photos, made once
Encoder: TypeAlias = Callable[[slice], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Chain:
    """How a sampler explores.

    schedule : times of all steps
    kernel : of the scored steps
    window, within : neighbouring steps that are scored, None is all but the last; share of the steps, from the noisy
        end, that they lie in; see `schedules.scored_steps`
    kl_weighting : see `grpo.loss.kl_scale`
    seed : of the run, for the window's place
    variance_preserving : whether the start has variance 1 in the coordinates of the diffusion, or in those of the flow
    """

    schedule: Schedule
    kernel: Kernel
    window: int | None = None
    within: float = 1.0
    kl_weighting: KlWeighting = "exact"
    seed: int = 0
    variance_preserving: bool = False

    def __post_init__(self) -> None:
        if self.kernel.noise_level == 0:
            raise UsageError("a noise level of 0 makes all samples alike: there is nothing to compare")
        self.scored(0)
        kl_scale(self.kl_weighting, *self.schedule.times[:2])

    def scored(self, step: int) -> range:
        """Places of the scored steps at an optimiser step."""
        return scored_steps(len(self.schedule), window=self.window, within=self.within, seed=self.seed, step=step)

    def sample(
        self, estimate: Estimator, shape: Sequence[int], seeds: Sequence[int], num_generations: int,
        optimiser_step: int, *, device: torch.device, reference: Estimator | None = None, keys: Sequence[str] = (),
    ) -> tuple[Tensor, tuple[Transition, ...]]:  # fmt: skip
        """Run all steps; what they end in [B, G, *shape], and the scored ones.

        Parameters
        ----------
        estimate, reference : the policy's network and, for the KL, the frozen base's
        shape : of one sample
        seeds, keys : of each photo's noise; what else tells chains of one photo apart, such as the modality
        """
        scored = self.scored(optimiser_step)
        start = standard_normal(seeds, (num_generations, *shape), *keys, "start", device=device)
        state = self.start(start, self.schedule)
        found: list[Transition] = []
        for place, (t, t_next) in enumerate(self.schedule):
            seen = estimate(state, place)
            if place not in scored:
                state = step(self.kernel, seen, t, t_next, last=True).after
                continue
            noise = standard_normal(seeds, (num_generations, *shape), *keys, "step", str(place), device=device)
            done = step(self.kernel, seen, t, t_next, noise=noise)
            base = None if reference is None else self.mean(reference(state, place), place)
            found.append(Transition(len(found), state, done.after, done.mean, done.std, base,
                                    kl_scale(self.kl_weighting, t, t_next), place))  # fmt: skip
            state = done.after
        return state, tuple(found)

    def mean(self, estimate: Estimate, place: int) -> Tensor:
        """Mean of the scored step at a place of the schedule, for a replay."""
        return transition(self.kernel, estimate, *self.schedule.times[place : place + 2])[0]

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """The state that a schedule starts from, of standard normal noise."""
        first = schedule.times[0]
        return to_rf(noise, first) if self.variance_preserving else first * noise

    def answer(self, estimate: Estimator, noise: Tensor, schedule: Schedule) -> Tensor:
        """Where the steps of another schedule, taken without noise, lead; passes the gradient on."""
        state = self.start(noise, schedule)
        for place, (t, t_next) in enumerate(schedule):
            state = step(self.kernel, estimate(state, place), t, t_next, last=True).after
        return state


class ChainPolicy(Policy):
    """A policy whose network takes steps; it explores in them unless it has noise of the output.

    Parameters
    ----------
    chain : how rollouts step and explore
    options : see `Policy`
    """

    def __init__(self, *arguments: Any, chain: Chain, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.chain = chain

    @abstractmethod
    def tracks(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """Which modalities share a chain."""

    @abstractmethod
    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the state of one chain, for photos of a size."""

    @abstractmethod
    def encoder(self, images: Tensor) -> Encoder:
        """Encodes photos when they are first asked for, by the network that is asked."""

    @abstractmethod
    def estimate(
        self, state: Tensor, t: float, timestep: float, track: tuple[str, ...], condition: Sequence[Tensor]
    ) -> Estimate:
        """One pass of the network for states [b, g, ...] under features with a row a photo."""

    @abstractmethod
    def at_points(self, final: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        """Values [B, G, N, 2, C] at the judged points of what chains end in, [B, G, ...]."""

    def rollout(self, batch: Batch, num_generations: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        if self.noise is not None:
            return super().rollout(batch, num_generations, step, reference=reference)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        found = {}
        with torch.no_grad():
            tuned, frozen = self.encoder(batch.images), self.encoder(batch.images)
            several = len(self.tracks(self.modalities)) > 1
            for track in self.tracks(list(batch.judged)):
                final, transitions = self.chain.sample(
                    self.estimator(track, tuned, self.chain.schedule), self.state_shape(*size), batch.seeds,
                    num_generations, step, device=batch.images.device, keys=track if several else (),
                    reference=self._of_base(self.estimator(track, frozen, self.chain.schedule)) if reference else None,
                )  # fmt: skip
                spread = float(final.std(dim=1, correction=0).mean())
                found |= {m: Rollout(m, self.at_points(final, batch.judged[m], size), transitions, spread)
                          for m in track}  # fmt: skip
        return found

    def microbatches(self, rollouts: Mapping[str, Rollout], size: int | None) -> list[Microbatch]:
        if self.noise is not None:
            return super().microbatches(rollouts, size)
        return [
            Microbatch(track, transition.index, *part)
            for track in self.tracks(list(rollouts))
            for transition in rollouts[track[0]].transitions
            for part in rectangles(*transition.after.shape[:2], size)
        ]

    def replay(self, batch: Batch, rollouts: Mapping[str, Rollout], part: Microbatch) -> dict[str, Tensor]:
        if self.noise is not None:
            return super().replay(batch, rollouts, part)
        transition = rollouts[part.modalities[0]].transitions[part.transition]
        assert transition.state is not None
        t, timestep = self.chain.schedule.times[transition.step], self.chain.schedule.timesteps[transition.step]
        condition = self.encoder(batch.images)(part.photos)
        seen = self.estimate(part.of(transition.state), t, timestep, part.modalities, condition)
        return dict.fromkeys(part.modalities, self.chain.mean(seen, transition.step))

    def estimator(self, track: tuple[str, ...], encoder: Encoder, schedule: Schedule) -> Estimator:
        """Estimates of states [B, G, ...] in the very batches of the replay."""

        def estimate(state: Tensor, place: int) -> Estimate:
            rows: dict[int, list[Estimate]] = {}
            for photos, samples in rectangles(*state.shape[:2], self.compute.microbatch):
                one = self.estimate(state[photos, samples], schedule.times[place], schedule.timesteps[place], track,
                                    encoder(photos))  # fmt: skip
                rows.setdefault(photos.start, []).append(one)
            return _joined([_joined(row, dim=1) for row in rows.values()], dim=0)

        return estimate

    def _of_base(self, estimate: Estimator) -> Estimator:
        def frozen(state: Tensor, place: int) -> Estimate:
            with self.as_base():
                return estimate(state, place)

        return frozen


def photo_seeds(images: Tensor) -> tuple[int, ...]:
    """A number for each photo [B, 3, H, W] in [0, 1], from its pixels in 8 bits."""
    pixels = (images.detach() * 255).round().to(torch.uint8).cpu().numpy()
    return tuple(int.from_bytes(hashlib.blake2b(p.tobytes(), digest_size=8).digest(), "little") for p in pixels)


def rectangles(photos: int, samples: int, size: int | None) -> list[tuple[slice, slice]]:
    """All samples of all photos in parts of at most `size`: whole groups where they fit, else parts of one."""
    per_group = samples if size is None else min(size, samples)
    groups = photos if size is None else max(1, size // samples)
    return [
        (slice(i, min(i + groups, photos)), slice(g, min(g + per_group, samples)))
        for i in range(0, photos, groups)
        for g in range(0, samples, per_group)
    ]


def _joined(parts: Sequence[Estimate], dim: int) -> Estimate:
    """Estimates of parts, side by side."""
    if len(parts) == 1:
        return parts[0]
    return Estimate(torch.cat([p.clean for p in parts], dim), torch.cat([p.noise for p in parts], dim))
