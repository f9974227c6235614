"""Grids of times against diffusers' schedulers, and windows of scored steps."""

from __future__ import annotations

import pytest

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.kernels import rf_time
from reasonx_ft.grpo.schedules import Schedule, linear, scored_steps, variance_preserving
from tests.reasonx_ft.grpo.schedule_data import alphas_of_stable_diffusion

ALPHAS, ZERO_SNR = alphas_of_stable_diffusion(), alphas_of_stable_diffusion(zero_snr=True)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 10, 15, 50, 999, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_timesteps_are_diffusers(spacing: str, steps: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=0)
    scheduler.set_timesteps(steps)
    timestep = [int(t) for t in scheduler.timesteps]
    if spacing == "linspace" and steps == 1:
        assert timestep == [0]  # no noise at all to begin with: useless, but what the library does
    ours = variance_preserving(ALPHAS, steps, spacing)  # type: ignore[arg-type]
    assert list(ours.timesteps) == timestep
    assert ours.times[0] == rf_time(ALPHAS[timestep[0]])


@pytest.mark.parametrize("steps", range(1, 51))
def test_oracle_08_a_step_goes_to_the_next_time_of_the_list(steps: int) -> None:
    bars = ZERO_SNR
    grid = variance_preserving(bars, steps)
    assert len(list(grid)) == len(grid) == steps
    for i, (_, t_next) in enumerate(grid):
        assert t_next == (rf_time(bars[int(grid.timesteps[i + 1])]) if i + 1 < steps else grid.times[-1])
    strays = sum(int(t) - 1000 // steps != s for t, s in zip(grid.timesteps, grid.timesteps[1:], strict=False))
    if steps == 15:  # where a stride would lead
        assert strays == 9
    if steps in (4, 10, 20, 50):
        assert strays == 0


def test_ends() -> None:
    bars = ZERO_SNR
    assert variance_preserving(bars, 15).times[0] == 1
    assert variance_preserving(bars, 15).times[-1] == pytest.approx(0.0283, abs=5e-5)
    assert variance_preserving(bars, 15, final_alpha=1.0).times[-1] == 0
    assert variance_preserving(bars, 10, "leading").times[-2:] == (rf_time(bars[0]), 0)
    assert variance_preserving(bars, 10, "leading", offset=1).timesteps[-1] == 1


def test_linear() -> None:
    assert linear(4).times == (1, 0.75, 0.5, 0.25, 0)
    assert linear(4).timesteps == (1, 0.75, 0.5, 0.25)


def test_bad_schedules() -> None:
    for steps in (0, -1, 1001):
        with pytest.raises(UsageError, match="steps"):
            variance_preserving(ALPHAS, steps)
    with pytest.raises(UsageError, match="1 or more"):
        linear(0)
    with pytest.raises(UsageError, match="did you mean 'trailing'"):
        variance_preserving(ALPHAS, 5, "trailling")  # type: ignore[arg-type]
    for times in ((1.0, 1.0, 0.0), (0.5, 0.7), (1.5, 0.0), (1.0,)):
        with pytest.raises(ValueError, match="times"):
            Schedule(times, times[:-1])


def test_windows_never_hold_the_last_step() -> None:
    assert scored_steps(15, window=None) == range(14)
    places = [scored_steps(15, window=4, within=0.5, seed=3, step=k) for k in range(200)]
    assert {len(p) for p in places} == {4}
    assert {p.start for p in places} == {0, 1, 2, 3, 4}  # within the first 8 steps
    assert all(p.stop <= 14 for p in (scored_steps(15, window=4, step=k) for k in range(200)))
    assert places == [scored_steps(15, window=4, within=0.5, seed=3, step=k) for k in range(200)]
    assert places != [scored_steps(15, window=4, within=0.5, seed=4, step=k) for k in range(200)]
    assert scored_steps(2, window=1, within=0.01) == range(1)


def test_windows_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="none to score"):
        scored_steps(1, window=None)
    for window in (0, 15):
        with pytest.raises(UsageError, match="needs 1 to 14"):
            scored_steps(15, window=window)
    with pytest.raises(UsageError, match="first 0"):
        scored_steps(15, window=2, within=0)
