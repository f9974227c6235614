"""Rays against a room, boxes and spheres: the nearest surface, its normal and its surface coordinates.

The world's frame is the room's: x right, y down, z forward, metres, with the camera in the origin. A ray's
direction has length 1 along the optical axis, so the ray parameter of a hit is its depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.exact import Array, Matrix, Triple, Vec, apply, dot, point, take, transpose
from reasonx_eval.datasets.scenes.textures import Texture

FAR = 1e9
#: rays below which leaving some out costs more calls than it saves arithmetic
WORTHWHILE = 4096
ORIGIN: Triple = (0.0, 0.0, 0.0)


def _nonzero(d: Array) -> Array:
    """A direction without exact zeros: a ray parallel to a slab is nearly parallel instead."""
    zero = d == 0.0
    return np.where(zero, 1e-30, d) if zero.any() else d


def _slabs(origin: Vec, direction: Vec, half: Triple) -> tuple[list[Array], list[Array]]:
    """Where rays enter, with the sign turned, and where they leave each of the three slabs |x| <= half."""
    entered, left = [], []
    for o, d, h in zip(origin, direction, half, strict=True):
        inverse = 1.0 / _nonzero(d)
        middle = o * inverse
        reach = np.abs(inverse)
        reach *= h
        entered.append(middle + reach)
        left.append(reach - middle)
    return entered, left


def _may_meet(centre: Triple, radius: float, origin: Vec, direction: Vec) -> NDArray[np.intp] | None:
    """Which rays come within `radius` of a point, and a few more; None where nothing is gained by leaving rays out.

    The test costs a fifth of that of a box. It errs by far less than the margin, so no ray that hits is left out.
    """
    if direction[0].size < WORTHWHILE and origin[0].size < WORTHWHILE:
        return None
    to = (centre[0] - origin[0], centre[1] - origin[1], centre[2] - origin[2])
    along = dot(direction, to)
    beside = dot(to, to) - (1.001 * radius) ** 2
    near = along * along >= dot(direction, direction) * beside
    near &= (along > 0.0) | (beside < 0.0)
    return np.flatnonzero(near)


def _where(v: Vec, index: NDArray[np.intp]) -> Vec:
    """The rays of an index; values that all rays share are not indexed."""
    return v if v[0].ndim == 0 else take(v, index)


@dataclass(frozen=True)
class Hit:
    """The points of one surface that a subset of rays hits: world normals and surface coordinates in metres.

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

    @cached_property
    def _radius(self) -> float:
        return math.sqrt(self.half[0] ** 2 + self.half[1] ** 2 + self.half[2] ** 2)

    def enter(self, origin: Vec, direction: Vec) -> Array:
        """The ray parameter at which each ray enters from outside, FAR where it does not."""
        near = _may_meet(self.centre, self._radius, origin, direction)
        if near is None:
            return self._enter(origin, direction)
        entered = np.full(max(origin[0].size, direction[0].size), FAR)
        if near.size:
            entered[near] = self._enter(_where(origin, near), _where(direction, near))
        return entered

    def _enter(self, origin: Vec, direction: Vec) -> Array:
        entered, left = _slabs(*self._local(origin, direction), self.half)
        first = -np.minimum(np.minimum(entered[0], entered[1]), entered[2])
        last = np.minimum(np.minimum(left[0], left[1]), left[2])
        return np.where((first <= last) & (first > 1e-6), first, FAR)

    def surface(self, direction: Vec, depth: Array) -> Hit:
        """The sides that rays from the camera, which all hit this box at `depth`, enter through."""
        origin, d = self._local(point(ORIGIN), direction)
        entered, _ = _slabs(origin, d, self.half)
        axis = np.argmin(np.stack(entered), axis=0)
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
    """The point that every ray of a picture hits, flat arrays [N].

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


def joined(views: Sequence[View]) -> View:
    """Views of successive blocks of rays as one."""
    if len(views) == 1:
        return views[0]

    def vector(of: Callable[[View], Vec]) -> Vec:
        x, y, z = (np.concatenate([of(view)[k] for view in views]) for k in range(3))
        return x, y, z

    return View(
        depth=np.concatenate([view.depth for view in views]),
        position=vector(lambda view: view.position),
        normal=vector(lambda view: view.normal),
        surface=np.concatenate([view.surface for view in views]),
        face=np.concatenate([view.face for view in views]),
        albedo=vector(lambda view: view.albedo),
    )
