"""Blocks of rays, bands of pixels and rays that are left out change no bit of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from reasonx_eval.datasets.scenes import camera, compression, geometry, render
from reasonx_eval.datasets.scenes.exact import IDENTITY, Vec, point, rotation
from reasonx_eval.datasets.scenes.geometry import FAR, Box
from reasonx_eval.datasets.scenes.render import Scene, render_scene
from reasonx_eval.datasets.scenes.textures import Texture

PLAIN = Texture("plain", ((0.5, 0.5, 0.5),) * 3)
MAPS = ("linear", "albedo", "irradiance", "depth", "normal", "surface")


def bits(scene: Scene) -> dict[str, bytes]:
    return {name: getattr(scene, name).tobytes() for name in MAPS} | {"image": scene.image().tobytes()}


@pytest.mark.parametrize(("domain", "index"), [("synthetic", 3), ("wild", 5), ("wild", 8), ("broad", 1)])
def test_blocks_of_any_size_give_the_same_bits(domain: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bits(render_scene(domain, "test", index, (50, 75)))
    monkeypatch.setattr(render, "BLOCK", 333)
    monkeypatch.setattr(geometry, "WORTHWHILE", 1)
    for module in (camera, compression):
        monkeypatch.setattr(module, "row_blocks", lambda height, width: (slice(k, min(k + 7, height))
                                                                         for k in range(0, height, 7)))  # fmt: skip
    assert bits(render_scene(domain, "test", index, (50, 75))) == whole


def _rays(rng: np.random.Generator, n: int) -> Vec:
    """Directions all around, some of them exactly along an axis."""
    d = rng.standard_normal((3, n))
    d[:, :30] = np.eye(3)[:, rng.integers(0, 3, 30)] * rng.choice([-1.0, 1.0], 30)
    return d[0], d[1], d[2]


@pytest.mark.parametrize("seed", range(6))
def test_no_ray_that_hits_is_left_out(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes before, around and behind where rays begin, turned and not, with rays that graze them."""
    rng = np.random.default_rng(seed)
    half = tuple(rng.uniform(0.2, 1.5, 3))
    turn = IDENTITY if seed % 2 else rotation(*rng.uniform(-90, 90, 3))
    box = Box((half[0] if seed % 2 else 2.0, *rng.uniform(-1, 1, 2)), (half[0], half[1], half[2]), turn, PLAIN)
    far = _rays(rng, 5000)
    lamp = point((0.0, 0.0, 0.0))
    starts = (rng.uniform(-3, 3, 5000), rng.uniform(-3, 3, 5000), rng.uniform(-3, 3, 5000))
    sun = point((0.6, -0.64, 0.48))
    hits = 0
    for origin, direction in ((lamp, far), (starts, sun), (starts, far)):
        monkeypatch.setattr(geometry, "WORTHWHILE", 1 << 30)
        every = box.enter(origin, direction)
        monkeypatch.setattr(geometry, "WORTHWHILE", 1)
        assert np.array_equal(box.enter(origin, direction), every)
        hits += np.count_nonzero(every < FAR)
    assert 50 < hits < 10_000  # a lamp that touches the box sees nothing of it
