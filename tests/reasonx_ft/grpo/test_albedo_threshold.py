"""Where a map draws the line between the same base colour and another."""

from __future__ import annotations

import math

import pytest
import torch

from reasonx_eval.types import DIFFERENT, SAME
from reasonx_ft.grpo.ranking import ranking_loss, separation
from reasonx_ft.grpo.rewards import PUBLISHED, AlbedoThreshold, agreement, relations
from tests.reasonx_ft.policies.policy_fakes import (
    batch_of,
    expected_of,
    generator,
    judged_of,
    map_policy,
    random_codes,
    random_judged,
)

LOG = AlbedoThreshold(0.5, "log")


def _pair(first: float, second: float) -> torch.Tensor:
    return torch.tensor([[[first] * 3, [second] * 3]])


def test_hand_worked_lines() -> None:
    # sqrt(3) log((a + .01) / (b + .01)): 0.5 is a ratio of e^(0.5 / sqrt 3) = 1.335
    assert relations(_pair(0.5, 0.5 / 1.3), "albedo", LOG).item() == SAME
    assert relations(_pair(0.5, 0.5 / 1.4), "albedo", LOG).item() == DIFFERENT
    assert separation(_pair(0.5, 0.5), "albedo", threshold=LOG).item() == pytest.approx(1, abs=0.03)
    expected = 1 - math.sqrt(3) * math.log(0.51 / 0.26) / 0.5
    assert separation(_pair(0.5, 0.25), "albedo", threshold=LOG).item() == pytest.approx(expected, abs=1e-3)
    # linear: darker and flatter is the same; in logarithms darkness changes next to nothing
    assert relations(_pair(0.9, 0.6), "albedo", PUBLISHED).item() == DIFFERENT
    assert relations(_pair(0.045, 0.03), "albedo", PUBLISHED).item() == SAME
    assert relations(_pair(0.9, 0.6), "albedo", LOG).item() == relations(_pair(0.045, 0.03), "albedo", LOG).item()


@pytest.mark.parametrize("same", [PUBLISHED, LOG], ids=str)
def test_the_loss_and_the_reward_draw_the_same_line(same: AlbedoThreshold) -> None:
    values = 0.3 + 0.2 * torch.rand(1, 400, 2, 3, generator=generator(1))
    found = relations(values, "albedo", same)
    assert set(found.flatten().tolist()) == {SAME, DIFFERENT}
    apart = separation(values, "albedo", threshold=same)
    clear = apart.abs() > 1e-3  # the tip is rounded off
    assert torch.equal((apart > 0)[clear], (found == SAME)[clear])


def test_growing_dark_wins_in_linear_colours_and_nothing_in_logarithms() -> None:
    """A map a tenth as bright says 'same' of everything within 0.5 of linear RGB."""
    values = 0.2 + 0.7 * torch.rand(1, 1, 300, 2, 3, generator=generator(2))
    judged = judged_of("albedo", [[0.9] * 300])

    def earned(scale: float, threshold: AlbedoThreshold) -> float:
        return agreement(values * scale, judged, balanced=False, threshold=threshold).reward.item()

    before, after = (earned(s, PUBLISHED) for s in (1.0, 0.03))
    assert after > before + 0.5
    before, after = (earned(s, LOG) for s in (1.0, 0.5))
    assert after == pytest.approx(before, abs=0.03)


def test_black_and_negative_values_are_finite() -> None:
    values = torch.tensor([[[[0.0, 0.0, 0.0], [-0.1, 0.2, 1e-9]]]], requires_grad=True)
    loss = ranking_loss(values, judged_of("albedo", [[0.8]]), threshold=LOG, balanced=False)
    (slope,) = torch.autograd.grad(loss.sum(), values)
    assert loss.isfinite().all()
    assert slope.isfinite().all()
    assert relations(torch.full((1, 2, 3), math.nan), "albedo", LOG).item() not in (SAME, DIFFERENT)


def test_the_closed_form_is_the_mean_over_samples() -> None:
    codes = random_codes(modalities=["albedo"], seed=2, spread=0.3)
    policy, judged = map_policy(codes, sigma=0.1), random_judged("albedo", 1, 60)
    with torch.no_grad():
        code = policy.answer(torch.zeros(1, 3, 8, 8), ["albedo"])["albedo"]
        exact = expected_of(policy, code, judged, balanced=False, threshold=LOG)
    values = policy.rollout(batch_of({"albedo": judged}), 20_000, 0, reference=False)["albedo"].values
    sampled = agreement(values, judged, balanced=False, threshold=LOG).reward.mean()
    assert exact.item() == pytest.approx(sampled.item(), abs=0.01)
