"""The lossy part of JPEG, block by block, in exact arithmetic.

Colour transform, halved chroma, 8x8 cosine transform, quantisation, and back. The entropy coding of a real file
loses nothing, so it is not needed; a codec's own arithmetic would differ between builds.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from reasonx_eval.datasets.scenes.exact import Array, cos_sin
from reasonx_eval.io.blocks import row_blocks

# The example tables of ITU-T T.81, annex K, as rows
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


@cache
def _cosines() -> Array:
    """The orthonormal 8-point cosine transform: row k is frequency k."""
    table = np.array([[cos_sin(11.25 * k * (2 * n + 1))[0] for n in range(8)] for k in range(8)])
    scale = np.sqrt(np.array([0.125] + [0.25] * 7))
    result: Array = table * scale[:, None]
    result.flags.writeable = False
    return result


def _steps(quality: int, table: str) -> Array:
    """Quantisation steps of a quality 1-100, by the usual scaling of the example tables; [8, 8]."""
    factor = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = np.array(table.split(), dtype=np.int64).reshape(8, 8)
    steps: Array = np.clip((base * factor + 50) // 100, 1, 255).astype(np.float64)
    return steps


def _transform(blocks: Array, matrix: Array) -> Array:
    """matrix applied along axis 0 of [8, ...], summed in a fixed order."""
    shape = (8,) + (1,) * (blocks.ndim - 1)
    total: Array = matrix[:, 0].reshape(shape) * blocks[0]
    term = np.empty_like(total)
    for n in range(1, 8):
        np.multiply(matrix[:, n].reshape(shape), blocks[n], out=term)
        total += term
    return total


def _through_blocks(plane: Array, steps: Array) -> Array:
    """One plane [H, W] of values about 0 through the transform, its quantisation, and back.

    Blocks don't know of each other, so they go in bands whose arrays stay in the cache.
    """
    result = np.empty_like(plane)
    for rows in row_blocks(plane.shape[0] // 8 + 1, 8 * plane.shape[1]):
        band = slice(8 * rows.start, 8 * rows.stop)
        if plane[band].size:
            result[band] = _band(plane[band], steps)
    return result


def _band(plane: Array, steps: Array) -> Array:
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge")
    rows, columns = padded.shape[0] // 8, padded.shape[1] // 8
    blocks = padded.reshape(rows, 8, columns, 8).transpose(1, 3, 0, 2)
    forward, backward = _cosines(), _cosines().T
    vertical = _transform(np.ascontiguousarray(blocks), forward)
    both = _transform(np.ascontiguousarray(vertical.transpose(1, 0, 2, 3)), forward)
    # axes are now (horizontal, vertical) frequency
    q = steps.T[:, :, None, None]
    kept = np.floor(both / q + 0.5) * q
    vertical = _transform(kept, backward).transpose(1, 0, 2, 3)
    blocks = _transform(np.ascontiguousarray(vertical), backward)
    result: Array = blocks.transpose(2, 0, 3, 1).reshape(padded.shape)[:height, :width]
    return result


def _halved(plane: Array) -> Array:
    """Means of 2x2 pixels; an odd last row or column is repeated."""
    p = np.pad(plane, ((0, plane.shape[0] % 2), (0, plane.shape[1] % 2)), mode="edge")
    total: Array = (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) * 0.25
    return total


def compress(codes: Array, quality: int) -> Array:
    """Codes 0-255 as whole floats [H, W, 3] after compression and decompression at `quality` (1-100)."""
    r, g, b = codes[..., 0], codes[..., 1], codes[..., 2]
    height, width = r.shape
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    planes = [_through_blocks(luma - 128.0, _steps(quality, _LUMA)) + 128.0]
    for chroma in (0.564 * (b - luma), 0.713 * (r - luma)):
        small = _through_blocks(_halved(chroma), _steps(quality, _CHROMA))
        planes.append(small.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width])
    y, blue, red = planes
    rgb = np.stack([y + 1.403 * red, y - 0.344 * blue - 0.714 * red, y + 1.773 * blue], axis=-1)
    result: Array = np.minimum(np.maximum(np.floor(rgb + 0.5), 0.0), 255.0)
    return result
