"""Made-up files of datasets: ground truth from formulas, and the values that a reader must find in the files.

Every dataset writes a few samples in its own format (`Dataset.examples`). The self-test reads them back and puts
oracles through every protocol on them; tests and benchmarks take the same writers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.types import FIRST, SAME, SECOND, DepthTarget, JudgementTarget, MapTarget, NormalTarget, Target

_GRID = (6, 8)
#: tolerances of `Example`: photos that are stored exactly, and as JPEG; maps that are stored exactly
PNG: Final = {"photo": 0.0}
JPEG: Final = {"photo": 3.0}
EXACT: Final = {"depth": 1e-6, "normals": 1e-3}
#: targets of generic protocols, for `Example.offers`
MAPS: Final = ("depth", "normals", "albedo", "irradiance")


@dataclass(frozen=True)
class Written:
    """The ground truth and the photo that the files of one sample hold.

    targets : by name; "depth.filled" is the depth of a dataset opened with an option of that value
    photo : uint8 [H, W, 3], or None where the loader derives it
    """

    targets: Mapping[str, Target]
    photo: NDArray[np.uint8] | None = None

    def target(self, name: str, options: Mapping[str, Any]) -> Target | None:
        for value in options.values():
            if f"{name}.{value}" in self.targets:
                return self.targets[f"{name}.{value}"]
        return self.targets.get(name)


@dataclass(frozen=True)
class Example:
    """One layout of one dataset, as files that can be written.

    write : writes two or so samples below a folder and returns their content; None for rendered datasets
    tolerance : target -> how much encoding may change it: metres, degrees, linear value, and codes of the photo
    options : how the dataset is opened; split : only for protocols that name none
    refused : options that this layout can't serve and must refuse
    only : the protocols this example is read for (all of its dataset, if empty)
    offers : targets it gives to protocols that serve any dataset
    """

    name: str
    dataset: str
    write: Callable[[Path], Mapping[str, Written]] | None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = "all"
    refused: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()


def depth_target(depth: NDArray[Any], valid: NDArray[np.bool_]) -> DepthTarget:
    return DepthTarget(depth.astype(np.float32), valid)


def normal_target(truth: Truth, valid: NDArray[np.bool_]) -> NormalTarget:
    return NormalTarget(truth.normal.astype(np.float32), valid)


def map_target(value: NDArray[np.float64], valid: NDArray[np.bool_]) -> MapTarget:
    rgb = value if value.ndim == 3 else np.repeat(value[..., None], 3, axis=2)
    return MapTarget(rgb.astype(np.float32), valid)


def normal_codes(vectors: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(n + 1) / 2 in 8 bit; black where there is none."""
    return np.where(seen[..., None], np.rint((vectors + 1) * 127.5), 0).astype(np.uint8)


def everywhere(truth: Truth) -> NDArray[np.bool_]:
    return np.ones(truth.seen.shape, dtype=np.bool_)


def millimetres(depth: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Metres as 16-bit codes."""
    return np.asarray(np.rint(depth * 1000.0), dtype=np.uint16)


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> bytes:
    """An 8-bit photo; returns the file's bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@dataclass(frozen=True)
class Truth:
    """Exact maps of one made-up scene.

    depth : float64 [H, W], metres, 0.8 to 6.7
    normal : float64 [H, W, 3], unit, x right, y down, z forward, facing the camera
    albedo : float64 [H, W, 3], linear, 0.15 to 0.9
    light : float64 [H, W], linear, 0.2 to 1
    seen : bool [H, W], false on a border and in a disc, as where nothing was measured
    photo : uint8 [H, W, 3], albedo times light, sRGB
    """

    depth: NDArray[np.float64]
    normal: NDArray[np.float64]
    albedo: NDArray[np.float64]
    light: NDArray[np.float64]
    seen: NDArray[np.bool_]
    photo: NDArray[np.uint8]


def smooth_truth(height: int, width: int, number: int) -> Truth:
    """The maps of scene `number` at a size; different numbers give different scenes."""
    x = ((np.arange(width) + 0.5) / width)[None, :]
    y = ((np.arange(height) + 0.5) / height)[:, None]
    turn = 2 * np.pi
    phase = 0.37 * number
    wave = np.sin(turn * (x + phase)) * np.cos(turn * y)
    across = 0.5 * np.sin(turn * (1.5 * x + phase)) + 0 * y
    down = 0.25 + 0.45 * np.cos(turn * (y + 0.5 * x))
    normal = np.stack([across, down, np.full((height, width), -1.0)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    # checks of 8 x 6 fields keep edges in the albedo, as in a picture
    field = (np.floor(8 * x) + np.floor(6 * y) + number) % 3
    albedo = np.stack([0.25 + 0.2 * ((field + c) % 3) + 0.1 * wave + 0.05 * c for c in range(3)], axis=-1)
    light = 0.6 + 0.3 * np.cos(turn * (x - 0.5 * y)) + 0.1 * y
    seen = (x - 0.6) ** 2 + (y - 0.4) ** 2 > 0.03
    seen &= (np.minimum(x, 1 - x) > 0.02) & (np.minimum(y, 1 - y) > 0.02)
    return Truth(
        # a factor of 8 between near and far, so that even delta3 tells a shuffled map from a good one
        depth=0.9 * np.exp(1.1 * x + 0.9 * y) * (1 + 0.15 * wave),
        normal=normal,
        albedo=albedo,
        light=light,
        seen=seen,
        photo=np.rint(linear_to_srgb(np.clip(albedo * light[..., None], 0, 1)) * 255).astype(np.uint8),
    )


@dataclass(frozen=True)
class Judged:
    """Judgements as the rows of an official file, and those of them that count.

    points : (id, x, y, opaque)
    comparisons : (point1, point2, darker, darker_score), by the points' ids
    counted : those that a reader must keep
    """

    points: list[tuple[int, float, float, Any]]
    comparisons: list[tuple[int, int, Any, Any]]
    counted: JudgementTarget


def graded_judgements(number: int) -> Judged:
    """Neighbours on a grid whose reflectance is 1, 1/2, 1/4 or 1/8.

    Four grades, because min-max rescaling to [0.5, 1] (a published rule) can't keep five apart. After every fourth
    comparison comes one that would be wrong and must not count: it has no score, score 0, no answer, or a point that
    is not opaque.
    """
    rows, columns = _GRID
    grade = [[(r // 2 + c // 3 + number) % 4 for c in range(columns)] for r in range(rows)]
    at = [(100 + 7 * k, *divmod(k, columns)) for k in range(rows * columns)]
    points: list[tuple[int, float, float, Any]] = [
        (key, (c + 0.31 + 0.02 * r) / columns, (r + 0.42 + 0.01 * c) / rows, True) for key, r, c in at
    ]
    # a copy of the first point that is a mirror, so that nothing said about it counts
    glass = len(points)
    points.append((1, points[0][1], points[0][2], False))
    said: list[tuple[int, int, Any, Any]] = []
    kept: list[tuple[int, int, int, float]] = []
    steps = [(a, b) for a in range(glass) for b in (a + 1, a + columns)
             if b < glass and (b != a + 1 or b % columns)]  # fmt: skip
    for k, (a, b) in enumerate(steps):
        first, second = (grade[i // columns][i % columns] for i in (a, b))
        darker = SAME if first == second else FIRST if first > second else SECOND
        weight = 0.5 + 0.01 * k
        kept.append((a, b, darker, weight))
        said.append((points[a][0], points[b][0], {SAME: "E", FIRST: "1", SECOND: "2"}[darker], weight))
        if k % 4 == 0:
            said.append(_not_counted(k // 4 % 4, points[a][0], points[b][0], points[glass][0], darker))
    counted = JudgementTarget(
        points=np.array([(px, py) for _, px, py, _ in points]),
        pairs=np.array([(a, b) for a, b, _, _ in kept], dtype=np.int64),
        darker=np.array([d for _, _, d, _ in kept], dtype=np.int8),
        weight=np.array([w for _, _, _, w in kept]),
    )
    return Judged(points, said, counted)


def _not_counted(which: int, first: int, second: int, mirror: int, darker: int) -> tuple[int, int, Any, Any]:
    wrong = "2" if darker == FIRST else "1"
    rows = ((first, second, wrong, None), (first, second, wrong, 0.0), (first, second, None, 1.0),
            (mirror, second, wrong, 1.0))  # fmt: skip
    return rows[which]
