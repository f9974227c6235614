"""Agreement with a judge: what it is worth, what counts, and that nothing but being right earns more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME, SECOND
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.rewards import PUBLISHED, AlbedoThreshold, agreement, relations, target_of
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, generator, judged_of, random_judged

ORDINAL = ("depth", "normals", "irradiance")


def _maps(modality: str, images: int = 3, group: int = 2, *, seed: int = 0) -> Tensor:
    maps = torch.rand(images, group, CHANNELS[modality], 8, 8, generator=generator(seed)) + 0.1
    if modality == "normals":
        maps[:, :, 2] -= 1.2
        maps = maps / maps.norm(dim=2, keepdim=True)
    return maps


def _true(maps: Tensor, judged: Judged, *, same: AlbedoThreshold = PUBLISHED) -> Judged:
    """The same pairs, answered by what the maps [B, C, H, W] say."""
    found = relations(judged.at_points(maps), judged.modality, same)
    yes = (found == (SAME if judged.modality == "albedo" else FIRST)).to(torch.float32)
    return Judged(judged.modality, judged.rows, judged.cols, yes, judged.weight)


@pytest.mark.parametrize("modality", CHANNELS)
def test_relations_are_those_of_the_evaluation(modality: str) -> None:
    maps = _maps(modality)
    if modality == "albedo":
        maps = 0.5 + 0.06 * maps
    judged = random_judged(modality, 3, 50)
    found = relations(judged.at_points(maps), modality).numpy()
    assert found.shape == (3, 2, 50)
    points = torch.stack([(judged.cols + 0.5) / 8, (judged.rows + 0.5) / 8], dim=-1).double().numpy()
    for b in range(3):
        for g in range(2):
            value = maps[b, g].movedim(0, -1).numpy()
            expected = relation(value=value[..., 0] if modality == "depth" else value, points=points[b].reshape(-1, 2),
                                pairs=np.arange(100).reshape(-1, 2), modality=modality, margin=0.0)  # fmt: skip
            np.testing.assert_array_equal(found[b, g], expected)
    assert len(set(found.ravel().tolist())) == 2


def test_relations_refuse_what_they_do_not_know() -> None:
    with pytest.raises(UsageError, match="did you mean 'normals'"):
        relations(torch.zeros(1, 1, 1, 2, 3), "normal")


@pytest.mark.parametrize("modality", CHANNELS)
def test_oracle_31_perfect_earns_one_and_inverted_nothing(modality: str) -> None:
    maps = _maps(modality, group=1)
    if modality == "albedo":
        maps = 0.5 + 0.06 * maps
    judged = _true(maps[:, 0], random_judged(modality, 3, 40))
    assert agreement(judged.at_points(maps), judged, hard=True).reward.flatten().tolist() == [1, 1, 1]
    if modality in ORDINAL:
        # points that change places change the answer
        swapped = Judged(modality, judged.rows.flip(-1), judged.cols.flip(-1), judged.probability, judged.weight)
        assert agreement(swapped.at_points(maps), judged, hard=True).reward.flatten().tolist() == [0, 0, 0]
        answered = Judged(modality, swapped.rows, swapped.cols, 1 - judged.probability, judged.weight)
        assert agreement(swapped.at_points(maps), answered, hard=True).reward.flatten().tolist() == [1, 1, 1]


def test_oracle_31_depth_depends_on_order_alone() -> None:
    judged, maps = random_judged("depth", 3, 40), _maps("depth")
    values = judged.at_points(maps)
    before = agreement(values, judged).reward
    for change in (lambda v: v**3, torch.log1p, lambda v: 1000 * v + 5):
        assert torch.equal(agreement(change(values), judged).reward, before)


def test_hand_worked_values() -> None:
    near_far = torch.tensor([[[[[1.0], [2.0]], [[2.0], [1.0]], [[1.0], [2.0]]]]])
    judged = judged_of("depth", [[0.9, 0.9, 0.2]])
    soft = agreement(near_far, judged)
    torch.testing.assert_close(soft.pairs, torch.tensor([[[0.9, 0.1, 0.2]]]))
    torch.testing.assert_close(soft.reward, torch.tensor([[0.4]]))
    hard = agreement(near_far, judged, hard=True)
    assert hard.pairs.tolist() == [[[1, 0, 0]]]
    assert hard.reward.item() == pytest.approx(1 / 3)
    weighted = agreement(near_far, judged_of("depth", [[0.9, 0.9, 0.2]], [[3.0, 1.0, 0.0]]), hard=True)
    assert weighted.reward.item() == 0.75


def test_what_counts_is_decided_by_the_judge_alone() -> None:
    judged = judged_of("depth", [[0.9, 0.5, math.nan, 0.1], [math.nan, 0.5, 0.5, 0.5]])
    values = torch.rand(2, 5, 4, 2, 1, generator=generator(0)) + 0.1
    hard = agreement(values, judged, hard=True)
    # an answer of exactly one half decides nothing when answers are rounded
    assert hard.weight.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert hard.reward[1].isnan().all()
    assert hard.reward[0].isfinite().all()
    assert agreement(values, judged).weight.tolist() == [[1, 1, 0, 1], [0, 1, 1, 1]]
    # and no prediction changes the weights
    assert torch.equal(agreement(torch.full_like(values, 1.0), judged).weight, agreement(values, judged).weight)
    empty = agreement(values, judged_of("depth", [[0.9] * 4] * 2, [[0.0] * 4] * 2))
    assert empty.reward.isnan().all()


def test_a_tie_earns_nothing() -> None:
    flat, judged = torch.ones(1, 1, 3, 2, 1), judged_of("depth", [[0.9, 0.5, 0.2]])
    assert relations(flat, "depth").tolist() == [[[LEFT_OUT] * 3]]
    assert agreement(flat, judged).reward.item() == 0


def test_values_that_are_no_numbers_agree_with_nothing() -> None:
    for modality, channels in CHANNELS.items():
        for value in (math.nan, math.inf):
            values = torch.full((1, 1, 2, 2, channels), value)
            found = agreement(values, judged_of(modality, [[0.9, 0.1]]))
            assert found.pairs.tolist() == [[[0, 0]]]
            assert found.reward.item() == 0


@pytest.mark.parametrize("hard", [False, True])
def test_constant_albedo_earns_one_half_whatever_the_judge_says(hard: bool) -> None:
    judged = random_judged("albedo", 5, 30, seed=3)
    judged = Judged("albedo", judged.rows, judged.cols, judged.probability**3, judged.weight)
    same = torch.full((5, 1, 30, 2, 3), 0.5)
    different = same * torch.tensor([1.0, 0.2]).view(2, 1)
    assert relations(different, "albedo").unique().tolist() == [DIFFERENT]
    for values in (same, different):
        torch.testing.assert_close(agreement(values, judged, hard=hard).reward, torch.full((5, 1), 0.5))
    # without the balance, saying "different" everywhere pays
    assert (agreement(different, judged, hard=hard, balanced=False).reward > 0.6).all()


def test_balance_weighs_both_answers_alike() -> None:
    values = torch.tensor([[[[[0.5] * 3, [0.5] * 3], [[0.5] * 3, [0.9] * 3], [[0.5] * 3, [0.9] * 3],
                             [[0.5] * 3, [0.5] * 3]]]])  # fmt: skip
    judged = judged_of("albedo", [[1.0, 0.0, 0.0, 0.0]])
    found = agreement(values, judged)
    torch.testing.assert_close(found.weight, torch.tensor([[1 / 2, 1 / 6, 1 / 6, 1 / 6]]))
    assert found.pairs.tolist() == [[[1, 1, 1, 0]]]
    assert found.reward.item() == pytest.approx(1 / 2 + 1 / 3)
    # with one answer alone there is nothing to weigh
    alone = agreement(values, judged_of("albedo", [[0.0, 0.0, 0.0, 0.0]]))
    assert alone.reward.isnan().all()
    assert alone.weight.tolist() == [[0, 0, 0, 0]]
    # and for the others order is chance
    assert target_of(judged_of("depth", [[1.0, 0.0, 0.0]]), hard=False, balanced=True).weight.tolist() == [[1, 1, 1]]


def test_soft_balance_is_the_judge_under_equal_odds() -> None:
    """Bayes' rule: odds of both answers times the quotient of their totals."""
    p = torch.tensor([0.1, 0.2, 0.6])
    target = target_of(judged_of("albedo", [p.tolist()]), hard=False, balanced=True)
    odds = p / (1 - p) * (1 - p).sum() / p.sum()
    torch.testing.assert_close(target.probability[0], odds / (1 + odds))
    assert target.weight.sum().item() == pytest.approx(1)
    # a judge that says the same of every pair says nothing
    torch.testing.assert_close(
        target_of(judged_of("albedo", [[0.1] * 4]), hard=False, balanced=True).probability, torch.full((1, 4), 0.5))


def test_cheats_do_not_pay() -> None:
    """Squeezing a map into the band of near-ties, flattening it, stretching its contrast: order is all that counts."""
    for modality in ORDINAL:
        maps = _maps(modality, group=1, seed=4)
        right = _true(maps[:, 0], random_judged(modality, 3, 40, seed=5))
        wrong = torch.rand(3, 40, generator=generator(6)) < 0.3
        judged = Judged(modality, right.rows, right.cols, torch.where(wrong, 1 - right.probability, right.probability),
                        right.weight)  # fmt: skip
        values = judged.at_points(maps)
        honest = agreement(values, judged).reward
        if modality != "normals":
            for scale in (1e-3, 1e3):
                middle = values.mean()
                squeezed = (middle + scale * (values - middle)) if scale < 1 else scale * values
                assert (agreement(squeezed, judged).reward <= honest + 1e-6).all()
        flat = values[:, :, :1, :1].expand_as(values)
        assert (agreement(flat, judged).reward < honest).all()
    # base colours: true map with true answers; more or less contrast turns SAME into DIFFERENT or back
    base = torch.tensor([0.2, 0.22, 0.5, 0.8])[torch.randint(0, 4, (3, 1, 40, 2), generator=generator(7))]
    values = base[..., None].expand(-1, -1, -1, -1, 3)
    judged = judged_of("albedo", (relations(values, "albedo") == SAME)[:, 0].float().tolist())
    honest = agreement(values, judged).reward
    assert (honest == 1).all()
    for scale in (0.05, 3.0, 30.0):
        assert (agreement(scale * values, judged).reward < honest).all()


def test_red_and_green_change_places_without_a_trace() -> None:
    judged, maps = random_judged("irradiance", 2, 30), _maps("irradiance", 2)
    swapped = Judged("irradiance", judged.rows.flip(-1), judged.cols.flip(-1), 1 - judged.probability, judged.weight)
    torch.testing.assert_close(agreement(swapped.at_points(maps), swapped).reward,
                               agreement(judged.at_points(maps), judged).reward)  # fmt: skip
    assert relations(judged.at_points(maps), "irradiance").unique().tolist() == [FIRST, SECOND]
