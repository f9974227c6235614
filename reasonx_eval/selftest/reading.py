"""What a loader read, against what was written (or, for rendered scenes, against itself)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.examples import Example, Written
from reasonx_eval.metrics.consistency import normals_from_depth
from reasonx_eval.selftest.case import Case, Failed
from reasonx_eval.types import (
    DIFFERENT,
    FIRST,
    SAME,
    SECOND,
    DepthTarget,
    JudgementTarget,
    MapTarget,
    NormalTarget,
    PairTarget,
    Sample,
    Target,
)


def reads_what_was_written(case: Case, source: Example) -> float:
    """Mask, values and photo of every sample; the largest difference as a multiple of what is allowed."""
    worst = 0.0
    for sample in case.samples:
        written = case.written[sample.id]
        target = written.target(case.protocol.reads, case.dataset.options)
        found = sample.targets[case.protocol.reads]
        if target is None:
            albedo = written.targets.get("albedo")
            if not isinstance(found, JudgementTarget) or not isinstance(albedo, MapTarget):
                raise Failed(f"nothing was written for {case.protocol.reads}")
            _judged(found, albedo)  # derived from the map by the data set
            target = found
        worst = max(worst, _difference(found, target, source.tolerance.get(case.protocol.reads, 0.0)))
        worst = max(worst, _photo(sample, written, source))
    return worst


def _photo(sample: Sample, written: Written, source: Example) -> float:
    if written.photo is None:
        return 0.0
    if sample.image.dtype != np.uint8 or sample.image.shape != written.photo.shape:
        raise Failed(f"photo is {sample.image.dtype} {sample.image.shape}, written: uint8 {written.photo.shape}")
    # the mean: JPEG rings at edges
    off = float(np.abs(sample.image.astype(np.int16) - written.photo).mean())
    return _allowed(off, source.tolerance["photo"], "codes of the photo")


def _difference(found: Target, written: Target, allowed: float) -> float:
    if type(found) is not type(written):
        raise Failed(f"read a {type(found).__name__}, written was a {type(written).__name__}")
    if isinstance(found, JudgementTarget) and isinstance(written, JudgementTarget):
        for name in ("points", "pairs", "darker", "weight"):
            if not np.array_equal(getattr(found, name), getattr(written, name)):
                raise Failed(f"{name} of the judgements are not what was written")
        return 0.0
    assert not isinstance(found, JudgementTarget | PairTarget)
    assert not isinstance(written, JudgementTarget | PairTarget)
    if not np.array_equal(found.valid, written.valid):
        raise Failed(f"{found.valid.sum()} pixels are valid, {written.valid.sum()} were written, not the same ones")
    at = written.valid
    if isinstance(found, NormalTarget) and isinstance(written, NormalTarget):
        return _allowed(_degrees(found.normal[at], written.normal[at]), allowed, "degrees")
    unit = "m" if isinstance(found, DepthTarget) else "of linear value"
    return _allowed(float(np.abs(_values(found)[at].astype(np.float64) - _values(written)[at]).max()), allowed, unit)


def _values(target: Target) -> NDArray[np.float32]:
    assert isinstance(target, DepthTarget | MapTarget)
    return target.depth if isinstance(target, DepthTarget) else target.value


def _allowed(off: float, allowed: float, unit: str) -> float:
    if not off <= allowed:
        raise Failed(f"off by {off:.4g} {unit}; the format explains {allowed:g}")
    return off / allowed if allowed else 0.0


def _degrees(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest angle between vectors [n, 3], by the arc tangent, which the metrics don't use."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(axis=1)).max()))


def agrees_with_itself(case: Case) -> float:
    """Depth against normals, and answers against the maps they are about; the median angle of the former."""
    sample = case.dataset.load(case.sample.id)
    depth, normals = sample.targets["depth"], sample.targets["normals"]
    assert isinstance(depth, DepthTarget)
    assert isinstance(normals, NormalTarget)
    assert depth.intrinsics is not None
    derived, known = normals_from_depth(depth=depth.depth, mask=depth.valid, intrinsics=depth.intrinsics)
    cosine = np.clip((derived[known] * normals.normal[known]).sum(axis=-1), -1, 1)
    angle = float(np.degrees(np.median(np.arccos(cosine))))
    if not angle < 0.5:
        raise Failed(f"normals and those of the depth differ by {angle:.3g} degrees (median)")
    _answers(sample)
    return angle


def _answers(sample: Sample) -> None:
    """A plain loop over pairs and judgements."""
    pairs, judged, albedo = (sample.targets[k] for k in ("pairs", "judgements", "albedo"))
    assert isinstance(pairs, PairTarget)
    assert isinstance(judged, JudgementTarget)
    assert isinstance(albedo, MapTarget)
    depth, light = sample.targets["depth"], sample.targets["irradiance"]
    assert isinstance(depth, DepthTarget)
    assert isinstance(light, MapTarget)
    _judged(judged, albedo)
    for k in range(len(pairs.pairs)):
        one, two = (_pixel(pairs, k, end, depth.depth.shape) for end in (0, 1))
        near, bright, base = (pairs.relation[m][k] for m in ("depth", "irradiance", "albedo"))
        _hold(near not in (FIRST, SECOND) or (near == FIRST) == (depth.depth[one] < depth.depth[two]), "depth", k)
        luma = [light.value[p] @ (0.299, 0.587, 0.114) for p in (one, two)]
        _hold(bright not in (FIRST, SECOND) or (bright == FIRST) == (luma[0] > luma[1]), "irradiance", k)
        distance = float(np.linalg.norm(albedo.value[one].astype(np.float64) - albedo.value[two]))
        _hold(base == (SAME if distance < 0.05 else DIFFERENT), "albedo", k)


def _judged(judged: JudgementTarget, albedo: MapTarget) -> None:
    for k, answer in enumerate(judged.darker):
        first, second = (float(albedo.value[_pixel(judged, k, end, albedo.valid.shape)].mean()) for end in (0, 1))
        _hold(answer == SAME or (answer == FIRST) == (first < second), "judgement", k)


def _pixel(target: JudgementTarget | PairTarget, k: int, end: int, shape: tuple[int, ...]) -> tuple[int, int]:
    x, y = target.points[target.pairs[k, end]]
    return int(y * shape[0]), int(x * shape[1])


def _hold(true: bool, what: str, k: int) -> None:
    if not true:
        raise Failed(f"{what}: answer {k} is not that of the maps")
