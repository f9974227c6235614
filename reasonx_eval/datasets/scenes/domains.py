"""The three families of scenes, as data: every range and weight that the layout draws from.

synthetic : one clean style (pastel, neutral light, one level camera, plain response): what a renderer gives
wild      : what photos do to a model trained on that: tilted and close cameras, other fields of view, saturated
            and noisy surfaces, coloured lights, dark exposures, tone curves, sensor noise, blur, compression
broad     : everything strongly randomised, from ranges of its own; it stands in for broad pretraining, so it
            covers much of what wild needs without being its distribution (two patterns occur in wild only)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Span: TypeAlias = tuple[float, float]
Weights: TypeAlias = Mapping[str, int]


@dataclass(frozen=True)
class Domain:
    """Ranges of one family. Lengths in metres, angles in degrees, chances in [0, 1], colours linear.

    room_* : inner size; camera_height : above the floor; camera_side : place between the side walls (0-1)
    yaw, pitch, roll, fov : camera; pitch is positive downwards; close : chance of a close-up
    solids : how many pieces of furniture; distance, close_distance : of a piece from the camera
    furniture, wall, floor, object_ : weights of kinds and of patterns
    saturation, value : of colours; palette_step : how far a pattern's other colours are from its first
    grain_chance, grain : relative noise on surfaces; scale : of patterns; turn : of patterns, degrees
    lamps, lamp_height : point lights, height as a share of the room's; tint : saturation of light colours
    sun_chance, window_chance : of parallel light, and that it comes through a window; sun : its relative strength
    ambient, slope, corner : see light.Ambient; ambient is relative to a lamp's light at 2 m
    exposure ... quality : see camera.Response; contrast, bias in the same sense; balance : half width about 1
    compressed : chance of compression; mean_code : bounds of the picture's mean, in codes
    """

    name: str
    room_width: Span
    room_depth: Span
    room_height: Span
    camera_height: Span
    camera_side: Span
    yaw: Span
    pitch: Span
    roll: Span
    fov: Span
    close: float
    solids: Span
    distance: Span
    close_distance: Span
    furniture: Weights
    wall: Weights
    floor: Weights
    object_: Weights
    saturation: Span
    value: Span
    palette_step: Span
    grain_chance: float
    grain: Span
    scale: Span
    turn: Span
    lamps: Span
    lamp_height: Span
    tint: Span
    sun_chance: float
    window_chance: float
    sun: Span
    ambient: Span
    slope: Span
    corner: Span
    exposure: Span
    balance: float
    vignetting: Span
    blur: Span
    read_noise: Span
    shot_noise: Span
    bias: Span
    contrast: Span
    compressed: float
    quality: Span
    mean_code: Span


SYNTHETIC: Final = Domain(
    name="synthetic",
    room_width=(3.8, 5.2), room_depth=(4.5, 6.0), room_height=(2.4, 2.8),
    camera_height=(1.3, 1.6), camera_side=(0.4, 0.6),
    yaw=(-15.0, 15.0), pitch=(3.0, 9.0), roll=(0.0, 0.0), fov=(62.0, 68.0), close=0.0,
    solids=(4, 7), distance=(1.7, 4.2), close_distance=(1.7, 4.2),
    furniture={"crate": 4, "ball": 4, "table": 2, "cabinet": 2, "picture": 2, "stack": 2, "sofa": 1},
    wall={"plain": 8, "stripes": 1}, floor={"plain": 3, "checker": 2, "tiles": 2, "planks": 1},
    object_={"plain": 6, "stripes": 2, "checker": 2},
    saturation=(0.1, 0.4), value=(0.3, 0.8), palette_step=(0.25, 0.55),
    grain_chance=0.0, grain=(0.0, 0.0), scale=(0.3, 0.6), turn=(0.0, 0.0),
    lamps=(1, 2), lamp_height=(0.8, 0.92), tint=(0.0, 0.05), sun_chance=0.5, window_chance=0.4, sun=(0.5, 1.0),
    ambient=(0.35, 0.6), slope=(0.2, 0.4), corner=(0.2, 0.35),
    exposure=(0.95, 1.1), balance=0.0, vignetting=(0.0, 0.0), blur=(0.0, 0.0),
    read_noise=(0.0, 0.0), shot_noise=(0.004, 0.006), bias=(0.5, 0.5), contrast=(0.0, 0.0),
    compressed=0.0, quality=(95, 95), mean_code=(75.0, 205.0),
)  # fmt: skip

WILD: Final = Domain(
    name="wild",
    room_width=(3.0, 7.5), room_depth=(3.2, 8.5), room_height=(2.2, 3.6),
    camera_height=(0.75, 1.75), camera_side=(0.2, 0.8),
    yaw=(-50.0, 50.0), pitch=(-6.0, 32.0), roll=(-14.0, 14.0), fov=(42.0, 84.0), close=0.35,
    solids=(5, 10), distance=(1.2, 4.5), close_distance=(0.75, 1.7),
    furniture={"crate": 3, "ball": 3, "table": 2, "cabinet": 3, "picture": 3, "stack": 2, "sofa": 2, "tilted": 3,
               "rug": 2, "pillar": 1},
    wall={"plain": 2, "noise": 3, "bricks": 3, "stripes": 2, "marble": 1, "speckle": 1, "chevron": 1},
    floor={"planks": 3, "noise": 2, "checker": 1, "speckle": 3, "tiles": 2, "bricks": 1, "chevron": 2},
    object_={"plain": 2, "noise": 3, "stripes": 2, "chevron": 3, "marble": 2, "plaid": 2, "speckle": 2, "dots": 1,
             "planks": 2, "bricks": 1},
    saturation=(0.25, 0.92), value=(0.06, 0.85), palette_step=(0.3, 0.95),
    grain_chance=0.7, grain=(0.1, 0.45), scale=(0.1, 0.45), turn=(-60.0, 60.0),
    lamps=(1, 3), lamp_height=(0.35, 0.92), tint=(0.1, 0.65), sun_chance=0.6, window_chance=0.7, sun=(0.8, 2.5),
    ambient=(0.1, 0.35), slope=(0.2, 0.6), corner=(0.3, 0.6),
    exposure=(0.22, 0.9), balance=0.14, vignetting=(0.05, 0.5), blur=(0.35, 0.8),
    read_noise=(0.004, 0.016), shot_noise=(0.02, 0.06), bias=(0.38, 0.56), contrast=(0.15, 0.75),
    compressed=0.8, quality=(45, 88), mean_code=(30.0, 170.0),
)  # fmt: skip

BROAD: Final = Domain(
    name="broad",
    room_width=(2.6, 9.0), room_depth=(2.8, 9.5), room_height=(2.0, 4.2),
    camera_height=(0.65, 2.1), camera_side=(0.15, 0.85),
    yaw=(-70.0, 70.0), pitch=(-12.0, 26.0), roll=(-8.0, 8.0), fov=(48.0, 92.0), close=0.2,
    solids=(3, 12), distance=(1.0, 5.0), close_distance=(0.7, 2.0),
    furniture={"crate": 4, "ball": 4, "table": 1, "cabinet": 2, "picture": 2, "stack": 3, "sofa": 1, "tilted": 2,
               "rug": 1, "pillar": 2},
    wall={"plain": 6, "noise": 2, "bricks": 1, "stripes": 2, "marble": 2, "patches": 1, "plaid": 1, "tiles": 1,
          "dots": 1, "rings": 1},
    floor={"plain": 2, "planks": 2, "noise": 2, "checker": 3, "tiles": 3, "patches": 2, "marble": 2, "rings": 1},
    object_={"plain": 6, "noise": 2, "stripes": 3, "checker": 3, "marble": 2, "plaid": 2, "patches": 3, "dots": 2,
             "rings": 2, "tiles": 1},
    saturation=(0.0, 0.8), value=(0.08, 0.92), palette_step=(0.15, 0.8),
    grain_chance=0.4, grain=(0.05, 0.3), scale=(0.08, 0.8), turn=(-90.0, 90.0),
    lamps=(1, 4), lamp_height=(0.25, 0.95), tint=(0.0, 0.45), sun_chance=0.5, window_chance=0.5, sun=(0.3, 1.8),
    ambient=(0.08, 0.7), slope=(0.0, 0.7), corner=(0.1, 0.5),
    exposure=(0.35, 1.7), balance=0.2, vignetting=(0.0, 0.35), blur=(0.0, 1.1),
    read_noise=(0.0, 0.012), shot_noise=(0.0, 0.05), bias=(0.42, 0.64), contrast=(-0.2, 0.6),
    compressed=0.5, quality=(30, 96), mean_code=(35.0, 215.0),
)  # fmt: skip

DOMAINS: Final[Mapping[str, Domain]] = {d.name: d for d in (SYNTHETIC, WILD, BROAD)}
