"""Expected agreement in closed form: against sampling, hand-worked values and GRPO's own gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.expected import Covariance, expected_agreement
from reasonx_ft.grpo.loss import advantages, log_ratio, log_ratio_of_elements, pair_advantages
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.load import make_policy
from reasonx_ft.policies.noise import LowFrequencies, Noise, PixelNoise
from tests.reasonx_ft.policies.policy_fakes import (
    CHANNELS,
    batch_of,
    expected_of,
    judged_of,
    map_policy,
    random_codes,
    random_judged,
)

NOISES = (PixelNoise(), LowFrequencies(3))


def _repeated(judged: Judged, images: int) -> Judged:
    """The same pairs for several images, whose noise differs."""
    parts = (judged.rows, judged.cols, judged.probability, judged.weight)
    return Judged(judged.modality, *(v.expand(images, *v.shape[1:]) for v in parts))


def test_oracle_27_two_points_half_a_noise_apart() -> None:
    """P = Phi(difference / (sigma sqrt 2)) = Phi(0.5 / sqrt 2) = 0.63816."""
    code = torch.zeros(1, 1, 2)
    code[0, 0, 1] = 0.05
    policy = map_policy({"depth": code}, sigma=0.1)
    judged = Judged("depth", torch.tensor([[[0, 0]]]), torch.tensor([[[0, 1]]]), torch.ones(1, 1), torch.ones(1, 1))
    assert expected_of(policy, code[None], judged).item() == pytest.approx(0.63816, abs=1e-5)
    sampled = policy.rollout(batch_of({"depth": judged}, 1, 2), 200_000, 0, reference=False)["depth"]
    assert agreement(sampled.values, judged).reward.mean().item() == pytest.approx(0.63816, abs=4e-3)


@pytest.mark.parametrize("noise", NOISES, ids=("pixel", "lowrank"))
@pytest.mark.parametrize(("modality", "error"), [("depth", 0.004), ("normals", 0.012), ("irradiance", 0.006),
                                                 ("albedo", 0.02)])  # fmt: skip
def test_oracle_27_equals_the_mean_over_samples(modality: str, error: float, noise: Noise) -> None:
    codes = random_codes(modalities=[modality], seed=2, spread=0.15)
    policy = map_policy(codes, noise, sigma=0.1)
    judged = random_judged(modality, 1, 60)
    with torch.no_grad():
        code = policy.answer(torch.zeros(1, 3, 8, 8), [modality])[modality]
        exact = expected_of(policy, code, judged, balanced=False)
        each = torch.cat([expected_of(policy, code, _one(judged, n), balanced=False) for n in range(60)])
    values = policy.rollout(batch_of({modality: judged}), 20_000, 0, reference=False)[modality].values
    pairs = agreement(values, judged, balanced=False).pairs.mean(1)[0]
    assert exact.item() == pytest.approx(pairs.mean().item(), abs=error / 2)
    # pair by pair as well, not only on average
    assert float((each - pairs).abs().mean()) < error


def _one(judged: Judged, n: int) -> Judged:
    part = slice(n, n + 1)
    return Judged(judged.modality, judged.rows[:, part], judged.cols[:, part], judged.probability[:, part],
                  judged.weight[:, part])  # fmt: skip


def test_little_noise_is_the_reward_of_the_answer() -> None:
    for modality in CHANNELS:
        codes = random_codes(modalities=[modality], seed=3)
        policy, judged = map_policy(codes, sigma=1e-5), random_judged(modality, 1, 50)
        policy.network.requires_grad_(False)
        code = policy.answer(torch.zeros(1, 3, 8, 8), [modality])[modality]
        reward = agreement(policy.values(code, judged)[:, None], judged).reward[:, 0]
        torch.testing.assert_close(expected_of(policy, code, judged), reward, rtol=0, atol=2e-3)


def test_points_that_move_together_have_no_slope() -> None:
    values = torch.tensor([[[[0.1], [0.2]]]], requires_grad=True)
    one = torch.ones(1, 1)
    found = expected_agreement(values, Covariance(one, one, one), judged_of("depth", [[0.8]]))
    assert found.item() == pytest.approx(0.8)
    assert torch.autograd.grad(found.sum(), values)[0].abs().max() == 0


@pytest.mark.parametrize("noise", NOISES, ids=("pixel", "lowrank"))
@pytest.mark.parametrize("modality", CHANNELS)
def test_one_pixel_asked_about_twice_and_equal_values_have_finite_slopes(modality: str, noise: Noise) -> None:
    codes = {modality: random_codes(modalities=[modality])[modality][:, :1, :1].expand(-1, 8, 8)}
    policy = map_policy(codes, noise)
    judged = random_judged(modality, 1, 20)
    same = Judged(modality, judged.rows[..., :1].expand(-1, -1, 2), judged.cols[..., :1].expand(-1, -1, 2),
                  judged.probability, judged.weight)  # fmt: skip
    for pairs in (judged, same):
        assert _slope(policy, pairs).isfinite().all()


def _slope(policy: FeedForward, judged: Judged, *, balanced: bool = True) -> Tensor:
    code = policy.answer(torch.zeros(1, 3, 8, 8), [judged.modality])[judged.modality]
    return _of(policy, expected_of(policy, code, judged, balanced=balanced).sum())


def _of(policy: FeedForward, value: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, list(policy.network.parameters()))
    return found


Surrogate = Callable[[FeedForward, Judged, int, int], Tensor]


def _whole_image(policy: FeedForward, judged: Judged, images: int, group: int) -> Tensor:
    """Advantage of the image's reward times the log-ratio of all that was drawn."""
    batch = batch_of({judged.modality: _repeated(judged, images)})
    rollouts = policy.rollout(batch, group, 0, reference=False)
    step = rollouts[judged.modality].transitions[0]
    reward = agreement(rollouts[judged.modality].values, batch.judged[judged.modality]).reward
    credit = advantages(reward, scale_rewards="none")
    (mean,) = policy.replay(batch, rollouts, policy.microbatches(rollouts, None)[0]).values()
    return credit * log_ratio(step.after, mean, step.mean, step.std)


def _by_pair(policy: FeedForward, judged: Judged, images: int, group: int) -> Tensor:
    batch = batch_of({judged.modality: _repeated(judged, images)})
    rollouts = policy.rollout(batch, group, 0, reference=False)
    step = rollouts[judged.modality].transitions[0]
    found = agreement(rollouts[judged.modality].values, batch.judged[judged.modality])
    (mean,) = policy.replay(batch, rollouts, policy.microbatches(rollouts, None)[0]).values()
    each = log_ratio_of_elements(step.after, mean, step.mean, step.std).sum((-1, -2))
    return (pair_advantages(found.pairs, found.weight) * each).sum(-1)


def _projections(policy: FeedForward, judged: Judged, surrogate: Surrogate, images: int, group: int, along: Tensor
                 ) -> Tensor:  # fmt: skip
    """Each image's gradient of the surrogate, projected: a sample of the estimator, [images]."""
    loss = surrogate(policy, judged, images, group).mean(1)
    weight = torch.ones(images, requires_grad=True)
    slope = torch.autograd.grad((weight * loss).sum(), list(policy.network.parameters()), create_graph=True)[0]
    (found,) = torch.autograd.grad((slope * along).sum(), weight)
    return found.detach()


@pytest.mark.parametrize(("modality", "noise", "surrogate"), [
    ("depth", PixelNoise(), _whole_image), ("depth", PixelNoise(), _by_pair),
    ("depth", LowFrequencies(3), _whole_image), ("irradiance", PixelNoise(), _by_pair),
    ("normals", PixelNoise(), _by_pair), ("albedo", PixelNoise(), _by_pair),
])  # fmt: skip
def test_oracle_27_grpo_follows_the_closed_form(modality: str, noise: Noise, surrogate: Surrogate) -> None:
    """The mean gradient is (G - 1) / G of the exact one; the estimate's own spread says how near it must be.

    With low frequencies, the exact gradient is projected to them: the gradient of a network that has nothing finer.
    """
    group, codes = 4, random_codes(modalities=[modality], seed=5, spread=0.1)
    policy, judged = map_policy(codes, noise, sigma=0.1), random_judged(modality, 1, 25, seed=1)
    exact = _seen_by(noise, _slope(policy, judged))
    along = exact / exact.norm()
    each = _projections(policy, judged, surrogate, 4000, group, along)
    expected = (group - 1) / group * float((exact * along).sum())
    error = float(each.std()) / math.sqrt(len(each))
    slack = 0.0 if modality == "depth" else 0.06 * expected
    assert abs(float(each.mean()) - expected) < 3.5 * error + slack
    assert error < 0.15 * expected


def _seen_by(noise: Noise, slope: Tensor) -> Tensor:
    if isinstance(noise, LowFrequencies):
        rows, cols = noise.basis(8, 8, slope)
        return rows @ (rows.T @ slope @ cols) @ cols.T
    return slope


def test_oracle_28_pair_credit_has_the_same_mean_and_a_fraction_of_the_variance() -> None:
    codes, pairs = random_codes(modalities=["depth"], seed=6, spread=0.1), 25
    policy, judged = map_policy(codes, sigma=0.1), random_judged("depth", 1, pairs, seed=2)
    exact = _slope(policy, judged)
    along = exact / exact.norm()
    found = {s: _projections(policy, judged, s, 2500, 8, along).double() for s in (_whole_image, _by_pair)}
    means = [float(v.mean()) for v in found.values()]
    error = max(float(v.std()) for v in found.values()) / math.sqrt(2500)
    assert means[0] == pytest.approx(means[1], abs=4 * error)
    whole, paired = (float(v.var()) for v in found.values())
    # N-fold where the pairs are independent; some of these share pixels of the parameter
    assert 0.5 * pairs < whole / paired < 1.6 * pairs


def test_ascent_agrees_with_the_judge() -> None:
    """Following the closed form makes a map of noise say what the judge says."""
    codes = random_codes(modalities=["depth"], seed=7, spread=0.05)
    policy = map_policy(codes, sigma=0.1)
    truth = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    judged = random_judged("depth", 1, 200, seed=3)
    at = judged.at_points(truth)[..., 0]
    judged = Judged("depth", judged.rows, judged.cols, (at[..., 0] < at[..., 1]).float(), judged.weight)
    optimiser = torch.optim.Adam(policy.network.parameters(), lr=0.02)
    rewards = []
    for _ in range(60):
        code = policy.answer(torch.zeros(1, 3, 8, 8), ["depth"])["depth"]
        rewards.append(agreement(policy.values(code, judged)[:, None], judged, hard=True).reward.item())
        optimiser.zero_grad()
        (-expected_of(policy, code, judged)).sum().backward()
        optimiser.step()
    assert rewards[0] < 0.6
    assert rewards[-1] > 0.93


def test_images_without_a_pair_have_no_value_and_no_slope() -> None:
    code = torch.zeros(2, 1, 1, 1, requires_grad=True)
    policy = map_policy({"depth": torch.zeros(1, 1, 1)})
    judged = judged_of("depth", [[0.9], [0.9]], [[0.0], [1.0]])
    found = expected_of(policy, code, judged)
    assert found.isnan().tolist() == [True, False]
    assert torch.autograd.grad(found.nanmean(), code)[0].isfinite().all()


def test_chains_have_no_closed_form() -> None:
    with pytest.raises(UsageError, match="has a closed form for noise in the output"):
        make_policy("tiny-flow", explore="steps").covariance(torch.zeros(1, 1, 8, 8), judged_of("depth", [[0.5]]))
