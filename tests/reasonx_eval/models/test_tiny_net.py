"""The small networks as modules: their codes, shapes, the flow's algebra, what depends on what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reasonx_eval.models.embedded.tiny_net import (
    CODES,
    MODALITIES,
    TinyFlow,
    TinyNet,
    euler,
    from_state,
    to_state,
    unit,
)


@pytest.fixture(scope="module")
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


@pytest.fixture(scope="module")
def flow() -> TinyFlow:
    torch.manual_seed(0)
    return TinyFlow().eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_codes_of_positive_maps_are_logarithms() -> None:
    code = CODES["depth"].encode(torch.tensor([[[[math.exp(0.9), math.exp(1.5)]]]]))
    assert code.flatten().tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("modality", ["depth", "albedo", "irradiance"])
def test_positive_maps_come_back(modality: str) -> None:
    value = draw(2, CODES[modality].channels, 5, 7) * 5 + 0.01
    torch.testing.assert_close(CODES[modality].decode(CODES[modality].encode(value)), value)


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_code_decodes_to_something_unusable(modality: str) -> None:
    code = torch.tensor([-1e15, -50.0, 0.0, 50.0, 1e15]).view(1, 1, 1, 5).expand(1, CODES[modality].channels, 1, 5)
    value = CODES[modality].decode(code)
    assert bool(torch.isfinite(value).all())
    assert bool((value > 0).all()) if modality != "normals" else bool((value.norm(dim=1) > 0.99).all())


def test_normals_become_unit_vectors_and_nothing_faces_the_camera() -> None:
    vectors = torch.tensor([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]).T.view(1, 3, 1, 2)
    assert unit(vectors)[0, :, 0].T.flatten().tolist() == pytest.approx([0.6, 0.0, -0.8, 0.0, 0.0, -1.0])


@pytest.mark.parametrize("size", [(16, 16), (16, 128), (96, 128), (128, 40)])
def test_all_maps_have_the_size_of_the_image(net: TinyNet, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        out = net(draw(2, 3, *size))
    assert list(out) == list(MODALITIES) == ["depth", "normals", "albedo", "irradiance"]
    assert {m: tuple(v.shape) for m, v in out.items()} == {m: (2, CODES[m].channels, *size) for m in MODALITIES}


def test_sizes_as_stated(net: TinyNet, flow: TinyFlow) -> None:
    assert 0.5e6 < sum(p.numel() for p in net.parameters()) < 0.7e6
    assert 0.8e6 < sum(p.numel() for p in flow.parameters()) < 1.0e6


def test_elements_of_a_batch_do_not_mix(net: TinyNet, flow: TinyFlow) -> None:
    images, state = draw(3, 3, 24, 32), draw(3, 3, 24, 32, seed=1)
    t, modality = torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0, 3, 1])
    with torch.inference_mode():
        whole = net(images)
        for m in MODALITIES:
            torch.testing.assert_close(net(images[1:2])[m], whole[m][1:2], rtol=1e-4, atol=1e-5)
        together = flow(images, state, t, modality)
        alone = flow(images[1:2], state[1:2], t[1:2], modality[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)


def test_an_image_is_encoded_once_for_many_states(flow: TinyFlow) -> None:
    image, states = draw(1, 3, 24, 32), draw(5, 3, 24, 32, seed=1)
    t, modality = torch.full((5,), 0.7), torch.full((5,), 2)
    with torch.inference_mode():
        shared = [f.expand(5, -1, -1, -1) for f in flow.encode(image)]
        once = flow.velocity(states, t, modality, shared)
        again = flow(image.expand(5, -1, -1, -1), states, t, modality)
    torch.testing.assert_close(once, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [1.0, 0.6, 0.05])
def test_velocity_points_from_the_clean_code_to_the_noise(flow: TinyFlow, t: float) -> None:
    image, state, modality = draw(1, 3, 16, 24), draw(1, 3, 16, 24, seed=1), torch.tensor([0])
    with torch.inference_mode():
        known = flow.encode(image)
        clean = flow.clean(state, torch.tensor([t]), modality, known)
        v = flow.velocity(state, torch.tensor([t]), modality, known)
    torch.testing.assert_close(state - t * v, clean, rtol=1e-5, atol=1e-5)  # x_0 of x_t and v
    noise = state + (1 - t) * v
    torch.testing.assert_close((1 - t) * clean + t * noise, state, rtol=1e-5, atol=1e-5)


def test_velocity_stays_finite_at_the_end(flow: TinyFlow) -> None:
    with torch.inference_mode():
        v = flow(draw(1, 3, 16, 16), draw(1, 3, 16, 16, seed=1), torch.zeros(1), torch.tensor([1]))
    assert bool(torch.isfinite(v).all())


def test_everything_that_is_given_matters(flow: TinyFlow) -> None:
    image, state = draw(1, 3, 24, 32), draw(1, 3, 24, 32, seed=1)
    t, modality = torch.tensor([0.5]), torch.tensor([0])
    with torch.inference_mode():
        base = flow.clean(state, t, modality, flow.encode(image))
        for other in (
            flow.clean(state, t, modality, flow.encode(draw(1, 3, 24, 32, seed=2))),
            flow.clean(draw(1, 3, 24, 32, seed=3), t, modality, flow.encode(image)),
            flow.clean(state, t + 0.3, modality, flow.encode(image)),
            flow.clean(state, t, modality + 1, flow.encode(image)),
        ):
            assert float((other - base).abs().max()) > 1e-3


def test_one_euler_step_is_the_clean_code_at_pure_noise(flow: TinyFlow) -> None:
    noise, modality = draw(1, 3, 16, 24), torch.tensor([3])
    with torch.inference_mode():
        known = flow.encode(draw(1, 3, 16, 24, seed=1))
        torch.testing.assert_close(euler(flow, noise, modality, known, 1),
                                   flow.clean(noise, torch.ones(1), modality, known), rtol=1e-5, atol=1e-5)  # fmt: skip


def test_euler_follows_a_straight_flow_exactly() -> None:
    target = torch.full((1, 3, 4, 4), 0.25)

    class Straight(TinyFlow):
        def clean(self, state, t, modality, condition):  # type: ignore[no-untyped-def]
            return target

    noise = draw(1, 3, 4, 4)
    for steps in (1, 2, 7):
        torch.testing.assert_close(euler(Straight(), noise, torch.tensor([0]), [], steps), target)


def test_depth_has_one_code_in_three_channels() -> None:
    code = draw(2, 1, 4, 4)
    state = to_state(code)
    assert state.shape == (2, 3, 4, 4)
    torch.testing.assert_close(from_state(state, "depth"), code)
    assert from_state(state, "albedo") is state
    assert to_state(state) is state


def test_every_parameter_is_trained(net: TinyNet, flow: TinyFlow) -> None:
    images = draw(2, 3, 16, 24)
    torch.stack([v.square().mean() for v in net(images).values()]).sum().backward()
    flow(images, draw(2, 3, 16, 24, seed=1), torch.tensor([0.5, 1.0]), torch.tensor([0, 2])).square().mean().backward()
    for module in (net, flow):
        assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
        module.zero_grad()
