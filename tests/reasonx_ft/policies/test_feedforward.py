"""The feed-forward policy: rollout and replay agree to the bit, the base stays, what is saved is what is evaluated."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.models.embedded.card import WEIGHTS, read_card
from reasonx_eval.models.embedded.tiny import Tiny, working_image
from reasonx_eval.models.embedded.tiny_net import CODES, TinyNet
from reasonx_eval.types import Kind, Sample
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.loss import advantages, kl_divergence, log_ratio, log_ratio_of_elements, pair_advantages
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.base import Policy, portions
from reasonx_ft.policies.embedded import TinyPredictor
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.load import make_policy
from reasonx_ft.policies.noise import PixelNoise, sigmas
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, batch_of, generator, part_of, random_judged

NOISES = ("pixel", "lowrank")


def _batch(images: int = 3, height: int = 24, width: int = 32) -> Batch:
    judged = {m: random_judged(m, images, 20, height, width, seed=k) for k, m in enumerate(CHANNELS)}
    return batch_of(judged, height, width)


def _changed(policy: Policy, amount: float = 0.01) -> None:
    with torch.no_grad():
        for k, parameter in enumerate(policy.network.parameters()):
            parameter += amount * torch.randn(parameter.shape, generator=generator(k))


@pytest.mark.parametrize("size", [None, 1, 2])
@pytest.mark.parametrize("noise", NOISES)
def test_oracle_11_replay_is_the_rollout_to_the_bit(noise: str, size: int | None) -> None:
    policy, batch = make_policy("tiny", noise=noise, microbatch=size), _batch()
    rollouts = policy.rollout(batch, 4, 0, reference=True)
    seen: dict[str, list[int]] = {}
    for part in policy.microbatches(rollouts, size):
        # one pass serves all modalities and samples
        assert set(part.modalities) == set(CHANNELS)
        for modality, mean in policy.replay(batch, rollouts, part).items():
            step = rollouts[modality].transitions[part.transition]
            ratio = log_ratio(step.after[part.photos], mean, step.mean[part.photos], step.std).exp()
            assert torch.equal(ratio, torch.ones(ratio.shape))
            assert mean.requires_grad
            assert step.reference is not None
            assert float(kl_divergence(mean, step.reference[part.photos], step.std).max().detach()) == 0
            seen.setdefault(modality, []).extend(range(part.photos.start, part.photos.stop))
    assert seen == {m: [0, 1, 2] for m in CHANNELS}


@pytest.mark.parametrize("noise", NOISES)
def test_rollouts_have_the_shapes_that_are_promised(noise: str) -> None:
    policy, batch = make_policy("tiny", noise=noise), _batch()
    for modality, rollout in policy.rollout(batch, 4, 0, reference=False).items():
        channels = CHANNELS[modality]
        assert rollout.modality == modality
        assert rollout.values.shape == (3, 4, 20, 2, channels)
        (step,) = rollout.transitions
        expected = (channels, 8, 8) if noise == "lowrank" else (20, 2, channels)
        assert step.after.shape == (3, 4, *expected)
        assert step.mean.shape == (3, 1, *expected)
        assert step.state is None
        assert step.reference is None
        assert policy.local_noise == (noise != "lowrank")
        assert step.elements == int(np.prod(expected))
        assert rollout.values.isfinite().all()
        if modality == "normals":
            torch.testing.assert_close(rollout.values.norm(dim=-1), torch.ones(3, 4, 20, 2))
        else:
            assert (rollout.values > 0).all()
        assert rollout.sample_std == pytest.approx(policy.sigma[modality], rel=0.35)  # type: ignore[attr-defined]


@pytest.mark.parametrize("noise", NOISES)
def test_oracle_16_the_batch_changes_no_noise(noise: str) -> None:
    policy, batch = make_policy("tiny", noise=noise), _batch()
    whole = policy.rollout(batch, 4, 0, reference=False)
    alone = policy.rollout(part_of(batch, slice(1, 2)), 4, 0, reference=False)
    for modality, rollout in alone.items():
        ours, theirs = rollout.transitions[0], whole[modality].transitions[0]
        torch.testing.assert_close(ours.after[0] - ours.mean[0], theirs.after[1] - theirs.mean[1], rtol=0, atol=2e-5)
        torch.testing.assert_close(rollout.values[0], whole[modality].values[1], rtol=1e-3, atol=1e-4)
    # an image's noise depends on its own seed, and no two images share it
    other = policy.rollout(Batch(batch.images, batch.judged, (7, 8, 9)), 4, 0, reference=False)["depth"].transitions[0]
    assert not torch.equal(other.after, whole["depth"].transitions[0].after)


def test_oracle_19_the_base_is_the_network_before_tuning() -> None:
    policy, batch = make_policy("tiny"), _batch()
    before = {m: c.detach() for m, c in policy.answer(batch.images, policy.modalities).items()}
    tuned = policy.network
    _changed(policy)
    after = policy.answer(batch.images, policy.modalities)
    with policy.as_base():
        base = policy.answer(batch.images, policy.modalities)
        assert not any(p.requires_grad for p in policy.network.parameters())
    for modality in CHANNELS:
        assert torch.equal(base[modality], before[modality])
        assert not torch.equal(after[modality], before[modality])
    assert policy.network is tuned
    with pytest.raises(KeyError, match="inside"), policy.as_base():
        raise KeyError("inside")
    assert policy.network is tuned
    assert all(p.requires_grad for p in tuned.parameters())
    step = policy.rollout(batch, 2, 0, reference=True)["depth"].transitions[0]
    assert torch.equal(step.reference, batch.judged["depth"].at_points(before["depth"])[:, None])  # type: ignore[arg-type]


def _sample(seed: int = 0, height: int = 90, width: int = 128) -> Sample:
    image = torch.randint(0, 256, (height, width, 3), generator=generator(seed), dtype=torch.uint8).numpy()
    return Sample("x", image, {}, {})


def test_the_answer_is_what_is_evaluated() -> None:
    policy, sample = make_policy("tiny"), _sample()
    image = working_image(sample.image)
    assert policy.working_size(90, 128) == image.shape[:2]
    images = torch.from_numpy(image.copy()).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        codes = policy.answer(images, policy.modalities)
    kinds: Mapping[str, Kind] = {"depth": "depth_metric", "normals": "normal", "albedo": "albedo_linear",
                                 "irradiance": "irradiance"}  # fmt: skip
    for modality, kind in kinds.items():
        expected = Tiny().predict([sample], kind, 0)[0].value
        found = policy.decode(codes[modality], modality)[0].movedim(0, -1).numpy()
        np.testing.assert_allclose(found.squeeze(), expected, rtol=1e-4, atol=1e-5)
    judged = random_judged("normals", 1, 30, *image.shape[:2])
    torch.testing.assert_close(policy.values(codes["normals"], judged),
                               judged.at_points(policy.decode(codes["normals"], "normals")))  # fmt: skip


def test_what_is_saved_runs_and_can_be_tuned_on(tmp_path: Path) -> None:
    policy, sample = make_policy("tiny"), _sample()
    _changed(policy)
    saved = policy.save(tmp_path)
    assert (saved.architecture, saved.path) == ("tiny", "tiny.safetensors")
    card = read_card(tmp_path / saved.path)
    assert card.base is not None
    assert card.base.startswith("tiny ")
    assert card.scores == []
    again = make_policy(tmp_path / saved.path)
    images = torch.from_numpy(working_image(sample.image).copy()).movedim(-1, 0)[None] / 255
    for modality, code in again.answer(images, again.modalities).items():
        # half precision
        torch.testing.assert_close(code, policy.answer(images, [modality])[modality], rtol=0.03, atol=0.03)
    expected = again.decode(again.answer(images, ["depth"])["depth"].detach(), "depth")[0, 0].numpy()
    found = Tiny(weights=tmp_path / saved.path).predict([sample], "depth_metric", 0)[0].value
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    first = (tmp_path / saved.path).read_bytes()
    policy.save(tmp_path)
    assert (tmp_path / saved.path).read_bytes() == first


def test_lower_precision_computes_and_stays_consistent() -> None:
    policy, batch = make_policy("tiny", dtype="bfloat16"), _batch()
    rollouts = policy.rollout(batch, 2, 0, reference=False)
    (part,) = policy.microbatches(rollouts, None)
    for modality, mean in policy.replay(batch, rollouts, part).items():
        assert mean.dtype == torch.float32
        assert torch.equal(mean, rollouts[modality].transitions[0].mean)


def test_names_and_options() -> None:
    with pytest.raises(UsageError, match="unknown option 'sigmaa'; did you mean 'sigma'"):
        make_policy("tiny", sigmaa=0.1)
    with pytest.raises(UsageError, match="option noise 'pixels'; did you mean 'pixel'"):
        make_policy("tiny", noise="pixels")
    with pytest.raises(UsageError, match="unknown dtype 'float16'"):
        make_policy("tiny", dtype="float16")
    with pytest.raises(UsageError, match="microbatch is 0"):
        make_policy("tiny", microbatch=0)
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        make_policy("tinny")
    policy = make_policy("tiny", sigma={"depth": 0.3})
    assert isinstance(policy, FeedForward)
    assert policy.sigma == {"depth": 0.3, "normals": 0.15, "albedo": 0.03, "irradiance": 0.1}
    assert set(sigmas(0.2, ("depth", "normals")).values()) == {0.2}
    with pytest.raises(UsageError, match="did you mean 'normals'"):
        make_policy("tiny", sigma={"normal": 0.3})
    with pytest.raises(UsageError, match="noise level of depth is 0"):
        make_policy("tiny", sigma={"depth": 0.0})
    assert (policy.base, policy.licence) == ("tiny", read_card(WEIGHTS / "tiny.safetensors").licence)
    assert portions(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert portions(0, None) == []


class _Small:
    """A small network on 32 x 32 photos, a judge that knows the answer, and steps of one method."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network: nn.Module = TinyNet((8, 8, 8, 8))
        card = read_card(WEIGHTS / "tiny.safetensors")
        self.policy = FeedForward(TinyPredictor(card), self.network, PixelNoise(), base="small", sigma=0.1)
        self.optimiser = torch.optim.Adam(self.policy.network.parameters(), lr=3e-3)

    def batch(self, step: int, images: int = 8) -> Batch:
        """Bright is near, facing the camera and lit; two points are the same where their brightness is."""
        rng = generator(step)
        coarse = torch.rand(images, 1, 8, 8, generator=rng)
        photos = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
        judged = {}
        for k, modality in enumerate(CHANNELS):
            pairs = random_judged(modality, images, 40, 32, 32, seed=10 * step + k)
            at = pairs.at_points(photos[:, :1])[..., 0]
            yes = (at[..., 0] - at[..., 1]).abs() < 0.15 if modality == "albedo" else at[..., 0] > at[..., 1]
            judged[modality] = Judged(modality, pairs.rows, pairs.cols, 0.1 + 0.8 * yes.float(), pairs.weight)
        return Batch(photos, judged, tuple(100 * step + i for i in range(images)))

    def agreement(self) -> dict[str, float]:
        batch = self.batch(10_000, 16)
        with torch.no_grad():
            codes = self.policy.answer(batch.images, self.policy.modalities)
            return {m: float(agreement(self.policy.values(codes[m], j)[:, None], j, hard=True).reward.nanmean())
                    for m, j in batch.judged.items()}  # fmt: skip

    def grpo(self, step: int, *, by_pair: bool) -> Tensor:
        batch = self.batch(step)
        rollouts = self.policy.rollout(batch, 8, step, reference=False)
        (part,) = self.policy.microbatches(rollouts, None)
        loss = torch.zeros(())
        for modality, mean in self.policy.replay(batch, rollouts, part).items():
            rollout, judged = rollouts[modality], batch.judged[modality]
            found, old = agreement(rollout.values, judged), rollout.transitions[0]
            if by_pair:
                each = log_ratio_of_elements(old.after, mean, old.mean, old.std).sum((-1, -2))
                loss = loss - (pair_advantages(found.pairs, found.weight) * each).sum(-1).mean()
            else:
                loss = loss - (advantages(found.reward) * log_ratio(old.after, mean, old.mean, old.std)).mean()
        return loss

    def ranking(self, step: int) -> Tensor:
        batch = self.batch(step)
        codes = self.policy.answer(batch.images, self.policy.modalities)
        losses = [ranking_loss(self.policy.values(codes[m], j), j).nanmean() for m, j in batch.judged.items()]
        return torch.stack(losses).sum()

    def follow(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.policy.network.parameters(), 1.0)
        self.optimiser.step()


@pytest.mark.parametrize(("method", "steps"), [
    ("pairs", 40), ("ranking", 40), pytest.param("images", 70, marks=pytest.mark.slow),
])  # fmt: skip
def test_oracle_37_agreement_rises(method: str, steps: int) -> None:
    small = _Small()
    before = small.agreement()
    for step in range(steps):
        small.follow(small.ranking(step) if method == "ranking" else small.grpo(step, by_pair=method == "pairs"))
    after = small.agreement()
    gained = {m: after[m] - before[m] for m in CHANNELS}
    if method == "images":  # of a whole image's reward, the base colours have the least to show
        del gained["albedo"]
    assert all(gain > 0.05 for gain in gained.values()), (before, after)
    assert sum(gained.values()) > 0.7, (before, after)


def test_a_judge_that_knows_nothing_teaches_nothing() -> None:
    small, truth = _Small(), _Small.batch

    def guesses(step: int, images: int = 8) -> Batch:
        batch = truth(small, step, images)
        if step == 10_000:
            return batch
        judged = {m: Judged(m, j.rows, j.cols, torch.rand(j.probability.shape, generator=generator(step)).round(),
                            j.weight) for m, j in batch.judged.items()}  # fmt: skip
        return Batch(batch.images, judged, batch.seeds)

    for step in range(25):
        small.follow(small.ranking(step))
    before = small.agreement()
    small.batch = guesses  # type: ignore[method-assign]
    for step in range(20):
        small.follow(small.grpo(step, by_pair=True))
    after = small.agreement()
    assert all(after[m] < before[m] + 0.03 for m in CHANNELS), (before, after)


def test_the_base_is_a_copy_and_no_alias() -> None:
    small = _Small()
    kept = copy.deepcopy(small.network.state_dict())
    small.follow(small.ranking(0))
    with small.policy.as_base():
        for name, value in small.policy.network.state_dict().items():
            assert torch.equal(value, kept[name])
    assert any(not torch.equal(v, kept[k]) for k, v in small.network.state_dict().items())
    assert CODES["depth"].channels == 1
