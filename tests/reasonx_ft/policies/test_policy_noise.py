"""Noise of feed-forward policies: its density, its size, whom it is keyed by."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.kernels import log_density
from reasonx_ft.policies.noise import LowFrequencies, Noise, PixelNoise, standard_normal
from tests.reasonx_ft.policies.policy_fakes import generator, random_judged

KINDS = (PixelNoise(), LowFrequencies(4))
NAMES = ("pixel", "lowrank")


def _code(images: int = 2, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    return torch.randn(images, channels, height, width, generator=generator(1))


def _judged(images: int = 2, pairs: int = 30) -> Judged:
    return random_judged("albedo", images, pairs, 12, 16)


def test_oracle_29_the_basis_is_orthonormal() -> None:
    rows, cols = LowFrequencies(5).basis(12, 16, torch.zeros(1, dtype=torch.float64))
    full = torch.kron(rows, cols)
    assert full.shape == (192, 25)
    assert float((full.T @ full - torch.eye(25)).abs().max()) < 1e-14
    # the first is the mean, the last wiggles most
    assert torch.allclose(rows[:, 0], torch.full((12,), 12**-0.5, dtype=torch.float64))
    crossings = [(rows[1:, k] * rows[:-1, k] < 0).sum().item() for k in range(5)]
    assert crossings == [0, 1, 2, 3, 4]


def test_oracle_29_density_is_that_of_the_coefficients() -> None:
    noise, code, judged = LowFrequencies(4), _code().double().requires_grad_(), _judged()
    found = noise.sample(code, judged, 0.1, (5, 6), 3)
    assert found.after.shape == (2, 3, 3, 4, 4)
    std = 0.1 * math.sqrt(12 * 16 / 16)
    assert found.std == pytest.approx(std)
    coefficients = standard_normal((5, 6), (3, 3, 4, 4), "noise", "albedo", device=torch.device("cpu"))
    expected = torch.distributions.Normal(0.0, std).log_prob(std * coefficients.double()).flatten(2).sum(2)
    density = log_density(found.after, found.mean, found.std)
    torch.testing.assert_close(density, expected)

    (slope,) = torch.autograd.grad(density[0, 1], code)
    rows, cols = noise.basis(12, 16, code)
    inside = rows @ (rows.T @ slope @ cols) @ cols.T
    # nothing of the gradient lies where the noise has no say
    assert float((slope - inside).abs().max()) < 1e-14
    torch.testing.assert_close(slope[0], rows @ (coefficients[0, 1].double() / std) @ cols.T)
    assert float(slope[1].abs().max()) == 0


@pytest.mark.parametrize("noise", KINDS, ids=NAMES)
def test_sampled_points_lie_on_a_map(noise: Noise) -> None:
    """Low frequencies: the map f + B (after - mean). Pixels: the point's code plus its own noise."""
    code, judged = _code(), _judged()
    found = noise.sample(code, judged, 0.2, (3, 4), 5)
    step = found.after - found.mean
    if isinstance(noise, LowFrequencies):
        rows, cols = noise.basis(12, 16, code)
        expected = judged.at_points(code[:, None] + rows @ step @ cols.T)
    else:
        expected = judged.at_points(code)[:, None] + step
    torch.testing.assert_close(found.codes, expected)
    assert found.codes.shape == (2, 5, 30, 2, 3)
    torch.testing.assert_close(noise.coordinates(code, judged), found.mean)


@pytest.mark.parametrize("noise", KINDS, ids=NAMES)
def test_sigma_is_the_noise_at_a_pixel_and_covariances_are_right(noise: Noise) -> None:
    judged, code = _judged(1, 40), torch.zeros(1, 1, 12, 16)
    drawn = noise.sample(code, judged, 0.2, (7,), 20_000).codes[0, ..., 0].double()
    exact = noise.covariance(12, 16, judged)
    for value, found in ((exact.first, drawn[..., 0].var(0)), (exact.second, drawn[..., 1].var(0)),
                         (exact.both, (drawn[..., 0] * drawn[..., 1]).mean(0))):  # fmt: skip
        torch.testing.assert_close(0.04 * value[0].double(), found, rtol=0.08, atol=0.0015)
    # over the whole map the squares average sigma^2
    everywhere = torch.arange(192).view(1, 96, 2)
    whole = Judged("albedo", everywhere // 16, everywhere % 16, torch.ones(1, 96), torch.ones(1, 96))
    all_points = noise.covariance(12, 16, whole)
    assert (all_points.first.mean() + all_points.second.mean()).item() / 2 == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("noise", KINDS, ids=NAMES)
def test_oracle_15_samples_are_distinct_and_keyed(noise: Noise) -> None:
    code, judged = _code(3), _judged(3)
    found = noise.sample(code, judged, 0.1, (10, 11, 12), 8).after - noise.coordinates(code, judged)
    rows = found.flatten(0, 1).flatten(1)
    assert len({tuple(r.tolist()) for r in rows}) == 24
    # an image's noise depends on nothing in its batch, not even on how many pairs others have
    alone = noise.sample(code[1:2], judged.of(slice(1, 2)), 0.1, (11,), 8).after
    alone = alone - noise.coordinates(code[1:2], judged.of(slice(1, 2)))
    torch.testing.assert_close(alone[0], found[1], rtol=0, atol=1e-6)
    few = _judged(3, 10)
    fewer = (noise.sample(code, few, 0.1, (10, 11, 12), 8).after - noise.coordinates(code, few))[1]
    if noise.local:
        torch.testing.assert_close(fewer[..., 0, :], found[1][:, :10, 0], rtol=0, atol=1e-6)
    # another modality, another noise
    other = Judged("irradiance", judged.rows, judged.cols, judged.probability, judged.weight)
    assert not torch.equal(noise.sample(code, other, 0.1, (10, 11, 12), 8).after - noise.coordinates(code, other),
                           found)  # fmt: skip


def test_bad_sizes() -> None:
    with pytest.raises(UsageError, match="0 frequencies"):
        LowFrequencies(0)
    with pytest.raises(UsageError, match="13 frequencies in maps of 12 x 16"):
        LowFrequencies(13).sample(_code(), _judged(), 0.1, (1, 2), 2)
