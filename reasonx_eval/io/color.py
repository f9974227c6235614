"""Transfer functions between linear light and encoded values."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: of R, G and B in the luminance: the weights of the published irradiance question
LUMINANCE: Final = (0.299, 0.587, 0.114)


def srgb_to_linear(value: ArrayLike) -> NDArray[np.float64]:
    """Piecewise IEC 61966-2-1 decoding; values in [0, 1] give [0, 1], float64."""
    v = np.asarray(value, dtype=np.float64)
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0.0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: ArrayLike) -> NDArray[np.float64]:
    """Piecewise IEC 61966-2-1 encoding; values in [0, 1] give [0, 1], float64."""
    v = np.asarray(value, dtype=np.float64)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * np.maximum(v, 0.0) ** (1 / 2.4) - 0.055)


def decode(value: ArrayLike, transfer: str) -> NDArray[np.float64]:
    """Encoded to linear by `transfer`: srgb (piecewise) or gamma2.2 (power)."""
    if transfer == "srgb":
        return srgb_to_linear(value)
    return np.maximum(np.asarray(value, dtype=np.float64), 0.0) ** 2.2


def encode(value: ArrayLike, transfer: str) -> NDArray[np.float64]:
    """Linear to encoded by `transfer`: srgb (piecewise) or gamma2.2 (power)."""
    if transfer == "srgb":
        return linear_to_srgb(value)
    return np.maximum(np.asarray(value, dtype=np.float64), 0.0) ** (1 / 2.2)


@cache
def srgb8_table() -> NDArray[np.float64]:
    """The linear value of each of the 256 codes of an 8-bit sRGB image, float64 [256]."""
    return srgb_to_linear(np.arange(256) / 255.0)
