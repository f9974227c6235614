"""Colour Retinex: sharp steps are paint, smooth ones are light, and the light is grey.

Land and McCann's assumption, in the colour form that Grosse et al. (2009) evaluate: in log space
``image = albedo + light`` with one light value for all channels, so chroma belongs to albedo, and a step in
intensity belongs to albedo exactly where chroma or intensity steps by more than a threshold.
The log intensity of albedo is then the least-squares integral of those steps (a Poisson equation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.color import srgb8_table

# Half of the linear value of code 1: black stays the darkest and has a logarithm.
_FLOOR = 0.5 / 255.0 / 12.92
# The lightest paint of a scene is taken for white: this share of pixels is darker than albedo 1.
_WHITE_QUANTILE = 0.995


def colour_retinex(
    image: NDArray[np.uint8], *, chroma_threshold: float, intensity_threshold: float, max_side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split a photo into linear albedo and grey irradiance, whose product is the (linear) photo.

    Parameters
    ----------
    image : uint8 [H, W, 3], sRGB
    chroma_threshold, intensity_threshold : see the module; steps of natural logarithms between neighbours
    max_side : a photo with a longer side is averaged down to it, in linear light

    Returns
    -------
    albedo, irradiance : float32 [h, w, 3], h and w at most `max_side`; albedo's scale is a convention
        (its 99.5th percentile is 1)
    """
    linear = np.maximum(_reduced(image, max_side), np.float32(_FLOOR))
    log_rgb = np.log(linear)
    intensity = log_rgb.mean(axis=-1)
    chroma = log_rgb - intensity[..., None]
    steps = []
    for axis in (0, 1):
        step = np.diff(intensity, axis=axis)
        colour = np.linalg.norm(np.diff(chroma, axis=axis), axis=-1)
        paint = (colour > chroma_threshold) | (np.abs(step) > intensity_threshold)
        steps.append(np.where(paint, step, np.float32(0)))
    log_albedo = integrate(steps[0], steps[1])
    albedo = np.exp(log_albedo[..., None] + chroma)
    albedo /= np.quantile(albedo.max(axis=-1), _WHITE_QUANTILE)
    # grey by construction, up to rounding; the mean makes it exactly so
    light = (linear / albedo).mean(axis=-1, keepdims=True)
    return albedo.astype(np.float32), np.repeat(light, 3, axis=-1).astype(np.float32)


def integrate(down: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.floating]:
    """The map whose steps between neighbours are nearest to the given ones, in least squares; its mean is 0.

    Solves the Poisson equation with free (Neumann) borders, which the type-2 cosine transform makes diagonal.

    Parameters
    ----------
    down : [H - 1, W], wanted ``map[i + 1, j] - map[i, j]``
    right : [H, W - 1], wanted ``map[i, j + 1] - map[i, j]``

    Returns
    -------
    [H, W]
    """
    from scipy.fft import dctn, idctn

    height, width = down.shape[0] + 1, right.shape[1] + 1
    divergence = np.zeros((height, width), dtype=np.result_type(down, right))
    divergence[:-1] += down
    divergence[1:] -= down
    divergence[:, :-1] += right
    divergence[:, 1:] -= right
    rows = 2.0 - 2.0 * np.cos(np.pi * np.arange(height) / height)
    columns = 2.0 - 2.0 * np.cos(np.pi * np.arange(width) / width)
    eigenvalues = rows[:, None] + columns[None, :]
    eigenvalues[0, 0] = 1.0
    spectrum = dctn(divergence, type=2, norm="ortho") / -eigenvalues.astype(divergence.dtype)
    spectrum[0, 0] = 0.0
    return np.asarray(idctn(spectrum, type=2, norm="ortho"))


def _reduced(image: NDArray[np.uint8], max_side: int) -> NDArray[np.float32]:
    """The photo in linear light, float32, averaged over areas down to `max_side` if it is larger."""
    from PIL import Image

    table = srgb8_table().astype(np.float32)
    height, width = image.shape[:2]
    factor = max(height, width) / max_side
    if factor <= 1:
        return table[image]
    size = max(1, round(width / factor)), max(1, round(height / factor))
    # one channel after the other: a 24 megapixel photo in float32 would take 290 MB
    channels = [Image.fromarray(table[image[..., c]]).resize(size, Image.Resampling.BOX) for c in range(3)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)
