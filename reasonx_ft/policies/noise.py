"""Noise around an answer: which numbers are drawn, and how they move a map.

An answer's code f becomes y = f + sigma B z, z standard normal, and the density is that of z's coordinates. Only the
values of y at judged points are ever made, so samples cost no pass of the network. `sigma` is the root mean square of
the noise at a pixel, in units of the code, whatever B is.

Two kinds. *Pixel* noise is independent everywhere, so the reward of a pair of points depends on the noise at its own
two pixels, and no other is drawn: the sampled variable is the pair's. Sampling each pair by itself gives the expected
gradient of sampling maps (the reward is a sum over pairs, each a function of its own marginal) with less variance.
*Low frequencies* move whole regions smoothly, as a network's own mistakes do; their coefficients are shared by all
pairs of a map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.seeding import stream_seed
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.expected import Covariance

NoiseName = Literal["pixel", "lowrank"]
#: where a sampler of many steps explores
Explore = Literal["output", "steps"]

#: root mean square of the noise at a pixel, in units of the codes (normals: about radians)
SIGMA: Final[Mapping[str, float]] = {"depth": 0.1, "normals": 0.15, "albedo": 0.03, "irradiance": 0.1}


@dataclass(frozen=True)
class Sampled:
    """A group of samples of each photo.

    mean : of the sampled variable [B, 1, ...]; after : the sample [B, G, ...]; std : of the variable's elements
    codes : [B, G, N, 2, C], the sampled codes at the judged points
    """

    mean: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    std: float
    codes: Tensor = field(repr=False)


def standard_normal(seeds: Sequence[int], shape: Sequence[int], *keys: str, device: torch.device) -> Tensor:
    """Float32 [len(seeds), *shape]; each row depends on its seed and the keys alone.

    Drawn on the CPU: the same numbers on every device. Along the first axis of `shape`, a longer draw begins with the
    shorter one.
    """
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(stream_seed(seed, *keys) % 2**63)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows).to(device)


def sigmas(given: float | Mapping[str, float] | None, modalities: Sequence[str]) -> dict[str, float]:
    """A noise level for each modality, from one for all, some of them, or `SIGMA`.

    Raises
    ------
    UsageError
        A level that is not above 0, or of a modality that is not among these.
    """
    named = dict(given) if isinstance(given, Mapping) else {}
    for modality in named:
        if modality not in modalities:
            raise unknown("modality", modality, modalities, where="sigma")
    found = {m: float(given) if isinstance(given, (int, float)) else named.get(m, SIGMA[m]) for m in modalities}
    for modality, level in found.items():
        if not level > 0:
            raise UsageError(f"the noise level of {modality} is {level}; needs a number above 0", where="sigma")
    return found


class Noise(ABC):
    """Where the noise lies.

    local : whether each judged point has noise of its own: the variable is then [B, G, N, 2, C]
    """

    local: bool

    @abstractmethod
    def coordinates(self, code: Tensor, judged: Judged) -> Tensor:
        """Mean of the sampled variable, [B, 1, ...], of codes [B, C, H, W]; passes the gradient on."""

    @abstractmethod
    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], num_generations: int) -> Sampled:
        """`num_generations` samples of codes [B, C, H, W], keyed by the photos' seeds and the modality."""

    @abstractmethod
    def covariance(self, height: int, width: int, judged: Judged) -> Covariance:
        """Of the noise at the judged points of maps of a size, in units of sigma^2."""


class PixelNoise(Noise):
    """Independent noise at every pixel."""

    local = True

    def coordinates(self, code: Tensor, judged: Judged) -> Tensor:
        return judged.at_points(code)[:, None]

    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], num_generations: int) -> Sampled:
        mean = self.coordinates(code, judged)
        # pairs first: photos that are filled up with empty pairs keep their noise
        shape = (judged.rows.shape[1], num_generations, 2, code.shape[1])
        drawn = standard_normal(seeds, shape, "noise", judged.modality, device=code.device).transpose(1, 2)
        after = mean + sigma * drawn
        return Sampled(mean, after, sigma, after)

    def covariance(self, height: int, width: int, judged: Judged) -> Covariance:
        one = torch.ones_like(judged.weight)
        return Covariance(one, one, torch.zeros_like(one))


class LowFrequencies(Noise):
    """Noise in the k x k lowest frequencies of the cosine transform, per channel; density in the k^2 coefficients.

    The basis is orthonormal, so a coefficient's standard deviation is sigma sqrt(H W) / k.
    """

    local = False

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(f"{k} frequencies; needs 1 or more")
        self.k = k

    def basis(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal columns [H, k] and [W, k]; B is their Kronecker product."""
        if self.k > min(height, width):
            raise UsageError(f"{self.k} frequencies in maps of {height} x {width} pixels; needs at most "
                             f"{min(height, width)}")  # fmt: skip
        return _cosines(height, self.k).to(like), _cosines(width, self.k).to(like)

    def coordinates(self, code: Tensor, judged: Judged) -> Tensor:
        rows, cols = self.basis(code.shape[-2], code.shape[-1], code)
        return (rows.T @ code @ cols)[:, None]

    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], num_generations: int) -> Sampled:
        rows, cols = self.basis(code.shape[-2], code.shape[-1], code)
        mean = self.coordinates(code, judged)
        std = sigma * math.sqrt(code.shape[-2] * code.shape[-1]) / self.k
        shape = (num_generations, code.shape[1], self.k, self.k)
        drawn = standard_normal(seeds, shape, "noise", judged.modality, device=code.device).to(code.dtype)
        step = std * torch.einsum("bnpu,bgcuv,bnpv->bgnpc", rows[judged.rows], drawn, cols[judged.cols])
        return Sampled(mean, mean + std * drawn, std, judged.at_points(code)[:, None] + step)

    def covariance(self, height: int, width: int, judged: Judged) -> Covariance:
        rows, cols = self.basis(height, width, judged.weight)
        at_rows, at_cols = rows[judged.rows], cols[judged.cols]
        scale = height * width / self.k**2

        def product(a: int, b: int) -> Tensor:
            of_rows = (at_rows[..., a, :] * at_rows[..., b, :]).sum(-1)
            return scale * of_rows * (at_cols[..., a, :] * at_cols[..., b, :]).sum(-1)

        return Covariance(product(0, 0), product(1, 1), product(0, 1))


def make_noise(noise: NoiseName, frequencies: int = 8) -> Noise:
    """The noise of a name: pixel, or lowrank with `frequencies` along each side."""
    if noise not in ("pixel", "lowrank"):
        raise unknown("noise", noise, ("pixel", "lowrank"))
    return LowFrequencies(frequencies) if noise == "lowrank" else PixelNoise()


@lru_cache(maxsize=64)
def _cosines(size: int, k: int) -> Tensor:
    """The k lowest cosines of an orthonormal type-II transform, float64 [size, k]."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.cos(place[:, None] * torch.arange(k, dtype=torch.float64)) * math.sqrt(2 / size)
    waves[:, 0] = math.sqrt(1 / size)
    return waves
