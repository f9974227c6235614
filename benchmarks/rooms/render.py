"""Render one furnished room by Blender Cycles on a CPU: passes as EXR and a JSON file with the camera.

Runs in an environment of its own, with `bpy` and its numpy (see README.md):
``python benchmarks/rooms/render.py --seed 7 --split train --catalogues DIR --out DIR``
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from pathlib import Path

import bpy
import mathutils

sys.path.insert(0, str(Path(__file__).parent))

from furniture import models
from interior import Room, build

_PASSES = ("z", "normal", "diffuse_color", "diffuse_direct", "diffuse_indirect")
_BOUNCES = {"max_bounces": 6, "diffuse_bounces": 4, "glossy_bounces": 3, "transmission_bounces": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description="Render one furnished room.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--split", choices=["train", "val", "test"], required=True)
    parser.add_argument("--catalogues", type=Path, required=True, help="folder of the unpacked .sh3f files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=24, help="paths a pixel")
    parser.add_argument("--size", default="224x168", help="width x height in pixels")
    given = parser.parse_args()
    width, height = (int(v) for v in given.size.split("x"))
    draw = random.Random(f"{given.split}{given.seed}")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    room = build(draw, models(given.catalogues, given.split))
    camera = _camera(draw, room)
    _engine(given.seed, given.samples, width, height)
    stem = given.out / f"{given.split}{given.seed:04d}"
    given.out.mkdir(parents=True, exist_ok=True)
    _outputs(stem)
    bpy.ops.render.render(write_still=True)
    stem.with_suffix(".json").write_text(json.dumps({
        "seed": given.seed, "split": given.split, "samples": given.samples,
        "furniture": [{"name": m.name, "catalogue": m.catalogue, "creator": m.creator} for m in room.furniture],
        "camera_to_world": [list(row) for row in camera.matrix_world.to_3x3()],
        "horizontal_angle": camera.data.angle,
    }, indent=1))  # fmt: skip


def _camera(draw: random.Random, room: Room) -> bpy.types.Object:
    """At the open end of the room, at the height of a person's eyes, towards the middle."""
    data = bpy.data.cameras.new("camera")
    data.angle = math.radians(draw.uniform(55, 78))
    camera = bpy.data.objects.new("camera", data)
    scene = bpy.context.scene
    scene.collection.objects.link(camera)
    scene.camera = camera
    x, y = room.half_width, room.half_depth
    camera.location = (draw.uniform(-0.5, 0.5) * x, -y + 0.2, draw.uniform(1.1, 1.75))
    target = mathutils.Vector((draw.uniform(-0.4, 0.4) * x, draw.uniform(0.2, 0.8) * y, draw.uniform(0.4, 1.1)))
    camera.rotation_euler = (target - camera.location).to_track_quat("-Z", "Y").to_euler()
    bpy.context.view_layer.update()
    return camera


def _engine(seed: int, samples: int, width: int, height: int) -> None:
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.seed = "CPU", samples, seed
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.05
    cycles.sample_clamp_indirect = 10
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
    for name, value in _BOUNCES.items():
        setattr(cycles, name, value)
    # one thread: the same bytes on any number of cores, and one room a core is the fastest way to many
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    scene.view_settings.view_transform = "Standard"


def _outputs(stem: Path) -> None:
    """The passes in one EXR file, and irradiance (all diffuse light, denoised) in another."""
    scene = bpy.context.scene
    layer = scene.view_layers[0]
    for name in _PASSES:
        setattr(layer, f"use_pass_{name}", True)
    settings = scene.render.image_settings
    settings.file_format, settings.color_depth, settings.exr_codec = "OPEN_EXR_MULTILAYER", "16", "ZIP"
    scene.render.filepath = str(stem.with_suffix(".exr"))
    scene.use_nodes = True
    tree = scene.node_tree
    tree.nodes.clear()
    new, link = tree.nodes.new, tree.links.new
    layers = new("CompositorNodeRLayers")
    link(layers.outputs["Image"], new("CompositorNodeComposite").inputs[0])
    added = new("CompositorNodeMixRGB")
    added.blend_type = "ADD"
    added.inputs[0].default_value = 1
    link(layers.outputs["DiffDir"], added.inputs[1])
    link(layers.outputs["DiffInd"], added.inputs[2])
    denoise = new("CompositorNodeDenoise")
    denoise.use_hdr = True
    link(added.outputs[0], denoise.inputs["Image"])
    link(layers.outputs["Normal"], denoise.inputs["Normal"])
    file = new("CompositorNodeOutputFile")
    file.base_path = str(stem.parent)
    file.format.file_format, file.format.color_depth = "OPEN_EXR", "16"
    file.file_slots[0].path = f"{stem.name}_irradiance_"
    link(denoise.outputs[0], file.inputs[0])


if __name__ == "__main__":
    main()
