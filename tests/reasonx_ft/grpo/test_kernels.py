"""Gaussian steps against schedulers of diffusers, published forms, and closed forms of toy problems."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.kernels import (
    ODE,
    Estimate,
    Kernel,
    coefficients,
    from_output,
    from_velocity,
    log_density,
    rf_time,
    step,
    to_rf,
    to_vp,
    transition,
    vp_coefficients,
)
from reasonx_ft.grpo.loss import kl_divergence, log_ratio
from reasonx_ft.grpo.schedules import Schedule, linear, variance_preserving
from tests.reasonx_ft.grpo.schedule_data import alphas_of_stable_diffusion

MARIGOLD = alphas_of_stable_diffusion(zero_snr=True)
FLOW, DDIM = Kernel("flow-sde", 0.7), Kernel("ddim", 1.0)
ALL = [FLOW, DDIM]


def _normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", ["flow-sde", "ddim"])
def test_oracle_01_without_noise_equals_flow_match_euler(name: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(8)
    times = scheduler.sigmas.tolist()
    state = _normal(2, 4, 5, 5, dtype=torch.float32)
    for i, timestep in enumerate(scheduler.timesteps):
        velocity = _normal(2, 4, 5, 5, seed=i + 1, dtype=torch.float32)
        theirs = scheduler.step(velocity, timestep, state).prev_sample
        ours = step(Kernel(name, 0.0), from_velocity(state, velocity, times[i]), times[i], times[i + 1],
                    noise=torch.full_like(state, 9.0))  # fmt: skip
        assert ours.std == 0
        torch.testing.assert_close(ours.after, theirs, rtol=1e-6, atol=1e-6)
        state = theirs


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
def test_oracle_01_without_noise_equals_ddim(prediction: str) -> None:
    from diffusers import DDIMScheduler

    noisy_end = prediction == "epsilon"  # which can't start from pure noise
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                              set_alpha_to_one=False, prediction_type=prediction, timestep_spacing="trailing",
                              rescale_betas_zero_snr=not noisy_end)  # fmt: skip
    scheduler.set_timesteps(10)
    grid = variance_preserving(scheduler.alphas_cumprod.tolist(), 10)
    assert list(grid.timesteps) == scheduler.timesteps.tolist()
    state = _normal(2, 4, 5, 5, dtype=torch.float32)
    ours = to_rf(state, grid.times[0])
    for i, (t, t_next) in enumerate(grid):
        output = _normal(2, 4, 5, 5, seed=i + 1, dtype=torch.float32)
        state = scheduler.step(output, int(grid.timesteps[i]), state, eta=0.0).prev_sample
        ours = step(ODE, from_output(ours, output, t, prediction), t, t_next, last=True).after  # type: ignore[arg-type]
        torch.testing.assert_close(to_vp(ours, t_next), state, rtol=5e-6, atol=5e-6)


def test_oracle_01_ddim_noise_equals_the_schedulers() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                              set_alpha_to_one=False, prediction_type="v_prediction",
                              timestep_spacing="trailing", rescale_betas_zero_snr=True)  # fmt: skip
    scheduler.set_timesteps(10)
    grid = variance_preserving(scheduler.alphas_cumprod.tolist(), 10)
    t, t_next = grid.times[4:6]
    state, output, noise = (_normal(1, 1, 50, seed=i, dtype=torch.float32) for i in range(3))
    theirs = scheduler.step(output, int(grid.timesteps[4]), state, eta=0.6, variance_noise=noise).prev_sample
    ours = step(Kernel("ddim", 0.6), from_output(to_rf(state, t), output, t, "v_prediction"), t, t_next,
                noise=noise)  # fmt: skip
    # the noise too is scaled by the Jacobian of the map
    torch.testing.assert_close(to_vp(ours.after, t_next), theirs, rtol=1e-5, atol=1e-5)


def _flow_grpo(x: Tensor, v: Tensor, t: float, t_next: float, g: float) -> Tensor:
    dt = t_next - t
    return x * (1 + g**2 / (2 * t) * dt) + v * (1 + g**2 * (1 - t) / (2 * t)) * dt


@pytest.mark.parametrize(("t", "t_next"), [(0.95, 0.8), (0.5, 0.43), (0.1, 0.0)])
def test_oracle_02_readable_form_is_the_published_one(t: float, t_next: float) -> None:
    x, v = _normal(100), _normal(100, seed=1)
    g = 0.7 * math.sqrt(t / (1 - t))
    mean, std = transition(FLOW, from_velocity(x, v, t), t, t_next)
    torch.testing.assert_close(mean, _flow_grpo(x, v, t, t_next, g), rtol=1e-12, atol=1e-12)
    assert std == pytest.approx(g * math.sqrt(t - t_next), rel=1e-12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_oracle_03_vp_and_rf_kernels_are_one(eta: float) -> None:
    before, later = MARIGOLD[700], MARIGOLD[560]
    t, t_next = rf_time(before), rf_time(later)
    alpha, sigma, alpha_next = math.sqrt(before), math.sqrt(1 - before), math.sqrt(later)
    std_vp = eta * math.sqrt((1 - later) / (1 - before) * (1 - before / later))

    def native(output: Tensor) -> Tensor:
        clean, noise = alpha * x - sigma * output, alpha * output + sigma * x
        return alpha_next * clean + math.sqrt(1 - later - std_vp**2) * noise

    x, v_new, v_old = (_normal(1, 2, 64, seed=i) for i in range(3))
    after = native(v_old) + std_vp * _normal(1, 2, 64, seed=3)
    estimates = [from_output(to_rf(x, t), v, t, "v_prediction") for v in (v_new, v_old)]
    (new, std), (old, _) = (transition(Kernel("ddim", eta), e, t, t_next) for e in estimates)
    length = alpha_next + math.sqrt(1 - later)
    assert std * length == pytest.approx(std_vp, rel=1e-14)
    torch.testing.assert_close(to_vp(new, t_next), native(v_new), rtol=1e-14, atol=1e-14)
    here = to_rf(after, t_next)
    torch.testing.assert_close(log_ratio(here, new, old, std), log_ratio(after, native(v_new), native(v_old), std_vp),
                               rtol=1e-11, atol=1e-11)  # fmt: skip
    torch.testing.assert_close(kl_divergence(new, old, std), kl_divergence(native(v_new), native(v_old), std_vp),
                               rtol=1e-11, atol=1e-11)  # fmt: skip
    assert vp_coefficients(t) == pytest.approx((alpha, sigma), rel=1e-14)


def test_oracle_03b_marigolds_grid() -> None:
    grid = variance_preserving(MARIGOLD, 15)
    assert np.round(grid.times, 3).tolist() == [
        1, 0.967, 0.927, 0.881, 0.831, 0.778, 0.723, 0.667, 0.611, 0.554, 0.496, 0.437, 0.373, 0.302, 0.216, 0.028,
    ]  # fmt: skip
    flow = [coefficients(FLOW, t, t_next)[2] for t, t_next in grid]
    assert flow == pytest.approx(
        [0.700, 0.750, 0.536, 0.428, 0.356, 0.308, 0.268, 0.233, 0.209, 0.188, 0.169, 0.156, 0.144, 0.135, 0.159],
        abs=6e-4,
    )
    ddim = [coefficients(DDIM, t, t_next)[2] / math.hypot(1 - t_next, t_next) for t, t_next in grid]  # as VP has it
    assert ddim == pytest.approx(
        [0.999, 0.896, 0.806, 0.735, 0.673, 0.624, 0.574, 0.522, 0.477, 0.428, 0.377, 0.328, 0.272, 0.205, 0.029],
        abs=6e-4,
    )
    assert coefficients(FLOW, *list(variance_preserving(MARIGOLD, 4))[-1])[2] == pytest.approx(0.374, abs=6e-4)


def test_oracle_04_ddim_mean_is_the_ddpm_posterior() -> None:
    before, later = MARIGOLD[400], MARIGOLD[399]
    t, t_next = rf_time(before), rf_time(later)
    x, clean = _normal(50), _normal(50, seed=1)
    alpha = before / later
    posterior = (math.sqrt(later) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - later) * x) / (1 - before)
    noise = (x - math.sqrt(before) * clean) / math.sqrt(1 - before)
    mean, std = transition(Kernel("ddim", 1.0), Estimate(clean, noise), t, t_next)
    torch.testing.assert_close(to_vp(mean, t_next), posterior, rtol=1e-12, atol=1e-12)
    variance = (1 - later) / (1 - before) * (1 - alpha)
    assert (std * (math.sqrt(later) + math.sqrt(1 - later))) ** 2 == pytest.approx(variance, rel=1e-12)


def test_oracle_05_ddim_ends_without_noise() -> None:
    for eta in (0.3, 1.0):
        assert coefficients(Kernel("ddim", eta), 0.07, 0.0) == (1.0, 0.0, 0.0)
    assert coefficients(FLOW, 1 / 15, 0.0)[2] == pytest.approx(0.048, abs=5e-4)


def test_step_stds_on_the_linear_grid() -> None:
    stds = [[coefficients(k, t, s)[2] for t, s in linear(15)] for k in (FLOW, DDIM)]
    assert stds[0] == pytest.approx(
        [0.700, 0.676, 0.461, 0.362, 0.300, 0.256, 0.221, 0.193, 0.169, 0.148, 0.128, 0.109, 0.090, 0.071, 0.048],
        abs=6e-4,
    )
    assert stds[1] == pytest.approx(
        [0.933, 0.768, 0.631, 0.533, 0.458, 0.397, 0.345, 0.300, 0.259, 0.220, 0.183, 0.145, 0.105, 0.059, 0],
        abs=6e-4,
    )


def _gaussian(spread: float, centre: float = 0.5) -> Callable[[Tensor, float], Estimate]:
    """Posterior means of clean map and noise where maps are N(centre, spread^2): affine in the state."""

    def estimate(x: Tensor, t: float) -> Estimate:
        total = ((1 - t) * spread) ** 2 + t**2
        apart = x - (1 - t) * centre
        return Estimate(centre + (1 - t) * spread**2 / total * apart, t / total * apart)

    return estimate


def _final(kernel: Kernel, grid: Schedule, spread: float, *, last_ode: bool = False) -> tuple[float, float]:
    """Mean and deviation after all steps, in closed form: an affine step maps a Gaussian to a Gaussian."""
    posterior = _gaussian(spread)
    mean, variance = (1 - grid.times[0]) * 0.5, ((1 - grid.times[0]) * spread) ** 2 + grid.times[0] ** 2
    for i, (t, t_next) in enumerate(grid):
        ends = posterior(torch.tensor([0.0, 1.0], dtype=torch.float64), t)
        moved, std = transition(ODE if last_ode and i == len(grid) - 1 else kernel, ends, t, t_next)
        offset, slope = float(moved[0]), float(moved[1] - moved[0])
        mean, variance = offset + slope * mean, slope**2 * variance + std**2
    return mean, math.sqrt(variance)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (ODE, [0.3405, 0.4308, 0.4529, 0.4854, 0.4963, 0.4996]),
        (FLOW, [0.4537, 0.4795, 0.4874, 0.4985, 0.5010, 0.5007]),
        (DDIM, [0.2991, 0.3865, 0.4159, 0.4693, 0.4916, 0.4991]),
    ],
    ids=lambda v: v.name if isinstance(v, Kernel) else "",
)
def test_oracle_06_gaussian_toy(kernel: Kernel, expected: list[float]) -> None:
    found = [_final(kernel, linear(steps), 0.5) for steps in (4, 10, 15, 50, 200, 2000)]
    assert [std for _, std in found] == pytest.approx(expected, abs=6e-5)
    assert [mean for mean, _ in found] == pytest.approx([0.5] * 6, abs=1e-9)


def test_oracle_07_the_last_step_is_deterministic_for_a_reason() -> None:
    def stds(spread: float, *, last_ode: bool) -> list[float]:
        return [_final(k, linear(15), spread, last_ode=last_ode)[1] for k in (ODE, *ALL)]

    assert stds(0.02, last_ode=False) == pytest.approx([0.0053, 0.0506, 0.0053], abs=6e-5)
    assert stds(0.02, last_ode=True)[1] == pytest.approx(0.0071, abs=6e-5)
    assert stds(0.0, last_ode=True) == pytest.approx([0.0] * 3, abs=1e-9)
    point = stds(0.0, last_ode=False)
    assert [point[0], point[2]] == pytest.approx([0, 0], abs=1e-9)
    assert point[1] == pytest.approx(0.0538, abs=6e-5)
    # a grid that ends at training time 0 leaves that time's noise, whatever the kernel
    grid = variance_preserving(MARIGOLD, 15)
    for eta in (0.0, 0.5, 1.0):
        mean, std = _final(Kernel("ddim", eta), grid, 0.0)
        as_vp = math.hypot(1 - grid.times[-1], grid.times[-1])
        assert std / as_vp == pytest.approx(math.sqrt(1 - MARIGOLD[0]), rel=1e-9)
        assert mean / as_vp == pytest.approx(0.5 * math.sqrt(MARIGOLD[0]), rel=1e-9)
    assert math.sqrt(1 - MARIGOLD[0]) == pytest.approx(0.0292, abs=6e-5)


@pytest.mark.parametrize("kernel", ALL, ids=lambda k: k.name)
def test_oracle_09_finite_at_pure_noise(kernel: Kernel) -> None:
    for grid in (linear(15), variance_preserving(MARIGOLD, 15), variance_preserving(MARIGOLD, 1)):
        state, output = (_normal(1, 2, 9, seed=i, dtype=torch.float32) for i in range(2))
        for t, t_next in grid:
            for estimate in (from_velocity(state, output, t), from_output(state, output, t, "v_prediction")):
                done = step(kernel, estimate, t, t_next, noise=output)
                assert bool(done.after.isfinite().all())
                assert 0 <= done.std <= 1
    assert rf_time(MARIGOLD[-1]) == 1.0
    estimate = from_output(state, output, 1.0, "v_prediction")
    assert torch.equal(estimate.clean, -output)
    assert torch.equal(estimate.noise, state)


def test_almost_pure_noise_is_guarded_like_pure_noise() -> None:
    """Some checkpoints end at an alpha of 2^-12; the noise of the first step must not explode."""
    almost = coefficients(FLOW, rf_time(2.0**-24), 0.967)[2]
    assert almost == pytest.approx(coefficients(FLOW, 1.0, 0.967)[2], rel=0.01)


def test_noise_prediction_can_not_start_from_pure_noise() -> None:
    state = _normal(1, 1, 3)
    with pytest.raises(UsageError, match="pure noise"):
        from_output(state, state, 1.0, "epsilon")


@pytest.mark.parametrize("kernel", ALL, ids=lambda k: k.name)
def test_oracle_10_log_density_is_that_of_a_normal_distribution(kernel: Kernel) -> None:
    state, velocity, noise = (_normal(2, 3, 4, 5, seed=i) for i in range(3))
    done = step(kernel, from_velocity(state, velocity, 0.6), 0.6, 0.5, noise=noise)
    expected = torch.distributions.Normal(done.mean, done.std).log_prob(done.after).flatten(2)
    torch.testing.assert_close(done.log_density, expected.sum(2), rtol=1e-12, atol=1e-10)
    # 14: the mean over elements that published codes use is the sum over D
    torch.testing.assert_close(done.log_density / 20, expected.mean(2), rtol=1e-12, atol=1e-10)
    wide = torch.full((5,), done.std, dtype=torch.float64)
    torch.testing.assert_close(log_density(done.after, done.mean, wide), done.log_density, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("kernel", ALL, ids=lambda k: k.name)
def test_oracle_11_replay_repeats_sampling_bit_by_bit(kernel: Kernel) -> None:
    state, velocity, noise = (_normal(2, 3, 40, seed=i, dtype=torch.float32) for i in range(3))
    sampled = step(kernel, from_velocity(state, velocity, 0.6), 0.6, 0.5, noise=noise)
    replayed = step(kernel, from_velocity(state, velocity, 0.6), 0.6, 0.5, after=sampled.after)
    assert torch.equal(replayed.mean, sampled.mean)
    assert torch.equal(replayed.log_density, sampled.log_density)
    ratio = log_ratio(sampled.after, replayed.mean, sampled.mean, sampled.std).exp()
    assert float((ratio - 1).abs().max()) == 0


def test_oracle_15_different_noise_has_different_density() -> None:
    same = Estimate(torch.zeros(1, 4, 30), torch.zeros(1, 4, 30))
    done = step(FLOW, same, 0.6, 0.5, noise=_normal(1, 4, 30, dtype=torch.float32))
    assert len(set(done.log_density[0].tolist())) == 4


def test_last_step_takes_no_noise_and_has_no_density() -> None:
    state, velocity = _normal(1, 2, 3), _normal(1, 2, 3, seed=1)
    estimate = from_velocity(state, velocity, 0.2)
    done = step(FLOW, estimate, 0.2, 0.0, last=True)
    torch.testing.assert_close(done.after, estimate.clean)
    with pytest.raises(ValueError, match="no density"):
        _ = done.log_density
    for wrong in ({"noise": state}, {"after": state}):
        with pytest.raises(ValueError, match="deterministic"):
            step(FLOW, estimate, 0.2, 0.0, last=True, **wrong)
    for wrong in ({}, {"noise": state, "after": state}):
        with pytest.raises(ValueError, match="either"):
            step(FLOW, estimate, 0.2, 0.1, **wrong)


def test_bad_kernels_and_times() -> None:
    with pytest.raises(UsageError, match="did you mean 'flow-sde'"):
        Kernel("flow_sde", 0.7)  # type: ignore[arg-type]
    for name, level in (("ddim", 1.1), ("ddim", -0.1), ("flow-sde", math.nan), ("flow-sde", math.inf)):
        with pytest.raises(UsageError, match="noise level"):
            Kernel(name, level)  # type: ignore[arg-type]
    for t, t_next in ((0.5, 0.5), (0.4, 0.5), (1.1, 0.5), (0.5, -0.1)):
        with pytest.raises(ValueError, match="down in time"):
            coefficients(FLOW, t, t_next)


def test_gradient_reaches_the_mean_and_not_the_sample() -> None:
    velocity = _normal(1, 2, 6).requires_grad_()
    state, noise = _normal(1, 2, 6, seed=1), _normal(1, 2, 6, seed=2)
    done = step(FLOW, from_velocity(state, velocity, 0.6), 0.6, 0.5, noise=noise)
    done.log_density.sum().backward()
    per_velocity = _flow_grpo(state * 0, torch.ones(()).double(), 0.6, 0.5, 0.7 * math.sqrt(1.5))
    torch.testing.assert_close(velocity.grad, per_velocity * noise / done.std, rtol=1e-10, atol=1e-10)
