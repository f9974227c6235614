"""A room: walls, floor, window, lights, and furniture that stands without overlap. Runs inside Blender."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bpy
import numpy as np
from furniture import Model
from mathutils import Matrix
from surfaces import floor, paint, quad, wall

_SKIES = ("city", "courtyard", "forest", "sunrise", "sunset", "interior")
#: places that are tried for one piece, and pieces that are tried for one room
_PLACES, _PIECES = 30, 60
#: Blender's axes from a mesh's own (y up)
_AXES = Matrix(((1, 0, 0), (0, 0, -1), (0, 1, 0)))


@dataclass
class Room:
    """Half the width (x) and depth (y), and the height (z), in metres; the camera stands at -y."""

    half_width: float
    half_depth: float
    height: float
    furniture: list[Model] = field(default_factory=list)
    #: centre and size on the floor: x, y, width, depth
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)


def build(draw: random.Random, models: Sequence[Model]) -> Room:
    """Make the room in the current scene."""
    room = Room(draw.uniform(1.6, 2.8), draw.uniform(1.8, 3), draw.uniform(2.4, 2.9))
    side, window = _shell(draw, room)
    _lights(draw, room, side, window)
    wanted = draw.choice([4, 5, 6, 7, 8])
    for _ in range(_PIECES):
        if len(room.furniture) == wanted:
            break
        model = draw.choice(models)
        if model.height <= room.height - 0.1:
            _stand(draw, room, model)
    return room


def _shell(draw: random.Random, room: Room) -> tuple[int, tuple[float, float, float, float]]:
    """Floor, ceiling and walls; returns the side of the window, and its extent in y and z."""
    x, y, z = room.half_width, room.half_depth, room.height
    quad([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)], floor(draw))
    quad([(-x, -y, z), (-x, y, z), (x, y, z), (x, -y, z)], paint([draw.uniform(0.7, 0.9)] * 3))
    back = wall(draw)
    others = [back if draw.random() < 0.5 else wall(draw) for _ in range(2)]
    quad([(-x, y, 0), (x, y, 0), (x, y, z), (-x, y, z)], back)
    quad([(x, -y, 0), (-x, -y, 0), (-x, -y, z), (x, -y, z)], back)
    side = draw.choice([-1, 1])

    def piece(of: int, y0: float, y1: float, z0: float, z1: float, material: bpy.types.Material) -> None:
        quad([(of * x, y1, z0), (of * x, y0, z0), (of * x, y0, z1), (of * x, y1, z1)], material)

    piece(-side, -y, y, 0, z, others[0])
    left = draw.uniform(-0.7, -0.2) * y
    right, bottom, top = left + draw.uniform(0.9, 1.8), draw.uniform(0.6, 1), z - draw.uniform(0.2, 0.5)
    for extent in ((-y, left, 0, z), (right, y, 0, z), (left, right, 0, bottom), (left, right, top, z)):
        piece(side, *extent, others[1])
    return side, (left, right, bottom, top)


def _lights(draw: random.Random, room: Room, side: int, window: tuple[float, float, float, float]) -> None:
    """A sky (of those that come with Blender), the sun in some rooms, light of the window, and lamps."""
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    tree = world.node_tree
    sky = tree.nodes.new("ShaderNodeTexEnvironment")
    folder = Path(bpy.utils.system_resource("DATAFILES")) / "studiolights" / "world"
    sky.image = bpy.data.images.load(str(folder / f"{draw.choice(_SKIES)}.exr"))
    tree.links.new(sky.outputs["Color"], tree.nodes["Background"].inputs["Color"])
    tree.nodes["Background"].inputs["Strength"].default_value = draw.uniform(1, 3)
    if draw.random() < 0.6:
        _light("SUN", (0, 0, 5), (draw.uniform(-0.4, 0.4), side * draw.uniform(0.6, 1.2), 0),
               energy=draw.uniform(2, 7), angle=0.01,
               color=(1, draw.uniform(0.8, 1), draw.uniform(0.6, 0.9)))  # fmt: skip
    left, right, bottom, top = window
    middle = (side * (room.half_width - 0.02), (left + right) / 2, (bottom + top) / 2)
    _light("AREA", middle, (0, side * math.pi / 2, 0),
           energy=draw.uniform(20, 60), shape="RECTANGLE", size=top - bottom, size_y=right - left)  # fmt: skip
    for _ in range(draw.choice([1, 1, 2])):
        place = (draw.uniform(-0.6, 0.6) * room.half_width, draw.uniform(-0.5, 0.8) * room.half_depth,
                 room.height - draw.uniform(0.05, 0.6))  # fmt: skip
        _light("AREA", place, energy=draw.uniform(10, 60), size=draw.uniform(0.15, 0.5),
               color=(1, draw.uniform(0.7, 1), draw.uniform(0.45, 0.95)))  # fmt: skip


def _light(kind: str, place: Sequence[float], rotation: Sequence[float] = (0, 0, 0), **values: object) -> None:
    data = bpy.data.lights.new("light", kind)
    for name, value in values.items():
        setattr(data, name, value)
    light = bpy.data.objects.new("light", data)
    light.location, light.rotation_euler = place, rotation
    bpy.context.scene.collection.objects.link(light)


def _stand(draw: random.Random, room: Room, model: Model) -> None:
    """Load a piece, scale it to its size, and stand it where there is room; else remove it again."""
    before = set(bpy.data.objects)
    bpy.ops.wm.obj_import(filepath=str(model.mesh), forward_axis="NEGATIVE_Z", up_axis="Y")
    parts = [o for o in bpy.data.objects if o not in before]
    meshes = [o for o in parts if o.type == "MESH" and len(o.data.vertices)]
    if meshes and model.rotation:
        own = Matrix([model.rotation[k : k + 3] for k in (0, 3, 6)])
        turned = (_AXES @ own @ _AXES.transposed()).to_4x4()
        for part in parts:
            part.matrix_world = turned @ part.matrix_world
    quarter = draw.choice([0, 1, 2, 3])
    place = None
    if meshes:
        low, high = _bounds(meshes)
        extent = high - low
        if extent.min() > 1e-6:
            place = _place(draw, room, (model.width, model.depth)[:: 1 if quarter % 2 == 0 else -1])
    if place is None:
        for part in parts:
            bpy.data.objects.remove(part)
        return
    middle = (low + high) / 2
    scale = Matrix.Diagonal((model.width / extent[0], model.depth / extent[1], model.height / extent[2], 1))
    turn = Matrix.Rotation(quarter * math.pi / 2 + draw.uniform(-0.05, 0.05), 4, "Z")
    moved = (Matrix.Translation((place[0], place[1], 0)) @ turn @ scale
             @ Matrix.Translation((-middle[0], -middle[1], -low[2])))  # fmt: skip
    for part in parts:
        part.matrix_world = moved @ part.matrix_world
    room.furniture.append(model)
    room.taken.append(place)


def _bounds(meshes: Sequence[bpy.types.Object]) -> tuple[np.ndarray, np.ndarray]:
    bpy.context.view_layer.update()
    points = np.concatenate([np.array([o.matrix_world @ v.co for v in o.data.vertices]) for o in meshes])
    return points.min(0), points.max(0)


def _place(draw: random.Random, room: Room, size: tuple[float, ...]) -> tuple[float, float, float, float] | None:
    """A free place: along a wall in three of five tries, else anywhere but in front of the camera."""
    x, y = room.half_width, room.half_depth
    width, depth = size
    for _ in range(_PLACES):
        if draw.random() < 0.6:
            along = draw.choice(["back", "left", "right"])
            if along == "back":
                here = draw.uniform(-x + width / 2, x - width / 2), y - depth / 2 - 0.02
            else:
                edge = x - width / 2 - 0.02
                here = (-edge if along == "left" else edge), draw.uniform(-0.2 * y, y - depth / 2)
        else:
            here = draw.uniform(-0.6, 0.6) * x, draw.uniform(-0.1, 0.8) * y
        inside = abs(here[0]) + width / 2 <= x and here[1] + depth / 2 <= y
        free = all(abs(here[0] - p) > (width + w) / 2 + 0.03 or abs(here[1] - q) > (depth + d) / 2 + 0.03
                   for p, q, w, d in room.taken)  # fmt: skip
        if inside and free:
            return *here, width, depth
    return None
