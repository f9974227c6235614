"""Paints and procedural textures of walls and floors, from Blender's own nodes: no picture is loaded."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import bpy

_FLOORS = ("wood", "wood", "wood", "brick", "checker", "marble", "stripes")
_WALLS = ("brick", "brick", "stripes", "marble", "cells", "checker")
Colour = Sequence[float]


def quad(corners: Sequence[Sequence[float]], material: bpy.types.Material) -> None:
    """A rectangle whose texture coordinates are metres."""
    mesh = bpy.data.meshes.new("quad")
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    width, height = math.dist(corners[0], corners[1]), math.dist(corners[1], corners[2])
    layer = mesh.uv_layers.new()
    for k, place in enumerate([(0, 0), (width, 0), (width, height), (0, height)]):
        layer.data[k].uv = place
    mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("quad", mesh))


def paint(colour: Colour, roughness: float = 0.9) -> bpy.types.Material:
    """One colour, linear."""
    material, shader = _material(roughness)
    shader.inputs["Base Color"].default_value = (*colour, 1)
    return material


def floor(draw: random.Random) -> bpy.types.Material:
    return _texture(draw, draw.choice(_FLOORS), scale=draw.uniform(0.6, 1.4), roughness=draw.uniform(0.25, 0.8))


def wall(draw: random.Random) -> bpy.types.Material:
    """Papered in two of five rooms, else painted."""
    if draw.random() < 0.4:
        return _texture(draw, draw.choice(_WALLS), scale=draw.uniform(0.4, 1.0), roughness=draw.uniform(0.6, 0.95))
    grey = draw.uniform(0.35, 0.85)
    return paint([min(0.95, grey * draw.uniform(0.8, 1.2)) for _ in range(3)])


def _material(roughness: float) -> tuple[bpy.types.Material, Any]:
    material = bpy.data.materials.new("surface")
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = roughness
    return material, shader


def _texture(draw: random.Random, kind: str, *, scale: float, roughness: float) -> bpy.types.Material:
    material, shader = _material(roughness)
    nodes = _Nodes(material.node_tree, draw, scale)
    nodes.link(_PATTERNS[kind](nodes, draw), shader.inputs["Base Color"])
    return material


class _Nodes:
    """Nodes of one material, with the coordinates of the surface and three colours that go together."""

    def __init__(self, tree: Any, draw: random.Random, scale: float) -> None:
        self.tree = tree
        mapping = self.node("ShaderNodeMapping", Scale=(scale,) * 3)
        mapping.inputs["Rotation"].default_value[2] = draw.choice([0, 0, math.pi / 2, math.pi / 4])
        mapping.inputs["Location"].default_value = (draw.random() * 9, draw.random() * 9, 0)
        self.link(self.node("ShaderNodeTexCoord").outputs["UV"], mapping.inputs["Vector"])
        self.place = mapping.outputs["Vector"]
        hue = draw.random()
        self.base = colorsys.hsv_to_rgb(hue, draw.uniform(0.02, 0.55), draw.uniform(0.25, 0.8))
        self.other = colorsys.hsv_to_rgb((hue + draw.uniform(-0.06, 0.06)) % 1, draw.uniform(0.02, 0.55),
                                         draw.uniform(0.12, 0.85))  # fmt: skip
        self.third = [max(0.0, 0.5 * (p + q) + draw.uniform(-0.08, 0.08))
                      for p, q in zip(self.base, self.other, strict=True)]  # fmt: skip

    def node(self, kind: str, *, at: Any = None, **inputs: Any) -> Any:
        made = self.tree.nodes.new(kind)
        for name, value in inputs.items():
            made.inputs[name.replace("_", " ")].default_value = value
        if at is not None:
            self.link(at, made.inputs["Vector"])
        return made

    def link(self, out: Any, into: Any) -> None:
        self.tree.links.new(out, into)

    def ramp(self, value: Any, stops: tuple[float, float]) -> Any:
        """From the one colour to the other between two values."""
        ramp = self.node("ShaderNodeValToRGB")
        self.link(value, ramp.inputs["Fac"])
        for element, stop, colour in zip(ramp.color_ramp.elements, stops, (self.base, self.other), strict=True):
            element.position, element.color = stop, (*colour, 1)
        return ramp.outputs["Color"]


def _brick(nodes: _Nodes, draw: random.Random) -> Any:
    made = nodes.node("ShaderNodeTexBrick", at=nodes.place, Scale=draw.uniform(2.5, 6), Color1=(*nodes.base, 1),
                      Color2=(*nodes.third, 1), Mortar=(*nodes.other, 1), Mortar_Size=draw.uniform(0.008, 0.03),
                      Brick_Width=draw.uniform(0.4, 1.2))  # fmt: skip
    made.offset = draw.choice([0, 0.5, 0.5])
    return made.outputs["Color"]


def _checker(nodes: _Nodes, draw: random.Random) -> Any:
    return nodes.node("ShaderNodeTexChecker", at=nodes.place, Scale=draw.uniform(2, 5), Color1=(*nodes.base, 1),
                      Color2=(*nodes.other, 1)).outputs["Color"]  # fmt: skip


def _wood(nodes: _Nodes, draw: random.Random) -> Any:
    """Boards with a grain."""
    stretched = nodes.node("ShaderNodeMapping", at=nodes.place, Scale=(draw.uniform(0.6, 1.5), draw.uniform(8, 18), 1))
    grain = nodes.node("ShaderNodeTexNoise", at=stretched.outputs["Vector"], Scale=draw.uniform(1.5, 4), Detail=6)
    v = draw.uniform(0.2, 0.55)
    boards = nodes.node("ShaderNodeTexBrick", at=nodes.place, Scale=draw.uniform(1.5, 3),
                        Brick_Width=draw.uniform(1.5, 3), Row_Height=draw.uniform(0.2, 0.35), Mortar_Size=0.006,
                        Color1=(v, v * 0.55, v * 0.28, 1), Color2=(v * 0.75, v * 0.42, v * 0.2, 1),
                        Mortar=(v * 0.2, v * 0.12, v * 0.06, 1))  # fmt: skip
    mixed = nodes.node("ShaderNodeMixRGB")
    mixed.blend_type = "MULTIPLY"
    mixed.inputs[0].default_value = draw.uniform(0.4, 0.8)
    nodes.link(boards.outputs["Color"], mixed.inputs[1])
    nodes.link(grain.outputs[0], mixed.inputs[2])
    return mixed.outputs["Color"]


def _stripes(nodes: _Nodes, draw: random.Random) -> Any:
    made = nodes.node("ShaderNodeTexWave", at=nodes.place, Scale=draw.uniform(1, 4),
                      Distortion=draw.choice([0, 0, draw.uniform(0.5, 4)]))  # fmt: skip
    made.bands_direction, made.wave_profile = "X", draw.choice(["SIN", "SAW"])
    return nodes.ramp(made.outputs[0], (0.45, 0.55))


def _marble(nodes: _Nodes, draw: random.Random) -> Any:
    made = nodes.node("ShaderNodeTexNoise", at=nodes.place, Scale=draw.uniform(1, 5), Detail=10,
                      Distortion=draw.uniform(0, 2))  # fmt: skip
    return nodes.ramp(made.outputs[0], (draw.uniform(0.3, 0.45), draw.uniform(0.5, 0.7)))


def _cells(nodes: _Nodes, draw: random.Random) -> Any:
    made = nodes.node("ShaderNodeTexVoronoi", at=nodes.place, Scale=draw.uniform(4, 14))
    return nodes.ramp(made.outputs["Distance"], (draw.uniform(0.05, 0.2), draw.uniform(0.3, 0.7)))


_PATTERNS: dict[str, Callable[[_Nodes, random.Random], Any]] = {
    "brick": _brick, "checker": _checker, "wood": _wood, "stripes": _stripes, "marble": _marble, "cells": _cells,
}  # fmt: skip
