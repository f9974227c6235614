"""The head of `dino-small`: tokens of a frozen backbone and the photo to the codes of all maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reasonx_eval.models.embedded.tiny_net import CODES, STRIDE, Block, doubled


class DinoHead(nn.Module):
    """Tokens of a frozen backbone and the photo to the codes of all maps (see `tiny_net`), at 8 pixels a token.

    Parameters
    ----------
    channels : of a token
    layers : the backbone's layers whose tokens it takes, counted from 1
    tokens : tokens on the long side of a photo, for which it was trained
    widths : channels at full, half, quarter and eighth size
    """

    def __init__(
        self,
        channels: int = 384,
        layers: Sequence[int] = (6, 9, 12),
        tokens: int = 16,
        widths: Sequence[int] = (16, 32, 64, 160),
    ) -> None:
        super().__init__()
        self.channels, self.layers, self.tokens = channels, tuple(layers), tokens
        full, half, quarter, eighth = widths
        self.project = nn.Conv2d(len(self.layers) * channels, eighth, 1)
        self.summary = nn.Linear(channels, eighth)
        self.at_eighth = nn.Sequential(Block(eighth, eighth), Block(eighth, eighth))
        self.stem = Block(6, full)
        self.stem_half = Block(full, half, stride=2)
        self.stem_quarter = Block(half, quarter, stride=2)
        self.to_quarter = nn.Sequential(Block(eighth + quarter, quarter), Block(quarter, quarter))
        self.to_half = nn.Sequential(Block(quarter + half, half), Block(half, half))
        self.narrow = nn.Conv2d(half, full, 1)
        self.to_full = Block(2 * full, 24)
        self.head = nn.Conv2d(24, sum(c.channels for c in CODES.values()), 3, padding=1)

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Modality -> code, [B, 1, H, W] for depth, [B, 3, H, W] for the rest (normals: not of unit length).

        Parameters
        ----------
        images : float32 [B, 3, H, W] in [0, 1] (sRGB), sides multiples of 8
        tokens : float32 [B, L, 1 + H / 8 * W / 8, C], as `Backbone` gives them
        """
        height, width = (side // STRIDE for side in images.shape[-2:])
        patches = tokens[:, :, 1:].permute(0, 1, 3, 2).reshape(len(tokens), -1, height, width)
        x = self.project(patches) + self.summary(tokens[:, -1, 0])[:, :, None, None]
        # beside the codes their logarithm, in which light and paint add up
        full = self.stem(torch.cat([2 * images - 1, torch.log(images + 1 / 64) + 1], dim=1))
        half = self.stem_half(full)
        x = torch.cat([doubled(self.at_eighth(functional.silu(x))), self.stem_quarter(half)], dim=1)
        x = self.to_half(torch.cat([doubled(self.to_quarter(x)), half], dim=1))
        x = self.head(self.to_full(torch.cat([doubled(self.narrow(x)), full], dim=1)))
        return dict(zip(CODES, x.split([c.channels for c in CODES.values()], dim=1), strict=True))
