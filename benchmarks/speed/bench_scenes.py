"""Rendering of the procedural scenes: at the size of the suite, where calls are the limit, and at a photo's size.

The bound is the least arithmetic of tracing: for every ray of the camera, and as many to each light, one test against
each solid, all solids at once, in blocks that stay in the cache, by whatever arithmetic is quickest. The product leaves
out rays that can't meet a solid, but everything else comes on top: patterns, light, the camera's response, and the
questions about a scene.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.speed.conftest import Measure, Role
from reasonx_eval.datasets.scenes.dataset import ScenesSynthetic, ScenesWild
from reasonx_eval.datasets.scenes.geometry import FAR, Box
from reasonx_eval.datasets.scenes.layout import World
from reasonx_eval.datasets.scenes.render import rays, render_scene, render_world
from reasonx_eval.io.blocks import BLOCK

GROUP = "scenes: {} of {}, {}x{}"
SPLIT = "test"
#: domain, size, scenes a call
CASES = (("synthetic", (96, 128), 10), ("wild", (96, 128), 10), ("wild", (480, 640), 2))
Floats = NDArray[np.float64]


def loaded(domain: str, size: tuple[int, int], count: int) -> None:
    """Scenes as the product gives them: drawn, probed, rendered, developed, with all their targets."""
    kind = {"synthetic": ScenesSynthetic, "wild": ScenesWild}[domain]
    dataset = kind(None, SPLIT, {"size": f"{size[0]}x{size[1]}"})
    for sample_id in dataset.ids[:count]:
        assert dataset.load(sample_id).image.shape == (*size, 3)


def worlds(domain: str, size: tuple[int, int], count: int) -> list[World]:
    return [render_scene(domain, SPLIT, index, size).world for index in range(count)]


def _boxes(world: World) -> tuple[Floats, Floats, Floats]:
    """Of the solids, spheres as their boxes: turns [S, 3, 3] from world to box, centres [S, 3], half sizes [S, 3]."""
    turns, centres, halves = [], [], []
    for solid in world.solids:
        turns.append(np.array(solid.turn).T if isinstance(solid, Box) else np.eye(3))
        halves.append(solid.half if isinstance(solid, Box) else (solid.radius,) * 3)
        centres.append(solid.centre)
    return np.array(turns), np.array(centres), np.array(halves)


def nearest(world: World, size: tuple[int, int], origin: Floats) -> Floats:
    """Where rays of the camera's directions, from `origin`, first enter a box; FAR where they meet none."""
    turns, centres, halves = _boxes(world)
    local = np.einsum("sij,sj->si", turns, origin - centres)
    directions = np.stack(rays(world, size))
    step = max(1, BLOCK // max(1, len(turns)))
    found = np.empty(directions.shape[1])
    for start in range(0, directions.shape[1], step):
        part = directions[:, start : start + step]
        first, last = np.full((len(turns), part.shape[1]), -FAR), np.full((len(turns), part.shape[1]), FAR)
        for axis in range(3):
            inverse = np.reciprocal(turns[:, axis] @ part)
            middle = local[:, axis, None] * inverse
            np.abs(inverse, out=inverse)
            inverse *= halves[:, axis, None]
            np.maximum(first, -middle - inverse, out=first)
            np.minimum(last, inverse - middle, out=last)
        hit = (first <= last) & (first > 1e-6)
        found[start : start + step] = np.where(hit, first, FAR).min(axis=0, initial=FAR)
    return found


def against_solids(every: list[World], size: tuple[int, int]) -> None:
    """The tests of the camera's rays, and of as many rays to each lamp."""
    for world in every:
        lights = len(world.lighting.points) + len(world.lighting.suns)
        for _ in range(1 + lights):
            nearest(world, size, np.zeros(3))


def assert_tests_are_right(every: list[World]) -> None:
    """The same nearest boxes as in the rendered picture, where it shows a box."""
    size = (24, 32)
    for world in every:
        scene = render_world(world, size)
        boxes = [k for k, solid in enumerate(world.solids, start=1) if isinstance(solid, Box)]
        shown = np.isin(scene.surface, boxes).ravel()
        only = World(world.room, tuple(world.solids[k - 1] for k in boxes), world.lighting, world.camera, world.pose)
        np.testing.assert_allclose(nearest(only, size, np.zeros(3))[shown], scene.depth.ravel()[shown], rtol=1e-9)


def _cases() -> list[Any]:
    return [
        pytest.param(role, domain, size, count, marks=pytest.mark.benchmark(group=GROUP.format(count, domain, *size)))
        for domain, size, count in CASES for role in ("ours", "bound")
    ]  # fmt: skip


@pytest.mark.parametrize(("role", "domain", "size", "count"), _cases())
def test_scenes(measure: Measure, role: Role, domain: str, size: tuple[int, int], count: int) -> None:
    every = worlds(domain, size, count)

    def bound() -> None:
        against_solids(every, size)

    if role == "bound":
        assert_tests_are_right(every)
        measure("bound", bound, form="tests of rays against solids alone")
        return
    assert picture_digest(domain, size) == picture_digest(domain, size)
    measure("ours", lambda: loaded(domain, size, count), form="drawn, rendered, developed, with all targets",
            against=bound, against_form="tests of rays against solids alone")  # fmt: skip


def picture_digest(domain: str, size: tuple[int, int]) -> str:
    """Of one picture: the same bytes every time are part of what is timed."""
    return hashlib.sha256(render_scene(domain, SPLIT, 0, size).image().tobytes()).hexdigest()
