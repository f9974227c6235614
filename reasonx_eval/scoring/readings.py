"""Other readings of a prediction or of the ground truth: units, orders, axes and codes that people mix up.

A score under a wrong reading is a number like any other, so every sample is looked at: where another known reading
fits far better, its record carries a note. A run prints the notes of this module only if all its samples carry them:
one image can be fitted by chance, a whole set cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import color
from reasonx_eval.types import NORMAL_FRAMES

#: how every note of this module begins
READING: Final = "another reading fits far better: "
#: factors that a depth in another unit is off by, and where they come from
DEPTH_FACTORS: Final = {
    1000.0: "millimetres", 100.0: "centimetres", 0.001: "kilometres, or millimetres divided twice",
    0.01: "divided by 100", 5.0: "a PNG of 5000 steps a metre read as millimetres",
    0.2: "millimetres read as 5000 steps a metre", 1000 / 256: "a PNG of 256 steps a metre read as millimetres",
    0.256: "millimetres read as 256 steps a metre", 256.0: "a PNG of 256 steps a metre read as it is",
    5000.0: "a PNG of 5000 steps a metre read as it is", 65535.0: "16-bit codes", 255.0: "8-bit codes",
    1 / 0.3048: "feet", 10.0: "decimetres",
}  # fmt: skip
#: a median ratio within this factor of a known one is that one
_NEAR: Final = 1.2
#: normals further off than this, degrees, are tried in other readings
_WRONG_DEG: Final = 20.0
_POINTS: Final = 1024


def sampled(mask: NDArray[np.bool_], *maps: NDArray[Any], points: int = _POINTS) -> list[NDArray[np.float64]]:
    """Up to about `points` valid pixels, the same of every map, spread over the image; float64 [n] or [n, C]."""
    step = max(1, int((mask.size / (4 * points)) ** 0.5))
    grid = (slice(step // 2, None, step), slice(step // 2, None, step))
    if np.count_nonzero(mask[grid]) < min(64, points):
        grid = (slice(None), slice(None))
    inside = mask[grid]
    thin = max(1, int(np.count_nonzero(inside)) // points)
    return [m[grid][inside][::thin].astype(np.float64) for m in maps]


def depth_readings(pred: NDArray[np.float64], target: NDArray[np.float64], *, metric: bool) -> list[str]:
    """Notes on a depth that is scored as it is, or up to a factor.

    Parameters
    ----------
    pred, target : valid pixels, [n], metres
    metric : nothing is fitted, so that a unit matters
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p, t = np.log(pred), np.log(target)
    usable = np.isfinite(p) & np.isfinite(t)
    if np.count_nonzero(usable) < 16:
        return []
    p, t = p[usable], t[usable]
    if min(p.std(), t.std()) > 0.02 and np.corrcoef(p, t)[0, 1] < -0.5:
        return [f"{READING}the prediction is larger where the ground truth is nearer: is it a disparity (1/depth), "
                "given as a depth?"]  # fmt: skip
    if not metric:
        return []
    off = float(np.median(p - t))
    spread = float(np.median(np.abs(p - t - off)))
    if abs(off) < np.log(1.8) or spread > abs(off) / 2:
        return []
    return [f"{READING}the prediction divided by {factor:g} ({why})" for factor, why in DEPTH_FACTORS.items()
            if abs(off - np.log(factor)) < np.log(_NEAR)][:1]  # fmt: skip


def normal_readings(pred: NDArray[np.float64], target: NDArray[np.float64]) -> list[str]:
    """Notes on normals whose axes, order of channels or code may be others; all that fit equally well.

    Parameters
    ----------
    pred, target : valid pixels, [n, 3], x right, y down, z forward
    """
    if len(pred) < 16:
        return []
    now = _mean_degrees(pred, target)
    if now < _WRONG_DEG:
        return []
    # whichever faces the camera less is the one that is read wrongly
    whose = "ground truth" if target[:, 2].mean() > pred[:, 2].mean() + 0.1 else "prediction"
    given, other = (target, pred) if whose == "ground truth" else (pred, target)
    tried = [(_mean_degrees(value, other), text) for text, value in normal_forms(given)]
    best = min(degrees for degrees, _ in tried)
    if best > now / 2 or now - best < 15.0:
        return []
    return [f"{READING}the {whose} {text}" for degrees, text in tried if degrees < best + 1.0]


def normal_forms(value: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Every form that normals are found in but the given one, the likeliest first, and the values read so."""
    named = {signs: name for name, signs in NORMAL_FRAMES.items()} | {(-1, -1, 1): "pytorch3d"}
    signs = sorted(product((1, -1), repeat=3), key=lambda s: s not in named)
    codes = [("", value)]
    if value.min() >= -1e-3:
        codes.append((" as codes of (n + 1) / 2", value * 2 - 1))
    for (code, decoded), (order, step) in product(codes, (("", 1), (" with the channels as BGR", -1))):
        for x, y, z in signs:
            if (code, order, (x, y, z)) == ("", "", (1, 1, 1)):
                continue
            # signs of a file in the frame opengl whose channels were exchanged before they were applied
            frame = " in the file, which is opengl" if order and (x, y, z) == (-1, 1, -1) else _frame((x, y, z), named)
            yield f"read{code}{order}{frame}", decoded[:, ::step] * np.array((x, y, z))


def _frame(signs: tuple[int, int, int], named: Mapping[tuple[int, int, int], str]) -> str:
    if signs == (1, 1, 1):
        return ""
    ways = (("right", "left"), ("down", "up"), ("forward", "to the camera"))
    axes = ", ".join(f"{a} {way[s < 0]}" for a, s, way in zip("xyz", signs, ways, strict=True))
    if signs == NORMAL_FRAMES["dsine"]:
        axes = "vectors that point away from the camera"
    return f" in the frame {named[signs]} ({axes})" if signs in named else f" in the frame {axes}"


def _mean_degrees(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.einsum("nc,nc->n", a, b) / np.sqrt(np.einsum("nc,nc->n", a, a) * np.einsum("nc,nc->n", b, b))
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    angles = angles[np.isfinite(angles)]
    return float(angles.mean()) if angles.size else float("inf")


def colour_readings(pred: NDArray[np.float64], target: NDArray[np.float64]) -> list[str]:
    """Notes on albedo or irradiance, linear [n, 3]: channels in the other order, encoded values given as linear ones.

    Each reading is compared after the scale that fits it best.
    """
    if len(pred) < 16 or not np.isfinite(pred).all():
        return []
    now = _left_over(pred, target)
    tried = [("with the channels as BGR", pred[:, ::-1])]
    if pred.min() >= 0 and pred.max() <= 1:
        tried += [("as encoded (sRGB) values", color.decode(pred, "srgb")), ("as linear values, not as encoded ones",
                                                                            color.encode(pred, "srgb"))]  # fmt: skip
    return [f"{READING}the prediction read {text}" for text, value in tried if now > 0.1 * float((target**2).mean())
            ** 0.5 and _left_over(value, target) < now / 4]  # fmt: skip


def _left_over(pred: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """RMS difference after one least-squares scale."""
    scale = float((pred * target).sum()) / max(float((pred * pred).sum()), 1e-300)
    return float(((scale * pred - target) ** 2).mean() ** 0.5)
