"""One step of tuning by sampling as a plain loop, from the formulas.

The recipe as it is usually written: photos one by one, each repeated for its samples, whole maps sampled and decoded,
the judge's answers compared pair by pair in Python, old log-densities computed once more, a backward pass a photo, and
for chains a step. It draws the noise that the package draws, so that its rewards and its gradient must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.tuning_data import SIZE, Tuning
from reasonx_eval.io.color import LUMINANCE
from reasonx_eval.models.embedded.tiny_net import MODALITIES, from_state
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.kernels import Estimate, from_velocity, log_density, step
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.policies.noise import LowFrequencies, standard_normal


@dataclass(frozen=True)
class Found:
    """Rewards of all samples by modality, and the gradient of each parameter."""

    rewards: Mapping[str, list[list[float]]]
    gradient: list[Tensor]


def gradient(network: nn.Module) -> list[Tensor]:
    """Of each parameter that is trained; zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters() if p.requires_grad]


def loop_over_photos(tuning: Tuning) -> Found:
    """Of a feed-forward network with smooth noise."""
    policy, batch, group = tuning.state.policy, tuning.batch(), tuning.group
    assert isinstance(policy, FeedForward)
    policy.network.zero_grad(set_to_none=True)
    same = tuning.state.config.objective.albedo_threshold
    rewards: dict[str, list[list[float]]] = {m: [] for m in batch.judged}
    for k in range(len(batch.images)):
        repeated = batch.images[k : k + 1].expand(group, -1, -1, -1)
        with torch.no_grad():
            codes = policy.predictor.codes(policy.network, repeated)
            old = policy.predictor.codes(policy.network, repeated)
            with policy.as_base():
                base = policy.predictor.codes(policy.network, repeated)
        new = policy.predictor.codes(policy.network, repeated)
        losses = []
        for modality, judged in batch.judged.items():
            after, std, maps = _sampled_maps(policy, codes[modality], modality, batch.seeds[k], group)
            earned = _rewards(maps, judged.of(slice(k, k + 1)), same)
            rewards[modality].append(earned)
            new_mean, old_mean, base_mean = (_coefficients(policy, c[modality]) for c in (new, old, base))
            losses.append(_loss(tuning, batch, _Step(after, new_mean, old_mean, base_mean, std, earned), steps=1))
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return Found(rewards, gradient(policy.network))


def _sampled_maps(
    policy: FeedForward, code: Tensor, modality: str, seed: int, group: int
) -> tuple[Tensor, float, Tensor]:
    """Sampled coefficients [1, G, ...], their deviation, and whole maps [G, C, H, W]."""
    noise = policy.noise
    assert isinstance(noise, LowFrequencies)
    height, width = code.shape[-2:]
    rows, cols = noise.basis(height, width, code)
    std = policy.sigma[modality] * math.sqrt(height * width) / noise.k
    shape = (group, code.shape[1], noise.k, noise.k)
    drawn = std * standard_normal((seed,), shape, "noise", modality, device=code.device)
    maps = policy.decode(code + rows @ drawn[0] @ cols.T, modality)
    return _coefficients(policy, code) + drawn, std, maps


def _coefficients(policy: FeedForward, code: Tensor) -> Tensor:
    assert isinstance(policy.noise, LowFrequencies)
    rows, cols = policy.noise.basis(code.shape[-2], code.shape[-1], code)
    return (rows.T @ code @ cols)[None]


def loop_over_chains(tuning: Tuning) -> Found:
    """Of a flow."""
    policy, batch, group = tuning.state.policy, tuning.batch(), tuning.group
    assert isinstance(policy, FlowPolicy)
    policy.network.zero_grad(set_to_none=True)
    same = tuning.state.config.objective.albedo_threshold
    rewards: dict[str, list[list[float]]] = {m: [] for m in batch.judged}
    scored = policy.chain.scored(0)
    for k in range(len(batch.images)):
        images = batch.images[k : k + 1].expand(group, -1, -1, -1)
        for modality, judged in batch.judged.items():
            states, stds = _chain(policy, images, modality, batch.seeds[k])
            with torch.no_grad():
                maps = policy.decode(from_state(states[-1][0], modality), modality)
            earned = _rewards(maps, judged.of(slice(k, k + 1)), same)
            rewards[modality].append(earned)
            for place in scored:
                with torch.no_grad():
                    old = _mean(policy, images, states, place, modality)
                    with policy.as_base():
                        base = _mean(policy, images, states, place, modality)
                new = _mean(policy, images, states, place, modality)
                taken = _Step(states[place + 1], new, old, base, stds[place], earned)
                _loss(tuning, batch, taken, steps=len(scored)).backward()  # type: ignore[no-untyped-call]
    return Found(rewards, gradient(policy.network))


@torch.no_grad()
def _chain(policy: FlowPolicy, images: Tensor, modality: str, seed: int) -> tuple[list[Tensor], list[float]]:
    """All states [1, G, ...], the start first, and the deviation of each step."""
    chain, shape = policy.chain, (len(images), 3, *SIZE)
    scored = chain.scored(0)
    states = [chain.start(standard_normal((seed,), shape, modality, "start", device=images.device), chain.schedule)]
    stds = []
    for place, (t, t_next) in enumerate(chain.schedule):
        seen = _estimate(policy, images, states[-1], place, modality)
        noise = None
        if place in scored:
            noise = standard_normal((seed,), shape, modality, "step", str(place), device=images.device)
        done = step(chain.kernel, seen, t, t_next, noise=noise, last=noise is None)
        states.append(done.after)
        stds.append(done.std)
    return states, stds


def _mean(policy: FlowPolicy, images: Tensor, states: list[Tensor], place: int, modality: str) -> Tensor:
    return policy.chain.mean(_estimate(policy, images, states[place], place, modality), place)


def _estimate(policy: FlowPolicy, images: Tensor, state: Tensor, place: int, modality: str) -> Estimate:
    """Of the network that is given photos and states together, as if it kept nothing of a photo."""
    timestep = state.new_full((len(images),), policy.chain.schedule.timesteps[place])
    index = torch.full((len(images),), MODALITIES.index(modality))
    velocity = policy.network(images, state[0], timestep, index)
    return from_velocity(state, velocity[None], policy.chain.schedule.times[place])


def _rewards(maps: Tensor, judged: Judged, same: float) -> list[float]:
    """What each map [G, C, H, W] of a photo earns: the judge's mean probability of what it says, pair by pair."""
    found = []
    for sample in maps.detach().numpy():
        total = 0.0
        for n in range(judged.rows.shape[1]):
            (r1, r2), (c1, c2) = judged.rows[0, n].tolist(), judged.cols[0, n].tolist()
            p = float(judged.probability[0, n])
            total += _earned([float(v) for v in sample[:, r1, c1]], [float(v) for v in sample[:, r2, c2]],
                             judged.modality, p, same)  # fmt: skip
        found.append(total / judged.rows.shape[1])
    return found


def _earned(first: list[float], second: list[float], modality: str, p: float, same: float) -> float:
    if modality == "albedo":
        return p if math.dist(first, second) < same else 1 - p
    a, b = _compared(first, modality), _compared(second, modality)
    return 0.0 if a == b else p if a > b else 1 - p


def _compared(value: list[float], modality: str) -> float:
    if modality == "depth":
        return -value[0]
    if modality == "normals":
        return -value[2] / math.hypot(*value)
    return sum(v * w for v, w in zip(value, LUMINANCE, strict=True))


@dataclass(frozen=True)
class _Step:
    """A scored step of the samples of one photo: means by the present, the sampling and the base's weights."""

    after: Tensor
    mean: Tensor
    old: Tensor
    base: Tensor
    std: float
    earned: list[float]


def _loss(tuning: Tuning, batch: Batch, taken: _Step, *, steps: int) -> Tensor:
    """Clipped policy loss and KL of the samples of one photo, its share of the step's."""
    objective = tuning.state.config.objective
    reward = torch.tensor(taken.earned)
    advantage = (reward - reward.mean()).clamp(-objective.advantage_clip, objective.advantage_clip)
    elements = taken.after[0, 0].numel()
    new, old = (log_density(taken.after, mean, taken.std)[0] for mean in (taken.mean, taken.old))
    ratio, eps = ((new - old) / elements).exp(), objective.clip_range_sum / elements
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - eps, 1 + eps)) * elements
    divergence = ((taken.mean - taken.base) ** 2 / (2 * taken.std**2)).flatten(2).sum(2)[0] / elements
    share = len(batch.images) * len(taken.earned) * steps * len(batch.judged)
    return (loss + objective.kl * divergence).sum() / share
