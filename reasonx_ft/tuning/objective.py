"""The parts of a step: samples, what they earn, how they compare, and the loss, term by term.

loss = grpo * (clipped policy loss) + kl * KL(policy, base) + ranking * (ordinal loss) + expected * (1 - expected
agreement) + distance * (distance to the base's answer) + rehearsal * (supervision on known maps)

Every term is a mean over the photos of all processes that have a judgement, and over modalities. Normalisers are known
before the first backward pass, so gradients of microbatches, and of processes, add up to those of one big batch.

Units: with "sum" the policy gradient is advantage * gradient of the log-density, an estimate of the gradient of the
expected agreement, of the same size as that of `expected`; with "mean", as published codes have it, that divided by the
number D of elements. The KL is per element in both.

Where a policy explores in its output, the samples, their densities and the supervised terms all come from one answer:
the pass that the samples are drawn around keeps its graph, and the first update goes backward through it. Chains of
steps are replayed one by one, and their answers are a pass of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reasonx_eval.errors import ReasonXError
from reasonx_ft.grpo.batch import Batch, Microbatch, Rollout, Transition
from reasonx_ft.grpo.expected import expected_agreement
from reasonx_ft.grpo.loss import (
    advantages,
    clipped_loss,
    kl_divergence,
    log_ratio,
    log_ratio_of_elements,
    pair_advantages,
)
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.grpo.rewards import Agreement, agreement
from reasonx_ft.policies.base import Policy, portions
from reasonx_ft.training.scene_batches import Batch as Scenes
from reasonx_ft.tuning.batches import rehearsal_loss
from reasonx_ft.tuning.config import Objective, kind_of, per_modality
from reasonx_ft.tuning.parallel import Processes


@dataclass(frozen=True)
class Answers:
    """Codes of one pass, with its graph.

    codes : of photos, by modality; scenes : of the rehearsal's, where they fit into the same pass
    """

    codes: Mapping[str, Tensor] = field(repr=False)
    scenes: Mapping[str, Tensor] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Rollouts:
    """The samples of one step.

    by_modality : of those with a weight of grpo
    answers : the pass that they were drawn around, until the first update has gone backward through it; else None
    """

    by_modality: Mapping[str, Rollout]
    answers: Answers | None = None


@dataclass(frozen=True)
class Advantages:
    """How the samples of one modality compare with the others of their photo.

    reward : [B, G] of this process, NaN for photos without a pair that counts; everyone : of all, [world * B, G]
    advantage : [B, G]; credit : [B, G, N] where pairs are credited, else None
    groups : photos with a reward, of all processes
    zero_variance_groups : those of them whose samples all earn the same
    """

    reward: Tensor = field(repr=False)
    advantage: Tensor = field(repr=False)
    credit: Tensor | None = field(repr=False)
    groups: int
    zero_variance_groups: int
    everyone: Tensor = field(repr=False)


def answer(policy: Policy, images: Tensor, modalities: Sequence[str], scenes: Scenes | None) -> Answers:
    """One pass for photos, and for the rehearsal's scenes where they have the same size."""
    if scenes is None or images.shape[1:] != scenes.images.shape[1:]:
        return Answers(policy.answer(images, modalities))
    codes = policy.answer(torch.cat([images, scenes.images]), list(policy.modalities))
    return Answers({m: codes[m][: len(images)] for m in modalities}, {m: c[len(images) :] for m, c in codes.items()})


def draw(
    policy: Policy, batch: Batch, scenes: Scenes | None, objective: Objective, step: int, *, microbatch: int | None
) -> Rollouts:
    """Samples of all photos; none where no modality has a weight of grpo."""
    sampled = {m: j for m, j in batch.judged.items() if per_modality(objective.grpo, m)}
    if not sampled:
        return Rollouts({})
    wanted, group, reference = replace(batch, judged=sampled), objective.num_generations, objective.kl > 0
    if policy.noise is None or len(batch.images) > (microbatch or len(batch.images)):
        return Rollouts(policy.rollout(wanted, group, step, reference=reference))
    answers = answer(policy, batch.images, list(batch.judged), scenes)
    return Rollouts(policy.rollout_around(answers.codes, wanted, group, reference=reference), answers)


def reward(batch: Batch, rollouts: Rollouts, objective: Objective) -> dict[str, Agreement]:
    """How far each sample agrees with the judge, by modality."""
    return {
        m: agreement(rollout.values, batch.judged[m], hard=objective.reward == "hard", balanced=objective.balanced,
                     threshold=objective.threshold)
        for m, rollout in rollouts.by_modality.items()
    }  # fmt: skip


def compare(rewards: Mapping[str, Agreement], objective: Objective, processes: Processes) -> dict[str, Advantages]:
    """Advantages of all samples, by modality."""
    found = {}
    for modality, earned in rewards.items():
        everyone = processes.gather(earned.reward)
        known = ~everyone.isnan().any(1)
        equal = known & (everyone.amax(1) == everyone.amin(1))
        found[modality] = Advantages(
            earned.reward,
            advantages(earned.reward, scale_rewards=objective.scale_rewards, std_floor=objective.std_floor,
                       clip=objective.advantage_clip),
            pair_advantages(earned.pairs, earned.weight) if objective.credit == "pairs" else None,
            int(known.sum()), int(equal.sum()), everyone,
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class TransitionStatistics:
    """A replayed transition; tensors without gradient.

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
class Loss:
    """Of one microbatch: its terms by name, weighted, with gradient; and what was replayed."""

    terms: Mapping[str, Tensor]
    replayed: Sequence[TransitionStatistics] = ()

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Part:
    """What of the loss goes through the network together.

    replayed : transitions of a chain; answered : photos whose answers are asked for; rehearsed : whether the scenes'
    """

    replayed: Microbatch | None = None
    answered: slice | None = None
    rehearsed: bool = False


@dataclass
class StepLoss:
    """The loss of one optimiser step, microbatch by microbatch."""

    policy: Policy
    batch: Batch
    scenes: Scenes | None
    objective: Objective
    rollouts: Rollouts
    advantages: Mapping[str, Advantages]
    processes: Processes

    def __post_init__(self) -> None:
        judged, total = self.batch.judged, self.processes.total
        # sums over photos are divided by these, of all processes
        self._groups = {m: max(total(int((j.weight > 0).any(1).sum())), 1) for m, j in judged.items()}
        self._photos = total(len(self.batch.images))

    @property
    def _around(self) -> bool:
        """Whether the samples lie around the answer."""
        return self.policy.noise is not None and bool(self.rollouts.by_modality)

    def microbatches(self, size: int | None) -> list[Part]:
        """All parts, of at most `size` inputs of the network."""
        found = []
        if self.rollouts.by_modality and not self._around:
            found += [Part(replayed=m) for m in self.policy.microbatches(self.rollouts.by_modality, size)]
        rules = self.objective
        weights = (rules.ranking, rules.expected, rules.distance)
        if self._around or any(per_modality(w, m) for w in weights for m in self.batch.judged):
            found += [Part(answered=part) for part in portions(len(self.batch.images), size)]
        if self.scenes is not None:
            fits = self.batch.images.shape[1:] == self.scenes.images.shape[1:]
            if fits and found and found[-1].answered == slice(0, len(self.batch.images)):
                found[-1] = replace(found[-1], rehearsed=True)  # one pass for both
            else:
                found.append(Part(rehearsed=True))
        return found

    def of(self, part: Part) -> Loss:
        """The terms of a part."""
        if part.replayed is not None:
            means = self.policy.replay(self.batch, self.rollouts.by_modality, part.replayed)
            return self._policy_terms(part.replayed, means)
        if part.answered is None:
            assert self.scenes is not None
            codes = self.policy.answer(self.scenes.images, list(self.policy.modalities))
            return Loss({"rehearsal": self._rehearsal(codes)})
        answers, self.rollouts = self.rollouts.answers, replace(self.rollouts, answers=None)
        # the very tensor where it is whole: a policy knows by it what it has encoded
        whole = part.answered == slice(0, len(self.batch.images))
        images = self.batch.images if whole else self.batch.images[part.answered]
        if answers is None:
            answers = answer(self.policy, images, list(self.batch.judged), self.scenes if part.rehearsed else None)
        found = Loss({})
        if self._around:
            sampled = self.rollouts.by_modality
            group = next(iter(sampled.values())).values.shape[1]
            means = {m: self.policy.means_of(answers.codes, self.batch.judged[m].of(part.answered)) for m in sampled}
            found = self._policy_terms(Microbatch(tuple(sampled), 0, part.answered, slice(0, group)), means)
        terms = {**found.terms, **self._supervised(part.answered, images, answers.codes)}
        if answers.scenes is not None:
            terms["rehearsal"] = self._rehearsal(answers.scenes)
        return Loss(terms, found.replayed)

    def _policy_terms(self, part: Microbatch, means: Mapping[str, Tensor]) -> Loss:
        """Policy loss and KL of some transitions."""
        policy, divergences, replayed = [], [], []
        for modality, mean in means.items():
            rollout, compared = self.rollouts.by_modality[modality], self.advantages[modality]
            step = _part(rollout.transitions[part.transition], part)
            earned = compared.reward[part.photos, part.samples]
            # a photo without a reward takes no part, neither in the policy loss nor in the KL
            share = (~earned.isnan()).to(mean.dtype) / max(compared.groups, 1)
            share = share / (rollout.values.shape[1] * len(rollout.transitions) * len(self.batch.judged))
            divergence = None
            if self.objective.kl and step.reference is not None:
                divergence = kl_divergence(mean, step.reference, step.std, step.kl_scale)
                divergences.append(self.objective.kl * (share * divergence).sum() / step.elements)
            loss, seen = self._clipped(step, mean, part, compared, modality)
            policy.append(per_modality(self.objective.grpo, modality) * (share * loss).sum())
            replayed.append(replace(seen, kl=None if divergence is None else divergence.detach()))
        terms = {"policy": torch.stack(policy).sum()}
        if divergences:
            terms["kl"] = torch.stack(divergences).sum()
        return Loss(terms, replayed)

    def _clipped(
        self, step: Transition, mean: Tensor, part: Microbatch, compared: Advantages, modality: str
    ) -> tuple[Tensor, TransitionStatistics]:
        """Loss [b, g] with one advantage a map, or summed over pairs, each with an advantage and ratio of its own."""
        if compared.credit is None:
            elements = step.elements
            ratio, advantage = log_ratio(step.after, mean, step.mean, step.std), compared.advantage
        else:
            elements = step.after.shape[-1] * step.after.shape[-2]
            each = log_ratio_of_elements(step.after, mean, step.mean, step.std)
            ratio, advantage = each.flatten(-2).sum(-1), compared.credit
        found = clipped_loss(ratio, advantage[part.photos, part.samples], elements=elements,
                             clip_range_sum=self.objective.clip_range_sum)  # fmt: skip
        loss = found.loss if compared.credit is None else found.loss.sum(-1)
        loss = loss * (elements if self.objective.units == "sum" else 1)
        return loss, TransitionStatistics(modality, part.transition, ratio.detach(), None, found.high, found.low,
                                          elements)  # fmt: skip

    def _supervised(self, part: slice, images: Tensor, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ranking loss, expected agreement and distance to the base of the answers to some photos."""
        rules, policy, modalities = self.objective, self.policy, list(self.batch.judged)
        hard, balanced, threshold = rules.reward == "hard", rules.balanced, rules.threshold
        far = {m: per_modality(rules.distance, m) for m in modalities}
        base: Mapping[str, Tensor] = {}
        if any(far.values()):
            with torch.no_grad(), policy.as_base():
                base = policy.answer(images, modalities)
        found: dict[str, list[Tensor]] = {}
        for m in modalities:
            judged = self.batch.judged[m].of(part)
            if weight := per_modality(rules.ranking, m):
                each = ranking_loss(policy.values(codes[m], judged), judged, kind=kind_of(rules.ranking_kind, m),
                                    temperature=rules.temperature, hard=hard, balanced=balanced,
                                    threshold=threshold)  # fmt: skip
                found.setdefault("ranking", []).append(weight * torch.nansum(each) / self._groups[m])
            if weight := per_modality(rules.expected, m):
                each = 1 - expected_agreement(policy.values(codes[m], judged), policy.covariance(codes[m], judged),
                                              judged, hard=hard, balanced=balanced, threshold=threshold)  # fmt: skip
                found.setdefault("expected", []).append(weight * torch.nansum(each) / self._groups[m])
            if far[m]:
                apart = (codes[m] - base[m]).square().mean(dim=(1, 2, 3)).sum()
                found.setdefault("distance", []).append(far[m] * apart / self._photos)
        return {name: torch.stack(values).sum() / len(modalities) for name, values in found.items()}

    def _rehearsal(self, codes: Mapping[str, Tensor]) -> Tensor:
        assert self.scenes is not None
        loss = rehearsal_loss(codes, self.scenes, self.policy.modalities)
        return self.objective.rehearsal * loss / self.processes.world


def _part(step: Transition, part: Microbatch) -> Transition:
    """The photos and samples of a microbatch."""
    return replace(step, state=None, after=part.of(step.after), mean=part.of(step.mean),
                   reference=None if step.reference is None else part.of(step.reference))  # fmt: skip


def check_first(seen: TransitionStatistics, clip_range_sum: float, exact: bool) -> None:
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
