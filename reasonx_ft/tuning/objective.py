"""What a step makes small, term by term, in portions that fit the memory.

loss = grpo * (clipped policy loss) + kl * KL(policy, base) + ranking * (ordinal loss) + expected * (1 - expected
agreement) + distance * (distance to the base's answer) + rehearsal * (supervision on known maps)

Every term is a mean over the photos of all processes that have a judgement, and over modalities. Normalisers are known
before the first backward pass, so gradients of portions, and of processes, simply add up to those of one big batch.

Units: with "sum" the policy gradient is advantage * gradient of the log-density, an estimate of the gradient of the
expected agreement, of the same size as that of `expected`; with "mean", as published codes have it, that divided by the
number D of elements. The KL is per element in both.

A feed-forward policy's samples, their densities and the supervised terms all come from one answer, so one forward and
one backward pass serve them all. Chains of steps are replayed one by one, and their answers are a pass of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reasonx_eval.errors import ReasonXError
from reasonx_ft.grpo.expected import expected_agreement
from reasonx_ft.grpo.loss import (
    RunningSpread,
    advantages,
    clipped_loss,
    kl_divergence,
    log_ratio,
    log_ratio_of_elements,
    pair_advantages,
    ratio_bias,
)
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.base import Piece, Policy, Rollout, Transition, Visit
from reasonx_ft.policies.feedforward import FeedForward, portions
from reasonx_ft.pretraining.batches import Batch
from reasonx_ft.tuning.clock import Clock
from reasonx_ft.tuning.config import Objective, kind_of, per_modality
from reasonx_ft.tuning.processes import Processes
from reasonx_ft.tuning.rehearsal import rehearsal_loss


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


@dataclass
class Draw:
    """The samples of one step: made once, by whoever comes first, and used by all its updates.

    rollouts, worth : by modality, of those with a weight of grpo; empty before `take`
    """

    policy: Policy
    visit: Visit
    objective: Objective
    spread: RunningSpread
    processes: Processes
    clock: Clock
    step: int
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    worth: Mapping[str, Worth] = field(default_factory=dict)

    def take(self, codes: Mapping[str, Tensor] | None = None) -> None:
        """Draw and judge, if that has not been done.

        Parameters
        ----------
        codes : of all the visit's photos by the present weights, for a feed-forward policy that has them already
        """
        if self.rollouts:
            return
        sampled = {m: j for m, j in self.visit.judged.items() if per_modality(self.objective.grpo, m)}
        if not sampled:
            return
        visit, group = replace(self.visit, judged=sampled), self.objective.group
        with self.clock.phase("rollout"):
            reference = self.objective.kl > 0
            if codes is not None and isinstance(self.policy, FeedForward):
                self.rollouts = self.policy.rollout_of(codes, visit, group, reference=reference)
            else:
                self.rollouts = self.policy.rollout(visit, group, self.step, reference=reference)
        with self.clock.phase("reward"):
            self.worth = judge(visit, self.rollouts, self.objective, self.spread, self.processes)


def judge(
    visit: Visit, rollouts: Mapping[str, Rollout], objective: Objective, spread: RunningSpread, processes: Processes
) -> dict[str, Worth]:
    """Rewards and advantages of all samples; `spread` takes the rewards in."""
    found = {}
    for modality, rollout in rollouts.items():
        judged = visit.judged[modality]
        agreed = agreement(rollout.values, judged, hard=objective.reward == "hard", tie=objective.tie,
                           balanced=objective.balanced, same=objective.same)  # fmt: skip
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


@dataclass(frozen=True)
class Term:
    """A part of the loss, to go backward from.

    value : with gradient; losses : its parts by name, for the log; seen : of transitions
    """

    value: Tensor
    losses: Mapping[str, float]
    seen: Sequence[Seen] = ()


def terms(draw: Draw, rehearsed: Batch | None, micro: int | None) -> Iterator[Term]:
    """All parts of the loss of one update, one at a time, each with a graph of its own."""
    if isinstance(draw.policy, FeedForward):
        yield from _of_answers(draw, draw.policy, rehearsed, micro)
    else:
        yield from _of_chains(draw, micro)
        yield from _of_answers(draw, None, rehearsed, micro)


def _of_chains(draw: Draw, micro: int | None) -> Iterator[Term]:
    """Policy loss and KL, portion by portion."""
    draw.take()
    if not draw.rollouts:
        return
    for portion in draw.policy.pieces(draw.rollouts, micro):
        means = draw.policy.replay(draw.visit, draw.rollouts, portion)
        found = [_piece(draw, piece, mean) for piece, mean in zip(portion, means, strict=True)]
        yield _joined([f[0] for f in found], {}, [f[1] for f in found])


def _of_answers(draw: Draw, direct: FeedForward | None, rehearsed: Batch | None, micro: int | None) -> Iterator[Term]:
    """What is a function of answers: supervised terms, rehearsal, and for a feed-forward policy everything."""
    count, modalities = len(draw.visit.images), list(draw.visit.judged)
    objective = draw.objective
    weights = [objective.ranking, objective.expected, objective.distance]
    wanted = any(per_modality(w, m) for w in weights for m in modalities)
    sampling = direct is not None and any(per_modality(objective.grpo, m) for m in modalities)
    parts = portions(count, micro) if wanted or sampling else []
    if sampling and len(parts) > 1:
        draw.take()  # advantages may compare all photos
    scale = _Scale.of(draw)
    for part in parts:
        # the very tensor where it is whole: what a policy has encoded of it is known by it
        images = draw.visit.images if len(parts) == 1 else draw.visit.images[part]
        # one pass for both, where they go together
        beside = rehearsed if rehearsed is not None and len(parts) == 1 and _fits(images, rehearsed.images) else None
        named = modalities if beside is None else list(draw.policy.modalities)
        codes = draw.policy.answer(images if beside is None else torch.cat([images, beside.images]), named)
        mine = {m: c[: len(images)] for m, c in codes.items()}
        found: list[tuple[Tensor, Seen]] = []
        if direct is not None and sampling:
            draw.take(mine)
            found = [_piece(draw, Piece(m, 0, part, slice(None)), direct.means_of(mine, draw.visit.judged[m].of(part)))
                     for m in draw.rollouts]  # fmt: skip
        losses = _supervised(draw, part, images, mine, scale) if wanted else {}
        if beside is not None:
            rehearsed = None
            losses["rehearsal"] = _rehearsed(draw, {m: c[len(images) :] for m, c in codes.items()}, beside)
        yield _joined([f[0] for f in found], losses, [f[1] for f in found])
    if rehearsed is not None:
        answers = draw.policy.answer(rehearsed.images, list(draw.policy.modalities))
        yield _joined([], {"rehearsal": _rehearsed(draw, answers, rehearsed)}, [])


def _joined(policy: Sequence[Tensor], losses: Mapping[str, Tensor], seen: Sequence[Seen]) -> Term:
    named = {"policy": torch.stack(list(policy)).sum(), **losses} if policy else dict(losses)
    return Term(torch.stack(list(named.values())).sum(), {k: float(v.detach()) for k, v in named.items()}, seen)


def _fits(images: Tensor, others: Tensor) -> bool:
    return images.shape[1:] == others.shape[1:]


def _rehearsed(draw: Draw, codes: Mapping[str, Tensor], batch: Batch) -> Tensor:
    return draw.objective.rehearsal * rehearsal_loss(codes, batch, draw.policy.modalities) / draw.processes.world


def _piece(draw: Draw, piece: Piece, mean: Tensor) -> tuple[Tensor, Seen]:
    """Policy loss and KL of one piece."""
    objective, rollout, worth = draw.objective, draw.rollouts[piece.modality], draw.worth[piece.modality]
    step = _part(rollout.transitions[piece.transition], piece)
    reward = worth.reward[piece.images, piece.samples]
    # a photo without a reward takes no part, neither in the policy loss nor in the KL
    share = (~reward.isnan()).to(mean.dtype) / max(worth.groups, 1)
    share = share / (rollout.values.shape[1] * len(rollout.transitions) * len(draw.visit.judged))
    if worth.credit is not None:
        loss, ratio, high, low, elements = _by_pair(step, mean, worth.credit[piece.images, piece.samples], objective)
    else:
        loss, ratio, high, low, elements = _by_map(step, mean, worth.advantage[piece.images, piece.samples], objective)
    term = per_modality(objective.grpo, piece.modality) * step.weight * (share * loss).sum()
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
    std, reference = step.std, step.reference
    if isinstance(std, Tensor) and std.ndim == step.after.ndim and std.shape[0] > 1:
        std = std[piece.images]
    return replace(step, state=None, after=piece.of(step.after), mean=piece.of(step.mean), std=std,
                   reference=None if reference is None else piece.of(reference))  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    """What sums over photos are divided by.

    groups : modality -> photos of all processes with a judgement; photos : of all processes
    """

    groups: Mapping[str, int]
    photos: int

    @classmethod
    def of(cls, draw: Draw) -> _Scale:
        """The numbers of a step."""
        judged, total = draw.visit.judged, draw.processes.total
        return cls({m: total(int((j.weight > 0).any(1).sum())) for m, j in judged.items()},
                   total(len(draw.visit.images)))  # fmt: skip


def _supervised(
    draw: Draw, part: slice, images: Tensor, codes: Mapping[str, Tensor], scale: _Scale
) -> dict[str, Tensor]:
    """Ranking loss, expected agreement and distance to the base of the answers to some photos, weighted."""
    objective, policy, modalities = draw.objective, draw.policy, list(draw.visit.judged)
    hard, balanced, same = objective.reward == "hard", objective.balanced, objective.same
    far = {m: per_modality(objective.distance, m) for m in modalities}
    base = _base_codes(policy, images, modalities) if any(far.values()) else {}
    found: dict[str, list[Tensor]] = {}
    for m in modalities:
        judged, groups = draw.visit.judged[m].of(part), max(scale.groups[m], 1)
        if weight := per_modality(objective.ranking, m):
            each = ranking_loss(policy.values(codes[m], judged), judged, kind=kind_of(objective.ranking_kind, m),
                                temperature=objective.temperature, hard=hard, balanced=balanced,
                                same=same)  # fmt: skip
            found.setdefault("ranking", []).append(weight * torch.nansum(each) / groups)
        if weight := per_modality(objective.expected, m):
            each = 1 - expected_agreement(policy, codes[m], judged, hard=hard, balanced=balanced, same=same)
            found.setdefault("expected", []).append(weight * torch.nansum(each) / groups)
        if far[m]:
            apart = (codes[m] - base[m]).square().mean(dim=(1, 2, 3)).sum()
            found.setdefault("distance", []).append(far[m] * apart / scale.photos)
    return {name: torch.stack(values).sum() / len(modalities) for name, values in found.items()}


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
