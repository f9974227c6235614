"""How far predictions agree with a judge, pair by pair.

The relation of a prediction is that of the evaluation (`reasonx_eval.metrics.ordinal.related`, at margin 0). Which
pairs count, and how much, is decided by the judge's answers alone: a rule that saw the prediction would let a policy
move its mistakes out of what is counted. So near-ties of a prediction count, an exact tie earns nothing, and
base-colour pairs can be weighted so that a constant map earns exactly one half.

Where a map draws the line between the same and different base colours decides what the answers ask of the map. In
linear RGB the line of a bright colour is some percent away and that of a dark one is beyond black: a map can satisfy it
by growing darker and flatter. In logarithms it is the same ratio everywhere, whatever the map's scale, as WHDR has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from reasonx_eval.errors import unknown
from reasonx_eval.metrics.ordinal import MODALITIES, related
from reasonx_eval.types import DIFFERENT, FIRST, SAME, SECOND
from reasonx_ft.grpo.batch import Judged

Space: TypeAlias = Literal["linear", "log"]
#: added before logarithms are taken: below a hundredth of white, ratios are noise
_DARK: Final = 0.01


@dataclass(frozen=True)
class AlbedoThreshold:
    """Two colours are the SAME if they are closer than this.

    distance : Euclidean, > 0; space : of linear RGB, or of its natural logarithm
    """

    distance: float = 0.05
    space: Space = "linear"

    def place(self, colours: Tensor) -> Tensor:
        """Where linear RGB [..., 3] lies in the space; NaN stays NaN."""
        return (colours.clamp_min(0) + _DARK).log() if self.space == "log" else colours

    def slope(self, colours: Tensor) -> Tensor:
        """Of `place` by the colour's own logarithm, [..., 3]: what a small relative change of a colour moves it by."""
        return colours / (colours + _DARK) if self.space == "log" else colours

    def __str__(self) -> str:
        return f"{self.distance:g}" if self.space == "linear" else f"{self.distance:g}-log"


#: that of the published question's ground truth
PUBLISHED: Final = AlbedoThreshold()


@dataclass(frozen=True)
class Target:
    """What the answers about B x N pairs ask for.

    probability : [B, N] in [0, 1], that FIRST (albedo: SAME) is right; any number where the weight is 0
    weight : [B, N] >= 0; 0 where there is no answer, or one that decides nothing
    """

    probability: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)

    def mean(self, each: Tensor) -> Tensor:
        """Weighted mean over pairs, [B] of [B, N] or [B, G] of [B, G, N]; NaN for images without a pair that counts.

        NaN images pass no gradient: `torch.nanmean` of the result has the gradient of the rest.
        """
        weight = self.weight if each.ndim == 2 else self.weight[:, None]
        total = weight.sum(-1)
        # of the tensor that is divided by, not of the quotient: 0 / 0 would have a gradient of NaN
        mean = (weight * each).sum(-1) / torch.where(total > 0, total, 1.0)
        return torch.where(total > 0, mean, torch.nan)


@dataclass(frozen=True)
class Agreement:
    """Of samples with a judge.

    pairs : [B, G, N] in [0, 1]
    weight : [B, N] of the pairs in `reward`
    reward : [B, G] in [0, 1], weighted mean over pairs; NaN for images without a pair that counts
    """

    pairs: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)
    reward: Tensor = field(repr=False)


def target_of(judged: Judged, *, hard: bool, balanced: bool) -> Target:
    """Which answers count, and how.

    Parameters
    ----------
    hard : the likelier answer counts as certain, as published; one of exactly 0.5 decides nothing
    balanced : base-colour pairs of an image are weighted so that SAME and DIFFERENT have half of the weight each, by
        their probabilities; an image with one of the two alone has no pair that counts. The other modalities have no
        class to balance: which point comes first is chance
    """
    known = ~judged.probability.isnan()
    probability = torch.where(known, judged.probability, 0.5)
    weight = torch.where(known, judged.weight, 0.0)
    if hard:
        weight = torch.where(probability == 0.5, 0.0, weight)
        probability = (probability > 0.5).to(weight.dtype)
    if balanced and judged.modality == "albedo":
        return _balanced(probability, weight)
    return Target(probability, weight)


def _balanced(probability: Tensor, weight: Tensor) -> Target:
    """The same answers under equal odds of both classes: a constant answer then earns one half, of every image."""
    same, different = weight * probability, weight * (1 - probability)
    of_same, of_different = same.sum(1, keepdim=True), different.sum(1, keepdim=True)
    both = (of_same > 0) & (of_different > 0)
    same = torch.where(both, same / torch.where(both, of_same, 1.0), 0.0)
    different = torch.where(both, different / torch.where(both, of_different, 1.0), 0.0)
    total = same + different
    return Target(torch.where(total > 0, same / torch.where(total > 0, total, 1.0), 0.5), total / 2)


def relations(values: Tensor, modality: str, threshold: AlbedoThreshold = PUBLISHED) -> Tensor:
    """Relations int64 [...] of values [..., 2, C] at pairs of points; codes of `reasonx_eval.types`, LEFT_OUT for ties.

    Raises
    ------
    UsageError
        An unknown modality.
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    placed = threshold.place(values) if modality == "albedo" else values
    found: Tensor = related(placed[..., 0, :], placed[..., 1, :], modality, same_distance=threshold.distance)
    return found


def agreement(
    values: Tensor, judged: Judged, *, hard: bool = False, balanced: bool = True,
    threshold: AlbedoThreshold = PUBLISHED,
) -> Agreement:  # fmt: skip
    """How far samples agree with the judge.

    Parameters
    ----------
    values : [B, G, N, 2, C], the sampled maps at the judged points, in the units of the map. NaN or infinity agrees
        with nothing
    hard : a pair earns 1 or 0, as published; otherwise the probability that the judge gave to what the sample says
    balanced : see `target_of`
    threshold : within which base colours are the SAME

    Examples
    --------
    >>> places = torch.zeros(1, 1, 2, dtype=torch.long)
    >>> judged = Judged("depth", places, places, torch.tensor([[0.9]]), torch.ones(1, 1))
    >>> nearer_first = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2, 1)
    >>> agreement(torch.cat([nearer_first, nearer_first.flip(-2)], dim=1), judged).reward
    tensor([[0.9000, 0.1000]])
    """
    target = target_of(judged, hard=hard, balanced=balanced)
    relation = relations(values, judged.modality, threshold)
    yes, no = (SAME, DIFFERENT) if judged.modality == "albedo" else (FIRST, SECOND)
    p = target.probability[:, None]
    earned = p * (relation == yes) + (1 - p) * (relation == no)
    pairs = earned * values.isfinite().flatten(-2).all(-1)
    return Agreement(pairs, target.weight, target.mean(pairs))
