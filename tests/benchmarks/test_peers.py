"""The peers' formulations that speed is held against give what the package gives: in float64, to 1e-9."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import peers
from benchmarks.speed.arrays import depth_maps, judgement_document, judgement_target, normal_maps, photo
from benchmarks.speed.memory import Command, resident_peak, traced_peak
from reasonx_eval.datasets.iiw import read_judgements
from reasonx_eval.io import color
from reasonx_eval.metrics import align
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.depth_sums import measure_depth
from reasonx_eval.metrics.judgements import whdr
from reasonx_eval.metrics.normals import measure_normals, pooled_normal_metrics
from reasonx_eval.metrics.valid_pixels import ValidPixels

# several blocks of rows, and a last one that isn't full
SHAPE = (211, 407)
EXACT = {"rel": 1e-9, "abs": 0}


@pytest.mark.parametrize("form", [peers.depth_affine_torch, peers.depth_affine_numpy])
@pytest.mark.parametrize("clip", [(1e-3, 80.0), (2.0, 5.0)])
def test_depth_forms_agree(form: Callable[..., dict[str, float]], clip: tuple[float, float]) -> None:
    pred, target, valid = depth_maps(*SHAPE, dtype=np.float64)
    fit = align.fit(pred=pred, target=target, mask=valid, mode="affine", space="depth")
    ours = measure_depth(ValidPixels(pred=pred, target=target, mask=valid), alignment=fit, names=peers.DEPTH_METRICS,
                         clip_m=clip)  # fmt: skip
    assert form(pred, target, valid, clip) == pytest.approx(ours, **EXACT)


def test_affine_fits_agree() -> None:
    pred, target, valid = depth_maps(*SHAPE, dtype=np.float64)
    fit = align.fit(pred=pred, target=target, mask=valid, mode="affine", space="depth")
    assert peers.affine_lstsq(pred, target, valid) == pytest.approx((fit.scale, fit.shift), **EXACT)


def test_normal_forms_agree() -> None:
    pred, target, valid = normal_maps(*SHAPE, dtype=np.float64)
    ours = measure_normals(pred=pred, target=target, mask=valid)
    assert peers.normal_statistics(peers.angular_errors_torch(pred, target, valid)) == pytest.approx(ours, **EXACT)


@pytest.mark.parametrize("form", [peers.pooled_normals_growing, peers.pooled_normals_once])
def test_pooled_normal_forms_agree(form: Callable[..., dict[str, float]]) -> None:
    maps = [normal_maps(*SHAPE, seed=k, dtype=np.float64) for k in range(3)]
    errors = [angular_errors(pred=p, target=g, mask=v) for p, g, v in maps]
    assert form([torch.from_numpy(e) for e in errors]) == pytest.approx(pooled_normal_metrics(errors=errors), **EXACT)


@pytest.mark.parametrize("count", [1, 100, 1000])
def test_whdr_forms_agree(count: int, tmp_path: Path) -> None:
    image, document = photo(60, 90), judgement_document(count, seed=count)
    linear = color.srgb8_table()[image]
    np.testing.assert_allclose(peers.srgb_to_linear_masks(image), linear, rtol=1e-12)
    expected = peers.whdr_loop(linear, document)
    assert 0 <= expected <= 1
    assert whdr(linear, judgement_target(document)) == pytest.approx(expected, **EXACT)
    (tmp_path / "a.json").write_text(json.dumps(document))
    read = read_judgements(tmp_path / "a.json")
    assert whdr(linear, read) == pytest.approx(expected, **EXACT)


def test_whdr_loop_by_hand() -> None:
    """0.2 and 0.3: the first is darker. One of two judgements with weights 3 and 1 says so."""
    image = np.full((1, 2, 3), 0.2)
    image[0, 1] = 0.3
    points = [{"id": 5, "x": 0.0, "y": 0.0, "opaque": True}, {"id": 6, "x": 0.5, "y": 0.0, "opaque": True}]
    document = {"intrinsic_points": points, "intrinsic_comparisons": [
        {"point1": 5, "point2": 6, "darker": "1", "darker_score": 3.0},
        {"point1": 5, "point2": 6, "darker": "E", "darker_score": 1.0},
        {"point1": 5, "point2": 6, "darker": "E", "darker_score": None},
    ]}  # fmt: skip
    assert peers.whdr_loop(image, document) == 0.25


def test_traced_peak_is_of_the_call_alone() -> None:
    held = np.ones(1 << 20)
    assert traced_peak(lambda: np.ones(1 << 18).sum()) == pytest.approx(2.0, abs=0.1)
    assert traced_peak(held.sum) < 0.1


def test_resident_peak_is_of_the_call_alone() -> None:
    held = np.ones(1 << 23)
    large, small = resident_peak(lambda: np.ones(1 << 23).sum()), resident_peak(held.sum)
    if large is None or small is None:
        pytest.skip("this system doesn't tell the peak of resident memory")
    assert 60 < large < 80
    assert small < 8


def test_peak_of_a_command_is_not_that_of_its_parent() -> None:
    held = np.ones(1 << 25)  # 256 MiB
    small = Command((sys.executable, "-S", "-c", "pass")).peak()
    large = Command((sys.executable, "-S", "-c", "bytearray(b'x') * (80 << 20)")).peak()
    assert small < 60 < 80 < large < 150
    assert held[-1] == 1


def test_command_that_fails_is_an_error() -> None:
    failing = Command((sys.executable, "-S", "-c", "raise SystemExit(3)"))
    with pytest.raises(subprocess.CalledProcessError):
        failing()
    with pytest.raises(subprocess.CalledProcessError):
        failing.peak()
