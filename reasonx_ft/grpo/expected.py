"""The expected agreement of a feed-forward policy with a judge, in closed form: GRPO with infinitely many samples.

The policy's code is Gaussian around the network's, so the probability that a sampled map orders two points as the judge
does is a function of the network's values there, and has a gradient of its own. Nothing is sampled. It is exact for
depth (a map's logarithm is Gaussian, and order is all that counts); elsewhere the two compared numbers are taken as
Gaussian with the mean and variance that they have to second order in the noise (normals, irradiance), and the
difference of two colours as isotropic with its exact moments (albedo).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reasonx_eval.io.color import LUMINANCE
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.rewards import PUBLISHED, AlbedoThreshold, target_of


@dataclass(frozen=True)
class Covariance:
    """Of the noise at the two points of each pair, [B, N] each: variances, and the covariance of the two.

    In squared units of the code of normals, of the logarithm of the other maps.
    """

    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)
    both: Tensor = field(repr=False)

    def times(self, factor: float) -> Covariance:
        """In other units."""
        return Covariance(factor * self.first, factor * self.second, factor * self.both)


def expected_agreement(
    values: Tensor, noise: Covariance, judged: Judged, *, hard: bool = False, balanced: bool = True,
    threshold: AlbedoThreshold = PUBLISHED,
) -> Tensor:  # fmt: skip
    """Mean over noise of `rewards.agreement`'s reward, [B] in [0, 1]; NaN for images without a pair that counts.

    Parameters
    ----------
    values : [B, N, 2, C], the policy's answer at the judged points, in the units of the map, with gradient
    noise : of the policy at these points
    hard, balanced, threshold : see `rewards.agreement`
    """
    if judged.modality == "albedo":
        yes, no = _same(values, noise, threshold)
    else:
        yes, no = {"depth": _depth, "irradiance": _light, "normals": _facing}[judged.modality](values, noise)
    target = target_of(judged, hard=hard, balanced=balanced)
    return target.mean(target.probability * yes + (1 - target.probability) * no)


def _ordered(difference: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities that a Gaussian is above and below 0; without variance, whether it is."""
    fixed = variance <= 1e-12
    z = difference / torch.where(fixed, 1.0, variance).sqrt()
    yes = torch.where(fixed, (difference > 0).to(z.dtype), torch.special.ndtr(z))
    no = torch.where(fixed, (difference < 0).to(z.dtype), torch.special.ndtr(-z))
    return yes, no


def _depth(values: Tensor, noise: Covariance) -> tuple[Tensor, Tensor]:
    log = values[..., 0].log()
    return _ordered(log[..., 1] - log[..., 0], noise.first + noise.second - 2 * noise.both)


def _light(values: Tensor, noise: Covariance) -> tuple[Tensor, Tensor]:
    parts = values * values.new_tensor(LUMINANCE)
    total = parts.sum(-1)
    share = parts / total[..., None]
    first, second = share[..., 0, :], share[..., 1, :]
    # of the logarithm of a sum of exponentials: slope the shares, curvature share (1 - share)
    curvature = 0.5 * (1 - share.square().sum(-1))
    mean = total.log() + curvature * torch.stack([noise.first, noise.second], dim=-1)
    variance = noise.first * first.square().sum(-1) + noise.second * second.square().sum(-1)
    variance = variance - 2 * noise.both * (first * second).sum(-1)
    return _ordered(mean[..., 0] - mean[..., 1], variance)


def _facing(values: Tensor, noise: Covariance) -> tuple[Tensor, Tensor]:
    own = torch.stack([noise.first, noise.second], dim=-1)
    facing = -values[..., 2]
    # a unit vector shrinks by the noise beside it; where it faces the camera only that is left of it
    mean = facing * (1 - own)
    variance = (own * (1 - facing.square()) + (own * facing).square()).sum(-1)
    # slopes of facing, -(z - n_z n), are perpendicular to the vectors
    axis = values.new_tensor([0.0, 0.0, 1.0])
    slope = axis - values[..., 2:] * values
    variance = variance - 2 * noise.both * (slope[..., 0, :] * slope[..., 1, :]).sum(-1)
    return _ordered(mean[..., 0] - mean[..., 1], variance)


def _same(values: Tensor, noise: Covariance, threshold: AlbedoThreshold) -> tuple[Tensor, Tensor]:
    one, two, both = (v[..., None] for v in (noise.first, noise.second, noise.both))
    if threshold.space == "log":
        # Gaussian but for what is added to keep black from having no logarithm
        first, second = threshold.slope(values).unbind(-2)
        moment = first.square() * one + second.square() * two - 2 * first * second * both
        placed = threshold.place(values)
        difference = placed[..., 0, :] - placed[..., 1, :]
    else:
        first, second = values[..., 0, :] * (0.5 * one).exp(), values[..., 1, :] * (0.5 * two).exp()
        moment = first.square() * one.expm1() + second.square() * two.expm1() - 2 * first * second * both.expm1()
        difference = first - second
    squares = difference.square().sum(-1)
    mean_variance = moment.mean(-1)
    # far apart, only the spread along the difference counts; close together, that of all directions alike
    along = (difference.square() * moment).sum(-1) + mean_variance**2
    # two points of one pixel differ by nothing and always will
    variance = along / (squares + mean_variance).clamp_min(1e-12)
    near = _within(squares, variance, threshold.distance)
    return near, 1 - near


def _within(squares: Tensor, variance: Tensor, radius: float) -> Tensor:
    """Probability that a vector of isotropic Gaussian noise around one of squared length `squares` is shorter."""
    fixed = variance <= 1e-12
    std = torch.where(fixed, 1.0, variance).sqrt()
    # the formula divides by the length; a hundredth of the noise changes nothing but that
    length = (squares + 1e-4 * std.square()).sqrt()
    up, down = (radius + length) / std, (radius - length) / std
    tails = std / (length * math.sqrt(2 * math.pi)) * (torch.exp(-0.5 * down.square()) - torch.exp(-0.5 * up.square()))
    inside = torch.special.ndtr(up) + torch.special.ndtr(down) - 1 - tails
    return torch.where(fixed, (length < radius).to(std.dtype), inside.clamp(0, 1))
