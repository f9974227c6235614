"""Predictions derived from other predictions of the same model: normals from depth, and depth beside normals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.resize import resize
from reasonx_eval.metrics.consistency import normals_from_depth
from reasonx_eval.models.base import Model, ModelInfo, Wrapped
from reasonx_eval.types import Kind, Prediction, Sample

#: depths whose surface has a direction: a scale does not turn it, an unknown shift does
_SOLID: tuple[Kind, ...] = ("depth_metric", "depth_scale")


class NormalsFromDepth(Wrapped):
    """Normals of the surface that a model's depth describes (`metrics.consistency.normals_from_depth`).

    The depth is resized to the photo and back-projected with the dataset's intrinsics. The border takes the normals
    of its neighbours; a pixel whose depth is not positive gets a vector of length 0, which counts as 90 degrees.

    Raises
    ------
    UsageError
        The model gives no depth, or only depth with an unknown shift, whose surface has no direction.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        have = model.kinds.get("depth", ())
        solid = [k for k in have if k in _SOLID]
        if not solid:
            reason = "predicts no depth"
            if have:
                reason = f"gives {', '.join(have)}, whose unknown shift bends every surface"
            raise UsageError(f"normals can't be derived: the model {reason}", where=model.info.name,
                             fix="a model that gives depth_metric or depth_scale")  # fmt: skip
        self._kind: Kind = solid[0]

    @property
    def info(self) -> ModelInfo:
        inner = self._model.info
        return replace(inner, name=f"{inner.name}+normals", options={**inner.options, "derive": "normals"},
                       notes=(*inner.notes, f"normals derived from {self._kind}"))  # fmt: skip

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"normals": ("normal",)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        depths = self._model.predict(samples, self._kind, seed)
        return [Prediction("normal", surface_normals(s, d.value), d.seconds)
                for s, d in zip(samples, depths, strict=True)]  # fmt: skip


def surface_normals(sample: Sample, depth: NDArray[Any]) -> NDArray[np.float32]:
    """Normals of a depth map at the photo's size, float32 [H, W, 3], in our frame.

    Raises
    ------
    SampleError
        The dataset gives no intrinsics, NaN in the depth, or a photo under 3 x 3 pixels.
    """
    if sample.intrinsics is None:
        raise SampleError("the dataset gives no intrinsics, so depth has no surface normals", where=sample.id)
    height, width = sample.image.shape[:2]
    if min(height, width) < 3:
        raise SampleError(f"a photo of {height}x{width} pixels has no surface normals", where=sample.id)
    full = resize(depth, (height, width), "bilinear")
    if not np.isfinite(full).all():
        raise SampleError("the depth that normals are derived from has NaN or infinity", where=sample.id)
    normal, _ = normals_from_depth(depth=full, mask=full > 0, intrinsics=sample.intrinsics)
    return np.pad(normal[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.float32)


class DepthBesideNormals(Wrapped):
    """Normals with the same model's depth beside them, for protocols that measure whether the two agree.

    Raises
    ------
    UsageError
        The model does not predict both.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        for task in ("depth", "normals"):
            if not model.kinds.get(task):
                raise UsageError(f"agreement needs depth and normals; this model predicts {', '.join(model.kinds)}",
                                 where=model.info.name)  # fmt: skip
        self._kind: Kind = model.kinds["depth"][0]

    @property
    def info(self) -> ModelInfo:
        inner = self._model.info
        return replace(inner, options={**inner.options, "depth": self._kind})

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"normals": self._model.kinds["normals"]}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        normals = self._model.predict(samples, kind, seed)
        depths = self._model.predict(samples, self._kind, seed)
        return [replace(n, beside=d) for n, d in zip(normals, depths, strict=True)]
