"""A camera's response: linear light to an 8-bit sRGB picture.

Order: vignetting, exposure and white balance, blur, sensor noise, sRGB encoding, tone curve, 8 bits, block
compression. Lengths are in pixels of a picture that is 128 wide, so that a larger picture of a scene looks alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.compression import compress
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import Array, Matrix, Triple, encode_srgb
from reasonx_eval.io.blocks import row_blocks

REFERENCE_WIDTH = 128


@dataclass(frozen=True)
class Response:
    """How a camera turns linear light into a picture.

    exposure : factor on linear light; balance : per-channel factor on top
    vignetting : 1 / (1 + vignetting r**2), r = 1 at half the width
    blur : standard deviation in pixels of a picture 128 wide
    read_noise : standard deviation at black, of linear full scale; shot_noise : that of a full-scale signal
    bias : in (0, 1), 0.5 is neutral, above it mid-tones are lifted; contrast : strength of the S-curve, 0 none
    quality : of the block compression, 1-100; None: none
    """

    exposure: float = 1.0
    balance: Triple = (1.0, 1.0, 1.0)
    vignetting: float = 0.0
    blur: float = 0.0
    read_noise: float = 0.0
    shot_noise: float = 0.0
    bias: float = 0.5
    contrast: float = 0.0
    quality: int | None = None


@dataclass(frozen=True)
class Camera:
    """Pose and optics: turn from camera to world, horizontal field of view [degrees], and the response."""

    turn: Matrix
    fov: float
    half_width: float
    response: Response

    def focal(self, width: int) -> float:
        """Focal length in pixels of a picture `width` wide; half_width = tan(fov / 2)."""
        return 0.5 * width / self.half_width

    def intrinsics(self, height: int, width: int) -> Array:
        """float64 [3, 3]; the centre of pixel (row r, column c) is at image position (c, r)."""
        f = self.focal(width)
        return np.array([[f, 0.0, 0.5 * (width - 1)], [0.0, f, 0.5 * (height - 1)], [0.0, 0.0, 1.0]])


def _blur(image: Array, sigma: float) -> Array:
    """Separable smoothing with the triweight kernel (1 - (x / 3 sigma)**2)**3, whose deviation is sigma."""
    radius = 3.0 * sigma
    taps = math.ceil(radius) - 1
    if taps < 1:
        return image
    bell = [1.0 - (k / radius) * (k / radius) for k in range(taps + 1)]
    weights = [w * w * w for w in bell]
    total = weights[0]
    for w in weights[1:]:
        total = total + 2.0 * w
    factors = [w / total for w in weights]
    height, width, _ = image.shape
    padded = np.concatenate([image[:1]] * taps + [image] + [image[-1:]] * taps)
    result = np.empty_like(image)
    for rows in row_blocks(height, 3 * width):
        down = _smooth(padded[rows.start : rows.stop + 2 * taps], factors)
        beside = np.concatenate([down[:, :1]] * taps + [down] + [down[:, -1:]] * taps, axis=1)
        result[rows] = _smooth(beside.transpose(1, 0, 2), factors).transpose(1, 0, 2)
    return result


def _smooth(padded: Array, factors: Sequence[float]) -> Array:
    """Weighted sum of an array and its neighbours along the first axis, which is shortened by the padding."""
    taps = len(factors) - 1
    size = len(padded) - 2 * taps
    total: Array = padded[taps : taps + size] * factors[0]
    pair = np.empty_like(total)
    for k in range(1, taps + 1):
        np.add(padded[taps - k : taps - k + size], padded[taps + k : taps + k + size], out=pair)
        pair *= factors[k]
        total += pair
    return total


def _tone(encoded: Array, bias: float, contrast: float) -> Array:
    """Tone curve on encoded values in [0, 1]: Schlick's bias, then a blend with the smooth step."""
    if bias != 0.5:
        encoded = encoded / ((1.0 / bias - 2.0) * (1.0 - encoded) + 1.0)
    if contrast != 0.0:
        curve = encoded * encoded * (3.0 - 2.0 * encoded)
        encoded = encoded + contrast * (curve - encoded)
    return encoded


def _expose(light: Array, response: Response, noise: Draw | None) -> Array:
    """Codes 0-255 as whole floats of rows of the light that falls on the sensor."""
    if noise is not None:
        read, shot = response.read_noise * response.read_noise, response.shot_noise * response.shot_noise
        deviation = np.sqrt(read + shot * np.minimum(light, 1.0))
        light = light + deviation * noise.bell(light.size).reshape(light.shape)
    encoded = _tone(encode_srgb(light), response.bias, response.contrast)
    return np.floor(encoded * 255.0 + 0.5)


def develop(linear: Array, response: Response, noise: Draw | None) -> NDArray[np.uint8]:
    """The 8-bit picture of linear light.

    Parameters
    ----------
    linear : float64 [H, W, 3], >= 0.
    response : the camera's.
    noise : stream of the sensor noise; None leaves the noise out.

    Returns
    -------
    uint8 [H, W, 3], sRGB.
    """
    height, width, _ = linear.shape
    light = linear
    if response.vignetting > 0.0:
        x = (2.0 * np.arange(width) + 1.0) / width - 1.0
        y = (2.0 * np.arange(height) + 1.0 - height) / width
        light = light / (1.0 + response.vignetting * (x * x + (y * y)[:, None]))[..., None]
    r, g, b = response.balance
    light = light * (response.exposure * np.array([r, g, b]))
    light = _blur(light, response.blur * width / REFERENCE_WIDTH)
    noisy = noise is not None and (response.read_noise > 0.0 or response.shot_noise > 0.0)
    codes = np.empty_like(light)
    # pixel by pixel from here on, and the words of the noise come in the same order, so blocks change nothing
    for rows in row_blocks(height, 3 * width):
        codes[rows] = _expose(light[rows], response, noise if noisy else None)
    if response.quality is not None:
        codes = compress(codes, response.quality)
    return codes.astype(np.uint8)
