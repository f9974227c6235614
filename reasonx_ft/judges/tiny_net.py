"""The network of the small judge: it looks at a photo once, then answers any number of point pairs.

A U-Net with attention at its coarsest level gives features at half size. A point is described by these features and by
the colours of its pixel and of those around it; a small network on the descriptions of two points gives the four
answers. It is antisymmetric (depth, normals, irradiance) or symmetric (albedo) by construction: exchanging the points
exchanges the answer to the last bit, so no answer depends on which point is asked about first.

The maps it also gives are for training: errors at every pixel teach more than answers about pairs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from reasonx_eval.models.embedded.tiny_net import CODES, doubled

#: height and width at which photos are looked at
SIZE: Final = (96, 128)
#: side of the square of pixels that a point's colours are read from
PATCH: Final = 5
#: the order of the answers
JUDGED: Final[tuple[str, ...]] = ("depth", "normals", "irradiance", "albedo")


@dataclass(frozen=True)
class Seen:
    """What the network keeps of photos.

    features : [B, C, H/2, W/2], of a wide surrounding
    colours : [B, 6, H, W], codes and their logarithm
    """

    features: Tensor
    colours: Tensor


class Attention(nn.Module):
    """Pre-norm attention over all places, then a two-layer network at each; [B, N, width] to the same."""

    def __init__(self, width: int, heads: int, expansion: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.between = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, expansion * width), nn.SiLU(),
                                     nn.Linear(expansion * width, width))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # a few hundred places: the plain products are quicker than the fused kernel, whose gradient is slow on a CPU
        mixed = (q * (width // self.heads) ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
        y: Tensor = x + self.between(x)
        return y


class Residual(nn.Module):
    """x plus a convolution of it, normalised over the channels of a place and rectified; [B, C, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # where channels lie side by side this takes a quarter of the time of norms over groups of channels
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + functional.relu(self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return y


class JudgeNet(nn.Module):
    """Photos float32 [B, 3, 96, 128] in [0, 1] (sRGB) to answers about point pairs.

    Parameters
    ----------
    widths : channels at half, quarter and eighth size
    blocks : residual convolutions at quarter size, on the way down and on the way up
    layers, heads : of attention at eighth size
    point, pair : width of a point's description, and of what is computed of two
    """

    def __init__(self, widths: Sequence[int] = (32, 96, 128), blocks: int = 2, layers: int = 4, heads: int = 4,
                 point: int = 64, pair: int = 96) -> None:  # fmt: skip
        super().__init__()
        half, quarter, eighth = widths
        self.to_half = nn.Conv2d(24, half, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.down = nn.Sequential(*(Residual(quarter) for _ in range(blocks)))
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.place = nn.Parameter(torch.zeros(1, SIZE[0] // 8 * (SIZE[1] // 8), eighth))
        self.attention = nn.Sequential(*(Attention(eighth, heads) for _ in range(layers)))
        # to fewer channels before the size doubles: most of the time goes into the larger sizes
        self.from_eighth = nn.Conv2d(eighth, quarter, 1)
        self.up = nn.Sequential(*(Residual(quarter) for _ in range(blocks)))
        self.from_quarter = nn.Conv2d(quarter, half, 1)
        self.features = nn.Conv2d(half, 2 * half, 3, padding=1)
        self.maps = nn.Conv2d(2 * half, sum(c.channels for c in CODES.values()), 1)
        self.of_features = nn.Linear(2 * half, point)
        self.of_colours = nn.Linear(6 * PATCH**2, point, bias=False)
        self.point = nn.Sequential(nn.SiLU(), nn.Linear(point, point))
        self.first = nn.Linear(point, pair)
        self.second = nn.Linear(point, pair, bias=False)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(pair, pair // 2), nn.SiLU(), nn.Linear(pair // 2, len(JUDGED)))

    def look(self, photos: Tensor) -> Seen:
        """Once a photo; in the network's dtype, but for the colours, which stay as they are."""
        # beside the codes their logarithm, in which light and paint add up
        colours = torch.cat([2 * photos - 1, torch.log(photos + 1 / 64) + 1], dim=1)
        unshuffled = functional.pixel_unshuffle(colours, 2).contiguous(memory_format=torch.channels_last)
        half = functional.relu(self.to_half(unshuffled.to(self.place.dtype)))
        quarter = self.down(functional.relu(self.to_quarter(half)))
        coarse = self.to_eighth(quarter)
        places = self.attention(coarse.flatten(2).transpose(1, 2) + self.place)
        coarse = places.transpose(1, 2).reshape(coarse.shape)
        x = self.up(doubled(self.from_eighth(coarse)) + quarter)
        x = functional.relu(self.features(doubled(self.from_quarter(x)) + half))
        return Seen(x, colours)

    def codes(self, seen: Seen) -> dict[str, Tensor]:
        """Modality -> code of the map at half size, [B, C, H/2, W/2]; see `CODES`."""
        parts = self.maps(seen.features).split([c.channels for c in CODES.values()], dim=1)
        return dict(zip(CODES, parts, strict=True))

    def answers(self, seen: Seen, points: Tensor) -> Tensor:
        """Logits [B, J, 4] of JUDGED: that the first is closer, faces more, has more light; that both are the same.

        points : int64 [B, J, 2, 2] (pair, point, (x, y)), pixels of the photo at SIZE
        """
        return self.judge(around(seen.features, points), neighbours(seen.colours, points))

    def judge(self, features: Tensor, colours: Tensor) -> Tensor:
        """As `answers`, of what is seen at the points.

        features : [B, 2 J, C], see `around`
        colours : [B, 2 J, 6 * PATCH**2], see `neighbours`
        """
        b, n = features.shape[:2]
        known = self.of_features(features) + self.of_colours(colours)
        one, two = self.point(known).view(b, n // 2, 2, -1).unbind(dim=2)
        forth = self.pair(self.first(one) + self.second(two))
        back = self.pair(self.first(two) + self.second(one))
        return torch.cat([(forth - back)[..., :3], (forth + back)[..., 3:]], dim=-1)


def both_ways(network: JudgeNet, photos: Tensor) -> list[Tensor]:
    """Photos, and their mirror images, as they are looked at: one after the other, or together."""
    turned = photos.flip(-1)
    # in float32 they are no faster together, and differ in the last digits
    return [photos, turned] if network.place.dtype == torch.float32 else [torch.cat([photos, turned])]


def of_both_ways(looks: Sequence[Seen]) -> tuple[Seen, Seen]:
    """What was seen of photos, and of their mirror images, from looks at all of `both_ways`."""
    if len(looks) == 2:
        return looks[0], looks[1]
    [both] = looks
    n = len(both.features) // 2
    return Seen(both.features[:n], both.colours[:n]), Seen(both.features[n:], both.colours[n:])


def look_both_ways(network: JudgeNet, photos: Tensor) -> tuple[Seen, Seen]:
    """Photos, and their mirror images."""
    return of_both_ways([network.look(way) for way in both_ways(network, photos)])


def answers_of_both(
    network: JudgeNet, seen: tuple[Seen, Seen], points: Tensor, *, at_a_time: int | None = None
) -> Tensor:
    """Mean logits [B, J, 4] over a photo and its mirror image: two opinions for one, on whatever was learnt unevenly.

    points : as in `JudgeNet.answers`, of the photo that is not mirrored
    at_a_time : pairs that the layers are given at once, None for all; a product of matrices may differ in its last
        digits with their size, so J is a multiple of it where answers mustn't depend on J
    """
    x, y = points.unbind(dim=-1)
    sides = zip(seen, (points, torch.stack([SIZE[1] - 1 - x, y], dim=-1)), strict=True)
    # two rows a pair
    rows = 2 * (at_a_time or points.shape[1])
    parts = [zip(torch.split(around(s.features, at), rows, dim=1), torch.split(neighbours(s.colours, at), rows, dim=1),
                 strict=True) for s, at in sides]  # fmt: skip
    means = [(network.judge(*straight) + network.judge(*turned)) / 2 for straight, turned in zip(*parts, strict=True)]
    return torch.cat(means, dim=1)


def around(features: Tensor, points: Tensor) -> Tensor:
    """Features [B, C, H/2, W/2] at pixels [B, J, 2, 2] of full size: float32 [B, 2 J, C].

    Features lie on pixels of even row and column; between them it is their mean.
    """
    b, c, height, width = features.shape
    x, y = points.flatten(1, 2).unbind(dim=-1)
    columns = torch.stack([x // 2, ((x + 1) // 2).clamp_max(width - 1)], dim=-1)
    rows = torch.stack([y // 2, ((y + 1) // 2).clamp_max(height - 1)], dim=-1)
    first = torch.arange(b, device=points.device).view(b, 1, 1, 1) * (height * width)
    place = first + rows[..., :, None] * width + columns[..., None, :]
    # whole rows: channels lie side by side
    found = features.permute(0, 2, 3, 1).reshape(-1, c).index_select(0, place.flatten()).float()
    return found.view(b, -1, 4, c).mean(dim=2)


def neighbours(colours: Tensor, points: Tensor) -> Tensor:
    """Colours [B, C, H, W] in the square around pixels [B, J, 2, 2]: [B, 2 J, PATCH * PATCH * C]."""
    b, c, height, width = colours.shape
    reach = torch.arange(PATCH, device=points.device) - PATCH // 2
    x = (points[..., 0].flatten(1)[..., None] + reach).clamp(0, width - 1)
    y = (points[..., 1].flatten(1)[..., None] + reach).clamp(0, height - 1)
    place = (y[..., :, None] * width + x[..., None, :]).flatten(1)
    found = colours.flatten(2).gather(2, place[:, None].expand(-1, c, -1))
    return found.view(b, c, -1, PATCH**2).permute(0, 2, 3, 1).flatten(2)
