"""The mathematics of group-relative policy optimisation on chains of Gaussian steps; no network, no images.

Shapes: B photos, G samples each (a *group*), N judged pairs. Log-densities, ratios and divergences are sums over the
D elements of a step's variable, as the formulas have it. The clipped ratio alone is taken of the mean over elements, as
all published code does; its clip range is given in sum units and divided by D, so that one value means the same for
latents and for maps of any size.

Sources: GRPO (arXiv 2402.03300), Flow-GRPO (2505.05470), Dr. GRPO (2503.20783) for advantages without scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from reasonx_eval.errors import unknown

ScaleRewards = Literal["none", "group", "floored"]
KlWeighting = Literal["exact", "flow_grpo"]

SCALES: Final[tuple[ScaleRewards, ...]] = get_args(ScaleRewards)
KL_WEIGHTINGS: Final[tuple[KlWeighting, ...]] = get_args(KlWeighting)
#: added to a group's standard deviation, as published
_EPSILON: Final = 1e-6


def advantages(
    rewards: Tensor, *, scale_rewards: ScaleRewards = "floored", std_floor: float = 0.05, clip: float = 5.0
) -> Tensor:
    """How much better each sample is than its group, [B, G].

    Parameters
    ----------
    rewards : [B, G]; NaN is a sample without reward: it gets 0 and takes no part in its group's mean
    scale_rewards : the centred reward is divided by nothing (none, Dr. GRPO), by the group's standard deviation
        (group, as published: a single flipped pair then counts 2.6), or by the larger of that and `std_floor` (floored)
    clip : largest absolute advantage

    Raises
    ------
    UsageError
        An unknown scale.

    Examples
    --------
    >>> advantages(torch.tensor([[0.5, 0.7]]), scale_rewards="none")
    tensor([[-0.1000,  0.1000]])
    """
    if scale_rewards not in SCALES:
        raise unknown("scale of rewards", scale_rewards, SCALES)
    centred, count = _centred(rewards)
    if scale_rewards != "none":
        deviation = (centred.square().sum(1, keepdim=True) / count.clamp_min(1)).sqrt()
        centred = centred / (deviation + _EPSILON if scale_rewards == "group" else deviation.clamp_min(std_floor))
    return centred.clamp(-clip, clip)


def _centred(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards minus their group's mean [B, G], exactly 0 where there is nothing to compare; how many count [B, 1]."""
    known = ~rewards.isnan()
    count = known.sum(1, keepdim=True)
    value = rewards.nan_to_num(0.0)
    first = torch.where(known, rewards, torch.inf).amin(1, keepdim=True)
    # relative to the smallest: equal rewards give exactly 0, whatever a mean of them would round to
    above = torch.where(known, value - first, 0.0)
    centred = above - above.sum(1, keepdim=True) / count.clamp_min(1)
    return torch.where(known & (count > 1), centred, 0.0), count


def pair_advantages(agreement: Tensor, weight: Tensor) -> Tensor:
    """Credit of each pair, [B, G, N]: how much better a sample does at this pair than its group.

    Summed over N it is the unscaled advantage of the weighted mean agreement. With noise that is independent of that at
    other pairs, an estimate from it has the same mean as one from whole-image rewards and about 1/N of the variance.

    Parameters
    ----------
    agreement : [B, G, N] in [0, 1]; a pair that is NaN for any sample is left out, as with weight 0
    weight : [B, N] >= 0, 0 where there is no judgement

    Examples
    --------
    >>> pair_advantages(torch.tensor([[[1.0, 0.5], [0.0, 0.5]]]), torch.ones(1, 2))
    tensor([[[ 0.2500,  0.0000],
             [-0.2500,  0.0000]]])
    """
    known = ~agreement.isnan().any(1)
    share = torch.where(known, weight, 0.0)
    share = share / share.sum(1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    value = torch.where(known[:, None], agreement, 0.0)
    above = value - value.amin(1, keepdim=True)  # equal values give exactly 0
    return share[:, None] * (above - above.mean(1, keepdim=True))


def log_ratio_of_elements(after: Tensor, mean: Tensor, old_mean: Tensor, std: float | Tensor) -> Tensor:
    """Log of new over old density of each element of x', broadcast [B, G, ...]; exactly 0 where the means agree.

    The difference of the two log-densities, rearranged so that nothing cancels.
    """
    moved = mean - old_mean
    return moved * ((after - old_mean).detach() - 0.5 * moved) / (std * std)


def log_ratio(after: Tensor, mean: Tensor, old_mean: Tensor, std: float | Tensor) -> Tensor:
    """Log of new over old density of a step, [B, G], summed over elements.

    Parameters
    ----------
    after : x' [B, G, ...]
    mean, old_mean : [B, G or 1, ...] by the present and by the sampling weights; the gradient goes through the first
    std : of each element, > 0
    """
    return log_ratio_of_elements(after, mean, old_mean, std).flatten(2).sum(2)


@dataclass(frozen=True)
class PolicyLoss:
    """Clipped objective of one step.

    loss : [B, G], to be averaged over samples and steps
    high, low : bool [B, G]; clipped above (good sample, already likelier) and below: no gradient there
    """

    loss: Tensor = field(repr=False)
    high: Tensor = field(repr=False)
    low: Tensor = field(repr=False)


def clipped_loss(log_ratio: Tensor, advantage: Tensor, *, elements: int, clip_range_sum: float) -> PolicyLoss:
    """max(-A r, -A clip(r, 1 - eps, 1 + eps)), with r the ratio of mean log-densities and eps = clip_range_sum / D.

    Parameters
    ----------
    log_ratio : [B, G], summed over elements
    advantage : [B, G]
    elements : D
    clip_range_sum : clip range of the ratio of summed log-densities, about; typical 0.2 to 2
    """
    each = log_ratio / elements
    eps = clip_range_sum / elements
    upper, lower = math.log1p(eps), math.log1p(-eps) if eps < 1 else -math.inf
    # compared as logarithms: eps may be below the spacing of float32 at 1
    high = (advantage > 0) & (each > upper)
    low = (advantage < 0) & (each < lower)
    limit = torch.where(high, upper, lower).to(each.dtype)
    return PolicyLoss(-advantage * torch.where(high | low, limit, each).exp(), high.detach(), low.detach())


def kl_divergence(mean: Tensor, reference: Tensor, std: float | Tensor, scale: float = 1.0) -> Tensor:
    """Divergence of a step from the frozen base's, [B, G or 1], in nats, summed over elements; exact for scale 1.

    |mean - reference|^2 / (2 std^2), that of two Gaussians of one standard deviation.

    Parameters
    ----------
    mean, reference : [B, G or 1, ...], of equal standard deviation `std`
    scale : from `kl_scale`
    """
    return scale * (0.5 * (mean - reference) ** 2 / (std * std)).flatten(2).sum(2)


def kl_scale(weighting: KlWeighting, t: float, t_next: float) -> float:
    """The factor of |mean - reference|^2 / (2 std^2) under a named weighting of the steps.

    exact : 1, the divergence itself; late steps weigh hundreds of times more than early ones
    flow_grpo : the step's length in time, as Flow-GRPO's code has it. Its published weights suit this one, and none
        carries over between numbers of steps otherwise

    Raises
    ------
    UsageError
        An unknown weighting.
    """
    if weighting not in KL_WEIGHTINGS:
        raise unknown("KL weighting", weighting, KL_WEIGHTINGS)
    return 1.0 if weighting == "exact" else t - t_next
