"""From the passes of a render to the maps of the data set: units, frames and codings are those of `--dataset rooms`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
#: metres; beyond it there is only sky, seen through the window
_FAR: Final = 100.0
#: brightness of a photo: this percentile of the brightest channel becomes this value
_EXPOSED: Final = (97.0, 0.9)


def encode(passes: dict[str, Floats], camera_to_world: NDArray[np.float64]) -> dict[str, NDArray[Any]] | None:
    """Maps as they are stored; None where less than half of the pixels lie in the room.

    Parameters
    ----------
    passes : linear float32 [H, W, 3] each: Combined, DiffCol (albedo), irradiance (denoised), Normal (world
        coordinates); and Depth, [H, W], metres along the optical axis
    camera_to_world : float64 [3, 3], of Blender's camera (x right, y up, z backward)

    Returns
    -------
    rgb, albedo : uint8, sRGB · irradiance : uint16, linear, one scale a room · depth : uint16, mm, 0 = the window ·
    normal : uint16, (n + 1) / 2, camera with x right, y down, z forward
    """
    depth = passes["Depth"]
    inside = depth < _FAR
    if inside.mean() < 0.5:
        return None
    photo, irradiance = passes["Combined"], passes["irradiance"].clip(0)
    percentile, value = _EXPOSED
    exposure = value / np.percentile(photo[inside].max(-1), percentile)
    normal = (passes["Normal"] @ camera_to_world) * (1, -1, -1)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = np.where(length > 0.1, normal / np.maximum(length, 1e-6), 0)
    return {
        "rgb": _coded(_srgb(photo * exposure), 255).astype(np.uint8),
        "albedo": _coded(_srgb(passes["DiffCol"]), 255).astype(np.uint8),
        "irradiance": _ten_bits(irradiance / np.percentile(irradiance[inside], 99.9)),
        "depth": np.where(inside, depth * 1000, 0).round().astype(np.uint16),
        "normal": _ten_bits((normal + 1) / 2),
    }


def write(maps: dict[str, NDArray[Any]], stem: Path) -> None:
    """``STEM_NAME.png`` for each map, as `reasonx_eval` reads it."""
    from reasonx_eval.io.images import write_png

    for name, values in maps.items():
        write_png(stem.with_name(f"{stem.name}_{name}.png"), values)


def _srgb(linear: Floats) -> Floats:
    linear = linear.clip(0, None)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055)


def _coded(values: Any, top: int) -> NDArray[Any]:
    return np.asarray(np.clip(values, 0, 1) * top).round()


def _ten_bits(values: Any) -> NDArray[np.uint16]:
    """In the upper ten bits of sixteen: the noise of a render is above the others, and a PNG compresses zeros."""
    return (_coded(values, 1023) * 64).astype(np.uint16)
