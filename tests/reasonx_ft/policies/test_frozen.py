"""The frozen base, sampling and training compute by one path: on every machine, whatever its products round to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.frozen import frozen_copy, one_path
from reasonx_ft.policies.load import make_policy
from tests.reasonx_eval.models import tiny_marigold
from tests.reasonx_eval.models.tiny_hub import save_depth
from tests.reasonx_ft.policies.policy_fakes import batch_of, random_judged

#: products, which may round differently from each other
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product")


class Rounding(TorchDispatchMode):
    """A processor whose batched product rounds otherwise than its product of matrices, and a list of the products."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        if name.startswith(PRODUCTS):
            first = found[0] if isinstance(found, tuple) else found
            self.called.append((name, tuple(first.shape)))
        return found * (1 + 1e-7) + 1e-7 if name == "bmm" else found


def layer_on_a_view(*, weight_is_trained: bool) -> tuple[nn.Linear, Tensor]:
    """A linear layer without bias and an input that is a view, as attention makes them."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 6, bias=False).requires_grad_(weight_is_trained)
    return layer, torch.randn(4, 8, 5).transpose(1, 2)


def test_torch_takes_two_paths_through_a_view() -> None:
    """What is guarded against is there: without the guard, the emulated processor tells trained from frozen."""
    found = []
    for trained in (True, False):
        layer, view = layer_on_a_view(weight_is_trained=trained)
        with Rounding():
            found.append(layer(view).detach())
    assert not torch.equal(*found)


def test_one_path_is_one() -> None:
    found = []
    for trained in (True, False):
        layer, view = layer_on_a_view(weight_is_trained=trained)
        with Rounding():
            found.append(one_path(layer)(view).detach())
    assert torch.equal(*found)


def test_a_frozen_copy_has_memory_of_its_own_and_no_gradient() -> None:
    layer, view = layer_on_a_view(weight_is_trained=True)
    kept = frozen_copy(layer)
    assert not any(p.requires_grad for p in kept.parameters())
    assert all(p.requires_grad for p in layer.parameters())
    expected = layer(view).detach()
    with torch.no_grad():
        layer.weight += 1
    assert torch.equal(kept(view), expected)
    assert all(p.data_ptr() % 16 == 0 for p in (*layer.parameters(), *kept.parameters()))


def pipeline(folder: Path, **options: Any) -> Policy:
    return make_policy(tiny_marigold.depth(folder / "depth"), device="cpu", **options)


Maker = Callable[[Path], Policy]
POLICIES: dict[str, Maker] = {
    "tiny": lambda _: make_policy("tiny"),
    "tiny-flow": lambda _: make_policy("tiny-flow", explore="steps", steps=3),
    "tiny-flow in its output": lambda _: make_policy("tiny-flow"),
    "pipeline": lambda f: pipeline(f, explore="steps", steps=3),
    "pipeline with adapters": lambda f: pipeline(f, explore="steps", steps=3, lora=2),
    "pipeline in its output": lambda f: pipeline(f, answer_steps=2),
    "depth network": lambda f: make_policy(save_depth(f / "dpt", "dpt"), device="cpu", frequencies=4),
}


@contextmanager
def products() -> Iterator[Rounding]:
    with Rounding() as mode:
        yield mode


@pytest.mark.parametrize("name", POLICIES)
def test_rollout_replay_and_base_multiply_alike(name: str, tmp_path: Path) -> None:
    """Without a gradient (rollout), with one (replay) and frozen (base): the same products of the same shapes."""
    policy = POLICIES[name](tmp_path)
    height, width = policy.working_size(24, 32)
    batch = batch_of({"depth": random_judged("depth", 2, 9, height, width)}, height, width)
    with torch.no_grad():
        policy.answer(batch.images, ["depth"])  # what is encoded once is encoded
        with products() as sampling:
            policy.answer(batch.images, ["depth"])
        with policy.as_base(), products() as base:
            policy.answer(batch.images, ["depth"])
    with products() as training:
        policy.answer(batch.images, ["depth"])
    assert sampling.called
    assert [p for p in training.called if "lora" not in p] == sampling.called
    if "adapters" not in name:  # whose own products the base leaves out
        assert base.called == sampling.called
    with Rounding():
        rollouts = policy.rollout(batch, 2, 0, reference=True)
        for part in policy.microbatches(rollouts, None):
            step = rollouts["depth"].transitions[part.transition]
            mean = policy.replay(batch, rollouts, part)["depth"]
            assert torch.equal(mean, step.mean)
            assert step.reference is not None
            assert torch.equal(step.mean, step.reference)
