"""The mathematics of group-relative policy optimisation on chains of Gaussian steps; no network, no images.

Shapes: B images, G samples each (a *group*), N judged pairs. Log-densities, ratios and divergences are sums over the
D elements of a step's variable, what the formulas say. The clipped ratio alone is taken of the mean over elements, as
all published code does; its clip range is given in sum units and divided by D, so that one value means the same for
latents and for maps of any size.

Sources: GRPO (arXiv 2402.03300), Flow-GRPO (2505.05470), Dr. GRPO (2503.20783) for advantages without scale, GRPO-Guard
(2510.22319) for the bias of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from reasonx_eval.errors import unknown
from reasonx_ft.grpo.kernels import Kernel, coefficients, log_density

__all__ = [
    "KL_WEIGHTINGS", "SCALES", "STEP_WEIGHTINGS", "PolicyLoss", "RunningSpread", "advantages", "clipped_loss",
    "kl_divergence", "kl_scale", "log_density", "log_ratio", "log_ratio_of_elements", "pair_advantages", "ratio_bias",
    "step_weights",
]  # fmt: skip

Scale = Literal["none", "group", "floored", "batch", "modality"]
KlWeighting = Literal["exact", "flow_grpo", "velocity"]
StepWeighting = Literal["none", "std"]

SCALES: Final[tuple[Scale, ...]] = get_args(Scale)
KL_WEIGHTINGS: Final[tuple[KlWeighting, ...]] = get_args(KlWeighting)
STEP_WEIGHTINGS: Final[tuple[StepWeighting, ...]] = get_args(StepWeighting)


def advantages(
    rewards: Tensor, *, scale: Scale = "floored", floor: float = 0.05, spread: float | None = None, clip: float = 5.0,
    ddof: int = 0, epsilon: float = 1e-6,
) -> Tensor:  # fmt: skip
    """How much better each sample is than its group, [B, G].

    Parameters
    ----------
    rewards : [B, G]; NaN is a sample without reward: it gets 0 and takes no part in its group's mean
    scale : the centred reward is divided by nothing (none), the group's standard deviation plus `epsilon` (group, as
        published: a single flipped pair then counts 2.6), that deviation or `floor` if larger (floored), the larger of
        `floor` and the deviation of all rewards given (batch), or of `floor` and `spread` (modality)
    spread : running within-group deviation of this modality's rewards, from `RunningSpread`; for scale modality
    clip : largest absolute advantage
    ddof, epsilon : 1 where the deviation divides by n - 1; published codes differ in both

    Raises
    ------
    UsageError
        An unknown scale.
    ValueError
        Scale modality without a spread.
    """
    if scale not in SCALES:
        raise unknown("advantage scale", scale, SCALES)
    centred, count = _centred(rewards)
    if scale in ("group", "floored"):
        squares = centred.square().sum(1, keepdim=True)
        deviation = (squares / (count - ddof).clamp_min(1)).sqrt()
        centred = centred / (deviation + epsilon if scale == "group" else deviation.clamp_min(floor))
    elif scale == "batch":
        known = rewards[~rewards.isnan()]
        deviation = known.std(correction=ddof) if known.numel() > ddof else known.new_zeros(())
        centred = centred / deviation.clamp_min(floor)
    elif scale == "modality":
        if spread is None:
            raise ValueError("advantages scaled by modality need the running spread of that modality")
        centred = centred / max(spread, floor)
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

    Summed over N it is the unscaled advantage of the weighted mean agreement. With noise that tells nothing of other
    pixels, an estimate from it has the same mean as the one from whole-image rewards and about 1/N of the variance.

    Parameters
    ----------
    agreement : [B, G, N] in [0, 1]; a pair that is NaN for any sample is left out, as with weight 0
    weight : [B, N] >= 0, 0 where there is no judgement
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
    return moved * ((after - old_mean).detach() - 0.5 * moved) / _squared(std)


def log_ratio(after: Tensor, mean: Tensor, old_mean: Tensor, std: float | Tensor) -> Tensor:
    """Log of new over old density of a step, [B, G], summed over elements.

    Parameters
    ----------
    after : x' [B, G, ...]
    mean, old_mean : [B, G or 1, ...] by the present and by the sampling weights; the gradient goes through the first
    std : of each element, > 0
    """
    return log_ratio_of_elements(after, mean, old_mean, std).flatten(2).sum(2)


def ratio_bias(mean: Tensor, old_mean: Tensor, std: float | Tensor) -> Tensor:
    """Minus the expected log-ratio, [B, G or 1]: what is added to it so that both signs of advantage clip alike.

    The ratio itself averages 1, its logarithm -|mean - old_mean|^2 / (2 std^2): without the correction, good samples
    escape the clip range more often than bad ones.
    """
    return _half_squares(mean, old_mean, std)


@dataclass(frozen=True)
class PolicyLoss:
    """Clipped objective of one step.

    loss : [B, G], to be averaged over samples and steps
    high, low : bool [B, G]; clipped above (good sample, already likelier) and below: no gradient there
    """

    loss: Tensor = field(repr=False)
    high: Tensor = field(repr=False)
    low: Tensor = field(repr=False)


def clipped_loss(
    log_ratio: Tensor, advantage: Tensor, *, elements: int, clip_range_sum: float, correction: Tensor | None = None
) -> PolicyLoss:
    """max(-A r, -A clip(r, 1 - eps, 1 + eps)), with r the ratio of mean log-densities and eps = clip_range_sum / D.

    Parameters
    ----------
    log_ratio : [B, G], summed over elements
    advantage : [B, G]
    elements : D
    clip_range_sum : clip range of the ratio of summed log-densities, about; typical 0.2 to 2
    correction : `ratio_bias`, added to the log-ratio
    """
    each = (log_ratio if correction is None else log_ratio + correction) / elements
    eps = clip_range_sum / elements
    upper, lower = math.log1p(eps), math.log1p(-eps) if eps < 1 else -math.inf
    # compared as logarithms: eps may be below the spacing of float32 at 1
    high = (advantage > 0) & (each > upper)
    low = (advantage < 0) & (each < lower)
    limit = torch.where(high, upper, lower).to(each.dtype)
    return PolicyLoss(-advantage * torch.where(high | low, limit, each).exp(), high.detach(), low.detach())


def kl_divergence(mean: Tensor, reference: Tensor, std: float | Tensor, scale: float = 1.0) -> Tensor:
    """Divergence of a step from the frozen base's, [B, G or 1], in nats, summed over elements; exact for scale 1.

    Parameters
    ----------
    mean, reference : [B, G or 1, ...], of equal standard deviation `std`
    scale : from `kl_scale`
    """
    return scale * _half_squares(mean, reference, std)


def kl_scale(weighting: KlWeighting, kernel: Kernel, t: float, t_next: float) -> float:
    """What |mean - reference|^2 / (2 std^2) is multiplied by under a named weighting of the steps.

    exact : 1, the divergence itself; late steps weigh hundreds of times more than early ones
    flow_grpo : the step's length in time, as Flow-GRPO's code has it. Its published weights suit this one, and none
        carries over between numbers of steps otherwise
    velocity : such that the result is |v - v_reference|^2, the same for every step

    Raises
    ------
    UsageError
        An unknown weighting.
    """
    if weighting == "exact":
        return 1.0
    if weighting == "flow_grpo":
        return t - t_next
    if weighting != "velocity":
        raise unknown("KL weighting", weighting, KL_WEIGHTINGS)
    of_clean, of_noise, std = coefficients(kernel, t, t_next)
    # a change of velocity moves the estimate of the map by -t and that of the noise by 1 - t
    per_velocity = of_noise * (1 - t) - of_clean * t
    return 2 * std**2 / per_velocity**2


def step_weights(weighting: StepWeighting, stds: Sequence[float]) -> list[float]:
    """Weights of the scored steps in the policy loss, of mean 1: all alike (none), or as their noise (std).

    The gradient of a step grows as 1 / std; weighted by std, late steps of little noise don't drown the others.

    Raises
    ------
    UsageError
        An unknown weighting.
    """
    if weighting == "none":
        return [1.0] * len(stds)
    if weighting != "std":
        raise unknown("step weighting", weighting, STEP_WEIGHTINGS)
    mean = sum(stds) / len(stds)
    return [s / mean for s in stds]


class RunningSpread:
    """Within-group deviation of rewards, modality by modality, averaged over steps.

    Base rates differ between modalities, so one number for all would let one of them dominate.

    Parameters
    ----------
    decay : of the average of variances, per update, in [0, 1)
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; needs [0, 1)")
        self._decay = decay
        self._sums: dict[str, tuple[float, float]] = {}

    def update(self, modality: str, rewards: Tensor) -> None:
        """Take in the rewards [B, G] of one step, of all processes; groups with fewer than two rewards don't count."""
        centred, count = _centred(rewards.double())
        groups = (count[:, 0] > 1).sum().item()
        if not groups:
            return
        variance = float((centred.square().sum(1) / count[:, 0].clamp_min(1)).sum().item() / groups)
        total, weight = self._sums.get(modality, (0.0, 0.0))
        self._sums[modality] = (
            self._decay * total + (1 - self._decay) * variance,
            self._decay * weight + (1 - self._decay),
        )

    def of(self, modality: str) -> float | None:
        """The deviation; None before any group of this modality was seen."""
        if modality not in self._sums:
            return None
        total, weight = self._sums[modality]
        return math.sqrt(total / weight)

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self._decay, "sums": {k: list(v) for k, v in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._decay = float(state["decay"])
        self._sums = {str(k): (float(v[0]), float(v[1])) for k, v in state["sums"].items()}


def _half_squares(mean: Tensor, other: Tensor, std: float | Tensor) -> Tensor:
    """|mean - other|^2 / (2 std^2), [B, G or 1]."""
    return (0.5 * (mean - other) ** 2 / _squared(std)).flatten(2).sum(2)


def _squared(std: float | Tensor) -> float | Tensor:
    return std * std
