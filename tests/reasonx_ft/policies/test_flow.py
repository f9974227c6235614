"""The flow policy on a small network: chains that replay to the bit, keyed noise, answers to many noises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.errors import UsageError
from reasonx_eval.models.embedded.card import WEIGHTS, read_card
from reasonx_eval.models.embedded.tiny import TinyFlow as TinyFlowModel
from reasonx_eval.models.embedded.tiny import working_image
from reasonx_eval.models.embedded.tiny_net import CODES, MODALITIES, TinyFlow, euler, from_state
from reasonx_eval.types import Sample
from reasonx_ft.grpo.batch import Batch, Judged, Rollout
from reasonx_ft.grpo.kernels import Kernel
from reasonx_ft.grpo.loss import advantages, kl_divergence, log_ratio
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.grpo.schedules import linear
from reasonx_ft.policies.base import Compute
from reasonx_ft.policies.chain import Chain, photo_seeds
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.policies.load import make_policy
from reasonx_ft.policies.noise import standard_normal
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, batch_of, generator, part_of, random_judged

TWO = ("depth", "normals")


def small(*, steps: int = 3, size: int | None = None, seed: int = 0, **options: object) -> FlowPolicy:
    torch.manual_seed(seed)
    network = TinyFlow((8, 8, 8, 8), 8)
    chain = Chain(linear(steps), Kernel("flow-sde", 0.7), **options)  # type: ignore[arg-type]
    card = read_card(WEIGHTS / "tiny-flow.safetensors")
    return FlowPolicy(card, network, chain=chain, base="small", compute=Compute(microbatch=size))


def batch(images: int = 3, modalities: tuple[str, ...] = TWO) -> Batch:
    return batch_of({m: random_judged(m, images, 20, 16, 24, seed=k) for k, m in enumerate(modalities)}, 16, 24)


@pytest.mark.parametrize("size", [None, 3, 4, 9])
def test_oracle_11_replay_is_the_rollout_to_the_bit(size: int | None) -> None:
    policy, seen = small(size=size), batch()
    rollouts = policy.rollout(seen, 4, 0, reference=True)
    done = {m: [torch.zeros(3, 4, dtype=torch.int) for _ in r.transitions] for m, r in rollouts.items()}
    for part in policy.microbatches(rollouts, size):
        for modality, mean in policy.replay(seen, rollouts, part).items():
            step = rollouts[modality].transitions[part.transition]
            assert mean.shape[0] * mean.shape[1] <= (size or 12)
            ratio = log_ratio(part.of(step.after), mean, part.of(step.mean), step.std).exp()
            assert torch.equal(ratio, torch.ones(ratio.shape))
            assert step.reference is not None
            assert float(kl_divergence(mean, part.of(step.reference), step.std).max().detach()) == 0
            assert mean.requires_grad
            done[modality][part.transition][part.photos, part.samples] += 1
    assert all((count == 1).all() for counts in done.values() for count in counts)


def test_rollouts_have_the_shapes_that_are_promised() -> None:
    policy, seen = small(), batch(modalities=MODALITIES)
    rollouts = policy.rollout(seen, 4, 0, reference=False)
    assert list(rollouts) == list(MODALITIES)
    for modality, rollout in rollouts.items():
        assert rollout.values.shape == (3, 4, 20, 2, CHANNELS[modality])
        # the last of three steps is deterministic and not scored
        assert [t.step for t in rollout.transitions] == [0, 1]
        assert [t.index for t in rollout.transitions] == [0, 1]
        for step in rollout.transitions:
            assert step.state is not None
            assert step.after.shape == step.mean.shape == step.state.shape == (3, 4, 3, 16, 24)
            assert step.reference is None
        assert torch.equal(rollout.transitions[1].state, rollout.transitions[0].after)  # type: ignore[arg-type]
        assert rollout.transitions[0].elements == 3 * 16 * 24
        assert not policy.local_noise
        assert rollout.sample_std > 0


def test_values_are_those_of_the_last_state() -> None:
    policy, seen = small(), batch(1)
    rollout = policy.rollout(seen, 4, 0, reference=False)["depth"]
    state, index = rollout.transitions[-1].after[0], torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        condition = [c.repeat_interleave(4, 0) for c in policy.network.encode(seen.images)]  # type: ignore[operator]
        clean = state - policy.network.velocity(state, torch.full((4,), 1 / 3), index, condition) / 3  # type: ignore[operator]
    maps = CODES["depth"].decode(from_state(clean, "depth"))[None]
    torch.testing.assert_close(rollout.values, seen.judged["depth"].at_points(maps), rtol=1e-5, atol=1e-6)


def _after(rollouts: dict[str, Rollout], modality: str = "depth") -> torch.Tensor:
    return rollouts[modality].transitions[0].after


def test_oracle_15_samples_are_distinct_and_keyed() -> None:
    policy, seen = small(), batch()
    rollouts = policy.rollout(seen, 4, 0, reference=False)
    for modality in TWO:
        rows = _after(rollouts, modality).flatten(0, 1).flatten(1)
        assert len({tuple(r.tolist()) for r in rows}) == 12
    states = [rollouts[m].transitions[0].state for m in TWO]
    assert not torch.equal(states[0], states[1])  # type: ignore[arg-type]
    alone = policy.rollout(part_of(seen, slice(1, 2)), 4, 0, reference=False)
    torch.testing.assert_close(_after(alone)[0], _after(rollouts)[1], rtol=1e-4, atol=1e-5)
    # the optimiser's step is in the seeds, not in the noise's key
    again = policy.rollout(seen, 4, 17, reference=False)
    assert torch.equal(_after(again), _after(rollouts))
    other = policy.rollout(Batch(seen.images, seen.judged, (5, 6, 7)), 4, 0, reference=False)
    assert not torch.equal(_after(other), _after(rollouts))


def test_a_window_is_one_for_all_and_moves_with_the_step() -> None:
    policy, seen = small(steps=6, window=2), batch(1)
    places = []
    for step in range(12):
        rollouts = policy.rollout(seen, 2, step, reference=False)
        found = {tuple(t.step for t in r.transitions) for r in rollouts.values()}
        assert len(found) == 1
        places.append(found.pop())
    assert len(set(places)) > 2
    assert all(b == a + 1 and b < 5 for a, b in places)


def test_oracle_19_the_base_is_the_network_before_tuning() -> None:
    policy, seen = small(), batch()
    with torch.no_grad():
        before = policy.answer(seen.images, TWO)
        tuned = policy.network
        for parameter in policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(0))
        with policy.as_base():
            assert all(torch.equal(v, before[m]) for m, v in policy.answer(seen.images, TWO).items())
        assert not torch.equal(policy.answer(seen.images, TWO)["depth"], before["depth"])
    with pytest.raises(KeyError, match="inside"), policy.as_base():
        raise KeyError("inside")
    assert policy.network is tuned
    step = policy.rollout(seen, 2, 0, reference=True)["depth"].transitions[1]
    assert step.reference is not None
    assert not torch.equal(step.reference, step.mean)


def test_answers_are_one_step_from_noise_of_the_photo() -> None:
    policy, seen = small(), batch()
    with torch.no_grad():
        together = policy.answer(seen.images, TWO)
        alone = policy.answer(seen.images[2:], ["normals"])
    torch.testing.assert_close(alone["normals"][0], together["normals"][2], rtol=1e-4, atol=1e-5)
    assert together["depth"].shape == (3, 1, 16, 24)
    assert torch.equal(policy.answer(seen.images, TWO)["depth"], together["depth"])
    # other photos, other noise: with the same features, answers still differ
    torch.manual_seed(0)
    blind = small()
    for module in blind.network.encoder.modules():  # type: ignore[union-attr]
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.zero_()
    found = blind.answer(seen.images, ["depth"])["depth"]
    assert not torch.allclose(found[0], found[1])
    judged = random_judged("depth", 3, 10, 16, 24)
    ranking_loss(blind.values(found, judged), judged).sum().backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in blind.network.parameters())


def test_the_embedded_flow_answers_as_well_as_it_is_evaluated() -> None:
    """Other noise than the evaluation's, so other digits, but the same estimate up to what noise does to it."""
    policy = make_policy("tiny-flow")
    ramp = np.linspace(0, 255, 96 * 128).reshape(96, 128, 1)
    image = np.broadcast_to(ramp, (96, 128, 3)).astype(np.uint8)
    expected = TinyFlowModel(ensemble=8).predict([Sample("x", image, {}, {})], "depth_metric", 0)[0].value
    with torch.no_grad():
        images = torch.from_numpy(working_image(image).copy()).movedim(-1, 0)[None] / 255
        found = policy.decode(policy.answer(images, ["depth"])["depth"], "depth")[0, 0].numpy()
    assert np.abs(np.log(found / expected)).mean() < 0.1


def test_rollouts_of_two_steps_are_near_the_answer() -> None:
    policy, seen = make_policy("tiny-flow", explore="steps", steps=2, noise_level=0.1), batch(2)
    with torch.no_grad():
        answer = policy.answer(seen.images, ["depth"])["depth"]
        rollout = policy.rollout(seen, 4, 0, reference=False)["depth"]
    judged = seen.judged["depth"]
    expected = policy.values(answer, judged)[:, None]
    assert (rollout.values / expected).log().abs().mean() < 0.3


def test_what_is_saved_runs(tmp_path: Path) -> None:
    policy = make_policy("tiny-flow")
    saved = policy.save(tmp_path)
    assert (saved.architecture, saved.path) == ("tiny-flow", "tiny-flow.safetensors")
    again = make_policy(tmp_path / saved.path, steps=2, kernel="ddim", noise_level=0.3)
    assert again.base == "tiny-flow"
    image = np.zeros((32, 32, 3), np.uint8)
    value = TinyFlowModel(weights=tmp_path / saved.path).predict([Sample("x", image, {}, {})], "normal", 0)[0].value
    assert np.isfinite(value).all()


def test_options() -> None:
    with pytest.raises(UsageError, match="unknown option 'step'; did you mean 'steps'"):
        make_policy("tiny-flow", step=3)
    with pytest.raises(UsageError, match="has none to score"):
        make_policy("tiny-flow", steps=1)
    with pytest.raises(UsageError, match="kernel"):
        make_policy("tiny-flow", kernel="sde")
    with pytest.raises(UsageError, match="noise level of 0"):
        make_policy("tiny-flow", noise_level=0.0)


def _patches(images: int, seed: int) -> torch.Tensor:
    """Photos [images, 3, 8, 8] of 4 x 4 grey patches."""
    coarse = torch.rand(images, 1, 4, 4, generator=generator(seed))
    return coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)


def _denoiser() -> FlowPolicy:
    """A small flow that has learnt what maps look like, but not what photos have to do with them."""
    policy = small(steps=2)
    network, optimiser = policy.network, torch.optim.Adam(policy.network.parameters(), lr=5e-3)
    assert isinstance(network, TinyFlow)
    t, index = torch.tensor([1.0, 0.5]).repeat(8), torch.zeros(16, dtype=torch.long)
    for step in range(100):
        clean = 3 * (_patches(16, 50_000 + step) - 0.5)
        state = torch.lerp(clean, torch.randn(clean.shape, generator=generator(step)), t.view(-1, 1, 1, 1))
        found = network.clean(state, t, index, network.encode(_patches(16, 90_000 + step)))
        optimiser.zero_grad()
        (found - clean).square().mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return policy


def _bright_is_near(step: int, images: int = 8) -> Batch:
    photos, pairs = _patches(images, step), random_judged("depth", images, 40, seed=step)
    at = pairs.at_points(photos[:, :1])[..., 0]
    answers = 0.1 + 0.8 * (at[..., 0] > at[..., 1]).float()
    judged = Judged("depth", pairs.rows, pairs.cols, answers, pairs.weight)
    return Batch(photos, {"depth": judged}, tuple(range(images * step, images * (step + 1))))


@pytest.mark.slow
def test_oracle_37_agreement_rises() -> None:
    policy = _denoiser()
    optimiser = torch.optim.Adam(policy.network.parameters(), lr=3e-3)

    def held_out() -> float:
        seen, judged = _bright_is_near(10_000, 32), _bright_is_near(10_000, 32).judged["depth"]
        with torch.no_grad():
            values = policy.values(policy.answer(seen.images, ["depth"])["depth"], judged)
        return float(agreement(values[:, None], judged, hard=True).reward.mean())

    before = held_out()
    for step in range(25):
        seen = _bright_is_near(step)
        rollouts = policy.rollout(seen, 16, step, reference=False)
        (part,) = policy.microbatches(rollouts, None)
        (mean,) = policy.replay(seen, rollouts, part).values()
        old, reward = rollouts["depth"].transitions[0], agreement(rollouts["depth"].values, seen.judged["depth"]).reward
        optimiser.zero_grad()
        (-(advantages(reward) * log_ratio(old.after, mean, old.mean, old.std)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(policy.network.parameters(), 1.0)
        optimiser.step()
    assert before < 0.55
    assert held_out() > 0.72


def test_the_state_at_pure_noise_is_the_noise() -> None:
    """One step of Euler from the answer's noise is what `answer` gives."""
    policy, seen = small(), batch(1)
    with torch.no_grad():
        noise = standard_normal(photo_seeds(seen.images), (3, 16, 24), "answer", "albedo", device=torch.device("cpu"))
        condition = policy.network.encode(seen.images)  # type: ignore[operator]
        index = torch.tensor([MODALITIES.index("albedo")])
        expected = euler(policy.network, noise, index, condition, 1)  # type: ignore[arg-type]
        torch.testing.assert_close(policy.answer(seen.images, ["albedo"])["albedo"], expected)
