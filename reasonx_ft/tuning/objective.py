"""What a step makes small, term by term, in portions that fit the memory.

loss = grpo * (clipped policy loss) + kl * KL(policy, base) + ranking * (ordinal loss) + expected * (1 - expected
agreement) + distance * (distance to the base's answer)

Every term is a mean over the photos of all processes that have a judgement, and over modalities. Normalisers are known
before the first backward pass, so gradients of portions, and of processes, simply add up to those of one big batch.

Units: with "sum" the policy gradient is advantage * gradient of the log-density, an estimate of the gradient of the
expected agreement, of the same size as that of `expected`; with "mean", as published codes have it, that divided by the
number D of elements. The KL is per element in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reasonx_eval.errors import ReasonXError
from reasonx_ft.expected import expected_agreement
from reasonx_ft.grpo import (
    RunningSpread,
    advantages,
    clipped_loss,
    kl_divergence,
    log_ratio,
    log_ratio_of_elements,
    pair_advantages,
    ratio_bias,
)
from reasonx_ft.policies.base import Judged, Piece, Policy, Rollout, Transition, Visit
from reasonx_ft.ranking import ranking_loss
from reasonx_ft.rewards import agreement
from reasonx_ft.tuning.config import Objective, per_modality
from reasonx_ft.tuning.processes import Processes


@dataclass(frozen=True)
class Worth:
    """What the samples of one modality are worth.

    reward : [B, G], NaN for photos without a pair that counts; of this process
    advantage : [B, G]; credit : [B, G, N] where pairs are credited, else None
    groups : photos with a reward, of all processes; dead : those whose samples all earn the same
    everyone : rewards of all processes, [world * B, G]
    """

    reward: Tensor = field(repr=False)
    advantage: Tensor = field(repr=False)
    credit: Tensor | None = field(repr=False)
    groups: int
    dead: int
    everyone: Tensor = field(repr=False)


def judge(
    visit: Visit, rollouts: Mapping[str, Rollout], objective: Objective, spread: RunningSpread, processes: Processes
) -> dict[str, Worth]:
    """Rewards and advantages of all samples; `spread` takes the rewards in."""
    found = {}
    for modality, rollout in rollouts.items():
        judged = visit.judged[modality]
        agreed = agreement(rollout.values, judged, hard=objective.reward == "hard", tie=objective.tie,
                           balanced=objective.balanced, same_distance=objective.same_distance)  # fmt: skip
        everyone = processes.gather(agreed.reward)
        spread.update(modality, everyone)
        advantage = advantages(everyone, scale=objective.scale, floor=objective.floor, spread=spread.of(modality),
                               clip=objective.advantage_clip)  # fmt: skip
        mine = advantage[processes.rows(len(agreed.reward))]
        credit = pair_advantages(agreed.pairs, agreed.weight) if objective.credit == "pairs" else None
        known = ~everyone.isnan().any(1)
        dead = known & (everyone.amax(1) == everyone.amin(1))
        found[modality] = Worth(agreed.reward, mine, credit, int(known.sum()), int(dead.sum()), everyone)
    return found


@dataclass(frozen=True)
class Seen:
    """What one transition of one piece looked like; tensors without gradient.

    log_ratio : [b, g or more], summed over its elements; kl : [b, g or 1] in nats, or None
    high, low : which were clipped
    """

    modality: str
    transition: int
    log_ratio: Tensor = field(repr=False)
    kl: Tensor | None = field(repr=False)
    high: Tensor = field(repr=False)
    low: Tensor = field(repr=False)
    elements: int


def policy_terms(
    policy: Policy, visit: Visit, rollouts: Mapping[str, Rollout], worth: Mapping[str, Worth], objective: Objective,
    micro: int | None,
) -> Iterator[tuple[Tensor, list[Seen]]]:  # fmt: skip
    """Policy loss and KL, one portion at a time: (a term with gradient, what was seen)."""
    for portion in policy.pieces(rollouts, micro):
        means = policy.replay(visit, rollouts, portion)
        terms, seen = [], []
        for piece, mean in zip(portion, means, strict=True):
            term, found = _piece_term(rollouts[piece.modality], worth[piece.modality], piece, mean, objective)
            terms.append(term / len(rollouts))
            seen.append(found)
        yield torch.stack(terms).sum(), seen


def _piece_term(
    rollout: Rollout, worth: Worth, piece: Piece, mean: Tensor, objective: Objective
) -> tuple[Tensor, Seen]:
    step = _part(rollout.transitions[piece.transition], piece)
    reward = worth.reward[piece.images, piece.samples]
    # a photo without a reward takes no part, neither in the policy loss nor in the KL
    share = (~reward.isnan()).to(mean.dtype) / max(worth.groups, 1)
    share = share / (rollout.values.shape[1] * len(rollout.transitions))
    if worth.credit is not None:
        loss, ratio, high, low, elements = _by_pair(step, mean, worth.credit[piece.images, piece.samples], objective)
    else:
        loss, ratio, high, low, elements = _by_map(step, mean, worth.advantage[piece.images, piece.samples], objective)
    term = objective.grpo * step.weight * (share * loss).sum()
    divergence = None
    if objective.kl and step.reference is not None:
        divergence = kl_divergence(mean, step.reference, step.std, step.kl_scale)
        term = term + objective.kl * (share * divergence).sum() / step.after[0, 0].numel()
    return term, Seen(piece.modality, piece.transition, ratio.detach(),
                      None if divergence is None else divergence.detach(), high, low, elements)  # fmt: skip


def _by_map(
    step: Transition, mean: Tensor, advantage: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Loss [b, g] with one advantage a map."""
    elements = step.after[0, 0].numel()
    ratio = log_ratio(step.after, mean, step.mean, step.std)
    correction = ratio_bias(mean, step.mean, step.std) if objective.correction else None
    found = clipped_loss(ratio, advantage, elements=elements, clip_range_sum=objective.clip_range_sum,
                         correction=correction)  # fmt: skip
    loss = found.loss * (elements if objective.units == "sum" else 1)
    return loss, ratio, found.high, found.low, elements


def _by_pair(
    step: Transition, mean: Tensor, credit: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Loss [b, g], summed over pairs, each with its own advantage, ratio and clipping."""
    shape = credit.shape
    elements = step.after.shape[-1] * step.after.shape[-2]
    ratio = log_ratio_of_elements(step.after, mean, step.mean, step.std).flatten(-2).sum(-1)
    correction = None
    if objective.correction:
        correction = ratio_bias(mean.flatten(1, 2)[:, :, None], step.mean.flatten(1, 2)[:, :, None], step.std)
        correction = correction.view(*mean.shape[:3]).expand(shape).flatten(1)
    found = clipped_loss(ratio.flatten(1), credit.flatten(1), elements=elements,
                         clip_range_sum=objective.clip_range_sum, correction=correction)  # fmt: skip
    loss = found.loss.view(shape).sum(-1) * (elements if objective.units == "sum" else 1)
    return loss, ratio, found.high, found.low, elements


def _part(step: Transition, piece: Piece) -> Transition:
    """The images and samples of a piece."""

    def cut(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        samples = piece.samples if value.shape[1] > 1 else slice(None)
        return value[piece.images, samples]

    after, mean = cut(step.after), cut(step.mean)
    assert after is not None
    assert mean is not None
    std = step.std
    if isinstance(std, Tensor) and std.ndim == step.after.ndim and std.shape[0] > 1:
        std = std[piece.images]
    return replace(step, state=None, after=after, mean=mean, std=std, reference=cut(step.reference))


def answer_terms(
    policy: Policy, visit: Visit, objective: Objective, processes: Processes, micro: int | None
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Ranking loss, expected agreement and distance to the base, of the answers to a few photos at a time.

    Gives (a term with gradient, sums of each loss over photos and modalities, divided as in the term).
    """
    modalities = list(visit.judged)
    weights = {"ranking": objective.ranking, "expected": objective.expected, "distance": 1.0}
    far = {m: per_modality(objective.distance, m) for m in modalities}
    groups = {m: processes.total(_judged_photos(visit.judged[m])) for m in modalities}
    everyone = processes.total(len(visit.images))
    if not objective.ranking + objective.expected + max(far.values()):
        return
    size = min(micro or len(visit.images), len(visit.images))
    for start in range(0, len(visit.images), size):
        part = slice(start, start + size)
        codes = policy.answer(visit.images[part], modalities)
        base = _base_codes(policy, visit.images[part], modalities) if any(far.values()) else {}
        losses: dict[str, Tensor] = {}
        for m in modalities:
            judged = visit.judged[m].of(part)
            found = _supervised(policy, codes[m], judged, objective)
            for name, each in found.items():
                mean = torch.nansum(each) / max(groups[m], 1) / len(modalities)
                losses[name] = losses.get(name, mean.new_zeros(())) + mean
            if far[m]:
                apart = (codes[m] - base[m]).square().mean(dim=(1, 2, 3)).sum() / everyone / len(modalities)
                losses["distance"] = losses.get("distance", apart.new_zeros(())) + far[m] * apart
        term = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        yield term, {name: float(loss.detach()) for name, loss in losses.items()}


def _supervised(policy: Policy, codes: Tensor, judged: Judged, objective: Objective) -> dict[str, Tensor]:
    """Losses [b] of the answers to some photos; NaN where nothing is judged."""
    found = {}
    hard, balanced, same = objective.reward == "hard", objective.balanced, objective.same_distance
    if objective.ranking:
        found["ranking"] = ranking_loss(policy.values(codes, judged), judged, kind=objective.ranking_kind,
                                        temperature=objective.temperature, hard=hard, balanced=balanced,
                                        same_distance=same)  # fmt: skip
    if objective.expected:
        found["expected"] = 1 - expected_agreement(policy, codes, judged, hard=hard, balanced=balanced,
                                                   same_distance=same)  # fmt: skip
    return found


def _judged_photos(judged: Judged) -> int:
    return int((judged.weight > 0).any(1).sum())


def _base_codes(policy: Policy, images: Tensor, modalities: list[str]) -> dict[str, Tensor]:
    with torch.no_grad(), policy.as_base():
        return policy.answer(images, modalities)


def check_first(seen: Seen, clip_range_sum: float, exact: bool) -> None:
    """Before the first update the replay must repeat the rollout: the log-ratio is 0.

    Parameters
    ----------
    exact : nothing but 0 will do (a CPU, float32); else a tenth of the clip range

    Raises
    ------
    ReasonXError
        It does not: another arithmetic, dropout, or a state that was not stored in full.
    """
    worst = float(seen.log_ratio.abs().max())
    if not worst <= (0.0 if exact else 0.1 * clip_range_sum):
        raise ReasonXError(
            f"the replay of {seen.modality}, step {seen.transition}, does not repeat the rollout: log-ratio {worst:g} "
            "before any update", where="tune", fix="machine.dtype float32, and a policy without dropout",
        )  # fmt: skip
