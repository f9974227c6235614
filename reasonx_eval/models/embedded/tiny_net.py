"""The two embedded networks and the coordinates they work in; torch modules only, no files, no photos.

`TinyNet` answers at once: a U-Net from a photo to all four maps. `TinyFlow` is a conditional rectified flow in pixel
space: a photo and noise to one map, as latent diffusion estimators do it, but small enough for a laptop's CPU.
reasonx_ft tunes both.

Maps travel as *codes*: float32 [B, 3, H, W] (depth: [B, 1, H, W] out of `TinyNet`) of about unit range, so that one
noise level, one loss and one step size fit all modalities. A positive map's code is its logarithm, shifted and scaled:
an error of a given size is then the same ratio anywhere, and no code decodes to a negative depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

#: photos come to the networks with sides that are multiples of this
STRIDE: Final = 8
# codes beyond this come from no training map; exp of it is finite
_CODE_LIMIT = 8.0


@dataclass(frozen=True)
class Code:
    """How a map is written for the networks.

    channels : of the map
    centre, spread : of the natural logarithm; a map with spread 0 (unit vectors) is its own code
    """

    channels: int
    centre: float = 0.0
    spread: float = 0.0

    def encode(self, value: Tensor) -> Tensor:
        """The code of a map [B, C, H, W]: metres > 0, linear light > 0, or unit vectors."""
        return (torch.log(value) - self.centre) / self.spread if self.spread else value

    def decode(self, code: Tensor) -> Tensor:
        """The map of a code [B, C, H, W]; directions of any length become unit vectors."""
        if self.spread:
            return torch.exp(code.clamp(-_CODE_LIMIT, _CODE_LIMIT) * self.spread + self.centre)
        return unit(code)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [B, 3, H, W] at length 1; those without a direction face the camera, (0, 0, -1)."""
    length = vectors.norm(dim=1, keepdim=True)
    facing = vectors.new_tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
    return torch.where(length > 1e-6, vectors / length.clamp_min(1e-6), facing)


#: modality -> its code; the order is that of `TinyFlow`'s modality index
CODES: Final[Mapping[str, Code]] = {
    "depth": Code(1, centre=0.9, spread=0.6),
    "normals": Code(3),
    "albedo": Code(3, centre=-1.0, spread=0.8),
    "irradiance": Code(3, centre=-0.3, spread=0.8),
}
MODALITIES: Final[tuple[str, ...]] = tuple(CODES)


class Block(nn.Module):
    """Convolution, group norm, scale and shift by an embedding (if there is one), SiLU; residual where it can be."""

    def __init__(self, into: int, out: int, *, stride: int = 1, dilation: int = 1, embedding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.GroupNorm(out // 8, out)
        self.film = nn.Linear(embedding, 2 * out) if embedding else None
        self.residual = into == out and stride == 1

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        y = self.norm(self.conv(x))
        if self.film is not None:
            assert embedding is not None
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        y = functional.silu(y)
        return x + y if self.residual else y


def doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Encoder(nn.Module):
    """A photo to features at full, half, quarter and eighth size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.at_full = Block(6, full)
        self.at_half = nn.Sequential(Block(full, half, stride=2), Block(half, half))
        self.at_quarter = nn.Sequential(Block(half, quarter, stride=2), Block(quarter, quarter))
        self.at_eighth = nn.Sequential(
            Block(quarter, eighth, stride=2), Block(eighth, eighth, dilation=2), Block(eighth, eighth)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        # beside the codes their logarithm, in which light and paint add up
        full = self.at_full(torch.cat([2 * images - 1, torch.log(images + 1 / 64) + 1], dim=1))
        half = self.at_half(full)
        quarter = self.at_quarter(half)
        return [full, half, quarter, self.at_eighth(quarter)]


class TinyNet(nn.Module):
    """Feed-forward U-Net: images float32 [B, 3, H, W] in [0, 1] (sRGB), sides multiples of 8, to the codes of all maps.

    Parameters
    ----------
    widths : channels at full, half, quarter and eighth size
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.encoder = Encoder(widths)
        self.middle = Block(eighth, eighth)
        self.to_quarter = nn.Sequential(Block(eighth + quarter, quarter), Block(quarter, quarter))
        self.to_half = nn.Sequential(Block(quarter + half, half), Block(half, half))
        # to few channels before the size doubles: most of the time goes into the full size
        self.narrow = nn.Conv2d(half, full, 1)
        self.to_full = Block(2 * full, 24)
        self.head = nn.Conv2d(24, sum(c.channels for c in CODES.values()), 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Modality -> code, [B, 1, H, W] for depth, [B, 3, H, W] for the rest (normals: not of unit length)."""
        full, half, quarter, eighth = self.encoder(images)
        x = self.to_quarter(torch.cat([doubled(self.middle(eighth)), quarter], dim=1))
        x = self.to_half(torch.cat([doubled(x), half], dim=1))
        x = self.head(self.to_full(torch.cat([doubled(self.narrow(x)), full], dim=1)))
        parts = x.split([c.channels for c in CODES.values()], dim=1)
        return dict(zip(CODES, parts, strict=True))


class TinyFlow(nn.Module):
    """Conditional rectified flow: state x_t = (1 - t) x_0 + t noise, x_0 the code of one modality.

    The network says where the state came from (the clean code) and the velocity follows, v = (x_t - x_0) / t = noise -
    x_0, so that it never has to reproduce noise. All methods take t in (0, 1], float32 [B], and the modality's index in
    `MODALITIES`, int64 [B]. A depth's code is repeated in three channels, and read back as their mean.

    Parameters
    ----------
    widths : channels at full, half, quarter and eighth size
    embedding : width of the embedding of t and the modality
    """

    #: below this t the velocity's denominator stops shrinking
    T_FLOOR: Final = 0.02

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96), embedding: int = 64) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.encoder = Encoder(widths)
        self.modality = nn.Embedding(len(MODALITIES), embedding)
        self.time = nn.Sequential(nn.Linear(17, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        e = embedding
        # the state enters at half size, four pixels a cell: at full size nothing but the photo is sharp anyway
        self.enter = Block(12 + half, half, embedding=e)
        self.down_quarter = Block(half, quarter, stride=2, embedding=e)
        self.at_quarter = Block(2 * quarter, quarter, embedding=e)
        self.down_eighth = Block(quarter, eighth, stride=2, embedding=e)
        self.at_eighth = Block(2 * eighth, eighth, embedding=e)
        self.middle = Block(eighth, eighth, embedding=e)
        self.up_quarter = Block(eighth + quarter, quarter, embedding=e)
        self.up_half = Block(quarter + half, half, embedding=e)
        self.narrow = nn.Conv2d(half, full, 1)
        self.up_full = Block(2 * full, full, embedding=e)
        self.head = nn.Conv2d(full, 3, 3, padding=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of images [B, 3, H, W] in [0, 1]; computed once for all samples of an image."""
        features: list[Tensor] = self.encoder(images)
        return features

    def clean(self, state: Tensor, t: Tensor, modality: Tensor, condition: Sequence[Tensor]) -> Tensor:
        """The clean code that a state [B, 3, H, W] comes from, [B, 3, H, W]."""
        full, half, quarter, eighth = condition
        known = functional.silu(self.modality(modality) + self.time(_waves(t)))
        a = self.enter(torch.cat([functional.pixel_unshuffle(state, 2), half], dim=1), known)
        b = self.at_quarter(torch.cat([self.down_quarter(a, known), quarter], dim=1), known)
        c = self.at_eighth(torch.cat([self.down_eighth(b, known), eighth], dim=1), known)
        c = self.middle(c, known)
        x = self.up_quarter(torch.cat([doubled(c), b], dim=1), known)
        x = self.up_half(torch.cat([doubled(x), a], dim=1), known)
        x = self.up_full(torch.cat([doubled(self.narrow(x)), full], dim=1), known)
        code: Tensor = self.head(x)
        return code

    def velocity(self, state: Tensor, t: Tensor, modality: Tensor, condition: Sequence[Tensor]) -> Tensor:
        """dx/dt of the flow at a state, [B, 3, H, W]."""
        t_ = t.clamp_min(self.T_FLOOR).view(-1, 1, 1, 1)
        return (state - self.clean(state, t, modality, condition)) / t_

    def forward(self, images: Tensor, state: Tensor, t: Tensor, modality: Tensor) -> Tensor:
        """The velocity; encodes the image first."""
        return self.velocity(state, t, modality, self.encode(images))


def _waves(t: Tensor) -> Tensor:
    """t and sines and cosines of it, float32 [B, 17]."""
    angle = t[:, None] * (torch.pi * 2.0 ** torch.arange(-1, 7, dtype=t.dtype, device=t.device))
    return torch.cat([t[:, None], angle.sin(), angle.cos()], dim=1)


def to_state(code: Tensor) -> Tensor:
    """A code as `TinyFlow` holds it: three channels."""
    return code.expand(-1, 3, -1, -1) if code.shape[1] == 1 else code


def from_state(state: Tensor, modality: str) -> Tensor:
    """The code in a state [B, 3, H, W]: one channel for depth."""
    return state.mean(dim=1, keepdim=True) if CODES[modality].channels == 1 else state


def euler(net: TinyFlow, noise: Tensor, modality: Tensor, condition: Sequence[Tensor], steps: int) -> Tensor:
    """The state at t = 0 that noise [B, 3, H, W] at t = 1 flows to, in equal steps."""
    state = noise
    for k in range(steps):
        t = noise.new_full((len(noise),), 1.0 - k / steps)
        state = state - net.velocity(state, t, modality, condition) / steps
    return state
