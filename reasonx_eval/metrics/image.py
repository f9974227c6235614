"""Albedo and irradiance metrics on dense maps: scale-invariant errors, PSNR and SSIM.

Every function takes maps as [H, W] or [H, W, C] and a mask [H, W], works in float64 and looks at nothing
outside the mask. In which space values are compared (linear or encoded) is the caller's protocol.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore, unknown

Map = NDArray[Any]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Energies below which a scale is taken as 0, and by which a scale is at most divided, as published.
_NO_ENERGY = 1e-5
_LEAST_ENERGY = 1e-6
# The same in Grosse's code, whose values are 257 times ours: 16 bits divided by 255.
_NO_WINDOW = _NO_ENERGY / 257**2
# 11 x 11 pixels: the Gaussian of sigma 1.5 cut at 3.5 sigma
_SSIM_SIDE = 11


def lsq_scale(*, pred: Map, target: Map, valid: Mask) -> float:
    """The scalar that minimises sum (a p - g)^2 over valid pixels and all channels.

    sum(g p) / max(sum(p^2), 1e-6), and 0 if sum(p^2) <= 1e-5 (the released evaluation of IntrinsicDiffusion,
    Luo et al. 2024). So a black prediction stays black: it is scored for all that it misses.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, or values that aren't finite there.
    UndefinedScore
        Ground truth that is zero at every valid pixel: scale 0 would make any prediction perfect.
    """
    return _scale(*_masked(pred, target, valid))


def si_mse(*, pred: Map, target: Map, valid: Mask) -> float:
    """Mean (a p - g)^2 with the scale a of `lsq_scale`, in [0, inf), lower is better; raises what it raises."""
    p, g = _masked(pred, target, valid)
    return float(np.mean((_scale(p, g) * p - g) ** 2))


def rmse(*, pred: Map, target: Map, valid: Mask) -> float:
    """Root of the mean (p - g)^2 over valid pixels and channels, in [0, inf), lower is better.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, or values that aren't finite there.
    """
    p, g = _masked(pred, target, valid)
    return float(np.sqrt(np.mean((p - g) ** 2)))


def psnr(*, pred: Map, target: Map, valid: Mask) -> float:
    """10 log10(1 / MSE) over valid pixels and channels, dB for data in [0, 1], higher is better.

    Equal maps give ``inf``: the perfect value, which JSON can't hold, so a caller that stores it must map it.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, or values that aren't finite there.
    """
    p, g = _masked(pred, target, valid)
    mse = float(np.mean((p - g) ** 2))
    return -10 * math.log10(mse) if mse > 0 else math.inf


def ssim(*, pred: Map, target: Map, valid: Mask) -> float:
    """Structural similarity for data in [0, 1], in [-1, 1], higher is better (Wang et al. 2004).

    Gaussian weights of sigma 1.5 (11 x 11), population covariance, K1 = 0.01, K2 = 0.03, data range 1; the
    mean over channels and over pixels more than 5 from the border. Pixels outside the mask are 0 in both
    maps, as published, so they count as equal: values of different masks don't compare.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, values that aren't finite there, or a map under 11 pixels.
    """
    from skimage.metrics import structural_similarity

    _masked(pred, target, valid)
    if min(valid.shape) < _SSIM_SIDE:
        raise SampleError(f"map of {valid.shape[0]} x {valid.shape[1]} pixels: SSIM needs {_SSIM_SIDE} x {_SSIM_SIDE}")
    p, g = _zeroed(pred, valid), _zeroed(target, valid)
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image has no types
            g, p, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def lmse(*, pred: Map, target: Map, valid: Mask, form: str) -> float:
    """Local scale-invariant MSE, in [0, inf), lower is better; two published forms whose values don't compare.

    Parameters
    ----------
    form : str
        "grosse" (Grosse et al. 2009): windows of 20 pixels every 10, whole ones only, each scaled on its own; the
        sum of squared errors of all windows over the sum of squared ground truth of all windows, in [0, 1].
        Its authors compare grey maps: colour maps are averaged over channels first.
        "luo" (Luo et al. 2024): windows of a tenth of the long side every half window, cut at the border; `si_mse`
        of each, one scale for all channels; the plain mean, where a window without a valid pixel counts 0.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, or values that aren't finite there.
    UndefinedScore
        Ground truth that is zero in every window, or no whole window (under 20 pixels, "grosse").
    """
    p, g = _masked(pred, target, valid)
    _scale(p, g)
    p, g = _zeroed(pred, valid), _zeroed(target, valid)
    if form == "grosse":
        return _lmse_grosse(p.mean(axis=2), g.mean(axis=2))
    if form == "luo":
        return _lmse_luo(p, g, valid)
    raise unknown("form of LMSE", form, ("grosse", "luo"))


def _lmse_grosse(p: Floats, g: Floats, size: int = 20, shift: int = 10) -> float:
    """Maps [H, W] that are 0 outside the mask."""
    height, width = g.shape
    if min(height, width) < size:
        raise UndefinedScore(f"map of {height} x {width} pixels holds no window of {size} x {size}")
    error, total = 0.0, 0.0
    for top in range(0, height - size + 1, shift):
        # all windows of one strip at once: [windows, size * size]
        strips = (np.lib.stride_tricks.sliding_window_view(a[top : top + size], size, axis=1) for a in (p, g))
        wp, wg = (s[:, ::shift].transpose(1, 0, 2).reshape(-1, size * size) for s in strips)
        energy, cross = np.einsum("wi,wi->w", wp, wp), np.einsum("wi,wi->w", wp, wg)
        alpha = np.where(energy > _NO_WINDOW, cross / np.maximum(energy, _NO_WINDOW), 0.0)
        error += float(((wg - alpha[:, None] * wp) ** 2).sum())
        total += float((wg**2).sum())
    if total == 0:
        raise UndefinedScore("ground truth is zero in every window")
    return error / total


def _lmse_luo(p: Floats, g: Floats, valid: Mask) -> float:
    """Maps [H, W, C] that are 0 outside the mask."""
    height, width, channels = g.shape
    size = int(max(height, width) * 0.1 + 0.5)
    shift = int(size / 2 + 0.5)
    if shift < 1:
        raise UndefinedScore(f"map of {height} x {width} pixels is too small for windows of a tenth")
    found = []
    for top in range(0, height - shift + 1, shift):
        for left in range(0, width - shift + 1, shift):
            window = (slice(top, top + size), slice(left, left + size))
            n = int(np.count_nonzero(valid[window])) * channels
            wp, wg = p[window], g[window]
            found.append(float(((_bare_scale(wp, wg) * wp - wg) ** 2).sum()) / n if n else 0.0)
    if not found:
        raise UndefinedScore(f"map of {height} x {width} pixels holds no window of {size}: far from square")
    return float(np.mean(found))


def _scale(p: Floats, g: Floats) -> float:
    if not g.any():
        raise UndefinedScore("ground truth is zero at every valid pixel: any prediction would fit it")
    return _bare_scale(p, g)


def _bare_scale(p: Floats, g: Floats) -> float:
    energy = float((p * p).sum())
    return float((g * p).sum()) / max(energy, _LEAST_ENERGY) if energy > _NO_ENERGY else 0.0


def _zeroed(value: Map, valid: Mask) -> Floats:
    """float64 [H, W, C] with 0 outside the mask, whatever stood there."""
    cube = value.reshape(*valid.shape, -1)
    return np.where(valid[..., None], cube, 0).astype(np.float64)


def _masked(pred: Map, target: Map, valid: Mask) -> tuple[Floats, Floats]:
    """Checked valid values, float64 [n, C]."""
    if target.ndim not in (2, 3) or pred.shape != target.shape:
        raise SampleError(f"prediction {pred.shape} and ground truth {target.shape} must both be [H, W] or [H, W, C]")
    if valid.shape != target.shape[:2] or valid.dtype != np.bool_:
        raise SampleError(f"mask is {valid.dtype} {valid.shape}, expected bool {target.shape[:2]}")
    p, g = (a.reshape(*valid.shape, -1)[valid].astype(np.float64) for a in (pred, target))
    if p.size == 0:
        raise SampleError("no valid pixel: an empty mask?")
    for name, values in (("prediction", p), ("ground truth", g)):
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if bad:
            raise SampleError(f"{name} is NaN or infinite at {bad} of {len(values)} valid pixels")
    return p, g
