"""Ranking losses: hand-worked values, what each does with a judge's mistakes, slopes that stay finite."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.types import DIFFERENT, FIRST, SAME, SECOND
from reasonx_ft.grpo.ranking import KINDS, TEMPERATURES, RankingKind, ranking_loss, separation, temperature_of
from reasonx_ft.grpo.rewards import AlbedoThreshold, relations
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, generator, judged_of


def _depth(*logs: float) -> Tensor:
    """Values [1, 1, 2, 1] of a pair whose depths have these natural logarithms."""
    return torch.tensor(logs).exp().view(1, 1, 2, 1)


def _values(modality: str, *shape: int, seed: int = 0) -> Tensor:
    found = torch.rand(*shape, 2, CHANNELS[modality], generator=generator(seed)) + 0.05
    if modality == "albedo":
        found = 0.5 + 0.06 * found
    return found / found.norm(dim=-1, keepdim=True) if modality == "normals" else found


@pytest.mark.parametrize("modality", CHANNELS)
def test_the_sign_is_the_relation(modality: str) -> None:
    values = _values(modality, 200)
    found, apart = relations(values, modality), separation(values, modality)
    yes, no = (SAME, DIFFERENT) if modality == "albedo" else (FIRST, SECOND)
    assert set(found.tolist()) == {yes, no}
    assert torch.equal(apart > 0, found == yes)


def test_hand_worked_separations() -> None:
    assert separation(_depth(0.1, 0.4), "depth").item() == pytest.approx(0.3)
    light = torch.tensor([[[0.2, 0.2, 0.2], [0.1, 0.1, 0.1]]])
    assert separation(light, "irradiance").item() == pytest.approx(math.log(2))
    facing = torch.tensor([[[0.0, 0.6, -0.8], [1.0, 0.0, 0.0]]])
    assert separation(facing, "normals").item() == pytest.approx(0.8)
    paint = torch.tensor([[[0.5, 0.5, 0.5], [0.5, 0.5, 0.6]]])
    assert separation(paint, "albedo", threshold=AlbedoThreshold(0.05)).item() == pytest.approx(-1, abs=1e-3)
    assert separation(paint[:, :1].expand(-1, 2, -1), "albedo").item() == pytest.approx(0.98)


def test_hand_worked_losses() -> None:
    z, p = 0.2 / 0.1, 0.8
    sigmoid = 1 / (1 + math.exp(-z))
    expected: dict[RankingKind, float] = {
        "mixture": math.log(0.8) - math.log(0.8 * sigmoid + 0.2 * (1 - sigmoid)),
        "sigmoid": 0.8 * (1 - sigmoid) + 0.2 * sigmoid,
    }
    assert set(expected) == set(KINDS)
    for kind, value in expected.items():
        found = ranking_loss(_depth(0.0, 0.2), judged_of("depth", [[p]]), kind=kind, temperature=0.1)
        assert found.tolist() == [pytest.approx(value, rel=1e-5)]
        # the other way round, by swapping the points or the answer
        for values, probability in ((_depth(0.2, 0.0), 1 - p), (_depth(0.7, 0.9), p)):
            again = ranking_loss(values, judged_of("depth", [[probability]]), kind=kind, temperature=0.1)
            torch.testing.assert_close(again, found)


@pytest.mark.parametrize("kind", KINDS)
def test_pulls_towards_the_answer(kind: RankingKind) -> None:
    for modality in CHANNELS:
        if modality == "normals":
            values = torch.nn.functional.normalize(torch.tensor([[[0.3, 0.4, -0.8], [0.5, 0.3, -0.7]]]), dim=-1)[None]
        else:
            values = _values(modality, 1, 1)
        for p in (0.99, 0.01):
            point = values.clone().requires_grad_()
            loss = ranking_loss(point, judged_of(modality, [[p]]), kind=kind, balanced=False, temperature=1.0)
            (slope,) = torch.autograd.grad(loss.sum(), point)
            change = separation(values - 1e-3 * slope / slope.norm(), modality) - separation(values, modality)
            assert (change.item() > 0) == (p > 0.5)


def test_mixture_gives_up_on_answers_that_the_network_firmly_contradicts() -> None:
    """The likelihood is bounded, so the pull vanishes."""
    near = torch.tensor([2.0], requires_grad=True)
    values = torch.stack([near.exp(), torch.ones(1)]).view(1, 1, 2, 1)
    loss = ranking_loss(values, judged_of("depth", [[0.9]]), kind="mixture", temperature=0.1)
    assert abs(torch.autograd.grad(loss.sum(), near)[0].item()) < 1e-4
    # never below 0, and 0 at certainty
    for p in (0.5, 0.7, 1.0):
        losses = [ranking_loss(_depth(0.0, z), judged_of("depth", [[p]])).item() for z in (-3.0, -0.1, 0.0, 0.1, 3.0)]
        assert min(losses) > -1e-6
        assert losses[-1] == pytest.approx(0, abs=1e-6)
        assert sorted(losses, reverse=True) == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_stay_finite(kind: RankingKind) -> None:
    """Equal values, extreme ones, certain answers, pairs that don't count and images without any."""
    for modality, channels in CHANNELS.items():
        even = torch.ones(2, 5, 2, channels)
        even[:, 3, 1] = 1e4
        even[:, 4, 0] = 1e-6
        values = (torch.nn.functional.normalize(even, dim=-1) if modality == "normals" else even).requires_grad_()
        judged = judged_of(modality, [[0.0, 1.0, 0.5, 1.0, math.nan]] * 2, [[1.0] * 5, [0.0] * 5])
        loss = ranking_loss(values, judged, kind=kind, temperature=0.5)
        assert loss.isnan().tolist() == [False, True]
        assert loss[0].isfinite()
        assert torch.autograd.grad(loss.nanmean(), values)[0].isfinite().all()


def test_weights_decide_what_is_averaged() -> None:
    values = torch.cat([_depth(0.0, 0.1), _depth(0.2, 0.0)], dim=1)
    one, other = (ranking_loss(v, judged_of("depth", [[0.9]])) for v in (values[:, :1], values[:, 1:]))
    both = ranking_loss(values, judged_of("depth", [[0.9, 0.9]], [[3.0, 1.0]]))
    torch.testing.assert_close(both, 0.75 * one + 0.25 * other)
    hard = ranking_loss(values, judged_of("depth", [[0.6, 0.5]]), hard=True)
    torch.testing.assert_close(hard, ranking_loss(values[:, :1], judged_of("depth", [[1.0]])))


def test_options() -> None:
    assert temperature_of("depth", None) == TEMPERATURES["depth"]
    assert temperature_of("depth", 0.3) == 0.3
    assert temperature_of("depth", {"albedo": 0.3}) == TEMPERATURES["depth"]
    judged = judged_of("depth", [[0.9]])
    with pytest.raises(UsageError, match="temperature of depth is 0"):
        ranking_loss(_depth(0.0, 1.0), judged, temperature={"depth": 0.0})
    with pytest.raises(UsageError, match="did you mean 'mixture'"):
        ranking_loss(_depth(0.0, 1.0), judged, kind="mixtures")  # type: ignore[arg-type]
