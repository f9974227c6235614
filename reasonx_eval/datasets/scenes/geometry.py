"""Rays against a room, boxes and spheres: the nearest surface, its normal and its surface coordinates.

The world's frame is the room's: x right, y down, z forward, metres, with the camera in the origin. A ray's
direction has length 1 along the optical axis, so the ray parameter of a hit is its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.exact import Array, Matrix, Triple, Vec, apply, dot, point, take, transpose
from reasonx_eval.datasets.scenes.textures import Texture

FAR = 1e9
ORIGIN: Triple = (0.0, 0.0, 0.0)


def _nonzero(d: Array) -> Array:
    """A direction without exact zeros: a ray parallel to a slab is nearly parallel instead."""
    return np.where(d == 0.0, 1e-30, d)


def _slabs(origin: Vec, direction: Vec, half: Triple) -> tuple[list[Array], list[Array]]:
    """Where rays enter and leave each of the three slabs |x| <= half."""
    near, far = [], []
    for o, d, h in zip(origin, direction, half, strict=True):
        inverse = 1.0 / _nonzero(d)
        middle = o * inverse
        reach = h * np.abs(inverse)
        near.append(-middle - reach)
        far.append(reach - middle)
    return near, far


@dataclass(frozen=True)
class Hit:
    """What a subset of rays sees of one surface: world normals and surface coordinates in metres.

    u, v : the two coordinates along the surface; face : which side, 0-5 (x, y, z; the negative side first)
    """

    normal: Vec
    u: Array
    v: Array
    face: NDArray[np.int8]


def _project(axis: NDArray[np.intp], local: Vec) -> tuple[Array, Array]:
    """The two coordinates that remain when the one along `axis` is dropped."""
    x, y, z = local
    return np.where(axis == 0, z, x), np.where(axis == 1, z, y)


@dataclass(frozen=True)
class Box:
    """A solid box: centre, half sizes, and the turn from its own frame to the world's."""

    centre: Triple
    half: Triple
    turn: Matrix
    texture: Texture

    def _local(self, origin: Vec, direction: Vec) -> tuple[Vec, Vec]:
        back = transpose(self.turn)
        moved = (origin[0] - self.centre[0], origin[1] - self.centre[1], origin[2] - self.centre[2])
        return apply(back, moved), apply(back, direction)

    def enter(self, origin: Vec, direction: Vec) -> Array:
        """The ray parameter at which each ray enters from outside, FAR where it does not."""
        near, far = _slabs(*self._local(origin, direction), self.half)
        first = np.maximum(np.maximum(near[0], near[1]), near[2])
        last = np.minimum(np.minimum(far[0], far[1]), far[2])
        return np.where((first <= last) & (first > 1e-6), first, FAR)

    def surface(self, direction: Vec, depth: Array) -> Hit:
        """The sides that rays from the camera, which all hit this box at `depth`, enter through."""
        origin, d = self._local(point(ORIGIN), direction)
        near, _ = _slabs(origin, d, self.half)
        axis = np.argmax(np.stack(near), axis=0)
        local = (origin[0] + depth * d[0], origin[1] + depth * d[1], origin[2] + depth * d[2])
        sides = [np.where(axis == k, np.where(d[k] > 0.0, -1.0, 1.0), 0.0) for k in range(3)]
        u, v = _project(axis, local)
        positive = (sides[0] + sides[1] + sides[2]) > 0.0
        return Hit(apply(self.turn, (sides[0], sides[1], sides[2])), u, v, (2 * axis + positive).astype(np.int8))


@dataclass(frozen=True)
class Sphere:
    centre: Triple
    radius: float
    texture: Texture

    def enter(self, origin: Vec, direction: Vec) -> Array:
        """The ray parameter at which each ray enters from outside, FAR where it does not."""
        to = (self.centre[0] - origin[0], self.centre[1] - origin[1], self.centre[2] - origin[2])
        along = dot(direction, to)
        square = dot(direction, direction)
        rest = along * along - square * (dot(to, to) - self.radius * self.radius)
        first = (along - np.sqrt(np.maximum(rest, 0.0))) / square
        return np.where((rest > 0.0) & (first > 1e-6), first, FAR)

    def surface(self, direction: Vec, depth: Array) -> Hit:
        """Normals, and texture coordinates by projection along the largest coordinate of the normal."""
        c, inverse = self.centre, 1.0 / self.radius
        local = (depth * direction[0] - c[0], depth * direction[1] - c[1], depth * direction[2] - c[2])
        length = 1.0 / np.sqrt(dot(local, local))
        normal = (local[0] * length, local[1] * length, local[2] * length)
        size = np.stack([np.abs(local[0]), np.abs(local[1]), np.abs(local[2])]) * inverse
        axis = np.argmax(size, axis=0)
        u, v = _project(axis, local)
        signed = np.where(axis == 0, local[0], np.where(axis == 1, local[1], local[2]))
        return Hit(normal, u, v, (2 * axis + (signed > 0.0)).astype(np.int8))


Solid: TypeAlias = Box | Sphere


@dataclass(frozen=True)
class Room:
    """The inside of a box that contains the camera.

    low, high : corners; high[1] is the floor, low[1] the ceiling
    textures : of the sides -x, +x, -y (ceiling), +y (floor), -z, +z
    """

    low: Triple
    high: Triple
    textures: tuple[Texture, ...]

    def leave(self, origin: Vec, direction: Vec) -> tuple[Array, NDArray[np.int8]]:
        """Where rays from inside meet the room, and on which side (0-5)."""
        exits, forward = [], []
        for o, d, low, high in zip(origin, direction, self.low, self.high, strict=True):
            d = _nonzero(d)
            ahead = d > 0.0
            exits.append((np.where(ahead, high, low) - o) / d)
            forward.append(ahead)
        first = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
        axis = np.where(exits[0] == first, 0, np.where(exits[1] == first, 1, 2))
        ahead = np.where(axis == 0, forward[0], np.where(axis == 1, forward[1], forward[2]))
        return first, (2 * axis + ahead).astype(np.int8)

    def surface(self, direction: Vec, depth: Array, face: NDArray[np.int8]) -> Hit:
        axis = (face >> 1).astype(np.intp)
        inward = np.where((face & 1) == 1, -1.0, 1.0)
        normal = tuple(np.where(axis == k, inward, 0.0) for k in range(3))
        local = (depth * direction[0], depth * direction[1], depth * direction[2])
        u, v = _project(axis, local)
        return Hit((normal[0], normal[1], normal[2]), u, v, face)


@dataclass(frozen=True)
class View:
    """What every ray of a picture sees, flat arrays [N].

    depth : along the optical axis, metres; position, normal : world frame
    surface : 0 the room, k the k-th solid counted from 1; face : side of the room (0-5), -1 on solids
    """

    depth: Array
    position: Vec
    normal: Vec
    surface: NDArray[np.int16]
    face: NDArray[np.int8]
    albedo: Vec


def trace(room: Room, solids: Sequence[Solid], direction: Vec) -> View:
    """Cast rays from the camera: nearest surface, its normal and its albedo."""
    depth, face = room.leave(point(ORIGIN), direction)
    surface = np.zeros(depth.shape, dtype=np.int16)
    for number, solid in enumerate(solids, start=1):
        entered = solid.enter(point(ORIGIN), direction)
        closer = entered < depth
        np.copyto(depth, entered, where=closer)
        np.copyto(surface, number, where=closer)
    normal = (np.empty_like(depth), np.empty_like(depth), np.empty_like(depth))
    albedo = (np.empty_like(depth), np.empty_like(depth), np.empty_like(depth))

    def paint(texture: Texture, hit: Hit, index: NDArray[np.intp]) -> None:
        colour = texture.albedo(hit.u, hit.v, hit.face)
        for k in range(3):
            normal[k][index] = hit.normal[k]
            albedo[k][index] = colour[k]

    face[surface > 0] = -1
    for side in range(6):
        index = np.flatnonzero(face == side)
        if index.size:
            paint(room.textures[side], room.surface(take(direction, index), depth[index], face[index]), index)
    for number, solid in enumerate(solids, start=1):
        index = np.flatnonzero(surface == number)
        if index.size:
            paint(solid.texture, solid.surface(take(direction, index), depth[index]), index)
    position = (depth * direction[0], depth * direction[1], depth * direction[2])
    return View(depth, position, normal, surface, face, albedo)
