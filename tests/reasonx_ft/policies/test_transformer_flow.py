"""A tiny rectified-flow transformer of diffusers, with random weights, as a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reasonx_eval.errors import UsageError
from reasonx_eval.models.embedded.tiny_net import unit
from reasonx_ft.grpo.kernels import Kernel
from reasonx_ft.grpo.loss import log_ratio
from reasonx_ft.grpo.ranking import ranking_loss
from reasonx_ft.grpo.schedules import shifted
from reasonx_ft.policies.base import Visit
from reasonx_ft.policies.chain import Chain
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.policies.transformer_flow import Prompt, TransformerFlow
from tests.reasonx_ft.policies.policy_fakes import generator, random_judged, visit_of


class Pixels:
    """Latents are pixels, four to one, and back."""

    channels, factor = 12, 2

    def encode(self, images: Tensor) -> Tensor:
        return functional.pixel_unshuffle(2 * images - 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.pixel_shuffle(latents, 2)


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "depth": lambda picture: picture.mean(-3, keepdim=True).exp(),
    "normals": lambda picture: unit(picture.flatten(0, -4)).view(picture.shape),
}


def _flow() -> TransformerFlow:
    prompts = {m: Prompt(torch.randn(1, 3, 16, generator=generator(k)), torch.randn(1, 16, generator=generator(9 + k)))
               for k, m in enumerate(MAPS)}  # fmt: skip
    return TransformerFlow(Pixels(), prompts, MAPS, long_side=16)


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=24, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16, out_channels=12,
        pos_embed_max_size=8,
    )  # fmt: skip
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    chain = Chain(shifted(4, 3.0), Kernel("flow-sde", 0.7), window=2)
    return FlowPolicy(_flow(), network, chain, base="prism-like", micro=4)


def _visit() -> Visit:
    return visit_of({m: random_judged(m, 2, 10, 12, 16, seed=k) for k, m in enumerate(MAPS)}, 12, 16)


def test_oracle_11_replay_is_the_rollout_to_the_bit(policy: FlowPolicy) -> None:
    seen = _visit()
    rollouts = policy.rollout(seen, 4, 3, reference=True)
    for modality, rollout in rollouts.items():
        assert rollout.values.shape == (2, 4, 10, 2, 1 if modality == "depth" else 3)
        assert [t.after.shape for t in rollout.transitions] == [(2, 4, 12, 6, 8)] * 2
    for portion in policy.pieces(rollouts, policy.micro):
        (piece,), (mean,) = portion, policy.replay(seen, rollouts, portion)
        step, here = rollouts[piece.modality].transitions[piece.transition], (piece.images, piece.samples)
        assert torch.equal(mean, step.mean[here])
        assert torch.equal(mean, step.reference[here])  # type: ignore[index]
        assert float(log_ratio(step.after[here], mean, step.mean[here], step.std).abs().max().detach()) == 0


def test_prompts_and_photos_matter(policy: FlowPolicy) -> None:
    seen = _visit()
    with torch.no_grad():
        answers = policy.answer(seen.images, tuple(MAPS))
        other = policy.answer(seen.images.flip(0), ["depth"])["depth"].flip(0)
    assert answers["depth"].shape == (2, 3, 12, 16)
    assert not torch.allclose(answers["depth"], answers["normals"])
    torch.testing.assert_close(other, answers["depth"], rtol=1e-4, atol=1e-4)
    judged = seen.judged["normals"]
    loss = ranking_loss(policy.values(policy.answer(seen.images, ["normals"])["normals"], judged), judged)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert sum(float(p.grad.abs().sum()) for p in policy.network.parameters() if p.grad is not None) > 0


def test_sizes_and_refusals(policy: FlowPolicy, tmp_path: Path) -> None:
    assert policy.working_size(300, 400) == (12, 16)
    assert policy.working_size(1, 4000) == (2, 16)
    with pytest.raises(UsageError, match="needs multiples of 2"):
        policy.flow.state_shape(13, 16)
    with pytest.raises(UsageError, match="no runner"):
        policy.save(tmp_path)
    with pytest.raises(UsageError, match="prompts of depth, but maps of depth, normals"):
        TransformerFlow(Pixels(), {"depth": Prompt(torch.zeros(1, 1, 1), torch.zeros(1, 1))}, MAPS)
