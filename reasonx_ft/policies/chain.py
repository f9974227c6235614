"""A sampler of many steps as a policy: which steps are noisy and scored, and what is kept of them.

Steps outside the scored window, and the last one always, are deterministic, in the rollout as in training. What they
owe to the weights is not in the gradient (a bias that windows trade for speed; see the tests).

With a shared start all samples of an image are one until the first noisy step: up to it, the network is asked once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.kernels import Estimate, Kernel, coefficients, step, to_rf, transition
from reasonx_ft.grpo.loss import KlWeighting, StepWeighting, kl_scale, step_weights
from reasonx_ft.grpo.schedules import Schedule, scored_steps
from reasonx_ft.policies.base import Transition
from reasonx_ft.policies.noise import standard_normal

#: the network's estimate for a state [B, G or 1, ...] at a place of the schedule, float32
Estimator = Callable[[Tensor, int], Estimate]


@dataclass(frozen=True)
class Chain:
    """How a sampler explores.

    schedule : times of all steps
    kernel : of the scored steps
    window, within : neighbouring steps that are scored, None is all but the last; share of the steps, from the noisy
        end, that they lie in; see `schedules.scored_steps`
    shared_start : all samples of an image start from the same noise
    kl_weighting, step_weighting : see `grpo.kl_scale` and `grpo.step_weights`
    seed : of the run, for the window's place
    variance_preserving : what the start is: variance 1 in the coordinates of the diffusion, or those of the flow
    """

    schedule: Schedule
    kernel: Kernel
    window: int | None = None
    within: float = 1.0
    shared_start: bool = False
    kl_weighting: KlWeighting = "exact"
    step_weighting: StepWeighting = "none"
    seed: int = 0
    variance_preserving: bool = False

    def __post_init__(self) -> None:
        if self.kernel.level == 0:
            raise UsageError("a noise level of 0 makes all samples alike: there is nothing to compare")
        self.scored(0)
        kl_scale(self.kl_weighting, self.kernel, *self.schedule.times[:2])
        step_weights(self.step_weighting, [1.0])

    def scored(self, step: int) -> range:
        """Places of the scored steps at an optimiser step."""
        return scored_steps(len(self.schedule), window=self.window, within=self.within, seed=self.seed, step=step)

    def sample(
        self, estimate: Estimator, shape: Sequence[int], seeds: Sequence[int], group: int, optimiser_step: int, *,
        device: torch.device, reference: Estimator | None = None, keys: Sequence[str] = (),
    ) -> tuple[Tensor, tuple[Transition, ...]]:  # fmt: skip
        """Run all steps; what they end in [B, G, *shape], and the scored ones.

        Parameters
        ----------
        estimate, reference : the policy's network and, for the KL, the frozen base's
        shape : of one sample
        seeds, keys : of each image's noise; what else tells chains of one image apart, such as the modality
        """
        scored = self.scored(optimiser_step)
        times = list(self.schedule)
        weights = step_weights(self.step_weighting, [coefficients(self.kernel, *times[i])[2] for i in scored])
        one_or_all = 1 if self.shared_start else group
        state = self.start(standard_normal(seeds, (one_or_all, *shape), *keys, "start", device=device), self.schedule)
        found: list[Transition] = []
        for place, (t, t_next) in enumerate(times):
            seen = estimate(state, place)
            if place not in scored:
                state = step(self.kernel, seen, t, t_next, last=True).after
                continue
            noise = standard_normal(seeds, (group, *shape), *keys, "step", str(place), device=device)
            done = step(self.kernel, seen, t, t_next, noise=noise)
            base = None if reference is None else self.mean(reference(state, place), place)
            found.append(Transition(
                index=len(found), state=state, after=done.after, mean=done.mean, std=done.std, reference=base,
                kl_scale=kl_scale(self.kl_weighting, self.kernel, t, t_next), weight=weights[len(found)], step=place,
            ))  # fmt: skip
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


def photo_seeds(images: Tensor) -> tuple[int, ...]:
    """A number for each photo [B, 3, H, W] in [0, 1], from its pixels in 8 bits."""
    pixels = (images.detach() * 255).round().to(torch.uint8).cpu().numpy()
    return tuple(int.from_bytes(hashlib.blake2b(p.tobytes(), digest_size=8).digest(), "little") for p in pixels)


def rectangles(images: int, samples: int, micro: int | None) -> list[tuple[slice, slice]]:
    """All samples of all images in portions of at most `micro`: whole groups where they fit, else parts of one."""
    per_group = samples if micro is None else min(micro, samples)
    groups = images if micro is None else max(1, micro // samples)
    return [
        (slice(i, min(i + groups, images)), slice(g, min(g + per_group, samples)))
        for i in range(0, images, groups)
        for g in range(0, samples, per_group)
    ]


def parts_of(transition: Transition, micro: int | None) -> list[tuple[slice, slice]]:
    """Images and samples of a scored step in portions of at most `micro` states."""
    assert transition.state is not None
    images, states = transition.state.shape[:2]
    # before the first noise of a shared start, one state is that of all samples
    everyone = slice(0, transition.after.shape[1])
    return [(part, samples if states > 1 else everyone) for part, samples in rectangles(images, states, micro)]


def in_parts(one: Callable[[slice, slice], Estimate], state: Tensor, micro: int | None) -> Estimate:
    """Estimates for states [B, G, ...] in portions of `micro`, the very batches of the replay.

    Parameters
    ----------
    one : the estimate for a slice of images and one of samples
    """
    rows: dict[int, list[Estimate]] = {}
    for images, samples in rectangles(state.shape[0], state.shape[1], micro):
        rows.setdefault(images.start, []).append(one(images, samples))
    return _joined([_joined(row, dim=1) for row in rows.values()], dim=0)


def _joined(parts: Sequence[Estimate], dim: int) -> Estimate:
    """Estimates of portions, side by side."""
    if len(parts) == 1:
        return parts[0]
    return Estimate(torch.cat([p.clean for p in parts], dim), torch.cat([p.noise for p in parts], dim))
