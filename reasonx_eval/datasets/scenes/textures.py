"""Surface patterns: a position on a surface, in metres, to a linear albedo.

A pattern gives a position in [0, 1] along a palette of three colours; grain multiplies the result by noise.
Randomness is an integer hash of lattice cells, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.exact import Array, Triple, Vec

ALBEDO_MIN: Final = 0.03
ALBEDO_MAX: Final = 0.95


def cell_hash(i: Array, j: Array, key: int) -> Array:
    """A value in [0, 1) for each lattice cell (whole numbers as floats) and key."""
    # wrapping 32-bit arithmetic; the multipliers are odd constants with well-spread bits
    h = i.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    h ^= j.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77)
    h ^= np.uint32(key & 0xFFFFFFFF)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return h.astype(np.float64) * 2.0**-32


def value_noise(a: Array, b: Array, key: int) -> Array:
    """Smooth noise in [0, 1) with one lattice cell a unit."""
    i, j = np.floor(a), np.floor(b)
    x, y = a - i, b - j
    x = x * x * (3.0 - 2.0 * x)
    y = y * y * (3.0 - 2.0 * y)
    top = cell_hash(i, j, key)
    top += (cell_hash(i + 1.0, j, key) - top) * x
    low = cell_hash(i, j + 1.0, key)
    low += (cell_hash(i + 1.0, j + 1.0, key) - low) * x
    return top + (low - top) * y


def _fractal(a: Array, b: Array, key: int) -> Array:
    """Two octaves of value noise, stretched to use most of [0, 1]."""
    total = 0.65 * value_noise(a, b, key) + 0.35 * value_noise(2.0 * a, 2.0 * b, key ^ 0x5BD1E995)
    return np.minimum(np.maximum(1.6 * total - 0.3, 0.0), 1.0)


def _wave(x: Array) -> Array:
    """A triangle wave in [0, 1] of period 1."""
    return np.abs(2.0 * (x - np.floor(x)) - 1.0)


def _frac(x: Array) -> Array:
    return x - np.floor(x)


def _odd(x: Array) -> Array:
    return x - 2.0 * np.floor(0.5 * x)


def _plain(a: Array, b: Array, key: int, share: float) -> Array:
    return np.zeros_like(a)


def _checker(a: Array, b: Array, key: int, share: float) -> Array:
    return _odd(np.floor(a) + np.floor(b))


def _stripes(a: Array, b: Array, key: int, share: float) -> Array:
    return (_frac(a) < share).astype(np.float64)


def _plaid(a: Array, b: Array, key: int, share: float) -> Array:
    return 0.5 * (_frac(a) < share) + 0.5 * (_frac(b) < share)


def _dots(a: Array, b: Array, key: int, share: float) -> Array:
    x, y = _frac(a) - 0.5, _frac(b) - 0.5
    radius = 0.15 + 0.3 * share
    return (x * x + y * y < radius * radius).astype(np.float64)


def _jointed(a: Array, b: Array, key: int, joint_a: float, joint_b: float) -> Array:
    """Tiles of unit size, each of its own tone in the upper half of the palette; the joints are at 0."""
    i, j = np.floor(a), np.floor(b)
    solid = (a - i >= joint_a) & (b - j >= joint_b)
    return np.where(solid, 0.5 + 0.5 * cell_hash(i, j, key), 0.0)


def _tiles(a: Array, b: Array, key: int, share: float) -> Array:
    joint = 0.04 + 0.06 * share
    return _jointed(a, b, key, joint, joint)


def _bricks(a: Array, b: Array, key: int, share: float) -> Array:
    rows = 2.0 * b
    joint = 0.05 + 0.05 * share
    return _jointed(a + 0.5 * _odd(np.floor(rows)), rows, key, joint, 2.0 * joint)


def _planks(a: Array, b: Array, key: int, share: float) -> Array:
    row = np.floor(b)
    along = 0.15 * a + cell_hash(row, row, key ^ 0x27D4EB2F)
    board = _jointed(along, b, key, 0.01, 0.05)
    return np.minimum(board * (0.8 + 0.4 * value_noise(0.5 * a, 6.0 * b, key)), 1.0)


def _noise(a: Array, b: Array, key: int, share: float) -> Array:
    return _fractal(a, b, key)


def _marble(a: Array, b: Array, key: int, share: float) -> Array:
    return _wave(a + (1.0 + 2.0 * share) * value_noise(a, b, key))


def _patches(a: Array, b: Array, key: int, share: float) -> Array:
    return np.floor(3.0 * cell_hash(np.floor(a), np.floor(b), key)) * 0.5


def _chevron(a: Array, b: Array, key: int, share: float) -> Array:
    return (_frac(b + 0.5 * _wave(a)) < share).astype(np.float64)


def _rings(a: Array, b: Array, key: int, share: float) -> Array:
    return (_frac(np.sqrt(a * a + b * b)) < share).astype(np.float64)


def _speckle(a: Array, b: Array, key: int, share: float) -> Array:
    """Terrazzo: a chip in every small cell, of its own size and tone."""
    a, b = 3.0 * a, 3.0 * b
    i, j = np.floor(a), np.floor(b)
    size = cell_hash(i, j, key ^ 0x165667B1)
    x, y = a - i - 0.5, b - j - 0.5
    lean = 2.0 * size - 1.0
    radius = 0.2 + 0.3 * size
    inside = np.abs(x + lean * y) + np.abs(y - lean * x) < radius * (1.0 + np.abs(lean))
    return np.where(inside, 0.3 + 0.7 * cell_hash(i, j, key), 0.0)


PATTERNS: Final[Mapping[str, Callable[[Array, Array, int, float], Array]]] = {
    "plain": _plain, "checker": _checker, "stripes": _stripes, "plaid": _plaid, "dots": _dots, "tiles": _tiles,
    "bricks": _bricks, "planks": _planks, "noise": _noise, "marble": _marble, "patches": _patches,
    "chevron": _chevron, "rings": _rings, "speckle": _speckle,
}  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """A pattern with its colours and placement.

    pattern : a name of PATTERNS
    palette : three linear albedos, at 0, 1/2 and 1 of the pattern's range
    scale : metres a pattern unit
    turn : cosine and sine of the pattern's direction on the surface
    shift : offset in pattern units
    key : of the hashes
    share : in [0, 1], the pattern's own parameter (width of a stripe, of a joint, strength of a vein)
    grain, grain_scale : relative strength of noise on top, and its size in metres
    """

    pattern: str
    palette: tuple[Triple, Triple, Triple]
    scale: float = 0.3
    turn: tuple[float, float] = (1.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)
    key: int = 0
    share: float = 0.5
    grain: float = 0.0
    grain_scale: float = 0.05

    def albedo(self, u: Array, v: Array, face: NDArray[np.int8]) -> Vec:
        """Linear albedo at surface coordinates u, v [metres]; each side of a solid is shifted differently."""
        c, s = self.turn
        lean = 0.37 * face
        a = (c * u + s * v) / self.scale + self.shift[0] + lean
        b = (c * v - s * u) / self.scale + self.shift[1] + lean
        place = PATTERNS[self.pattern](a, b, self.key, self.share)
        low = np.minimum(2.0 * place, 1.0)
        high = np.maximum(2.0 * place - 1.0, 0.0)
        factor = None
        if self.grain > 0.0:
            noise = value_noise(u / self.grain_scale + lean, v / self.grain_scale, self.key ^ 0x3C6EF372)
            factor = 1.0 + self.grain * (2.0 * noise - 1.0)
        first, second, third = self.palette

        def channel(k: int) -> Array:
            value = first[k] + (second[k] - first[k]) * low + (third[k] - second[k]) * high
            if factor is not None:
                value = value * factor
            return np.minimum(np.maximum(value, ALBEDO_MIN), ALBEDO_MAX)

        return channel(0), channel(1), channel(2)
