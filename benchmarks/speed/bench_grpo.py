"""One step of tuning by sampling, beside the network's passes of the same batches alone, and the plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.conftest import Measure
from benchmarks.speed.grpo_loop import Found, gradient, loop_over_chains, loop_over_photos
from benchmarks.speed.tuning_data import SIZE, Tuning, tuning
from reasonx_eval.models.embedded.tiny_net import MODALITIES, TinyFlow
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.tuning.objective import StepLoss, compare, draw, reward

Loop = Callable[[Tuning], Found]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuning]:
    with tuning(tmp_path_factory.mktemp("tiny"), "tiny", images=4, group=8) as found:
        yield found


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuning]:
    with tuning(tmp_path_factory.mktemp("flow"), "tiny-flow", images=2, group=4,
                modalities=("depth", "normals")) as found:  # fmt: skip
        yield found


@pytest.mark.benchmark(group="GRPO step of tiny")
class TestTiny:
    def test_ours(self, measure: Measure, tiny: Tuning) -> None:
        measure("ours", tiny.step, form=_whole(tiny), against=lambda: _passes_of_maps(tiny), against_form=_PASSES,
                memory="resident")  # fmt: skip

    def test_peer(self, measure: Measure, tiny: Tuning) -> None:
        check(tiny, loop_over_photos)
        measure("peer", lambda: _with_update(tiny, loop_over_photos), form=_LOOP, memory="resident", rounds=1)

    def test_bound(self, measure: Measure, tiny: Tuning) -> None:
        measure("bound", lambda: _passes_of_maps(tiny), form=_PASSES, memory="resident")


@pytest.mark.benchmark(group="GRPO step of tiny-flow")
class TestFlow:
    def test_ours(self, measure: Measure, flow: Tuning) -> None:
        measure("ours", flow.step, form=_whole(flow), against=lambda: _passes_of_chains(flow), against_form=_PASSES,
                memory="resident")  # fmt: skip

    def test_peer(self, measure: Measure, flow: Tuning) -> None:
        check(flow, loop_over_chains)
        measure("peer", lambda: _with_update(flow, loop_over_chains), form=_LOOP, memory="resident", rounds=1)

    def test_bound(self, measure: Measure, flow: Tuning) -> None:
        measure("bound", lambda: _passes_of_chains(flow), form=_PASSES, memory="resident")


def _whole(tuning: Tuning) -> str:
    """What a step does, with the shares of its time that the tuning's own timer measures."""
    tuning.step()
    taken: dict[str, float] = {}
    for _ in range(3):
        for phase, seconds in tuning.step()["seconds"].items():
            taken[phase] = taken.get(phase, 0.0) + seconds
    phases = {"photos": "batch", "samples and base": "rollout", "reward": "reward", "replay": "forward",
              "backward": "backward", "update": "optimiser"}  # fmt: skip
    shares = ", ".join(f"{name} {100 * taken[phase] / taken['all']:.0f} %" for name, phase in phases.items())
    return f"whole step: {shares}"


# the network's passes alone

_PASSES = "the network's passes of the same batches: sampling, base, forward and backward"


def _passes_of_maps(tuning: Tuning) -> None:
    """One pass of the base, one of the network with its gradient."""
    policy = tuning.state.policy
    assert isinstance(policy, FeedForward)
    images = _images(tuning)
    with torch.no_grad(), policy.as_base():
        policy.network(images)
    _backward(list(policy.network(images).values()))
    policy.network.zero_grad(set_to_none=True)


def _passes_of_chains(tuning: Tuning) -> None:
    """Photos encoded once for samples, base and replay each; a pass a step of the chain; scored steps with gradient."""
    policy, group = tuning.state.policy, tuning.group
    assert isinstance(policy, FlowPolicy)
    images, times, scored = _images(tuning), policy.chain.schedule.timesteps, policy.chain.scored(0)
    state = torch.rand(len(images) * group, 3, *SIZE)

    def velocities(places: range) -> list[Tensor]:
        network = policy.network  # the base's, inside `as_base`
        assert isinstance(network, TinyFlow)
        known = [c.repeat_interleave(group, dim=0) for c in network.encode(images)]
        index = {m: torch.full((len(state),), MODALITIES.index(m)) for m in tuning.batch().judged}
        return [network.velocity(state, state.new_full((len(state),), times[place]), index[m], known)
                for m in index for place in places]  # fmt: skip

    with torch.no_grad():
        velocities(range(len(policy.chain.schedule)))
        with policy.as_base():
            velocities(scored)
    _backward(velocities(scored))
    policy.network.zero_grad(set_to_none=True)


def _images(tuning: Tuning) -> Tensor:
    return torch.rand(tuning.state.config.data.batch_size, 3, *SIZE)


def _backward(outputs: list[Tensor]) -> None:
    torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])


# what the plain loop is held against

_LOOP = "photo by photo, whole maps, pairs in Python, old densities once more"


def check(tuning: Tuning, loop: Loop) -> None:
    """Rewards of the loop are ours, and so is its gradient, but for the order of float32 sums."""
    theirs, ours = loop(tuning), _ours(tuning)
    for modality, rewards in theirs.rewards.items():
        assert torch.allclose(torch.tensor(rewards), torch.tensor(ours.rewards[modality]), rtol=1e-6, atol=0)
    apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(ours.gradient, theirs.gradient, strict=True)))
    size = math.sqrt(sum(float(a.square().sum()) for a in ours.gradient))
    assert size > 0
    assert apart < 1e-3 * size, f"{apart / size} of the gradient's length"


def _ours(tuning: Tuning) -> Found:
    state, batch, rules = tuning.state, tuning.batch(), tuning.state.config.objective
    rollouts = draw(state.policy, batch, None, rules, 0, microbatch=None)
    rewards = reward(batch, rollouts, rules)
    loss = StepLoss(state.policy, batch, None, rules, rollouts, compare(rewards, rules, state.processes),
                    state.processes)  # fmt: skip
    state.policy.network.zero_grad(set_to_none=True)
    for microbatch in loss.microbatches(None):
        loss.of(microbatch).total.backward()  # type: ignore[no-untyped-call]
    return Found({m: earned.reward.tolist() for m, earned in rewards.items()}, gradient(state.policy.network))


def _with_update(tuning: Tuning, loop: Loop) -> None:
    loop(tuning)
    nn.utils.clip_grad_norm_(tuning.run.parameters, 1.0)
    tuning.run.optimiser.step()
