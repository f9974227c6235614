"""Light that falls on surfaces: point lights, sunlight, ambient light. All Lambertian, with hard shadows.

Irradiance is in units in which a white surface under 1 is as bright as the camera can show at nominal exposure;
the constant 1/pi of a Lambertian surface is part of the unit, so that radiance = albedo x irradiance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reasonx_eval.datasets.scenes.exact import Array, Triple, Vec, dot, point, take
from reasonx_eval.datasets.scenes.geometry import Room, Solid, View


@dataclass(frozen=True)
class PointLight:
    """A lamp: irradiance colour * cos(angle) / distance**2 where nothing is in between."""

    position: Triple
    colour: Triple


@dataclass(frozen=True)
class Window:
    """A rectangle in one side of the room, divided into panes, that lets sunlight in.

    face : side of the room, 0-5; centre, half : along the two remaining axes in the order of x, y, z
    panes : how many along each; bar : share of a pane that its bar covers
    """

    face: int
    centre: tuple[float, float]
    half: tuple[float, float]
    panes: tuple[int, int] = (1, 1)
    bar: float = 0.0

    def opens(self, where: Vec) -> Array:
        """Whether points of that side of the room lie in an open pane (bool)."""
        along = [where[k] for k in range(3) if k != self.face >> 1]
        open_ = np.ones(along[0].shape, dtype=bool)
        for x, c, h, panes in zip(along, self.centre, self.half, self.panes, strict=True):
            place = (x - c + h) / (2.0 * h)
            pane = place * panes
            open_ &= (place >= 0.0) & (place < 1.0) & (pane - np.floor(pane) >= self.bar)
        return open_


@dataclass(frozen=True)
class SunLight:
    """Parallel light from `direction` (unit, towards the light): irradiance colour * cos(angle).

    window : where it enters; None lets it in everywhere (a large, far fill light), past the solids only
    """

    direction: Triple
    colour: Triple
    window: Window | None = None


@dataclass(frozen=True)
class Ambient:
    """Light from all sides.

    colour : its irradiance on a surface that faces up
    slope : how much less a surface that faces down gets, in [0, 1]
    corner, reach : darkening beside the room's sides (share at contact), and the distance [m] where half is left
    """

    colour: Triple
    slope: float = 0.0
    corner: float = 0.0
    reach: float = 0.3

    def falls_on(self, room: Room, view: View) -> Array:
        """The share of the ambient light that reaches each surface point."""
        share = 1.0 - self.slope * (0.5 + 0.5 * view.normal[1])
        if self.corner > 0.0:
            for k in range(3):
                x = view.position[k]
                gap = np.maximum(np.minimum(x - room.low[k], room.high[k] - x), 0.0)
                # a side does not darken what lies in it
                gap = gap + 10.0 * np.abs(view.normal[k])
                share = share * (1.0 - self.corner * self.reach / (self.reach + gap))
        return share


@dataclass(frozen=True)
class Lighting:
    ambient: Ambient
    points: tuple[PointLight, ...] = ()
    suns: tuple[SunLight, ...] = ()

    def scaled(self, factor: float) -> Lighting:
        """The same lights, all `factor` times as strong."""

        def times(c: Triple) -> Triple:
            return c[0] * factor, c[1] * factor, c[2] * factor

        return Lighting(
            replace(self.ambient, colour=times(self.ambient.colour)),
            tuple(replace(p, colour=times(p.colour)) for p in self.points),
            tuple(replace(s, colour=times(s.colour)) for s in self.suns),
        )


def _from_point(light: PointLight, solids: Sequence[Solid], view: View) -> Array:
    source = light.position
    to = (source[0] - view.position[0], source[1] - view.position[1], source[2] - view.position[2])
    facing = dot(view.normal, to)
    share = np.zeros_like(facing)
    lit = np.flatnonzero(facing > 0.0)
    away = take(to, lit)
    ray = (-away[0], -away[1], -away[2])
    clear = np.ones(lit.shape, dtype=bool)
    for solid in solids:
        # rays run from the lamp to the surface, which is at parameter 1
        clear &= solid.enter(point(source), ray) > 1.0 - 1e-6
    square = dot(away, away)
    share[lit] = np.where(clear, facing[lit] / (square * np.sqrt(square)), 0.0)
    return share


def _from_sun(light: SunLight, room: Room, solids: Sequence[Solid], view: View) -> Array:
    towards = point(light.direction)
    facing = dot(view.normal, towards)
    share = np.zeros_like(facing)
    lit = np.flatnonzero(facing > 0.0)
    start = take(view.position, lit)
    if light.window is not None:
        distance, face = room.leave(start, towards)
        end = (start[0] + distance * towards[0], start[1] + distance * towards[1], start[2] + distance * towards[2])
        keep = np.flatnonzero((face == light.window.face) & light.window.opens(end))
        lit, start = lit[keep], take(start, keep)
    clear = np.ones(lit.shape, dtype=bool)
    for solid in solids:
        clear &= solid.enter(start, towards) > FAR_ENOUGH
    share[lit] = np.where(clear, facing[lit], 0.0)
    return share


#: beyond any room: a solid that is entered later than this is not entered at all
FAR_ENOUGH = 1e6


def irradiance(lighting: Lighting, room: Room, solids: Sequence[Solid], view: View) -> Vec:
    """Linear RGB irradiance at every point of the view."""
    parts = [(lighting.ambient.falls_on(room, view), lighting.ambient.colour)]
    parts += [(_from_point(p, solids, view), p.colour) for p in lighting.points]
    parts += [(_from_sun(s, room, solids, view), s.colour) for s in lighting.suns]

    def channel(k: int) -> Array:
        total = parts[0][0] * parts[0][1][k]
        for share, colour in parts[1:]:
            total = total + share * colour[k]
        return total

    return channel(0), channel(1), channel(2)
