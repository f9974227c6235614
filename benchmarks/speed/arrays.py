"""Seeded inputs of the benchmarks: maps, judgements, photos. No real data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import seeding
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget

Floats = NDArray[np.floating[Any]]
Maps = tuple[Floats, Floats, NDArray[np.bool_]]

_CODES = {"1": FIRST, "2": SECOND, "E": SAME}


def depth_maps(height: int, width: int, *, dtype: type = np.float32) -> Maps:
    """Prediction (up to scale and shift), ground truth in metres, and a mask with holes: [H, W] each.

    Depth of a room, 1 to 9 m, smooth with steps; three quarters of the pixels are valid.
    """
    stream = seeding.rng(0, "depth", f"{height}x{width}")
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    depth = (2 + 3 * x + 2 * y * (x > 0.4) + np.sin(9 * x + 4 * y) / 2).astype(np.float32)
    noise = stream.standard_normal((height, width), dtype=np.float32)
    pred = (0.2 * depth * np.exp(0.15 * noise) + 0.1).astype(dtype)
    valid = stream.random((height, width), dtype=np.float32) > 0.25
    return pred, depth.astype(dtype), valid


def normal_maps(height: int, width: int, *, seed: int = 0, dtype: type = np.float32) -> Maps:
    """Predicted and true unit normals [H, W, 3] some 20 degrees apart, and a mask with three quarters valid."""
    stream = seeding.rng(seed, "normals")
    target = stream.standard_normal((height, width, 3), dtype=np.float32)
    target[..., 2] = -np.abs(target[..., 2]) - 0.2
    target /= np.linalg.norm(target, axis=-1, keepdims=True)
    pred = target + 0.25 * stream.standard_normal((height, width, 3), dtype=np.float32)
    pred /= np.linalg.norm(pred, axis=-1, keepdims=True)
    valid = stream.random((height, width), dtype=np.float32) > 0.25
    return pred.astype(dtype), target.astype(dtype), valid


def judgement_document(count: int, *, seed: int = 0, points: int = 300) -> dict[str, Any]:
    """A photo's judgements as its JSON file has them, all of them countable; points in [0, 1)."""
    stream = seeding.rng(seed, "judgements")
    where = stream.random((points, 2))
    pairs = np.stack([stream.integers(0, points, count), stream.integers(1, points, count)], axis=1)
    pairs[:, 1] = (pairs[:, 0] + pairs[:, 1]) % points
    answers, weights = stream.choice(["1", "2", "E"], count), stream.random(count) + 0.1
    return {
        "intrinsic_points": [{"id": 7 * i, "x": float(x), "y": float(y), "opaque": True}
                             for i, (x, y) in enumerate(where)],
        "intrinsic_comparisons": [
            {"point1": 7 * int(a), "point2": 7 * int(b), "darker": str(code), "darker_score": float(w)}
            for (a, b), code, w in zip(pairs, answers, weights, strict=True)
        ],
    }  # fmt: skip


def judgement_target(document: dict[str, Any]) -> JudgementTarget:
    """The same as arrays."""
    row = {point["id"]: k for k, point in enumerate(document["intrinsic_points"])}
    comparisons = document["intrinsic_comparisons"]
    return JudgementTarget(
        points=np.array([(p["x"], p["y"]) for p in document["intrinsic_points"]]),
        pairs=np.array([(row[c["point1"]], row[c["point2"]]) for c in comparisons]),
        darker=np.array([_CODES[c["darker"]] for c in comparisons], dtype=np.int8),
        weight=np.array([c["darker_score"] for c in comparisons]),
    )


def photo(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """An 8-bit RGB picture [H, W, 3] that compresses about as a photo does: shapes, shading and sensor noise."""
    stream = seeding.rng(seed, "photo")
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    value = np.zeros((height, width, 3))
    for _ in range(12):
        fx, fy, phase = [*stream.normal(0, 0.03, 2), stream.uniform(0, 6.3)]
        value += stream.normal(0, 18, 3) * np.sign(np.sin(fx * x + fy * y + phase))[..., None]
    value += 128 + 40 * np.sin(x / width * 3 + y / height)[..., None] + stream.normal(0, 4, (height, width, 3))
    return np.clip(value, 0, 255).astype(np.uint8)
