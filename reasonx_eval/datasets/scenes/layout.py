"""Draw a whole scene of a domain: room, furniture, lights, camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reasonx_eval.datasets.scenes.camera import Camera, Response
from reasonx_eval.datasets.scenes.domains import Domain
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import Triple, cos_sin, point, rotation
from reasonx_eval.datasets.scenes.furniture import STANDING, wall_piece
from reasonx_eval.datasets.scenes.geometry import ORIGIN, Box, Room, Solid, Sphere
from reasonx_eval.datasets.scenes.light import Ambient, Lighting, PointLight, SunLight, Window
from reasonx_eval.datasets.scenes.palette import draw_texture, hsv, light_colour

Disc: TypeAlias = tuple[float, float, float]

#: nothing that can be seen is nearer than this along the optical axis, metres (pictures up to square)
NEAREST = 0.36


@dataclass(frozen=True)
class World:
    """Everything that a picture depends on, but for its size and its sensor noise."""

    room: Room
    solids: tuple[Solid, ...]
    lighting: Lighting
    camera: Camera
    pose: dict[str, float]


def _clearance(half_width: float) -> float:
    """Distance from the camera beyond which no point of a view is nearer than NEAREST along the axis."""
    return NEAREST * math.sqrt(1.0 + 2.0 * half_width * half_width)


def _draw_camera(draw: Draw, domain: Domain, close: bool) -> tuple[Camera, dict[str, float]]:
    yaw, pitch, roll = draw.span(domain.yaw), draw.span(domain.pitch), draw.span(domain.roll)
    if close:
        pitch = 0.5 * (pitch + domain.pitch[1])
    fov = draw.span(domain.fov)
    cosine, sine = cos_sin(0.5 * fov)
    balance = [1.0 + domain.balance * (2.0 * draw.unit() - 1.0) for _ in range(2)]
    response = Response(
        exposure=draw.span(domain.exposure),
        balance=(balance[0], 1.0, balance[1]),
        vignetting=draw.span(domain.vignetting),
        blur=draw.span(domain.blur),
        read_noise=draw.span(domain.read_noise),
        shot_noise=draw.span(domain.shot_noise),
        bias=draw.span(domain.bias),
        contrast=draw.span(domain.contrast),
        quality=int(draw.span(domain.quality)) if draw.flag(domain.compressed) else None,
    )
    pose = {"yaw": yaw, "pitch": pitch, "roll": roll, "fov": fov}
    return Camera(rotation(yaw, pitch, roll), fov, sine / cosine, response), pose


def _draw_room(draw: Draw, domain: Domain, clearance: float, close: bool) -> Room:
    wide, deep, tall = draw.span(domain.room_width), draw.span(domain.room_depth), draw.span(domain.room_height)
    eye = draw.span(domain.camera_height)
    if close:
        eye = 0.5 * (eye + domain.camera_height[0])
    eye = min(max(eye, clearance), tall - clearance)
    left = min(max(wide * draw.span(domain.camera_side), clearance), wide - clearance)
    back = clearance + draw.span((0.05, 0.5))
    wall = draw_texture(draw, domain, domain.wall)
    accent = draw_texture(draw, domain, domain.wall) if draw.flag(0.35) else wall
    floor = draw_texture(draw, domain, domain.floor)
    ceiling = draw_texture(draw, domain, {"plain": 1})
    return Room((-left, eye - tall, -back), (wide - left, eye, deep - back), (wall, wall, ceiling, floor, wall, accent))


def _stand(draw: Draw, domain: Domain, camera: Camera, yaw: float, room: Room, kinds: Sequence[str],
           distance: tuple[float, float], discs: list[Disc]) -> list[Solid]:  # fmt: skip
    """Free-standing pieces in the camera's field of view, outside the discs (x, z, radius) that are taken."""
    cosine, sine = cos_sin(yaw)
    solids: list[Solid] = []
    for kind in kinds:
        piece = STANDING[kind](draw, domain)
        for _ in range(8):
            ahead = draw.span(distance) + piece.radius
            aside = 0.85 * ahead * camera.half_width * (2.0 * draw.unit() - 1.0)
            x, z = sine * ahead + cosine * aside, cosine * ahead - sine * aside
            r = piece.radius + 0.02
            x = min(max(x, room.low[0] + r), room.high[0] - r)
            z = min(max(z, room.low[2] + r), room.high[2] - r)
            gaps = [(x - a) * (x - a) + (z - b) * (z - b) - (r + c) * (r + c) for a, b, c in discs]
            if min(gaps) > 0.0:
                solids += piece.at((x, room.high[1], z))
                discs.append((x, z, r))
                break
    return solids


def _apart(a: Box, b: Box) -> bool:
    """Whether two boxes along the room's axes have a gap between them."""
    return any(abs(a.centre[k] - b.centre[k]) > a.half[k] + b.half[k] + 0.03 for k in range(3))


def _hang(draw: Draw, domain: Domain, camera: Camera, yaw: float, room: Room, kinds: Sequence[str]) -> list[Box]:
    """Pieces against the walls in view, apart from each other and from the camera."""
    seen = [5, 5, 1] if yaw > 0.0 else [5, 5, 0]
    margin = _clearance(camera.half_width)
    boxes: list[Box] = []
    for kind in kinds:
        piece = wall_piece(draw, domain, kind, room.low, room.high, draw.choice(seen))
        if not _inside(piece, ORIGIN, margin) and all(_apart(piece, other) for other in boxes):
            boxes.append(piece)
    return boxes


def _inside(solid: Solid, where: Triple, margin: float) -> bool:
    """Whether a point lies in a solid or within `margin` of it (for a box: of its sides)."""
    gap = [where[k] - solid.centre[k] for k in range(3)]
    if isinstance(solid, Sphere):
        reach = solid.radius + margin
        return gap[0] * gap[0] + gap[1] * gap[1] + gap[2] * gap[2] < reach * reach
    t = solid.turn
    local = [t[0][k] * gap[0] + t[1][k] * gap[1] + t[2][k] * gap[2] for k in range(3)]
    return all(abs(x) < h + margin for x, h in zip(local, solid.half, strict=True))


def _draw_furniture(draw: Draw, domain: Domain, camera: Camera, yaw: float, room: Room, close: bool) -> list[Solid]:
    n = draw.integer(int(domain.solids[0]), int(domain.solids[1]))
    kinds = [draw.weighted(domain.furniture) for _ in range(n)]
    boxes = _hang(draw, domain, camera, yaw, room, [k for k in kinds if k not in STANDING])
    discs: list[Disc] = [(0.0, 0.0, _clearance(camera.half_width))]
    for box in boxes:
        if box.centre[1] + box.half[1] > room.high[1] - 0.01:
            discs.append((box.centre[0], box.centre[2], max(box.half[0], box.half[2])))
    distance = domain.close_distance if close else domain.distance
    standing = _stand(draw, domain, camera, yaw, room, [k for k in kinds if k in STANDING], distance, discs)
    return [*boxes, *standing]


def _draw_lamp(draw: Draw, domain: Domain, room: Room, solids: Sequence[Solid]) -> PointLight | None:
    """A point light that is at least 0.35 m from the room's sides and 0.25 m from every solid."""
    size = [room.high[k] - room.low[k] for k in range(3)]
    strength = 4.0 * draw.span((0.5, 1.5))
    colour = light_colour(draw, draw.span(domain.tint))
    for _ in range(8):
        x = room.low[0] + 0.35 + draw.unit() * (size[0] - 0.7)
        z = room.low[2] + 0.35 + draw.unit() * (size[2] - 0.7)
        y = max(room.high[1] - draw.span(domain.lamp_height) * size[1], room.low[1] + 0.35)
        if not any(_inside(s, (x, y, z), 0.25) for s in solids):
            return PointLight((x, y, z), (colour[0] * strength, colour[1] * strength, colour[2] * strength))
    return None


def _draw_sun(draw: Draw, domain: Domain, camera: Camera, yaw: float, room: Room) -> SunLight:
    """Parallel light from behind or beside the camera; through a window, it falls on a place in view."""
    through = draw.flag(domain.window_chance)
    cosine, sine = cos_sin(draw.span((18.0, 50.0) if through else (45.0, 80.0)))
    c, s = cos_sin(yaw + 180.0 + draw.span((-115.0, 115.0)))
    direction = (cosine * s, -sine, cosine * c)
    strength, tint = draw.span(domain.sun), light_colour(draw, draw.span(domain.tint))
    colour = (tint[0] * strength, tint[1] * strength, tint[2] * strength)
    if not through:
        return SunLight(direction, colour)
    m = camera.turn
    x, y = camera.half_width * draw.span((-0.6, 0.6)), camera.half_width * draw.span((-0.3, 0.6))
    ray = point((m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2],
                 m[2][0] * x + m[2][1] * y + m[2][2]))  # fmt: skip
    depth, _ = room.leave(point(ORIGIN), ray)
    seen = (depth * ray[0], depth * ray[1], depth * ray[2])
    distance, face = room.leave(seen, point(direction))
    end = [float(seen[k] + distance * direction[k]) for k in range(3)]
    across = [end[k] for k in range(3) if k != int(face) >> 1]
    window = Window(
        int(face), (across[0], across[1]), (draw.span((0.35, 0.9)), draw.span((0.35, 0.9))),
        (draw.integer(1, 3), draw.integer(1, 3)), draw.span((0.06, 0.2)),
    )  # fmt: skip
    return SunLight(direction, colour, window)


def _draw_lighting(draw: Draw, domain: Domain, camera: Camera, yaw: float, room: Room,
                   solids: Sequence[Solid]) -> Lighting:  # fmt: skip
    n = draw.integer(int(domain.lamps[0]), int(domain.lamps[1]))
    lamps = [_draw_lamp(draw, domain, room, solids) for _ in range(n)]
    suns = (_draw_sun(draw, domain, camera, yaw, room),) if draw.flag(domain.sun_chance) else ()
    level = draw.span(domain.ambient)
    colour = hsv(draw.unit(), 0.5 * draw.span(domain.tint), level)
    ambient = Ambient(colour, draw.span(domain.slope), draw.span(domain.corner), draw.span((0.15, 0.4)))
    return Lighting(ambient, tuple(lamp for lamp in lamps if lamp is not None), suns)


def draw_world(draw: Draw, domain: Domain) -> World:
    """One scene of the domain; its lights are not yet set to a level (see render.settle)."""
    close = draw.flag(domain.close)
    camera, pose = _draw_camera(draw, domain, close)
    room = _draw_room(draw, domain, _clearance(camera.half_width), close)
    solids = _draw_furniture(draw, domain, camera, pose["yaw"], room, close)
    lighting = _draw_lighting(draw, domain, camera, pose["yaw"], room, solids)
    return World(room, tuple(solids), lighting, camera, pose)
