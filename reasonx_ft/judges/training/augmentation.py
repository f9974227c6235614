"""Other photos of the same scenes: turned, zoomed, repainted, relit and taken with another camera, all from exact maps.

A rendered photo is albedo times irradiance behind a camera's response. Both maps are known, so paint and light can be
changed and the answers to all questions stay exact. A turn about the optical axis and a zoom change no depth and no
facing, only what is in the picture. Nothing here is fitted to another domain: the ranges are wide on purpose.

Every draw comes from one generator, so a batch depends on the seed and the step alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

#: modality -> first and last channel in a stack of all maps
PARTS: Final = {"depth": (0, 1), "normals": (1, 4), "albedo": (4, 7), "irradiance": (7, 10)}
_LUMA: Final = (0.299, 0.587, 0.114)
#: the brightest tenth of a nominally exposed picture begins here, linear
_BRIGHT: Final = 0.55


@dataclass(frozen=True)
class Views:
    """Photos float32 [B, 3, H, W] in [0, 1] and the stack of their maps [B, 10, H, W], in units of the data set."""

    photos: Tensor
    maps: Tensor


class Chance:
    """Uniform draws of one generator, shaped to be broadcast over maps."""

    def __init__(self, generator: torch.Generator, images: int) -> None:
        self.generator, self.images = generator, images

    def of(self, images: int) -> Chance:
        """Further draws of the same generator, for another number of images."""
        return Chance(self.generator, images)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 [B, *shape], [B, 1, 1, 1] without a shape."""
        size = (self.images, *(shape or (1, 1, 1)))
        return low + (high - low) * torch.rand(size, generator=self.generator)

    def happens(self, probability: float) -> Tensor:
        return self.between(0.0, 1.0) < probability

    def normal(self, *shape: int) -> Tensor:
        return torch.randn((self.images, *shape), generator=self.generator)


def vary(photos: Tensor, maps: Tensor, *, seed: int, relit: float) -> Views:
    """Another view of each scene: a share `relit` made anew from its maps, the rest the photo with other tones."""
    chance = Chance(torch.Generator().manual_seed(seed % 2**63), len(photos))
    anew = chance.happens(relit).flatten()
    out, truth = torch.empty_like(photos), maps.clone()
    if not anew.all():
        kept = photos[~anew]
        out[~anew] = _toned(kept, chance.of(len(kept)), strength=0.5).clamp(0, 1)
    if anew.any():
        out[anew], truth[anew] = _anew(maps[anew], chance.of(int(anew.sum())))
    return Views((out * 255).round() / 255, truth)


def _anew(maps: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Photos made from maps [B, 10, H, W], and their maps: turned, painted, lit, and taken with another camera."""
    maps = _turned(maps, chance)
    albedo = _painted(maps[:, 4:7], chance)
    light = _exposed(albedo, _lit(maps[:, 7:10], chance))
    photos = _compressed(_developed(albedo * light, chance), chance)
    return photos, torch.cat([maps[:, :4], albedo, light], dim=1)


def mirrored(photos: Tensor, maps: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right exchanged where `which` [B, 1, 1, 1]; a normal's x changes its sign."""
    sign = torch.ones(10)
    sign[1] = -1
    flipped = maps.flip(-1) * sign.view(1, 10, 1, 1)
    return torch.where(which, photos.flip(-1), photos), torch.where(which, flipped, maps)


def _turned(maps: Tensor, chance: Chance) -> Tensor:
    """Turned and zoomed about the centre, by the nearest pixel: the renderer too takes one ray a pixel."""
    b, _, height, width = maps.shape
    angle = chance.between(-1.0, 1.0) * chance.between(0.0, 14.0) * (math.pi / 180)
    aspect = width / height
    # as much larger as keeps the corners inside
    fill = angle.cos() + aspect * angle.sin().abs()
    zoom = chance.between(1.0, 1.2) * fill
    cos, sin = (angle.cos() / zoom).view(b), (angle.sin() / zoom).view(b)
    shift = (1 - fill / zoom).view(b, 1) * chance.between(-1.0, 1.0, 2)
    rows = torch.stack([torch.stack([cos, -sin / aspect, shift[:, 0]], dim=1),
                        torch.stack([sin * aspect, cos, shift[:, 1]], dim=1)], dim=1)  # fmt: skip
    grid = functional.affine_grid(rows, list(maps.shape), align_corners=False)
    out = functional.grid_sample(maps, grid, mode="nearest", padding_mode="border", align_corners=False)
    c, s = angle.cos()[:, 0], angle.sin()[:, 0]
    x, y = out[:, 1], out[:, 2]
    # the picture turns by minus the angle of the grid, and the axes with it
    return torch.cat([out[:, :1], (c * x + s * y)[:, None], (c * y - s * x)[:, None], out[:, 3:]], dim=1)


def _painted(albedo: Tensor, chance: Chance) -> Tensor:
    """Surfaces of other colours: hue, saturation, darkness, contrast, grain."""
    b, _, height, width = albedo.shape
    order = torch.argsort(chance.between(0.0, 1.0, 3), dim=1)
    albedo = albedo.gather(1, order.view(b, 3, 1, 1).expand_as(albedo))
    value = albedo.mean(dim=1, keepdim=True)
    saturated = (albedo / value).clamp_min(1e-3) ** chance.between(0.4, 1.7)
    saturated = saturated / saturated.mean(dim=1, keepdim=True)
    value = value ** chance.between(0.7, 1.5) * chance.between(-0.35, 0.35).exp()
    tint = chance.between(-0.2, 0.2, 3, 1, 1).exp()
    coarse = chance.normal(1, height // 2, width // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    mix = chance.between(0.0, 1.0)
    grain = mix * chance.normal(1, height, width) + (1 - mix) * coarse
    grain = 1 + grain.clamp(-2, 2) * chance.between(0.0, 0.2) * chance.happens(0.5)
    painted: Tensor = (saturated * value * tint * grain).clamp(0.02, 0.97)
    return painted


def _lit(light: Tensor, chance: Chance) -> Tensor:
    """Light of other contrast, with tints that differ from place to place."""
    b = len(light)
    bright = light.mean(dim=1, keepdim=True)
    colour = light / bright
    bright = bright / bright.mean(dim=(2, 3), keepdim=True)
    tint = chance.between(-1.0, 1.0, 3, 1, 1) * chance.between(0.0, 0.45)
    slope = functional.interpolate(chance.normal(4, 2, 3), size=light.shape[-2:], mode="bilinear", align_corners=True)
    local = slope[:, :3] * chance.between(0.0, 0.15) + slope[:, 3:] * chance.between(0.0, 0.25)
    assert local.shape[0] == b
    lit: Tensor = bright ** chance.between(0.7, 1.4) * colour * (tint + local).exp()
    return lit


def _exposed(albedo: Tensor, light: Tensor) -> Tensor:
    """The light at which its product with the albedo has the nominal level."""
    linear = albedo * light
    luma = (linear * linear.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1).flatten(1)
    bright = luma[:, ::7].quantile(0.9, dim=1).view(-1, 1, 1, 1)
    return light * (_BRIGHT / bright)


def _developed(linear: Tensor, chance: Chance) -> Tensor:
    """What a camera makes of linear light: vignetting, exposure, balance, blur, noise, encoding, tones."""
    b, _, height, width = linear.shape
    x = torch.linspace(-1, 1, width)
    y = torch.linspace(-1, 1, height)[:, None] * (height / width)
    linear = linear / (1 + chance.between(0.0, 0.5) * (x * x + y * y))
    exposure = chance.between(math.log(0.2), math.log(1.5)).exp()
    linear = linear * exposure * (1 + chance.between(-0.2, 0.2, 3, 1, 1))
    sigma = chance.between(0.15, 1.05).view(b, 1)
    taps = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma) ** 2)
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(3, 0)
    flat = functional.pad(linear.reshape(1, b * 3, height, width), (2, 2, 2, 2), mode="replicate")
    flat = functional.conv2d(flat, taps.view(b * 3, 1, 1, 5), groups=b * 3)
    linear = functional.conv2d(flat, taps.view(b * 3, 1, 5, 1), groups=b * 3).view(b, 3, height, width)
    deviation = (chance.between(0.0, 0.016) ** 2 + chance.between(0.0, 0.06) ** 2 * linear.clamp_max(1)).sqrt()
    linear = (linear + deviation * chance.normal(3, height, width)).clamp(0, 1)
    encoded = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
    return _toned(encoded, chance, strength=1.0)


def _toned(encoded: Tensor, chance: Chance, *, strength: float) -> Tensor:
    """A tone curve: Schlick's bias, and a blend with the smooth step."""
    bias = 0.5 + strength * chance.between(-0.14, 0.14)
    encoded = encoded / ((1 / bias - 2) * (1 - encoded) + 1)
    curve = encoded * encoded * (3 - 2 * encoded)
    toned: Tensor = encoded + strength * chance.between(-0.2, 0.8) * (curve - encoded)
    return toned


# example tables of ITU-T T.81 annex K, averaged over their antidiagonals: enough for the look of compression
_FREQUENCY = torch.arange(8)[:, None] + torch.arange(8)
_LUMA_STEPS = torch.tensor([16, 11.5, 12.3, 15.8, 21.6, 31.8, 44.8, 58.9, 70, 79, 86, 96, 100, 102, 99])[_FREQUENCY]
_CHROMA_STEPS = torch.tensor([17.0, 18, 23, 38, 70, 96, 99, 99, 99, 99, 99, 99, 99, 99, 99])[_FREQUENCY]


def _cosines() -> Tensor:
    """The orthonormal 8-point cosine transform: row k is frequency k."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    table = torch.cos(math.pi / 8 * k * (n + 0.5)) * 0.5
    table[0] *= math.sqrt(0.5)
    return table


def _compressed(photos: Tensor, chance: Chance) -> Tensor:
    """Block compression of most photos: colour transform, halved chroma, quantised cosines."""
    quality = chance.between(30.0, 95.0).view(-1, 1, 1, 1, 1)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    r, g, b = (255 * photos).unbind(dim=1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    chroma = functional.avg_pool2d(torch.stack([0.564 * (b - luma), 0.713 * (r - luma)], dim=1), 2)
    luma = _through_blocks(luma[:, None] - 128, factor, _LUMA_STEPS)[:, 0] + 128
    blue, red = functional.interpolate(_through_blocks(chroma, factor, _CHROMA_STEPS), scale_factor=2.0).unbind(dim=1)
    out = torch.stack([luma + 1.403 * red, luma - 0.344 * blue - 0.714 * red, luma + 1.773 * blue], dim=1) / 255
    return torch.where(chance.happens(0.7), out, photos).clamp(0, 1)


def _through_blocks(planes: Tensor, factor: Tensor, table: Tensor) -> Tensor:
    """Planes [B, C, H, W] of values about 0, H and W multiples of 8, with their cosines rounded to steps."""
    b, c, height, width = planes.shape
    blocks = planes.reshape(b, c * height // 8, 8, width // 8, 8).transpose(2, 3)
    cosines = _cosines()
    step = (table * factor).round().clamp(1, 255)
    kept = (cosines @ blocks @ cosines.T / step).round() * step
    return (cosines.T @ kept @ cosines).transpose(2, 3).reshape(b, c, height, width)
