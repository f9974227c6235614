"""Arithmetic that gives the same bits on every machine.

IEEE 754 fixes the result of +, -, *, /, sqrt, floor, abs, comparison and conversion to the last bit, so whatever
is built from them alone is the same everywhere. ``np.sin``, ``np.exp``, ``**``, ``@``, ``einsum`` and float sums
are not: their last bits depend on the library, on SIMD width and on fused multiply-adds. The scene code uses the
functions below in their place, and writes sums of three out in a fixed order.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Triple: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Triple, Triple, Triple]
Vec: TypeAlias = tuple[Array, Array, Array]

_RADIAN = 3.141592653589793 / 180.0
# Taylor coefficients, highest power first; the next term is below 2e-17 for |angle| <= 45 degrees
_SIN = tuple((-1) ** (k // 2) / math.factorial(k) for k in range(17, 0, -2))
_COS = tuple((-1) ** (k // 2) / math.factorial(k) for k in range(18, -1, -2))

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

#: steps of the table that encodes linear light; the steepest part of the curve moves 0.05 codes a step
SRGB_STEPS = 65535


def cos_sin(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle in degrees, to about 1e-16."""
    quarter = math.floor(degrees / 90.0 + 0.5)
    x = (degrees - 90.0 * quarter) * _RADIAN
    square = x * x
    sine = cosine = 0.0
    for a in _SIN:
        sine = sine * square + a
    for a in _COS:
        cosine = cosine * square + a
    sine *= x
    return ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))[quarter % 4]


def multiply(a: Matrix, b: Matrix) -> Matrix:
    """The 3x3 product a b."""

    def entry(i: int, j: int) -> float:
        return a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j]

    rows = [(entry(i, 0), entry(i, 1), entry(i, 2)) for i in range(3)]
    return rows[0], rows[1], rows[2]


def transpose(m: Matrix) -> Matrix:
    return (m[0][0], m[1][0], m[2][0]), (m[0][1], m[1][1], m[2][1]), (m[0][2], m[1][2], m[2][2])


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Matrix:
    """Turn by roll about z, then pitch about x, then yaw about y; degrees, in the frame x right, y down, z forward.

    A positive yaw turns the forward axis to the right, a positive pitch turns it down.
    """
    cy, sy = cos_sin(yaw)
    cp, sp = cos_sin(pitch)
    cr, sr = cos_sin(roll)
    about_y: Matrix = ((cy, 0.0, sy), (0.0, 1.0, 0.0), (-sy, 0.0, cy))
    about_x: Matrix = ((1.0, 0.0, 0.0), (0.0, cp, sp), (0.0, -sp, cp))
    about_z: Matrix = ((cr, -sr, 0.0), (sr, cr, 0.0), (0.0, 0.0, 1.0))
    return multiply(about_y, multiply(about_x, about_z))


def apply(m: Matrix, v: Vec) -> Vec:
    """m v for a vector of arrays; factors 0 and 1, which most turns are made of, cost nothing."""
    return _row(m[0], v), _row(m[1], v), _row(m[2], v)


def _row(row: Triple, v: Vec) -> Array:
    total: Array | None = None
    for factor, x in zip(row, v, strict=True):
        if factor == 0.0:
            continue
        term = x if factor == 1.0 else factor * x
        total = term if total is None else total + term
    assert total is not None  # a rotation has no zero row
    return total


def dot(a: Vec, b: Vec) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def point(p: Triple) -> Vec:
    """One point as a vector of 0-d arrays, which broadcast."""
    return np.asarray(p[0]), np.asarray(p[1]), np.asarray(p[2])


def take(v: Vec, index: NDArray[np.intp]) -> Vec:
    return v[0][index], v[1][index], v[2][index]


def mean(values: Array) -> float:
    """Mean of values in [0, 2**20), rounded down to 2**-20 each so that the sum is an exact integer."""
    return int(np.floor(values * 1048576.0).astype(np.int64).sum()) / (1048576.0 * values.size)


def cube_root(x: Array) -> Array:
    """Cube root of values in [0.001, 1] by Newton's method with a fixed number of steps."""
    y = np.sqrt(np.sqrt(x))
    for _ in range(6):
        y = y - (y * y * y - x) / (3.0 * y * y)
    return y


@cache
def srgb_table() -> Array:
    """The sRGB encoding (IEC 61966-2-1, in [0, 1]) of k / SRGB_STEPS for k = 0 .. SRGB_STEPS."""
    x = np.arange(SRGB_STEPS + 1) / float(SRGB_STEPS)
    twelfth = np.sqrt(np.sqrt(cube_root(np.maximum(x, 0.001))))
    square = twelfth * twelfth
    table: Array = np.where(x <= 0.0031308, x * 12.92, 1.055 * (square * square * twelfth) - 0.055)
    table.flags.writeable = False
    return table


def encode_srgb(linear: Array) -> Array:
    """Linear light, clipped to [0, 1], to sRGB values in [0, 1], through the table."""
    clipped = np.minimum(np.maximum(linear, 0.0), 1.0)
    return srgb_table()[np.floor(clipped * SRGB_STEPS + 0.5).astype(np.intp)]
