"""The numbers of one sample under one protocol, and the shape that a prediction must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.types import TASK_OF_KIND, Alignment, Prediction


@dataclass(frozen=True)
class Scored:
    """What one sample gives under one protocol, before it becomes a record.

    metrics : name -> value; NaN where it is undefined for this sample (the reason is in notes)
    pixels : per-pixel errors, float64 [n], for protocols that pool pixels; None otherwise
    """

    metrics: Mapping[str, float]
    n_valid: int
    alignment: Alignment | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pixels: NDArray[np.float64] | None = None


def check_shape(prediction: Prediction) -> None:
    """Depth is [H, W]; normals, albedo and irradiance are [H, W, 3]."""
    shape = prediction.value.shape
    flat = TASK_OF_KIND[prediction.kind] == "depth"
    if not (len(shape) == 2 if flat else len(shape) == 3 and shape[2] == 3) or 0 in shape:
        want = "[H, W]" if flat else "[H, W, 3]"
        hint = " (channels first? move them last)" if len(shape) == 3 and shape[0] in (1, 3) else ""
        raise SampleError(f"a {prediction.kind} prediction must be {want}, this one is {list(shape)}{hint}")
    if prediction.value.dtype.kind != "f":
        raise SampleError(f"a prediction must be floating point, this one is {prediction.value.dtype}")
