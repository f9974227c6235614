"""The supervised baseline: a loss on the order of two points, from the same answers that GRPO is rewarded by.

It sees how far apart two points are, so that one pass through the network gives a gradient without sampling. For a
policy with independent noise at every pixel, GRPO's expected gradient is that of such a loss
(`reasonx_ft.grpo.expected`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.metrics.ordinal import compared
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.rewards import PUBLISHED, AlbedoThreshold, Target, target_of

RankingKind = Literal["mixture", "sigmoid"]

KINDS: Final[tuple[RankingKind, ...]] = get_args(RankingKind)
#: of a `separation` that decides: the odds are then e to 1
TEMPERATURES: Final[Mapping[str, float]] = {"depth": 0.09, "normals": 0.1, "irradiance": 0.15, "albedo": 0.4}


def separation(values: Tensor, modality: str, *, threshold: AlbedoThreshold = PUBLISHED) -> Tensor:
    """How far two points are on the side of FIRST (albedo: SAME), [...] of values [..., 2, C]; 0 is undecided.

    depth : log of the ratio of distances; irradiance : log of the ratio of luminances; normals : difference of facing;
    albedo : 1 minus the distance of the colours in units of that of `threshold`. The sign is `related`'s. Logarithms
    make it a matter of ratios, so that contrast in distant or bright places alone wins nothing.
    """
    if modality == "albedo":
        # rounded off at the tip, where the root has no slope
        placed = threshold.place(values)
        squares = (placed[..., 0, :] - placed[..., 1, :]).square().sum(-1)
        return 1 - (squares / threshold.distance**2 + 4e-4).sqrt()
    each: Tensor = values[..., 0] if modality == "depth" else compared(values, modality)
    if modality == "normals":
        return each[..., 0] - each[..., 1]
    apart = each[..., 0].log() - each[..., 1].log()
    return -apart if modality == "depth" else apart


def ranking_loss(
    values: Tensor, judged: Judged, *, kind: RankingKind = "mixture",
    temperature: float | Mapping[str, float] | None = None, hard: bool = False, balanced: bool = True,
    threshold: AlbedoThreshold = PUBLISHED,
) -> Tensor:  # fmt: skip
    """Mean loss of each image [B], >= 0; NaN, without gradient, for images without a pair that counts.

    Parameters
    ----------
    values : [B, N, 2, C] at the judged points, with gradient, in the units of the map
    kind : mixture is minus the log-likelihood of the answers of a judge who is right with the probability given: what
        the network contradicts firmly is taken for the judge's mistake and stops pulling. sigmoid is the expected
        disagreement
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
    apart = separation(values, judged.modality, threshold=threshold)
    return target.mean(_LOSSES[kind](apart / temperature_of(judged.modality, temperature), target))


def temperature_of(modality: str, given: float | Mapping[str, float] | None) -> float:
    """The temperature of a modality: one for all, one each, or the default where none is given."""
    found = given.get(modality) if isinstance(given, Mapping) else given
    found = TEMPERATURES[modality] if found is None else found
    if not found > 0:
        raise UsageError(f"the temperature of {modality} is {found}; needs a number above 0")
    return found


def _mixture(z: Tensor, target: Target) -> Tensor:
    p, sigmoid = target.probability, functional.logsigmoid
    likelihood = torch.logaddexp(p.log() + sigmoid(z), (1 - p).log() + sigmoid(-z))
    # 0 where nothing is left to gain
    return torch.maximum(p, 1 - p).log() - likelihood


def _sigmoid(z: Tensor, target: Target) -> Tensor:
    p = target.probability
    return p * torch.sigmoid(-z) + (1 - p) * torch.sigmoid(z)


_LOSSES: Final[Mapping[RankingKind, Callable[[Tensor, Target], Tensor]]] = {"mixture": _mixture, "sigmoid": _sigmoid}
