"""Pieces of furniture made of boxes and spheres, around a base point on the floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from reasonx_eval.datasets.scenes.domains import Domain
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import IDENTITY, Matrix, Triple, rotation
from reasonx_eval.datasets.scenes.geometry import Box, Solid, Sphere
from reasonx_eval.datasets.scenes.palette import draw_texture
from reasonx_eval.datasets.scenes.textures import Texture

Size = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """Solids relative to the base point (up is -y) and the radius of the disc on the floor that they need."""

    solids: tuple[Solid, ...]
    radius: float

    def at(self, base: Triple) -> tuple[Solid, ...]:
        def moved(c: Triple) -> Triple:
            return c[0] + base[0], c[1] + base[1], c[2] + base[2]

        return tuple(replace(s, centre=moved(s.centre)) for s in self.solids)


def _texture(draw: Draw, domain: Domain) -> Texture:
    return draw_texture(draw, domain, domain.object_, 0.55)


def _turned(turn: Matrix, x: float, y: float, z: float) -> Triple:
    return turn[0][0] * x + turn[0][2] * z, y, turn[2][0] * x + turn[2][2] * z


def _reach(x: float, z: float) -> float:
    """At least the distance from the axis to a corner at (x, z): 0.96 (larger) + 0.4 (smaller) bounds a hypotenuse."""
    return 0.961 * max(x, z) + 0.4 * min(x, z)


def _crate(draw: Draw, domain: Domain) -> Piece:
    half = (draw.span((0.18, 0.5)), draw.span((0.15, 0.55)), draw.span((0.18, 0.5)))
    turn = rotation(draw.span((-45.0, 45.0)))
    return Piece((Box((0.0, -half[1], 0.0), half, turn, _texture(draw, domain)),), _reach(half[0], half[2]))


def _ball(draw: Draw, domain: Domain) -> Piece:
    radius = draw.span((0.16, 0.46))
    return Piece((Sphere((0.0, -radius, 0.0), radius, _texture(draw, domain)),), radius)


def _stack(draw: Draw, domain: Domain) -> Piece:
    """A box with a ball or a smaller box on top."""
    below = _crate(draw, domain)
    box = below.solids[0]
    assert isinstance(box, Box)
    top, room = -2.0 * box.half[1], min(box.half[0], box.half[2])
    if draw.flag(0.5):
        radius = room * draw.span((0.6, 0.95))
        upper: Solid = Sphere((0.0, top - radius, 0.0), radius, _texture(draw, domain))
    else:
        half = (room * draw.span((0.4, 0.7)), draw.span((0.1, 0.3)), room * draw.span((0.4, 0.7)))
        upper = Box((0.0, top - half[1], 0.0), half, rotation(draw.span((-45.0, 45.0))), _texture(draw, domain))
    return Piece((box, upper), below.radius)


def _table(draw: Draw, domain: Domain) -> Piece:
    """A slab on two panels, sometimes with a ball on it."""
    wide, deep, height = draw.span((0.4, 0.75)), draw.span((0.3, 0.45)), draw.span((0.45, 0.8))
    turn = rotation(draw.span((-50.0, 50.0)))
    texture = _texture(draw, domain)
    solids: list[Solid] = [Box((0.0, 0.03 - height, 0.0), (wide, 0.03, deep), turn, texture)]
    for side in (-1.0, 1.0):
        place = _turned(turn, side * (wide - 0.06), 0.03 - 0.5 * height, 0.0)
        solids.append(Box(place, (0.04, 0.5 * height - 0.03, 0.8 * deep), turn, texture))
    if draw.flag(0.5):
        radius = draw.span((0.08, 0.2))
        place = _turned(turn, draw.span((-0.6, 0.6)) * wide, -height - radius, 0.0)
        solids.append(Sphere(place, radius, _texture(draw, domain)))
    return Piece(tuple(solids), _reach(wide, deep))


def _sofa(draw: Draw, domain: Domain) -> Piece:
    """A seat, a back and two arms."""
    wide, deep = draw.span((0.55, 0.95)), draw.span((0.34, 0.46))
    turn = rotation(draw.span((-50.0, 50.0)))
    texture, seat = _texture(draw, domain), draw.span((0.16, 0.22))
    parts = [((0.0, -seat, 0.0), (wide, seat, deep)), ((0.0, -0.42, deep - 0.09), (wide, 0.42, 0.09))]
    parts += [((side * (wide - 0.09), -0.3, 0.0), (0.09, 0.3, deep)) for side in (-1.0, 1.0)]
    boxes = tuple(Box(_turned(turn, *centre), half, turn, texture) for centre, half in parts)
    return Piece(boxes, _reach(wide, deep))


def _tilted(draw: Draw, domain: Domain) -> Piece:
    """A box turned about all three axes, resting on a corner."""
    half = (draw.span((0.15, 0.4)), draw.span((0.15, 0.4)), draw.span((0.15, 0.4)))
    turn = rotation(draw.span((-90.0, 90.0)), draw.span((-40.0, 40.0)), draw.span((-40.0, 40.0)))
    down = abs(turn[1][0]) * half[0] + abs(turn[1][1]) * half[1] + abs(turn[1][2]) * half[2]
    reach = _reach(_reach(half[0], half[1]), half[2])
    return Piece((Box((0.0, -down, 0.0), half, turn, _texture(draw, domain)),), reach)


def _rug(draw: Draw, domain: Domain) -> Piece:
    half = (draw.span((0.5, 1.1)), 0.008, draw.span((0.4, 0.8)))
    texture = draw_texture(draw, domain, domain.object_)
    # other pieces may stand on it, so it asks for less room than it covers
    return Piece((Box((0.0, -0.008, 0.0), half, rotation(draw.span((-40.0, 40.0))), texture),), 0.1)


def _pillar(draw: Draw, domain: Domain) -> Piece:
    """From the floor through any ceiling."""
    half = draw.span((0.1, 0.22))
    turn = rotation(draw.span((-45.0, 45.0)))
    return Piece((Box((0.0, -3.0, 0.0), (half, 3.0, half), turn, _texture(draw, domain)),), _reach(half, half))


#: pieces that stand free on the floor
STANDING: Final[Mapping[str, Callable[[Draw, Domain], Piece]]] = {
    "crate": _crate, "ball": _ball, "stack": _stack, "table": _table, "sofa": _sofa, "tilted": _tilted,
    "rug": _rug, "pillar": _pillar,
}  # fmt: skip


def wall_piece(draw: Draw, domain: Domain, kind: str, low: Triple, high: Triple, face: int) -> Box:
    """A cabinet or a picture against side `face` (0: -x, 1: +x, 5: +z) of the room low .. high."""
    if kind == "cabinet":
        wide, tall, deep = draw.span((0.3, 0.7)), draw.span((0.35, 0.95)), draw.span((0.15, 0.3))
        centre_y = high[1] - tall
    else:
        wide, tall, deep = draw.span((0.2, 0.6)), draw.span((0.2, 0.5)), draw.span((0.015, 0.03))
        centre_y = high[1] - draw.span((1.3, 1.7))
    axis, along = (2, 0) if face == 5 else (0, 2)
    start = low[along] if along == 0 else max(low[along], 0.8)
    place = start + wide + draw.unit() * max(high[along] - start - 2.0 * wide, 0.0)
    against = low[axis] + deep if face == 0 else high[axis] - deep
    if axis == 2:
        return Box((place, centre_y, against), (wide, tall, deep), IDENTITY, _texture(draw, domain))
    return Box((against, centre_y, place), (deep, tall, wide), IDENTITY, _texture(draw, domain))
