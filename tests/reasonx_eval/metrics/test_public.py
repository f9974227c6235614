"""The metrics as a researcher calls them: numpy and torch, batches, masks, protocols, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import reasonx_eval.metrics as rx
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import FIRST, DepthTarget, JudgementTarget, Prediction, Sample

DEPTH = ("abs_rel", "sq_rel", "mae", "rmse", "irmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
NORMALS = ("angular_error", "median_angular_error", "rmse_angular_error", "within")
MAPS = ("si_mse", "lsq_scale", "map_rmse", "psnr", "ssim", "lmse")


def inputs(name: str, lead: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(name))
    shape = (*lead, 24, 30) if name in DEPTH else (*lead, 24, 30, 3)
    target = rng.uniform(0.2, 0.9, shape)
    pred = (target * rng.uniform(0.7, 1.4, shape)).astype(np.float32)
    return pred, target.astype(np.float32), rng.random((*lead, 24, 30)) < 0.8


@pytest.mark.parametrize("name", DEPTH + NORMALS + MAPS)
def test_one_image_is_a_float_and_a_batch_has_one_value_an_image(name: str) -> None:
    metric = getattr(rx, name)
    pred, target, mask = inputs(name, (2, 3))
    found = metric(pred, target, mask)
    assert (found.shape, found.dtype) == ((2, 3), np.float64)
    for at in np.ndindex(2, 3):
        one = metric(pred[at], target[at], mask[at])
        assert type(one) is float
        assert found[at] == one
    # one mask for all images
    np.testing.assert_array_equal(metric(pred, target, mask[0, 0])[1], metric(pred[1], target[1], mask[0, 0]))


@pytest.mark.parametrize("name", DEPTH + NORMALS + MAPS)
def test_tensors_and_masks_of_bytes_give_the_same(name: str) -> None:
    metric = getattr(rx, name)
    pred, target, mask = inputs(name, (2,))
    expected = metric(pred, target, mask)
    tensors = torch.from_numpy(pred).requires_grad_(), torch.from_numpy(target)
    for valid in (torch.from_numpy(mask), mask, torch.from_numpy(mask).to(torch.uint8) * 255, mask.astype(np.uint8)):
        found = metric(*tensors, valid)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.float64
        np.testing.assert_array_equal(found.numpy(), expected)
    assert metric(tensors[0][0], tensors[1][0], mask[0]) == expected[0]
    everywhere = metric(pred, target)
    np.testing.assert_array_equal(metric(pred, target, np.ones_like(mask)), everywhere)


def test_halves_are_widened_and_summed_in_float64() -> None:
    pred = torch.full((1, 300, 300), 1.5, dtype=torch.bfloat16)
    assert rx.abs_rel(pred, torch.ones_like(pred)).item() == 0.5
    assert rx.abs_rel(pred.half(), torch.ones_like(pred).half()).item() == 0.5


def test_whdr_of_a_batch() -> None:
    judged = JudgementTarget(np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([[0, 1]]), np.array([FIRST], np.int8),
                             np.ones(1))  # fmt: skip
    maps = torch.tensor([[[[0.1] * 3, [0.9] * 3]], [[[0.9] * 3, [0.1] * 3]]])
    assert rx.whdr(maps, [judged, judged]).tolist() == [0.0, 1.0]
    with pytest.raises(SampleError, match="judgements of 3 images"):
        rx.whdr(maps, [judged] * 3)
    with pytest.raises(UsageError, match="eq, ineq"):
        rx.whdr(maps[0], judged, judged="same")


@pytest.mark.parametrize(("protocol", "kind"), [("depth/nyuv2", "disparity_affine"), ("depth/nyuv2", "depth_metric"),
                                                ("depth/generic-metric", "depth_metric")])  # fmt: skip
def test_depth_metrics_are_those_of_a_run(protocol: str, kind: Any) -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 9.5, (2, 480, 640)).astype(np.float32)
    depth[:, ::7, ::5] = 0
    safe = np.where(depth > 0, depth, 1)
    pred = ((0.3 / safe if kind.startswith("disparity") else safe) * rng.uniform(0.8, 1.2, depth.shape)).astype("f4")
    found = rx.depth_metrics(pred, depth, protocol=protocol, kind=kind)
    for k in range(2):
        sample = Sample("x", np.zeros((480, 640, 3), np.uint8), {"depth": DepthTarget(depth[k], depth[k] > 0)})
        scored = score_sample(sample=sample, prediction=Prediction(kind, pred[k]), protocol=get_protocol(protocol))
        assert {name: value[k] for name, value in found.items()} == dict(scored.metrics)
    one = rx.depth_metrics(torch.from_numpy(pred[0]), torch.from_numpy(depth[0]), depth[0] > 0, protocol=protocol,
                           kind=kind)  # fmt: skip
    assert one == {name: value[0] for name, value in found.items()}


def test_a_prediction_of_another_size_is_resized_by_the_protocol() -> None:
    depth = np.tile(np.linspace(1, 3, 40), (30, 1))
    small = depth[::2, ::2]
    assert rx.depth_metrics(small, depth, kind="depth_affine")["delta1"] == 1.0
    with pytest.raises(SampleError, match="resize first"):
        rx.abs_rel(small, depth)


def test_other_protocols_by_name() -> None:
    pred, target, mask = inputs("ssim")
    assert set(rx.albedo_metrics(pred, target, mask)) == {"si_mse", "lmse", "psnr", "ssim", "map_rmse"}
    assert rx.albedo_metrics(pred, target, mask)["si_mse"] == rx.si_mse(pred, target, mask)
    assert rx.irradiance_metrics(pred, target, mask)["si_mse"] == rx.si_mse(pred, target, mask)
    assert rx.normal_metrics(pred, target, mask)["mean_deg"] == rx.angular_error(pred, target, mask)
    with pytest.raises(UsageError, match="accepts depth_metric, not depth_affine"):
        rx.depth_metrics(pred[..., 0], target[..., 0], protocol="depth/generic-metric", kind="depth_affine")
    with pytest.raises(UsageError, match="did you mean 'depth/nyuv2'"):
        rx.depth_metrics(pred[..., 0], target[..., 0], protocol="depth/nyu2")
    with pytest.raises(UsageError, match="judgements, not against a map"):
        rx.albedo_metrics(pred, target, protocol="albedo/iiw")


def test_an_alignment_can_be_fitted_alone() -> None:
    pred, _, mask = inputs("rmse")
    found = rx.fit_alignment(torch.from_numpy(2 * pred + 1), torch.from_numpy(pred), mask.astype(np.uint8))
    assert (found.scale, found.shift, found.n_valid) == (pytest.approx(0.5), pytest.approx(-0.5), mask.sum())
    np.testing.assert_allclose(rx.apply_alignment(2 * pred + 1, found), pred, rtol=1e-5)


@pytest.mark.parametrize("name", DEPTH + NORMALS + MAPS)
def test_clear_errors(name: str) -> None:
    metric = getattr(rx, name)
    pred, target, mask = inputs(name, (2,))
    with pytest.raises(SampleError, match="differ in shape"):
        metric(pred[:, 1:], target, mask)
    with pytest.raises(SampleError, match=r"mask .* differ in shape"):
        metric(pred, target, mask[:, 1:])
    with pytest.raises(SampleError, match="mask has dtype float64, expected bool or uint8"):
        metric(pred, target, mask.astype(np.float64))
    mask[1] = False
    with pytest.raises(SampleError, match=r"image \[1\] of \[2\]: no valid pixel"):
        metric(pred, target, mask)
    mask[1] = True
    pred[1, 3, 4] = np.nan
    with pytest.raises(SampleError, match=r"image \[1\] of \[2\]: prediction is NaN or infinite at 1 of 720"):
        metric(pred, target, mask)
    with pytest.raises(SampleError, match="no image"):
        metric(pred[:0], target[:0])
    with pytest.raises(SampleError, match="expected"):
        metric(pred[0, 0, 0], target[0, 0, 0])


def test_channels_first_is_named() -> None:
    pred, target, _ = inputs("ssim", (2,))
    with pytest.raises(SampleError, match="channels"):
        rx.si_mse(np.moveaxis(pred, -1, 1), np.moveaxis(target, -1, 1))
    with pytest.raises(SampleError, match="channels first"):
        rx.angular_error(np.moveaxis(pred, -1, 1), np.moveaxis(target, -1, 1))


def test_importing_metrics_loads_no_heavy_package() -> None:
    heavy = ("torch", "scipy", "skimage", "pydantic", "matplotlib")
    code = ("import sys; import reasonx_eval.metrics as m; m.abs_rel([[1.0]], [[1.0]]); "
            f"print([n for n in {heavy} if n in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
