"""Open samples one at a time and keep a few numbers of each; the checks look at these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import ReasonXError, SampleError
from reasonx_eval.scoring.readings import normal_forms
from reasonx_eval.types import (
    FIRST,
    SAME,
    SECOND,
    DepthTarget,
    JudgementTarget,
    MapTarget,
    NormalTarget,
    Sample,
)

#: horizontal field of view assumed where a sample has no intrinsics, degrees
GUESSED_FOV = 60.0
#: |n| may be off by this: half a step of (n + 1) / 2 in 8 bit is 0.0068 over three components
TOLERANCE_8BIT = 1e-2
TOLERANCE_FLOAT = 1e-3

Facts = Mapping[str, float]


@dataclass
class Gathered:
    """Numbers of the samples that could be read, by target and sample id; errors of those that could not."""

    facts: dict[str, dict[str, Facts]] = field(default_factory=dict)
    errors: dict[str, SampleError] = field(default_factory=dict)

    def column(self, target: str, name: str) -> dict[str, float]:
        """One number of all samples that have it."""
        return {i: f[name] for i, f in self.facts.get(target, {}).items() if name in f}


def evenly(ids: Sequence[str], limit: int | None) -> list[str]:
    """At most `limit` ids, spread evenly, first and last among them."""
    if limit is None or limit >= len(ids):
        return list(ids)
    if limit == 1:
        return [ids[0]]
    return [ids[round(i * (len(ids) - 1) / (limit - 1))] for i in range(limit)]


def gather(dataset: Dataset, ids: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Gathered:
    """Read samples; one that can't be read is noted and the rest goes on."""
    found = Gathered()
    for done, sample_id in enumerate(ids):
        try:
            for target, facts in sample_facts(dataset.load(sample_id)).items():
                found.facts.setdefault(target, {})[sample_id] = facts
        except SampleError as error:
            found.errors[sample_id] = error
        except ReasonXError:
            raise  # the data set as a whole
        except Exception as error:
            found.errors[sample_id] = SampleError(f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
        if progress is not None:
            progress(done + 1, len(ids))
    return found


def sample_facts(sample: Sample) -> dict[str, Facts]:
    """The numbers of one sample, by target; "image" is the photo."""
    image = sample.image
    facts: dict[str, Facts] = {"image": image_facts(image)}
    depth = sample.targets.get("depth")
    matrix = depth.intrinsics if isinstance(depth, DepthTarget) else None
    for name, target in sample.targets.items():
        if isinstance(target, DepthTarget):
            facts[name] = depth_facts(target)
        elif isinstance(target, NormalTarget):
            facts[name] = normal_facts(target, matrix)
        elif isinstance(target, MapTarget):
            facts[name] = map_facts(target)
        elif isinstance(target, JudgementTarget):
            facts[name] = judgement_facts(target)
        shape = _shape(target)
        if shape is not None:
            facts[name] = {**facts[name], "same_size": float(shape == image.shape[:2])}
    return facts


def _shape(target: object) -> tuple[int, ...] | None:
    if isinstance(target, (DepthTarget, NormalTarget, MapTarget)):
        return target.valid.shape
    return None


def image_facts(image: NDArray[np.uint8]) -> Facts:
    return {"max": float(image.max()), "min": float(image.min()), "bright": float(np.percentile(image, 99))}


def depth_facts(target: DepthTarget) -> Facts:
    share = float(target.valid.mean())
    values = target.depth[target.valid].astype(np.float64)
    if not values.size:
        return {"valid": 0.0}
    return {
        "valid": share,
        "median": float(np.median(values)),
        "max": float(values.max()),
        "not_positive": float((~(np.isfinite(values) & (values > 0))).mean()),
    }


def normal_facts(target: NormalTarget, matrix: NDArray[np.float64] | None) -> Facts:
    """Shares of the valid pixels: unit length, facing the camera, and pointing up or down in the lowest third."""
    valid = target.valid
    if not valid.any():
        return {"valid": 0.0}
    normal = target.normal[valid].astype(np.float64)  # [N, 3]
    length = np.linalg.norm(normal, axis=1)
    eight_bit = _from_codes(normal)
    unit = np.abs(length - 1.0) <= (TOLERANCE_8BIT if eight_bit else TOLERANCE_FLOAT)
    rays = view_rays(valid.shape, matrix)[valid]
    facts = {
        "valid": float(valid.mean()),
        "unit": float(unit.mean()),
        "length": float(np.median(length)),
        "eight_bit": float(eight_bit),
        "guessed_rays": float(matrix is None),
        "facing": float(((normal * rays).sum(axis=1) < 0).mean()),
    }
    thin = slice(None, None, max(1, len(normal) // 4096))
    for form, value in normal_forms(normal[thin]):
        # forms that don't give unit vectors are no normals
        if abs(float(np.median(np.linalg.norm(value, axis=1))) - 1.0) < 0.05:
            cosine = (value * rays[thin]).sum(axis=1)
            facts[f"facing {form}"], facts[f"cosine {form}"] = float((cosine < 0).mean()), float(cosine.mean())
    low = np.nonzero(valid)[0] >= valid.shape[0] * 2 // 3
    if low.any():
        y = normal[low, 1] / np.maximum(length[low], 1e-9)
        facts |= {"floor_up": float((y < -0.7).mean()), "floor_down": float((y > 0.7).mean())}
    return facts


def _from_codes(normal: NDArray[np.float64]) -> bool:
    """Whether the components are exact 8-bit codes of (n + 1) / 2 (up to signs, which keep the grid)."""
    codes = (normal[:4096] + 1.0) * 127.5
    return bool(np.abs(codes - np.rint(codes)).max() < 1e-3)


def view_rays(shape: tuple[int, ...], matrix: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Direction from the camera through each pixel's centre, float64 [H, W, 3], z = 1."""
    height, width = shape[:2]
    if matrix is None:
        focal = 0.5 * width / np.tan(np.radians(GUESSED_FOV / 2))
        fx, fy, cx, cy = focal, focal, (width - 1) / 2, (height - 1) / 2
    else:
        fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones((height, width))], axis=-1)


def map_facts(target: MapTarget) -> Facts:
    values = target.value[target.valid].astype(np.float64)
    if not values.size:
        return {"valid": 0.0}
    return {
        "valid": float(target.valid.mean()),
        "max": float(values.max()),
        "above_one": float((values > 1.0 + 1e-6).mean()),
        "negative": float((~np.isfinite(values) | (values < 0)).mean()),
    }


def judgement_facts(target: JudgementTarget) -> Facts:
    """The number of judgements, and which of the format's rules they break (1) or keep (0)."""
    points, pairs = target.points, target.pairs
    inside = (points >= 0).all() and (points < 1).all() if points.size else True
    rows_exist = bool(((pairs >= 0) & (pairs < len(points))).all())
    labels = np.isin(target.darker, (SAME, FIRST, SECOND)).all()
    return {
        "judgements": float(len(target.darker)),
        "bad_points": float(not inside),
        "bad_rows": float(not rows_exist),
        "bad_labels": float(not labels),
        "bad_weights": float(not (np.isfinite(target.weight) & (target.weight > 0)).all()),
    }
