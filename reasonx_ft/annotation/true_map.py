"""The ground-truth map of one modality of a sample, which judges are measured and simulated with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample


def true_map(sample: Sample, modality: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The map of a modality, float32 [H, W] or [H, W, 3], and where it is measured, bool [H, W].

    Raises
    ------
    SampleError
        The sample has no such map.
    """
    target = sample.targets.get(modality)
    if isinstance(target, DepthTarget):
        return target.depth, target.valid
    if isinstance(target, NormalTarget):
        return target.normal, target.valid
    if isinstance(target, MapTarget):
        return target.value, target.valid
    raise SampleError(f"no {modality} ground truth", where=sample.id)
