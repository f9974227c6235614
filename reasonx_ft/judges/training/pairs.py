"""Point pairs of exact maps, drawn for training: the same bands and relations as the ordinal pairs of the scenes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from reasonx_eval.datasets.scenes.pairs import BANDS, BORDER
from reasonx_ft.judges.tiny_net import JUDGED
from reasonx_ft.judges.training.augmentation import PARTS

#: as in metrics.ordinal.relation for ground truth
MARGIN: Final = 0.02
SAME_DISTANCE: Final = 0.05


@dataclass(frozen=True)
class Pairs:
    """points : int64 [B, J, 2, 2] (pair, point, (x, y)), pixels

    truth, decided : bool [B, J, 4] in the order of JUDGED: whether the first is closer, faces more, has more light, and
        whether both are the same; and whether the pair counts
    """

    points: Tensor
    truth: Tensor
    decided: Tensor


def draw_pairs(maps: Tensor, per_band: int, generator: torch.Generator) -> Pairs:
    """Pairs of each image, an equal number in each band of distance.

    maps : float32 [B, 10, H, W], see judge_augmentation.PARTS
    """
    b, _, height, width = maps.shape
    scale, edge = width / 512, min(BORDER * width, height / 4)
    spans = torch.tensor([((low[0] + low[1]) / 2 * scale, high * scale) for low, high in BANDS]).repeat_interleave(
        per_band, 0
    )
    n = len(spans)
    u = torch.rand((4, b, n), generator=generator)
    x, y = edge + u[0] * (width - 2 * edge), edge + u[1] * (height - 2 * edge)
    reach = spans[:, 0] + u[2] * (spans[:, 1] - spans[:, 0])
    angle = 2 * math.pi * u[3]
    # a point beyond the border is reflected into the picture; the distance shrinks, as it must in a small picture
    other_x = _reflected(x + reach * angle.cos(), edge, width - edge)
    other_y = _reflected(y + reach * angle.sin(), edge, height - edge)
    points = torch.stack([torch.stack([x, y], -1), torch.stack([other_x, other_y], -1)], dim=-2).floor().long()
    points[..., 0].clamp_(0, width - 1)
    points[..., 1].clamp_(0, height - 1)
    return _related(maps, points)


def _reflected(value: Tensor, low: float, high: float) -> Tensor:
    value = torch.where(value < low, 2 * low - value, value)
    return torch.where(value >= high, 2 * high - value, value).clamp(low, high - 1e-3)


def _related(maps: Tensor, points: Tensor) -> Pairs:
    b, channels, _, width = maps.shape
    place = (points[..., 1] * width + points[..., 0]).flatten(1)
    at = maps.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).view(b, channels, -1, 2)
    part = {m: at[:, first:last] for m, (first, last) in PARTS.items()}
    depth = maps[:, 0].flatten(1)
    extent = (depth.amax(dim=1) - depth.amin(dim=1)).view(b, 1, 1).clamp_min(1e-6)
    light = part["irradiance"]
    score = {
        "depth": -part["depth"][:, 0] / extent,
        "normals": -part["normals"][:, 2] / part["normals"].square().sum(dim=1).sqrt().clamp_min(1e-6),
        "irradiance": 0.299 * light[:, 0] + 0.587 * light[:, 1] + 0.114 * light[:, 2],
    }
    difference = torch.stack([score[m][..., 0] - score[m][..., 1] for m in JUDGED[:3]], dim=-1)
    paint = part["albedo"]
    same = (paint[..., 0] - paint[..., 1]).square().sum(dim=1).sqrt() < SAME_DISTANCE
    apart = (points[:, :, 0] != points[:, :, 1]).any(dim=-1, keepdim=True)
    decided = torch.cat([difference.abs() >= MARGIN, torch.ones_like(same)[..., None]], dim=-1) & apart
    return Pairs(points, torch.cat([difference > 0, same[..., None]], dim=-1), decided)
