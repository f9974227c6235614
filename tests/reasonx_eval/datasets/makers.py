"""Random content for files in the official formats of datasets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.selftest.writers import DIODE_SHAPE, NYU_SHAPE, DiodeFiles, NyuImage


def photo(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Random blocks of 16 pixels: cheap to encode, different everywhere that matters."""
    small = rng.integers(1, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


def nyu_image(rng: np.random.Generator, number: int) -> NyuImage:
    """Depth in whole millimetres, so that all layouts hold the same values; raw lacks a border and holes."""
    millimetres = np.arange(480 * 640, dtype=np.int64).reshape(NYU_SHAPE) % 8000 + 700 + number % 500
    filled = millimetres.astype(np.float32) / np.float32(1000)
    raw = np.where(rng.random(NYU_SHAPE) < 0.2, np.float32(0), filled)
    raw[:8] = raw[-8:] = 0
    raw[:, :8] = raw[:, -8:] = 0
    return NyuImage(photo(rng, *NYU_SHAPE), raw, filled)


def nyu_images(numbers: Iterable[int], seed: int = 0) -> dict[int, NyuImage]:
    return {n: nyu_image(np.random.default_rng((seed, n)), n) for n in numbers}


def diode_files(rng: np.random.Generator, *, normals: bool = True) -> DiodeFiles:
    depth = rng.uniform(0.6, 300.0, (*DIODE_SHAPE, 1)).astype(np.float32)
    mask = (rng.random(DIODE_SHAPE) < 0.8).astype(np.float32)
    depth[mask == 0] = 0
    normal = None
    if normals:
        vector = rng.standard_normal((*DIODE_SHAPE, 3)).astype(np.float32)
        normal = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
        normal[mask == 0] = 0
    return DiodeFiles(photo(rng, *DIODE_SHAPE), depth, mask, normal)
