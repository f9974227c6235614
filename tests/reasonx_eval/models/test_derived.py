from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from reasonx_eval.datasets.scenes.dataset import ScenesSynthetic
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.models.adapters.derived import DepthBesideNormals, NormalsFromDepth, surface_normals
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.models.embedded.oracle import Oracle
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import Kind, Prediction, Sample

DATA = ScenesSynthetic(None, "test")
NORMALS = get_protocol("normals/scenes-synthetic")
AGREEMENT = get_protocol("normals/scenes-synthetic-agreement")


class Both(Model):
    """Ground-truth depth times `scale` plus `shift`, and ground-truth normals (`turned` if asked)."""

    needs_targets = ("depth", "normals")

    def __init__(self, kind: Kind = "depth_scale", scale: float = 1, shift: float = 0, turned: bool = False) -> None:
        self._kind, self._scale, self._shift, self._turned = kind, scale, shift, turned

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name="both", source="test")

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"depth": (self._kind,), "normals": ("normal",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        out = []
        for s in samples:
            depth: Any = s.targets["depth"]
            normals: Any = s.targets["normals"]
            value = normals.normal * np.float32([1, -1, 1] if self._turned else [1, 1, 1])
            if kind != "normal":
                value = depth.depth * np.float32(self._scale) + np.float32(self._shift)
                value = 1 / value if kind == "disparity_affine" else value
            out.append(Prediction(kind, value))
        return out


def score(model: Model, protocol: Any, sample_id: str = DATA.ids[0]) -> Mapping[str, float]:
    sample = DATA.load(sample_id)
    prediction = model.predict([sample], model.kind_for("normals", protocol.accepts), 0)[0]
    return score_sample(sample=sample, prediction=prediction, protocol=protocol).metrics


@pytest.mark.parametrize(("kind", "scale"), [("depth_metric", 1.0), ("depth_scale", 7.5)])
def test_normals_of_true_depth_are_true_but_at_edges(kind: Kind, scale: float) -> None:
    metrics = score(NormalsFromDepth(Both(kind, scale)), NORMALS)
    assert metrics["median_deg"] < 0.1
    assert metrics["mean_deg"] < 12


def test_a_plane_is_exact_up_to_the_border() -> None:
    sample = DATA.load(DATA.ids[0])
    assert sample.intrinsics is not None
    height, width = sample.image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x = (columns - sample.intrinsics[0, 2]) / sample.intrinsics[0, 0]
    y = (rows - sample.intrinsics[1, 2]) / sample.intrinsics[1, 1]
    normal = np.array([0.3, -0.4, -0.8660254037844386])
    depth = -3 / (normal[0] * x + normal[1] * y + normal[2])
    np.testing.assert_allclose(surface_normals(sample, depth), np.broadcast_to(normal, (height, width, 3)), atol=1e-6)


def test_unknown_shift_has_no_normals() -> None:
    for kind in ("depth_affine", "disparity_affine"):
        with pytest.raises(UsageError, match="unknown shift"):
            NormalsFromDepth(Both(kind))
    with pytest.raises(UsageError, match="predicts no depth"):
        NormalsFromDepth(Oracle(kind="normal"))


def test_no_intrinsics_and_nan_are_errors_and_no_depth_counts_as_90_degrees() -> None:
    sample = DATA.load(DATA.ids[0])
    bare = Sample("x", sample.image)
    with pytest.raises(SampleError, match="no intrinsics"):
        surface_normals(bare, np.ones(sample.image.shape[:2]))
    with pytest.raises(SampleError, match="NaN"):
        surface_normals(sample, np.full(sample.image.shape[:2], np.nan))
    flat = Prediction("normal", surface_normals(sample, np.zeros(sample.image.shape[:2])))
    assert score_sample(sample=sample, prediction=flat, protocol=NORMALS).metrics["mean_deg"] == pytest.approx(90)


@pytest.mark.parametrize(
    ("kind", "scale", "shift"),
    [("depth_metric", 1, 0), ("depth_affine", 3, 2), ("disparity_affine", 1, 0), ("depth_scale", 0.2, 0)],
)
def test_agreement_does_not_depend_on_what_the_fit_absorbs(kind: Kind, scale: float, shift: float) -> None:
    reference = score(DepthBesideNormals(Both()), AGREEMENT)
    metrics = score(DepthBesideNormals(Both(kind, scale, shift)), AGREEMENT)
    assert metrics["consistency_deg"] == pytest.approx(reference["consistency_deg"], rel=1e-3)
    assert metrics["consistency_deg"] < 12
    assert metrics["consistency_rmse"] < 0.25


def test_turned_normals_do_not_agree() -> None:
    good, bad = score(DepthBesideNormals(Both()), AGREEMENT), score(DepthBesideNormals(Both(turned=True)), AGREEMENT)
    assert bad["consistency_deg"] > 3 * good["consistency_deg"]


def test_agreement_needs_both_and_normals_alone_are_refused() -> None:
    with pytest.raises(UsageError, match="agreement needs depth and normals"):
        DepthBesideNormals(Oracle(kind="normal"))
    sample = DATA.load(DATA.ids[0])
    with pytest.raises(SampleError, match="without the depth"):
        score_sample(sample=sample, prediction=Both().predict([sample], "normal", 0)[0], protocol=AGREEMENT)


def test_name_and_options_say_what_was_derived() -> None:
    info = NormalsFromDepth(Both()).info
    assert info.name == "both+normals"
    assert info.options["derive"] == "normals"
    assert "acc:normal|align:affine.own|" in AGREEMENT.signature(kind="normal", n=100)
