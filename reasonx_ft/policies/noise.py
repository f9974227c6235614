"""Noise that makes a deterministic predictor a Gaussian policy: which numbers are drawn, and how they move a map.

A predictor's code f becomes y = f + sigma B z, z standard normal, and the density is that of z's coordinates. Only the
values of y at judged points are ever made. `sigma` is the root mean square of the noise at a pixel, in units of the
code, whatever B is.

Two kinds. *Cells* (a pixel, or squares of some pixels) are independent of each other, so what a pair of points earns
depends on the noise of its own two cells, and nothing else is drawn: the sampled variable is the pair's. Sampling each
pair by itself gives the expected gradient of sampling maps (the reward is a sum over pairs, of which each sees its own
marginal) with less variance. *Low frequencies* move whole regions smoothly, as a network's own mistakes do; their
coefficients are shared by all pairs of a map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import stream_seed
from reasonx_ft.policies.base import Judged


@dataclass(frozen=True)
class Covariance:
    """Of the noise at the two points of each pair, [B, N], in units of sigma^2."""

    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)
    both: Tensor = field(repr=False)


@dataclass(frozen=True)
class Sampled:
    """A group of samples of each image.

    mean : of the sampled variable [B, 1, ...]; after : the sample [B, G, ...]
    std : of the variable's elements, a number or [B, 1, ...]
    codes : [B, G, N, 2, C], the sampled codes at the judged points
    """

    mean: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    std: float | Tensor
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


class Noise(ABC):
    """Where the noise of a policy lives.

    local : whether each sampled point has noise of its own: the variable is [B, G, N, 2, C]
    """

    local: bool

    @abstractmethod
    def coordinates(self, code: Tensor, judged: Judged) -> Tensor:
        """Mean of the sampled variable, [B, 1, ...], of codes [B, C, H, W]; passes the gradient on."""

    @abstractmethod
    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], group: int) -> Sampled:
        """`group` samples of codes [B, C, H, W], keyed by the images' seeds and the modality."""

    @abstractmethod
    def covariance(self, height: int, width: int, judged: Judged) -> Covariance:
        """Of the noise at the judged points of maps of a size."""


class Cells(Noise):
    """Independent noise on squares of `size` x `size` pixels, the same in all pixels of one; 1 is pixel noise.

    The variable is the mean of the code over each point's square. Where both points of a pair share one, they share
    its noise, and each holds half of its log-density.
    """

    local = True

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UsageError(f"cells of {size} pixels; needs 1 or more")
        self.size = size

    def _shared(self, judged: Judged) -> Tensor:
        """Whether both points of a pair lie in one cell, bool [B, N]."""
        rows, cols = judged.rows // self.size, judged.cols // self.size
        return (rows[..., 0] == rows[..., 1]) & (cols[..., 0] == cols[..., 1])

    def coordinates(self, code: Tensor, judged: Judged) -> Tensor:
        if self.size == 1:
            return judged.at_points(code)[:, None]
        means = functional.avg_pool2d(code, self.size, ceil_mode=True)
        cells = Judged(judged.modality, judged.rows // self.size, judged.cols // self.size, judged.probability,
                       judged.weight)  # fmt: skip
        return cells.at_points(means)[:, None]

    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], group: int) -> Sampled:
        mean, shared = self.coordinates(code, judged), self._shared(judged)[:, None, :, None, None]
        # pairs first: images that are filled up with empty pairs keep their noise
        shape = (judged.rows.shape[1], group, 2, code.shape[1])
        drawn = standard_normal(seeds, shape, "noise", judged.modality, device=code.device).transpose(1, 2)
        step = sigma * torch.cat([drawn[..., :1, :], torch.where(shared, drawn[..., :1, :], drawn[..., 1:, :])], dim=-2)
        # one variable that is listed twice: with twice the variance, the two densities make up one
        std = sigma * (1 + shared.to(code.dtype)).sqrt()
        return Sampled(mean, mean + step, std, judged.at_points(code)[:, None] + step)

    def covariance(self, height: int, width: int, judged: Judged) -> Covariance:
        one = torch.ones_like(judged.weight)
        return Covariance(one, one, self._shared(judged).to(one.dtype))


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

    def sample(self, code: Tensor, judged: Judged, sigma: float, seeds: Sequence[int], group: int) -> Sampled:
        rows, cols = self.basis(code.shape[-2], code.shape[-1], code)
        mean = self.coordinates(code, judged)
        std = sigma * math.sqrt(code.shape[-2] * code.shape[-1]) / self.k
        shape = (group, code.shape[1], self.k, self.k)
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


@lru_cache(maxsize=64)
def _cosines(size: int, k: int) -> Tensor:
    """The k lowest cosines of an orthonormal type-II transform, float64 [size, k]."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.cos(place[:, None] * torch.arange(k, dtype=torch.float64)) * math.sqrt(2 / size)
    waves[:, 0] = math.sqrt(1 / size)
    return waves
