"""Real small networks on real photos: the published behaviour comes out without any tuning of this code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.io.images import read_png, read_rgb
from reasonx_eval.models.adapters.onnx import OnnxModel
from reasonx_eval.types import Sample
from tests.helpers.shared import SHARED

WEIGHTS = SHARED / "weights"
PAIRS = SHARED / "nyuv2" / "pairs"
NAMES = ("leres_0", "leres_1", "leres_2", "metric3d_00000", "metric3d_00050", "nyud_000433", "unidepth_demo")

pytestmark = pytest.mark.skipif(not (WEIGHTS.is_dir() and PAIRS.is_dir()),
                                reason=f"needs the sample data: REASONX_SHARED is not {SHARED}")  # fmt: skip


def load(tmp_path: Path, file: str, card: dict[str, Any]) -> OnnxModel:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    return OnnxModel(WEIGHTS / file, card=path)


def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    (photo,) = PAIRS.glob(f"{name}.rgb.*")
    (depth,) = PAIRS.glob(f"{name}.depth_*.png")
    return read_rgb(photo), read_png(depth) / (1000.0 if depth.stem.endswith("mm") else 5000.0)


def at_truth(value: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction (nearest pixel) and truth where there is truth, within 10 m and inside the Eigen crop."""
    rows = (np.arange(depth.shape[0]) + 0.5) * value.shape[0] / depth.shape[0]
    columns = (np.arange(depth.shape[1]) + 0.5) * value.shape[1] / depth.shape[1]
    valid = np.zeros(depth.shape, bool)
    valid[45:471, 41:601] = True
    valid &= (depth > 1e-3) & (depth < 10)
    return value[rows.astype(int)][:, columns.astype(int)][valid].astype(np.float64), depth[valid]


@pytest.mark.parametrize("name", NAMES)
def test_fastdepth_is_metric_without_alignment(tmp_path: Path, name: str) -> None:
    model = load(tmp_path, "fast_depth_float.onnx", {
        "name": "FastDepth", "licence": "MIT", "trained_on": ["NYUv2"],
        "input": {"name": "rgb01", "size": [224, 224], "range": "0-1", "channels": "RGB"},
        "output": {"name": "depth_m", "kind": "depth_metric"},
    })  # fmt: skip
    photo, depth = pair(name)
    (prediction,) = model.predict([Sample(name, photo)], "depth_metric", 0)
    assert prediction.value.shape == (224, 224)
    pred, truth = at_truth(prediction.value, depth)
    assert 0.05 < float(np.mean(np.abs(pred - truth) / truth)) < 0.18


def test_tcmonodepth_is_a_disparity(tmp_path: Path) -> None:
    model = load(tmp_path, "tcmonodepth_small_256x352.onnx", {
        "name": "TCMonoDepth small", "licence": "MIT",
        "input": {"size": [256, 352], "range": "0-255", "channels": "RGB"},
        "output": {"kind": "disparity_affine"},
    })  # fmt: skip
    errors, as_depth = [], []
    for name in NAMES:
        photo, depth = pair(name)
        (prediction,) = model.predict([Sample(name, photo)], "disparity_affine", 0)
        pred, truth = at_truth(prediction.value, depth)
        design = np.stack([pred, np.ones_like(pred)], axis=1)
        scale, shift = np.linalg.lstsq(design, 1 / truth, rcond=None)[0]
        assert scale > 0
        fitted = 1 / np.maximum(scale * pred + shift, 0.1)
        errors.append(np.mean(np.abs(fitted - truth) / truth))
        scale, shift = np.linalg.lstsq(design, truth, rcond=None)[0]
        as_depth.append(scale)
    assert 0.10 < np.mean(errors) < 0.18
    assert max(as_depth) < 0  # as a depth it would be upside down


def test_directcnn_gives_colour_albedo(tmp_path: Path) -> None:
    model = load(tmp_path, "nestmeyer_directcnn.onnx", {
        "name": "direct CNN", "licence": "MIT", "trained_on": ["IIW"],
        "input": {"colour": "linear", "range": "0-1", "channels": "RGB"},
        "output": {"kind": "albedo_linear", "transform": "intensity_to_albedo"},
    })  # fmt: skip
    photo = read_rgb(SHARED / "hypersim" / "scene_001_rgb.png")
    (prediction,) = model.predict([Sample("s", photo)], "albedo_linear", 0)
    assert prediction.value.shape == photo.shape
    grey = prediction.value.mean(-1)
    assert 0 <= grey.min() < grey.max() <= 1.0001
    linear = srgb_to_linear(photo / 255)
    lit = linear.sum(-1) > 0.05
    chroma = linear[lit] / linear[lit].sum(-1, keepdims=True)
    got = prediction.value[lit] / prediction.value[lit].sum(-1, keepdims=True)
    np.testing.assert_allclose(got, chroma, atol=1e-4)


def test_names_and_shapes_of_a_real_network_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'rgb01 \(float\)\[1, 3, h, w\](.|\n)*"name": "depth_m"'):
        OnnxModel(WEIGHTS / "fast_depth_float.onnx", card=tmp_path / "none.json")
    with pytest.raises(UsageError, match="has 4 inputs"):
        OnnxModel(WEIGHTS / "zhou2015_rref.onnx", card=tmp_path / "none.json")
