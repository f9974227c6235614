"""GRPO's estimates as estimates: their mean is the exact gradient, and one draw points along it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reasonx_eval.models.embedded.card import WEIGHTS, read_card
from reasonx_eval.models.embedded.tiny_net import MODALITIES, TinyFlow
from reasonx_eval.registry import load_dataset
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.expected import Covariance, expected_agreement
from reasonx_ft.grpo.kernels import Estimate, Kernel
from reasonx_ft.grpo.loss import log_ratio_of_elements, pair_advantages
from reasonx_ft.grpo.rewards import AlbedoThreshold, agreement
from reasonx_ft.grpo.schedules import linear, of_times
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.chain import Chain, ChainPolicy, Encoder
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.policies.load import make_policy
from reasonx_ft.policies.noise import PixelNoise
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, batch_of, generator, random_judged

LOG = AlbedoThreshold(0.5, "log")


def estimate(policy: Policy, batch: Batch, group: int, *, step: int = 0) -> Tensor:
    """Gradient of the mean agreement over photos and modalities, estimated by pairs from one draw."""
    rollouts = policy.rollout(batch, group, step, reference=False)
    surrogate = torch.zeros(())
    for part in policy.microbatches(rollouts, None):
        for modality, mean in policy.replay(batch, rollouts, part).items():
            old = rollouts[modality].transitions[part.transition]
            found = agreement(rollouts[modality].values, batch.judged[modality], balanced=False, threshold=LOG)
            ratio = log_ratio_of_elements(old.after, mean, old.mean, old.std).sum((-1, -2))
            surrogate = surrogate + (pair_advantages(found.pairs, found.weight) * ratio).sum(-1).mean()
    return gradient(policy, surrogate)


def exact(policy: Policy, batch: Batch) -> Tensor:
    """The gradient of the expected agreement of noise in the output, in closed form."""
    codes = policy.answer(batch.images, list(batch.judged))
    total = [expected_agreement(policy.values(codes[m], j), policy.covariance(codes[m], j), j, balanced=False,
                                threshold=LOG).mean() for m, j in batch.judged.items()]  # fmt: skip
    return gradient(policy, torch.stack(total).sum())


def gradient(policy: Policy, value: Tensor) -> Tensor:
    found = torch.autograd.grad(value, list(policy.network.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for p, g in zip(policy.network.parameters(), found, strict=True)])  # fmt: skip


def mean_along(draws: Sequence[Tensor], along: Tensor) -> tuple[float, float]:
    """Mean of the draws' projections, and its standard error."""
    each = torch.stack([d @ along for d in draws]).double()
    return float(each.mean()), float(each.std()) / math.sqrt(len(each))


@pytest.fixture
def small() -> FlowPolicy:
    """A flow of a few thousand weights that explores in its output."""
    torch.manual_seed(0)
    card = read_card(WEIGHTS / "tiny-flow.safetensors")
    return FlowPolicy(card, TinyFlow((8, 8, 8, 8), 8), chain=Chain(linear(2), Kernel("flow-sde", 0.7)), base="small",
                      noise=PixelNoise(), sigma=0.1)  # fmt: skip


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_mean_of_output_noise_is_the_exact_gradient(small: FlowPolicy, modality: str) -> None:
    """Of (G - 1) / G: the group's own mean is the baseline. Closed forms but depth's are of second order."""
    batch = batch_of({modality: random_judged(modality, 1, 40, 16, 24)}, 16, 24)
    if modality == "normals":  # the closed form is for vectors that are long beside their noise
        judged = batch.judged[modality]
        code = small.answer(batch.images, [modality])[modality].detach()
        length = judged.at_points(code).norm(dim=-1).amin(-1)
        batch = replace(batch, judged={modality: replace(judged, weight=(length > length.median()).float())})
        small.sigma[modality] = 0.1 * float(length.median())
    truth = exact(small, batch)
    along = truth / truth.norm()
    draws = [estimate(small, Batch(batch.images, batch.judged, (seed,)), 64) for seed in range(60)]
    mean, error = mean_along(draws, along)
    expected = 63 / 64 * float(truth.norm())
    assert abs(mean - expected) < 4 * error + (0.0 if modality == "depth" else 0.06 * expected)
    assert error < 0.1 * expected
    # and across it there is nothing but noise
    other = torch.randn(along.shape, generator=generator(1))
    other = other - (other @ along) * along
    across, error = mean_along(draws, other / other.norm())
    assert abs(across) < 4 * error


class Cells(ChainPolicy):
    """A chain in one step whose end is known: the clean map is a parameter a cell, and the last step undoes the first.

    Its end is Gaussian around the parameters, with noise that a cell shares: the expected agreement has a closed
    form.
    """

    modalities = ("depth", "irradiance")
    size, cell, level = (8, 12), 4, 0.06

    def __init__(self) -> None:
        network = nn.Module()
        values = 0.1 * torch.randn(1, 3, 2, 3, generator=generator(3))
        network.codes = nn.Parameter(values)
        chain = Chain(of_times([1.0, 0.5, 0.0]), Kernel("ddim", 2 * self.level), cells=self.cell)
        super().__init__(network, network, base="cells", chain=chain)

    def maps(self) -> Tensor:
        codes: Tensor = self.network.codes  # type: ignore[assignment]
        return codes.repeat_interleave(self.cell, -1).repeat_interleave(self.cell, -2)

    def tracks(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        return [(m,) for m in modalities]

    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 3, height, width

    def encoder(self, images: Tensor) -> Encoder:
        return lambda part: (images[part],)

    def estimate(
        self, state: Tensor, t: float, timestep: float, track: tuple[str, ...], condition: Sequence[Tensor]
    ) -> Estimate:
        if t == 1:
            clean = self.maps()[None].expand(*state.shape[:2], -1, -1, -1)
            return Estimate(clean, torch.zeros_like(state))
        return Estimate(state / (1 - t), torch.zeros_like(state))

    def at_points(self, final: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        return self.decode_points(judged.at_points(final[:, :, : CHANNELS[judged.modality]]), judged.modality)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        return {m: self.maps()[:, : CHANNELS[m]].expand(len(images), -1, -1, -1) for m in modalities}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return code.exp()

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return self.size

    def save(self, folder: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("modality", ["depth", "irradiance"])
def test_the_mean_of_a_chain_in_cells_is_the_exact_gradient(modality: str) -> None:
    policy = Cells()
    judged = random_judged(modality, 1, 40, *policy.size)
    batch = batch_of({modality: judged}, *policy.size)
    values = policy.values(policy.answer(batch.images, [modality])[modality], judged)
    cells = [x // policy.cell for x in (judged.rows, judged.cols)]
    shared = ((cells[0][..., 0] == cells[0][..., 1]) & (cells[1][..., 0] == cells[1][..., 1])).float()
    assert 0 < shared.mean() < 1
    # half of the last step's way takes the noise of the first to twice its size
    variance = (2 * policy.level) ** 2 * torch.ones_like(shared)
    truth = gradient(policy, expected_agreement(values, Covariance(variance, variance, variance * shared), judged,
                                                balanced=False).mean())  # fmt: skip
    along = truth / truth.norm()
    draws = [estimate(policy, Batch(batch.images, batch.judged, (seed,)), 256) for seed in range(80)]
    mean, error = mean_along(draws, along)
    expected = 255 / 256 * float(truth.norm())
    assert abs(mean - expected) < 4 * error + (0.0 if modality == "depth" else 0.06 * expected)
    assert error < 0.1 * expected


@pytest.fixture(scope="module")
def photos() -> Callable[[str], Batch]:
    """Three wild scenes with 240 pairs each, answered from their true maps."""
    dataset = load_dataset("scenes-wild", split="val")
    samples = [dataset.load(i) for i in dataset.ids[:3]]
    images = torch.stack([torch.from_numpy(s.image.copy()).movedim(-1, 0) for s in samples]).float() / 255

    def batch(modality: str) -> Batch:
        height, width = images.shape[-2:]
        judged = random_judged(modality, 3, 240, height, width, seed=5)
        true = torch.stack([torch.from_numpy(_true(s.targets[modality])).movedim(-1, 0) for s in samples])
        right = agreement(judged.at_points(true)[:, None],
                          Judged(modality, judged.rows, judged.cols, torch.ones(3, 240), judged.weight),
                          balanced=False, threshold=LOG).pairs[:, 0]  # fmt: skip
        answers = 0.1 + 0.8 * right
        return Batch(images, {modality: Judged(modality, judged.rows, judged.cols, answers, judged.weight)}, (7, 8, 9))

    return batch


def _true(target: Any) -> Any:
    return target.depth[..., None] if hasattr(target, "depth") else target.value


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize(("modality", "least"), [("depth", 0.8), ("albedo", 0.6)])
def test_one_draw_of_output_noise_points_along_the_exact_gradient(
    modality: str, least: float, photos: Callable[[str], Batch]
) -> None:
    policy, batch = make_policy("tiny-flow"), photos(modality)
    found = cosine(estimate(policy, batch, 32), exact(policy, batch))
    assert found >= least


def test_one_draw_of_a_chain_in_cells_points_along_the_exact_gradient(photos: Callable[[str], Batch]) -> None:
    """Of the expected agreement of noise in the output, which that of the chain's noise is near to."""
    batch = photos("depth")
    truth = exact(make_policy("tiny-flow"), batch)
    cells = make_policy("tiny-flow", explore="steps", steps=2, kernel="ddim", noise_level=0.6, cells=8)
    assert cosine(estimate(cells, batch, 32), truth) >= 0.8


def test_replays_repeat_and_equal_rewards_give_no_gradient(small: FlowPolicy) -> None:
    """Zero advantage, zero gradient: also where samples differ."""
    for policy in (small, make_policy("tiny-flow", explore="steps", kernel="ddim", noise_level=1.0, cells=4)):
        batch = batch_of({m: random_judged(m, 2, 20, 16, 24) for m in ("depth", "albedo")}, 16, 24)
        rollouts = policy.rollout(batch, 6, 0, reference=True)
        for part in policy.microbatches(rollouts, 4):
            for modality, mean in policy.replay(batch, rollouts, part).items():
                step = rollouts[modality].transitions[part.transition]
                assert mean.shape[2:] == (20, 2, mean.shape[-1])
                torch.testing.assert_close(mean, part.of(step.mean), rtol=1e-4, atol=1e-5)
                ratio = log_ratio_of_elements(part.of(step.after), mean, part.of(step.mean), step.std).sum((-1, -2))
                credit = pair_advantages(torch.full((2, 6, 20), 0.7), torch.ones(2, 20))
                assert float(gradient(policy, (part.of(credit) * ratio).sum()).abs().max()) == 0


def test_a_cell_that_both_points_share_counts_once() -> None:
    chain = Chain(linear(2), Kernel("flow-sde", 0.7), cells=4)
    state = torch.arange(96, dtype=torch.float32).view(1, 1, 1, 8, 12)
    rows, cols = torch.tensor([[[0, 1], [0, 7]]]), torch.tensor([[[0, 3], [0, 11]]])
    judged = Judged("depth", rows, cols, torch.ones(1, 2), torch.ones(1, 2))
    found = chain.coordinates(state, judged, (8, 12))
    cell = state[0, 0, 0, :4, :4].mean(), state[0, 0, 0, 4:, 8:].mean()
    assert found.flatten().tolist() == [cell[0], 0.0, cell[0], cell[1]]
