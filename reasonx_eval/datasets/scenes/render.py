"""Sample k of a split as a scene: drawn, checked on a small probe, rendered at any size.

Everything that a scene depends on (acceptance, light level) is measured on a probe of fixed size, so the same
scene is rendered whatever size is asked for; only sensor noise and the grid of pixels differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.camera import develop
from reasonx_eval.datasets.scenes.domains import DOMAINS, Domain
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import Array, Vec, apply, mean, transpose
from reasonx_eval.datasets.scenes.geometry import View, joined, trace
from reasonx_eval.datasets.scenes.layout import NEAREST, World, draw_world
from reasonx_eval.datasets.scenes.light import irradiance
from reasonx_eval.io.blocks import BLOCK

#: of every stream of the suite; changing it, or any draw, makes other data sets
SEED = 20_250_101
PROBE = (24, 32)
#: the brightest tenth of a probe begins at this linear level at nominal exposure
BRIGHT = 0.55
MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class Scene:
    """A rendered scene with its exact maps, float64; linear == albedo * irradiance to the last bit.

    linear, albedo, irradiance : [H, W, 3], linear RGB; the camera's response comes after `linear`
    depth : [H, W], metres along the optical axis
    normal : [H, W, 3], camera frame x right, y down, z forward
    surface : int16 [H, W], 0 the room, k the k-th solid
    world : the scene that was rendered; attempt : how many draws were rejected before it
    """

    domain: str
    split: str
    index: int
    attempt: int
    world: World
    linear: Array
    albedo: Array
    irradiance: Array
    depth: Array
    normal: Array
    surface: NDArray[np.int16]

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.shape[0], self.depth.shape[1]

    @property
    def intrinsics(self) -> Array:
        """float64 [3, 3] in pixels; the centre of pixel (row r, column c) is at image position (c, r)."""
        return self.world.camera.intrinsics(*self.size)

    def image(self) -> NDArray[np.uint8]:
        """The camera's picture, uint8 [H, W, 3], sRGB."""
        return develop(self.linear, self.world.camera.response, stream(self, "noise"))


def stream(scene: Scene, purpose: str) -> Draw:
    """A stream of its own for each purpose, so that leaving one out does not move another."""
    return Draw(SEED, "scenes", scene.domain, scene.split, str(scene.index), purpose)


def rays(world: World, size: tuple[int, int]) -> Vec:
    """World directions of all pixels, flat, of length 1 along the optical axis."""
    height, width = size
    focal = world.camera.focal(width)
    x = (np.arange(width) - 0.5 * (width - 1)) / focal
    y = (np.arange(height) - 0.5 * (height - 1)) / focal
    flat = (np.tile(x, height), np.repeat(y, width), np.ones(height * width))
    return apply(world.camera.turn, flat)


def _maps(world: World, size: tuple[int, int]) -> tuple[View, Array, Array]:
    """View, albedo [N, 3] and irradiance [N, 3] of a world at a size.

    Rays don't know of each other, so they go in blocks whose arrays stay in the cache.
    """
    every = rays(world, size)
    n = every[0].size
    albedo, light = np.empty((n, 3)), np.empty((n, 3))
    views = []
    for start in range(0, n, BLOCK):
        part = slice(start, min(start + BLOCK, n))
        view = trace(world.room, world.solids, (every[0][part], every[1][part], every[2][part]))
        for k, share in enumerate(irradiance(world.lighting, world.room, world.solids, view)):
            light[part, k] = share
            albedo[part, k] = view.albedo[k]
        views.append(view)
    return joined(views), albedo, light


def render_world(world: World, size: tuple[int, int], domain: str = "", split: str = "", index: int = 0,
                 attempt: int = 0) -> Scene:  # fmt: skip
    """Render a world as it is; the last four only name the scene."""
    view, albedo, light = _maps(world, size)
    normal = np.stack(apply(transpose(world.camera.turn), view.normal), axis=-1)
    h, w = size
    albedo, light = albedo.reshape(h, w, 3), light.reshape(h, w, 3)
    return Scene(domain, split, index, attempt, world, albedo * light, albedo, light, view.depth.reshape(h, w),
                 normal.reshape(h, w, 3), view.surface.reshape(h, w))  # fmt: skip


def _luma(linear: Array) -> Array:
    return 0.299 * linear[..., 0] + 0.587 * linear[..., 1] + 0.114 * linear[..., 2]


def settle(world: World, domain: Domain) -> World | None:
    """The world with its lights set to the nominal level, or None where the picture would be a poor one."""
    view, albedo, light = _maps(world, PROBE)
    n = view.depth.size
    solid = int((view.surface > 0).sum())
    areas = np.bincount(np.where(view.surface > 0, 6 + view.surface, view.face))
    if not 0.08 * n <= solid <= 0.75 * n or int(areas.max()) > 0.7 * n or int((areas > 0.01 * n).sum()) < 4:
        return None
    if float(view.depth.min()) < NEAREST:
        return None
    bright = float(np.sort(_luma(albedo * light))[n * 9 // 10])
    if bright < 1e-3:
        return None
    settled = replace(world, lighting=world.lighting.scaled(BRIGHT / bright))
    linear = albedo * light * (BRIGHT / bright)
    picture = develop(linear.reshape(*PROBE, 3), replace(world.camera.response, quality=None), None)
    codes = _luma(picture.astype(np.float64))
    low, high = domain.mean_code
    ordered = np.sort(codes.ravel())
    contrast, middle = float(ordered[n * 9 // 10] - ordered[n // 10]), float(ordered[n // 2])
    return settled if low <= mean(codes) <= high and contrast >= 30.0 and middle >= 10.0 else None


def render_scene(domain: str, split: str, index: int, size: tuple[int, int] = (96, 128)) -> Scene:
    """Scene `index` of a split of a domain.

    Parameters
    ----------
    domain : "synthetic", "wild" or "broad".
    split : any name; each has its own stream.
    index : >= 0.
    size : height and width in pixels.

    Returns
    -------
    The scene in float64, the same bits on every machine.
    """
    family = DOMAINS[domain]
    for attempt in range(MAX_ATTEMPTS):
        draw = Draw(SEED, "scenes", domain, split, str(index), f"layout {attempt}")
        world = settle(draw_world(draw, family), family)
        if world is not None:
            return render_world(world, size, domain, split, index, attempt)
    raise AssertionError(f"{domain}/{split}/{index}: no acceptable scene in {MAX_ATTEMPTS} draws")
