"""Chains of steps on a flow whose estimates are known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.batch import Transition
from reasonx_ft.grpo.kernels import Estimate, Kernel, to_rf
from reasonx_ft.grpo.kernels import step as take_step
from reasonx_ft.grpo.schedules import linear, of_times
from reasonx_ft.policies.chain import Chain, photo_seeds

CPU = torch.device("cpu")


def _posterior(state: Tensor, t: float) -> Estimate:
    """Where maps are N(0.5, 0.5^2): the exact estimates."""
    total = ((1 - t) * 0.5) ** 2 + t**2
    apart = state - (1 - t) * 0.5
    return Estimate(0.5 + (1 - t) * 0.25 / total * apart, t / total * apart)


def _sample(
    chain: Chain, seeds: tuple[int, ...] = (1, 2), group: int = 3, step: int = 0, size: int = 4
) -> tuple[Tensor, tuple[Transition, ...], list[tuple[int, int]]]:
    asked: list[tuple[int, int]] = []

    def estimate(state: Tensor, place: int) -> Estimate:
        asked.append((place, state.shape[1]))
        return _posterior(state, chain.schedule.times[place])

    final, transitions = chain.sample(estimate, (size,), seeds, group, step, device=CPU)
    return final, transitions, asked


@pytest.mark.parametrize(("kernel", "expected"), [(Kernel("flow-sde", 0.7), 0.487), (Kernel("ddim", 1.0), 0.416)])
def test_samples_have_the_deviation_of_the_closed_form(kernel: Kernel, expected: float) -> None:
    """Oracle 6 by sampling; the last step without noise takes a little off the stochastic kernel's."""
    final, transitions, asked = _sample(Chain(linear(15), kernel), tuple(range(40)), 16, size=64)
    assert len(transitions) == 14
    assert asked == [(place, 16) for place in range(15)]
    assert float(final.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(final.std()) == pytest.approx(expected, abs=0.012)


def test_noise_outside_the_window_is_never_drawn() -> None:
    chain = Chain(linear(6), Kernel("flow-sde", 0.7), window=1, seed=1)
    for step in range(6):
        final, (scored,), asked = _sample(chain, step=step)
        assert asked == [(place, 3) for place in range(6)]
        state = scored.after
        for t, t_next in list(chain.schedule)[scored.step + 1 :]:
            state = take_step(chain.kernel, _posterior(state, t), t, t_next, last=True).after
        torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


def test_answers_take_every_step_without_noise() -> None:
    """The deterministic map of a Gaussian flow keeps quantiles: affine in its start, the same for equal starts."""
    chain = Chain(linear(4), Kernel("flow-sde", 0.7))
    start = torch.tensor([[-1.0, 0.0, 1.0]])
    schedule = linear(2000)
    found = chain.answer(lambda x, k: _posterior(x, schedule.times[k]), start, schedule)
    torch.testing.assert_close(found, 0.5 + 0.5 * start, atol=2e-3, rtol=0)


def test_starts_have_the_deviation_of_their_coordinates() -> None:
    noise, schedule = torch.ones(1, 2), of_times([0.9, 0.5, 0.0])
    assert torch.equal(Chain(schedule, Kernel("flow-sde", 0.3)).start(noise, schedule), 0.9 * noise)
    diffusion = Chain(schedule, Kernel("flow-sde", 0.3), variance_preserving=True)
    assert torch.equal(diffusion.start(noise, schedule), to_rf(noise, 0.9))


def test_chains_that_are_no_policies() -> None:
    with pytest.raises(UsageError, match="noise level of 0"):
        Chain(linear(4), Kernel("flow-sde", 0.0))
    with pytest.raises(UsageError, match="none to score"):
        Chain(linear(1), Kernel("flow-sde", 0.3))
    with pytest.raises(UsageError, match="KL weighting"):
        Chain(linear(4), Kernel("flow-sde", 0.3), kl_weighting="exactly")  # type: ignore[arg-type]


def test_photos_are_known_by_their_pixels() -> None:
    photos = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    first = photo_seeds(photos)
    assert len(set(first)) == 3
    assert photo_seeds(photos[1:] + 1e-5) == first[1:]
