"""Advantages, ratios, losses and divergences against hand-worked values, closed forms and exact gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.kernels import ODE, Kernel, coefficients, from_velocity, log_density, transition
from reasonx_ft.grpo.loss import advantages, clipped_loss, kl_divergence, kl_scale, log_ratio, pair_advantages
from reasonx_ft.grpo.schedules import linear

NAN = math.nan
SDE = Kernel("flow-sde", 0.7)


def _normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "none"), (torch.bfloat16, "bf16")])
def test_oracle_13_what_rounded_states_do_to_the_ratio(dtype: torch.dtype, name: str) -> None:
    """Mean shift of the log-ratio when x' is stored rounded; unit-variance states on the linear grid of 15."""
    shifts = []
    for i in (0, 14):
        std = coefficients(SDE, *list(linear(15))[i])[2]
        mean = _normal(1, 1, 400_000, seed=1, dtype=torch.float32) * math.sqrt(max(1 - std**2, 0))
        after = mean + std * _normal(1, 1, 400_000, seed=2, dtype=torch.float32)
        kept = after.to(dtype).float()
        change = log_density(kept.double(), mean.double(), std) - log_density(after.double(), mean.double(), std)
        shifts.append(float(change) / 400_000)
    if name == "none":
        assert shifts == [0, 0]
    else:
        assert abs(shifts[0]) < 2e-5
        assert shifts[1] == pytest.approx(-6.5e-4, rel=0.25)


def test_oracle_11_ratio_is_one_without_a_change() -> None:
    after, mean = (_normal(3, 4, 5, 6, seed=i, dtype=torch.float32) for i in range(2))
    assert float(log_ratio(after, mean, mean.clone(), 0.03).abs().max()) == 0
    loss = clipped_loss(log_ratio(after, mean, mean, 0.03), torch.ones(3, 4), elements=30, clip_range_sum=1.0)
    assert torch.equal(loss.loss, -torch.ones(3, 4))
    assert not loss.high.any()
    assert not loss.low.any()


def test_log_ratio_is_the_difference_of_log_densities() -> None:
    after, new, old = (_normal(2, 3, 7, seed=i) for i in range(3))
    expected = log_density(after, new, 0.4) - log_density(after, old, 0.4)
    torch.testing.assert_close(log_ratio(after, new, old, 0.4), expected, rtol=1e-12, atol=1e-11)
    # float32, a change near its resolution, where the difference of densities is lost
    near = (old + 1e-6 * new).float()
    exact = log_ratio(after.float().double(), near.double(), old.float().double(), 0.4)
    torch.testing.assert_close(log_ratio(after.float(), near, old.float(), 0.4).double(), exact, rtol=1e-5, atol=0)


def test_oracle_12_the_ratio_averages_one_and_its_logarithm_less() -> None:
    std, elements, n = 0.3, 64, 200_000
    old = torch.zeros(1, n, elements)
    new = 0.00625 * torch.ones(1, 1, elements)
    after = std * _normal(1, n, elements, seed=4, dtype=torch.float32)
    log = log_ratio(after, new, old, std).double()
    moved = 0.00625 * math.sqrt(elements)
    expected, deviation = -(moved**2) / (2 * std**2), moved / std
    error = 5 * deviation / math.sqrt(n)
    assert float(log.mean()) == pytest.approx(expected, abs=error)
    assert float(log.exp().mean()) == pytest.approx(1, abs=error)


@pytest.mark.parametrize(
    ("elements", "published", "in_sum"),
    [(16_384, 1e-4, 1.64), (36_864, 1e-4, 3.7), (110_592, 1e-4, 11.1), (65_536, 1e-5, 0.66), (256, 1e-3, 0.26)],
)
def test_oracle_14_clip_range_in_sum_and_mean_units(elements: int, published: float, in_sum: float) -> None:
    assert published * elements == pytest.approx(in_sum, rel=0.02)
    just_inside, just_outside = (math.log1p(published) * elements * f for f in (0.999, 1.001))
    log = torch.tensor([[just_inside, just_outside]], dtype=torch.float64)
    found = clipped_loss(log, torch.ones(1, 2), elements=elements, clip_range_sum=published * elements)
    assert found.high.tolist() == [[False, True]]


def test_clip_ranges_below_the_spacing_of_float32_work() -> None:
    log = torch.tensor([[0.02, 0.04, -0.02, -0.04]])
    for sign, expected in ((1.0, [False, True, False, False]), (-1.0, [False, False, False, True])):
        found = clipped_loss(log, torch.full((1, 4), sign), elements=1_000_000, clip_range_sum=0.03)
        assert (found.high | found.low)[0].tolist() == expected


def test_oracle_17_divergence() -> None:
    mean, reference = _normal(2, 3, 5, 4), _normal(2, 1, 5, 4, seed=1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, 0.3), normal(reference.expand_as(mean), 0.3))
    torch.testing.assert_close(kl_divergence(mean, reference, 0.3), expected.flatten(2).sum(2), rtol=1e-12, atol=0)
    same = mean.clone().requires_grad_()
    zero = kl_divergence(same, mean, 0.3)
    zero.sum().backward()
    assert float(zero.detach().abs().max()) == 0
    assert float(same.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_oracle_17_velocity_form() -> None:
    state, v, v_reference = (_normal(1, 2, 30, seed=i) for i in range(3))
    squares = (v - v_reference).square().sum(2)
    for (t, t_next), expected in zip(
        linear(15),
        [0.005, 0.008, 0.016, 0.026, 0.038, 0.053, 0.070, 0.092, 0.121, 0.158, 0.211, 0.290, 0.422, 0.685, 1.476],
        strict=True,
    ):
        (mean, std), (reference, _) = (transition(SDE, from_velocity(state, x, t), t, t_next) for x in (v, v_reference))
        exact = kl_divergence(mean, reference, std)
        g = 0.7 * math.sqrt(t / (1 - (t if t < 1 else t_next)))
        weight = (t - t_next) / 2 * (g * (1 - t) / (2 * t) + 1 / g) ** 2
        torch.testing.assert_close(exact, weight * squares, rtol=1e-11, atol=0)
        if t < 1:  # where the tables' guard is in the drift too
            assert weight == pytest.approx(expected, abs=6e-4)
        published = kl_divergence(mean, reference, std, kl_scale("flow_grpo", t, t_next))
        moved = (mean - reference).square().sum(2)
        torch.testing.assert_close(published, moved / (2 * g**2), rtol=1e-11, atol=0)
        assert kl_scale("exact", t, t_next) == 1


def test_oracle_18_divergence_has_a_gradient() -> None:
    mean = _normal(1, 2, 6).requires_grad_()
    reference = _normal(1, 2, 6, seed=1)
    kl_divergence(mean, reference, 0.5, scale=2.0).sum().backward()
    torch.testing.assert_close(mean.grad, 2 * (mean.detach() - reference) / 0.25, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", ["none", "group", "floored"])
def test_oracle_20_advantages(scale: str) -> None:
    rewards = _uniform(5, 8)

    def of(r: Tensor, **more: float) -> Tensor:
        options = {"std_floor": 1e-3, "clip": 100.0, **more}
        return advantages(r, scale_rewards=scale, **options)  # type: ignore[arg-type]

    found = of(rewards)
    torch.testing.assert_close(found.sum(1), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(of(rewards + 3), found, rtol=1e-9, atol=1e-9)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(of(rewards[:, order]), found[:, order], rtol=1e-12, atol=1e-12)
    if scale != "none":  # but for what is added to the deviation
        torch.testing.assert_close(of(rewards * 7), of(rewards), rtol=1e-5, atol=0)
    assert of(torch.full((2, 8), 0.3)).tolist() == [[0.0] * 8] * 2
    assert of(torch.rand(3, 1)).tolist() == [[0.0]] * 3
    assert float(of(rewards * 1000, clip=0.5).abs().max()) <= 0.5


@pytest.mark.parametrize("scale", ["none", "group", "floored"])
def test_oracle_20_samples_without_reward_shift_nothing(scale: str) -> None:
    rewards = torch.tensor([[0.2, NAN, 0.8, 0.5], [NAN, NAN, NAN, 0.5], [NAN] * 4])
    found = advantages(rewards, scale_rewards=scale, std_floor=1e-3)  # type: ignore[arg-type]
    assert found[1:].tolist() == [[0.0] * 4] * 2
    assert float(found[0, 1]) == 0
    assert not found.isnan().any()
    alone = advantages(rewards[:1, [0, 2, 3]], scale_rewards=scale, std_floor=1e-3)  # type: ignore[arg-type]
    torch.testing.assert_close(found[:1, [0, 2, 3]], alone)


def test_oracle_21_one_flipped_pair() -> None:
    """What one pair of forty counts as published, with a floor, and undivided."""
    rewards = torch.tensor([[0.7] * 7 + [0.725]], dtype=torch.float64)
    assert float(advantages(rewards, scale_rewards="group")[0, 7]) == pytest.approx(2.65, abs=5e-3)
    assert float(advantages(rewards, scale_rewards="none")[0, 7]) == pytest.approx(0.0219, abs=5e-5)
    found = advantages(rewards, scale_rewards="floored", std_floor=0.05)
    assert float(found[0, 7]) == pytest.approx(0.021875 / 0.05)


def test_oracle_22_groups_do_not_see_each_other() -> None:
    rewards = _uniform(6, 8)
    rewards[2, 3] = NAN
    for scale in ("none", "group", "floored"):
        parts = [advantages(r, scale_rewards=scale) for r in rewards.split(2)]  # type: ignore[arg-type]
        assert torch.equal(torch.cat(parts), advantages(rewards, scale_rewards=scale))  # type: ignore[arg-type]


def test_bad_advantages() -> None:
    with pytest.raises(UsageError, match="did you mean 'group'"):
        advantages(torch.zeros(1, 2), scale_rewards="groups")  # type: ignore[arg-type]


def test_oracle_23_first_gradient_is_reinforce() -> None:
    after, old = _normal(2, 4, 9), _normal(2, 1, 9, seed=1)
    mean = old.clone().requires_grad_()
    advantage = advantages(_uniform(2, 4))
    loss = clipped_loss(log_ratio(after, mean, old, 0.3), advantage, elements=9, clip_range_sum=1e-3)
    (gradient,) = torch.autograd.grad(loss.loss.mean(), mean)
    again = old.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-(advantage * log_density(after, again, 0.3) / 9).mean(), again)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("log", "advantage", "clipped"),
    [(0.3, 1.0, True), (-0.3, -1.0, True), (0.3, -1.0, False), (-0.3, 1.0, False), (0.1, 1.0, False),
     (-0.1, -1.0, False)],
)  # fmt: skip
def test_oracle_24_clip(log: float, advantage: float, clipped: bool) -> None:
    value = torch.tensor([[log * 10]], requires_grad=True)
    found = clipped_loss(value, torch.tensor([[advantage]]), elements=10, clip_range_sum=2.0)
    found.loss.sum().backward()
    ratio = math.exp(log)
    assert float(found.loss.detach()) == pytest.approx(max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2)))
    assert float(value.grad) == pytest.approx(0 if clipped else -advantage * ratio / 10)  # type: ignore[arg-type]
    assert bool(found.high | found.low) == clipped


def test_oracle_25_bandit_gradient() -> None:
    """With the group's own mean as baseline the gradient is (G - 1) / G of the true one."""
    groups, size, theta, std = 300_000, 4, 0.1, 0.5
    action = theta + std * _normal(groups, size, seed=7)
    centred = advantages((action > 0.3).double(), scale_rewards="none")
    each = (centred * (action - theta) / std**2).mean(1)
    exact = math.exp(-0.5 * (0.2 / std) ** 2) / math.sqrt(2 * math.pi) / std
    error = float(each.std()) / math.sqrt(groups)
    assert float(each.mean()) == pytest.approx((size - 1) / size * exact, abs=4 * error)
    assert error < exact / 8 / 4  # enough samples to tell the two apart


def test_oracle_26_gradient_of_a_whole_chain() -> None:
    """A flow in one dimension, velocity a x + b + c t: the estimate is exact but for the deterministic last step."""
    theta, grid, target, size, groups = (0.4, -0.6, 0.3), list(linear(4)), 0.8, 8, 60_000

    def velocity(p: Tensor, x: Tensor, t: float) -> Tensor:
        return p[0] * x + p[1] + p[2] * t

    def expected_reward(p: Tensor, p_last: Tensor) -> Tensor:
        """-E (x - target)^2, by the recursion of mean and variance of an affine chain."""
        mean, variance = p.new_zeros(()), p.new_ones(())
        for i, (t, t_next) in enumerate(grid):
            last = i == len(grid) - 1
            ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
            estimate = from_velocity(ends, velocity(p_last if last else p, ends, t), t)
            moved, std = transition(ODE if last else SDE, estimate, t, t_next)
            mean, variance = moved[0] + (moved[1] - moved[0]) * mean, (moved[1] - moved[0]) ** 2 * variance + std**2
        return -((mean - target) ** 2 + variance)

    p = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    (frozen_last,) = torch.autograd.grad(expected_reward(p, p.detach()), p)
    (full,) = torch.autograd.grad(expected_reward(p, p), p)

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(groups, size, 1, generator=generator, dtype=torch.float64)
    log = torch.zeros(groups, size, 1, dtype=torch.float64)
    scores = []
    for i, (t, t_next) in enumerate(grid):
        mean, std = transition(ODE if i == 3 else SDE, from_velocity(x, velocity(p.detach(), x, t), t), t, t_next)
        if i < 3:
            after = mean + std * torch.randn(x.shape, generator=generator, dtype=torch.float64)
            # gradient of the mean by each parameter, times the score
            moved, _ = transition(SDE, from_velocity(torch.zeros(()), torch.ones(()), t), t, t_next)
            by_parameter = float(moved) * torch.cat([x, torch.ones_like(x), t * torch.ones_like(x)], dim=2)
            scores.append(by_parameter * (after - mean) / std**2)
            log = log + log_ratio(after, mean, mean, std)[..., None]
            x = after
        else:
            x = mean
    advantage = advantages(-((x[..., 0] - target) ** 2), scale_rewards="none", clip=math.inf)
    each = (advantage[..., None] * sum(scores)).mean(1) * size / (size - 1)  # type: ignore[arg-type, call-overload]
    error = each.std(0) / math.sqrt(groups)
    assert float(log.abs().max()) == 0
    assert bool(((each.mean(0) - frozen_last).abs() < 4 * error).all())
    assert bool(((full - frozen_last).abs() > 10 * error).any())


def test_oracle_28_pair_credit_sums_to_the_whole() -> None:
    agreement, weight = _uniform(3, 8, 10), _uniform(3, 10, seed=1)
    weight[0, 4:] = 0
    credit = pair_advantages(agreement, weight)
    reward = (agreement * weight[:, None]).sum(2) / weight.sum(1, keepdim=True)
    expected = advantages(reward, scale_rewards="none", clip=9.0)
    torch.testing.assert_close(credit.sum(2), expected, rtol=1e-10, atol=1e-12)
    assert float(credit[0, :, 4:].abs().max()) == 0
    torch.testing.assert_close(credit.sum(1), torch.zeros(3, 10).double(), atol=1e-12, rtol=0)


def test_oracle_28_pair_credit_has_the_same_mean_and_less_variance() -> None:
    """N independent pairs of a Gaussian policy: the estimates agree, the variances are a factor of N or more apart."""
    trials, size, n, std = 4_000, 8, 40, 0.5
    noise = _normal(trials, size, n, seed=2)
    agreement = (0.2 + std * noise > 0).double()
    score = noise / std
    weight = torch.ones(trials, n, dtype=torch.float64)
    by_pair = (pair_advantages(agreement, weight) * score).mean(1).sum(1)
    by_image = (advantages(agreement.mean(2), scale_rewards="none") * score.sum(2)).mean(1)
    error = float(by_image.std()) / math.sqrt(trials)
    assert float(by_image.mean() - by_pair.mean()) == pytest.approx(0, abs=4 * error)
    exact = (size - 1) / size * math.exp(-0.5 * (0.2 / std) ** 2) / math.sqrt(2 * math.pi) / std
    assert float(by_pair.mean()) == pytest.approx(exact, abs=4 * float(by_pair.std()) / math.sqrt(trials))
    assert float(by_image.var() / by_pair.var()) > n


def test_pairs_without_judgement_give_no_credit() -> None:
    agreement = _uniform(2, 4, 3)
    agreement[0, 1, 2] = NAN
    credit = pair_advantages(agreement, torch.tensor([[1.0, 1, 1], [0, 0, 0]], dtype=torch.float64))
    assert credit[0, :, 2].tolist() == [0] * 4
    assert credit[1].abs().max() == 0
    same = pair_advantages(agreement[:1, :, :2], torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(credit[:1, :, :2], same)


@pytest.mark.parametrize("size", [1, 3, 24])
def test_oracle_30_microbatches_add_up_to_the_whole(size: int) -> None:
    """Over samples and over steps alike: the loss is a mean of parts that know nothing of each other."""
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    advantage = advantages(_uniform(3, 8))
    transitions = [(_normal(3, 8, 5, seed=i), _normal(3, 8, 5, seed=10 + i), 0.2 + 0.1 * i) for i in range(3)]

    def loss(rows: Tensor, part: tuple[Tensor, Tensor, float]) -> Tensor:
        after, old, std = (x.flatten(0, 1)[rows][None] if isinstance(x, Tensor) else x for x in part)
        mean = old + (theta - 0.3) * 2 + 0.05 * theta.sin()
        ratio = log_ratio(after, mean, old, std)
        found = clipped_loss(ratio, advantage.flatten()[rows][None], elements=5, clip_range_sum=0.5)
        return (found.loss + 0.1 * kl_divergence(mean, old, std)).sum() / (24 * 3)

    whole = sum((loss(torch.arange(24), part) for part in transitions), torch.zeros(()))
    (expected,) = torch.autograd.grad(whole, theta)
    theta.grad = None
    for part, rows in itertools.product(transitions, torch.arange(24).split(size)):
        loss(rows, part).backward()
    torch.testing.assert_close(theta.grad, expected, rtol=1e-10, atol=1e-13)


def test_unknown_weightings() -> None:
    with pytest.raises(UsageError, match="did you mean 'flow_grpo'"):
        kl_scale("flow-grpo", 0.5, 0.4)  # type: ignore[arg-type]
