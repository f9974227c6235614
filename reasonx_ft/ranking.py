"""The supervised baseline: a loss on the order of two points, from the same answers that GRPO is rewarded by.

It sees how far apart two points are, so that one pass through the network gives a gradient without sampling. For a
policy with independent noise at every pixel, GRPO's expected gradient is that of such a loss (`reasonx_ft.expected`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.metrics.ordinal import compared
from reasonx_ft.policies.base import Judged
from reasonx_ft.rewards import Target, target_of

Kind = Literal["logistic", "probit", "hinge", "sigmoid"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: of the difference at which a judgement counts as followed; see `separation` for the units
TEMPERATURES: Final[Mapping[str, float]] = {"depth": 0.1, "normals": 0.1, "irradiance": 0.2, "albedo": 0.5}


def separation(values: Tensor, modality: str, *, same_distance: float = 0.05) -> Tensor:
    """How far two points are on the side of FIRST (albedo: SAME), [...] of values [..., 2, C]; 0 is undecided.

    depth : log of the ratio of distances; irradiance : log of the ratio of luminances; normals : difference of facing;
    albedo : log of `same_distance` over the distance of the colours. The sign is `related`'s; a difference in logs
    can't be had by stretching a map's contrast in bright or distant places alone.
    """
    if modality == "albedo":
        # as if the colours were some steps apart at least: the logarithm of 0 has no bound
        least = (same_distance / 10) ** 2
        squares = (values[..., 0, :] - values[..., 1, :]).square().sum(-1)
        return 0.5 * torch.log((same_distance**2 + least) / (squares + least))
    each: Tensor = values[..., 0] if modality == "depth" else compared(values, modality)
    if modality == "normals":
        return each[..., 0] - each[..., 1]
    apart = each[..., 0].log() - each[..., 1].log()
    return -apart if modality == "depth" else apart


def ranking_loss(
    values: Tensor, judged: Judged, *, kind: Kind = "logistic", temperature: float | Mapping[str, float] | None = None,
    hard: bool = False, balanced: bool = True, same_distance: float = 0.05,
) -> Tensor:  # fmt: skip
    """Mean loss of each image [B], >= 0; NaN, without gradient, for images without a pair that counts.

    Parameters
    ----------
    values : [B, N, 2, C] at the judged points, with gradient, in the units of the map
    kind : logistic and probit (minus the log-likelihood of the answers, against the probability that the judge gave),
        hinge, or sigmoid (the expected disagreement, which is bounded: wrong answers that the network contradicts
        firmly stop pulling)
    temperature : of `separation`; default `TEMPERATURES`
    hard, balanced : see `rewards.target_of`

    Raises
    ------
    UsageError
        An unknown kind, or a temperature that is not above 0.
    """
    if kind not in KINDS:
        raise unknown("ranking loss", kind, KINDS)
    target = target_of(judged, hard=hard, balanced=balanced)
    apart = separation(values, judged.modality, same_distance=same_distance)
    return target.mean(_LOSSES[kind](apart / temperature_of(judged.modality, temperature), target))


def temperature_of(modality: str, given: float | Mapping[str, float] | None) -> float:
    """The temperature of a modality: one for all, one each, or the default where none is given."""
    found = given.get(modality) if isinstance(given, Mapping) else given
    found = TEMPERATURES[modality] if found is None else found
    if not found > 0:
        raise UsageError(f"the temperature of {modality} is {found}; needs a number above 0")
    return found


def _logistic(z: Tensor, target: Target) -> Tensor:
    loss: Tensor = functional.binary_cross_entropy_with_logits(z, target.probability, reduction="none")
    return loss


def _probit(z: Tensor, target: Target) -> Tensor:
    p = target.probability
    likelihood: Tensor = p * torch.special.log_ndtr(z) + (1 - p) * torch.special.log_ndtr(-z)
    return -likelihood


def _hinge(z: Tensor, target: Target) -> Tensor:
    p = target.probability
    return p * functional.relu(1 - z) + (1 - p) * functional.relu(1 + z)


def _sigmoid(z: Tensor, target: Target) -> Tensor:
    p = target.probability
    return p * torch.sigmoid(-z) + (1 - p) * torch.sigmoid(z)


_LOSSES: Final[Mapping[Kind, Callable[[Tensor, Target], Tensor]]] = {
    "logistic": _logistic, "probit": _probit, "hinge": _hinge, "sigmoid": _sigmoid,
}  # fmt: skip
