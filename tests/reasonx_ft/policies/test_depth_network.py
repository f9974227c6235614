"""Depth networks of transformers as policies: codes by the kind of the output, replay to the bit, folders that run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.depth_processors import network_input
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from reasonx_ft.grpo.batch import Batch
from reasonx_ft.grpo.loss import log_ratio
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.load import make_policy
from tests.reasonx_eval.models.tiny_hub import save_depth
from tests.reasonx_ft.policies.policy_fakes import batch_of, generator, random_judged

FAMILIES = ("depth_anything", "dpt", "dpt_dinov2", "glpn", "tipsv2_dpt")
KINDS = {"depth_anything": "disparity_affine", "dpt": "disparity_affine", "dpt_dinov2": "disparity_affine",
         "glpn": "depth_metric", "tipsv2_dpt": "depth_metric"}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("depth")
    return {family: save_depth(root / family, family) for family in (*FAMILIES, "zoedepth")}


def policy_of(folder: Path, family: str, **options: object) -> FeedForward:
    kind = {"kind": KINDS[family]} if family == "dpt_dinov2" else {}
    found = make_policy(folder, frequencies=4, **kind, **options)
    assert isinstance(found, FeedForward)
    return found


def photo_at(policy: Policy, height: int = 60, width: int = 90) -> Tensor:
    """A photo [1, 3, h, w] at the policy's working size, in 8 bits."""
    size = policy.working_size(height, width)
    return torch.randint(0, 256, (1, 3, *size), generator=generator(0)) / 255


def batch(policy: Policy) -> Batch:
    height, width = photo_at(policy).shape[-2:]
    found = batch_of({"depth": random_judged("depth", 2, 15, height, width)}, height, width)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_input_and_map_are_those_of_the_evaluation(family: str, folders: dict[str, Path]) -> None:
    """On a photo that is at the network's size already, where no resampling differs."""
    policy = policy_of(folders[family], family)
    image = photo_at(policy)
    assert policy.working_size(*image.shape[-2:]) == image.shape[-2:]
    raw = (image[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    model = TransformersDepth(Checkpoint(folders[family], family), runtime=Runtime("cpu"),
                              kind=KINDS[family] if family == "dpt_dinov2" else None)  # fmt: skip
    torch.testing.assert_close(policy.predictor._input(image)[0],  # type: ignore[attr-defined]
                               network_input(raw, model.processing), rtol=1e-5, atol=1e-5)  # fmt: skip
    expected = model.predict([Sample("x", raw)], model.kinds["depth"][0], 0)[0].value
    with torch.no_grad():
        code = policy.answer(image, ["depth"])["depth"]
    found = policy.decode(code, "depth")[0, 0].numpy()
    assert found.shape == expected.shape
    assert (found > 0).all()
    if KINDS[family] == "depth_metric":
        np.testing.assert_allclose(found, np.maximum(expected, 1e-3), rtol=1e-3)
    else:
        # standardised disparity, whatever its scale and zero
        np.testing.assert_allclose(-np.log(found), (expected - expected.mean()) / expected.std(), atol=2e-3)


@pytest.mark.parametrize("lora", [None, 2])
@pytest.mark.parametrize("family", ["depth_anything", "glpn"])
def test_oracles_11_and_19(family: str, lora: int | None, folders: dict[str, Path]) -> None:
    policy = policy_of(folders[family], family, lora=lora)
    seen = batch(policy)
    rollouts = policy.rollout(seen, 3, 0, reference=True)
    (part,) = policy.microbatches(rollouts, None)
    (mean,) = policy.replay(seen, rollouts, part).values()
    step = rollouts["depth"].transitions[0]
    assert torch.equal(log_ratio(step.after, mean, step.mean, step.std), torch.zeros(2, 3))
    assert torch.equal(step.mean, step.reference)  # type: ignore[arg-type]

    trained = [p for p in policy.network.parameters() if p.requires_grad]
    assert trained
    assert (len(trained) < len(list(policy.network.parameters()))) == (lora is not None)
    with torch.no_grad():
        before = policy.answer(seen.images, ["depth"])["depth"]
        for k, parameter in enumerate(trained):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(k))
        after = policy.answer(seen.images, ["depth"])["depth"]
        assert not torch.allclose(after, before)
        with policy.as_base():
            assert torch.equal(policy.answer(seen.images, ["depth"])["depth"], before)
        with pytest.raises(KeyError, match="inside"), policy.as_base():
            raise KeyError("inside")
        assert torch.equal(policy.answer(seen.images, ["depth"])["depth"], after)
    ranking_loss(policy.values(policy.answer(seen.images, ["depth"])["depth"], seen.judged["depth"]),
                 seen.judged["depth"]).sum().backward()  # type: ignore[no-untyped-call]  # fmt: skip
    assert sum(float(p.grad.abs().sum()) for p in trained if p.grad is not None) > 0


@pytest.mark.parametrize("lora", [None, 2])
def test_what_is_saved_runs(lora: int | None, folders: dict[str, Path], tmp_path: Path) -> None:
    policy = policy_of(folders["depth_anything"], "depth_anything", lora=lora)
    with torch.no_grad():
        for k, parameter in enumerate(p for p in policy.network.parameters() if p.requires_grad):
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(k))
        image = photo_at(policy)
        code = policy.answer(image, ["depth"])["depth"][0, 0].numpy()
    saved = policy.save(tmp_path)
    assert (saved.architecture, saved.path) == ("transformers", "network")
    first = {p.name: p.read_bytes() for p in (tmp_path / "network").iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} <= set(first)
    assert str(folders["depth_anything"]).encode() not in b"".join(first.values())
    policy.save(tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "network").iterdir()} == first

    raw = (image[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    model = load_model(str(tmp_path / "network"), device="cpu")
    value = model.predict([Sample("x", raw)], "disparity_affine", 0)[0].value
    np.testing.assert_allclose((value - value.mean()) / value.std(), code, atol=2e-3)
    again = make_policy(tmp_path / "network", frequencies=4)
    np.testing.assert_allclose(again.answer(image, ["depth"])["depth"].detach()[0, 0].numpy(), code, atol=2e-3)


def test_scale_and_zero_of_relative_maps_move_no_code(folders: dict[str, Path]) -> None:
    policy = policy_of(folders["depth_anything"], "depth_anything")
    image = photo_at(policy)
    with torch.no_grad():
        before = policy.answer(image, ["depth"])["depth"]
        assert before.mean().abs() < 1e-5
        assert before.std(correction=0).item() == pytest.approx(1, abs=1e-4)
        last = [m for m in policy.network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight.mul_(3.0)
        last.bias.mul_(3.0)  # type: ignore[union-attr]
        torch.testing.assert_close(policy.answer(image, ["depth"])["depth"], before, rtol=0, atol=1e-3)


def test_networks_that_are_not_tuned(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zoedepth processor are not tuned"):
        make_policy(folders["zoedepth"])
    with pytest.raises(UsageError, match="neither a diffusers pipeline"):
        make_policy(tmp_path)
    with pytest.raises(UsageError, match="no layer for adapters"):
        make_policy(folders["glpn"], lora=2, lora_targets=("nowhere",))
    with pytest.raises(UsageError, match="did you mean 'frequencies'"):
        make_policy(folders["glpn"], frequences=2)
