"""A sampler of many steps as a policy: which steps are noisy and scored, and what is kept of them.

By default the policy explores in its output (`reasonx_ft.policies.base`), and no step is random. In the steps, there
are two forms. The published one draws white noise in every element of a state, with credit by images: the network
denoises most of it away, so that samples hardly differ, and what is left says little of any one pair (on the embedded
flow, its gradient has a cosine of .2 with the exact one). Noise in coarse *cells* survives, and a pair of points is
credited to the noise of its own two cells, whose density is exact: the mean of a state over a cell is Gaussian around
that of the step's mean. That is the form of a chain that learns (a cosine of .9 for depth).

Steps outside the scored window, and the last one always, are deterministic, in the rollout as in training: noise of the
last step would stay in the map. The gradient leaves out the deterministic steps' own dependence on the weights (a bias
that windows trade for speed; see the tests). All samples of all photos take the same steps at random, or a group's
rewards would differ for more reasons than the noise.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

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
    cells : side, in elements of the state, of squares that share their noise; None is white noise. All samples of a
        photo then start alike
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
    cells: int | None = None

    def __post_init__(self) -> None:
        if self.kernel.noise_level == 0:
            raise UsageError("a noise level of 0 makes all samples alike: there is nothing to compare")
        if self.cells is not None and self.cells < 1:
            raise UsageError(f"cells of {self.cells} elements; needs 1 or more")
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
        starts = num_generations if self.cells is None else 1
        start = standard_normal(seeds, (starts, *shape), *keys, "start", device=device)
        state = self.start(start, self.schedule)
        found: list[Transition] = []
        for place, (t, t_next) in enumerate(self.schedule):
            seen = estimate(state, place)
            if place not in scored:
                state = step(self.kernel, seen, t, t_next, last=True).after
                continue
            noise = self._noise(seeds, (num_generations, *shape), (*keys, "step", str(place)), device)
            done = step(self.kernel, seen, t, t_next, noise=noise)
            base = None if reference is None else self.mean(reference(state, place), place)
            found.append(Transition(len(found), state, done.after, done.mean, done.std, base,
                                    kl_scale(self.kl_weighting, t, t_next), place))  # fmt: skip
            state = done.after
        return state, tuple(found)

    def _noise(self, seeds: Sequence[int], shape: Sequence[int], keys: Sequence[str], device: torch.device) -> Tensor:
        """Standard normal in every element, or in every cell."""
        if self.cells is None:
            return standard_normal(seeds, shape, *keys, device=device)
        height, width = (-(-side // self.cells) for side in shape[-2:])
        coarse = standard_normal(seeds, (*shape[:-2], height, width), *keys, device=device)
        wide = coarse.repeat_interleave(self.cells, -2).repeat_interleave(self.cells, -1)
        return wide[..., : shape[-2], : shape[-1]]

    def coordinates(self, state: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        """Variable whose density a step has, of a state [B, G or 1, C, h, w]: the state itself, or means of cells.

        Of each judged pair the means of the cells of its two points, [B, G or 1, N, 2, C]; the second is 0 where both
        points lie in one cell, which counts once.

        Parameters
        ----------
        size : of the maps that `judged` speaks of
        """
        if self.cells is None:
            return state
        rows = judged.rows * state.shape[-2] // size[0] // self.cells
        cols = judged.cols * state.shape[-1] // size[1] // self.cells
        means = functional.avg_pool2d(state.flatten(0, 1), self.cells, ceil_mode=True)
        means = means.view(*state.shape[:2], *means.shape[1:])
        found = replace(judged, rows=rows, cols=cols).at_points(means)
        shared = (rows[..., 0] == rows[..., 1]) & (cols[..., 0] == cols[..., 1])
        second = found[..., 1:, :].masked_fill(shared[:, None, :, None, None], 0.0)
        return torch.cat([found[..., :1, :], second], dim=-2)

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
    """A policy whose network takes steps; without noise of the output it explores in them.

    Parameters
    ----------
    chain : how rollouts step and explore
    options : see `Policy`
    """

    def __init__(self, *arguments: Any, chain: Chain, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.chain = chain

    @property
    def local_noise(self) -> bool:
        return super().local_noise if self.noise is not None else self.chain.cells is not None

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
                for m in track:
                    scored = tuple(self._in_coordinates(t, batch.judged[m], size) for t in transitions)
                    found[m] = Rollout(m, self.at_points(final, batch.judged[m], size), scored, spread)
        return found

    def microbatches(self, rollouts: Mapping[str, Rollout], size: int | None) -> list[Microbatch]:
        if self.noise is not None:
            return super().microbatches(rollouts, size)
        return [
            Microbatch(track, transition.index, *part)
            for track in self.tracks(list(rollouts))
            for transition in rollouts[track[0]].transitions
            for part in _parts(transition, size)
        ]

    def replay(self, batch: Batch, rollouts: Mapping[str, Rollout], part: Microbatch) -> dict[str, Tensor]:
        if self.noise is not None:
            return super().replay(batch, rollouts, part)
        transition = rollouts[part.modalities[0]].transitions[part.transition]
        assert transition.state is not None
        t, timestep = self.chain.schedule.times[transition.step], self.chain.schedule.timesteps[transition.step]
        condition = self.encoder(batch.images)(part.photos)
        seen = self.estimate(part.of(transition.state), t, timestep, part.modalities, condition)
        mean, shape = self.chain.mean(seen, transition.step), (batch.images.shape[-2], batch.images.shape[-1])
        return {m: self.chain.coordinates(mean, batch.judged[m].of(part.photos), shape) for m in part.modalities}

    def _in_coordinates(self, step: Transition, judged: Judged, size: tuple[int, int]) -> Transition:
        after, mean = (self.chain.coordinates(x, judged, size) for x in (step.after, step.mean))
        base = None if step.reference is None else self.chain.coordinates(step.reference, judged, size)
        return replace(step, after=after, mean=mean, reference=base)

    def estimator(self, track: tuple[str, ...], encoder: Encoder, schedule: Schedule) -> Estimator:
        """Estimates of states [B, G, ...] in the very batches of the replay."""

        def estimate(state: Tensor, place: int) -> Estimate:
            rows: dict[int, list[Estimate]] = {}
            for photos, samples in rectangles(state.shape[0], state.shape[1], self.compute.microbatch):
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


def _parts(step: Transition, size: int | None) -> list[tuple[slice, slice]]:
    """Photos and samples of a scored step in parts of at most `size` states."""
    assert step.state is not None
    photos, states = step.state.shape[:2]
    # before the first noise, one state may be that of all samples
    everyone = slice(0, step.after.shape[1])
    return [(part, samples if states > 1 else everyone) for part, samples in rectangles(photos, states, size)]


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
