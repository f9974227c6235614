"""Metrics of dense albedo and irradiance maps: scale-invariant errors, PSNR and SSIM.

In which space values are compared (linear or encoded) is the caller's protocol. Each takes what `si_mse` takes, gives
what it gives, and raises what it raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore, unknown
from reasonx_eval.metrics.arrays import Mask, Scores, each_image

Map = NDArray[Any]
Floats = NDArray[np.float64]

# Energies below which a scale is taken as 0, and by which a scale is at most divided, as published.
_NO_ENERGY = 1e-5
_LEAST_ENERGY = 1e-6
# The same in Grosse's code, whose values are 257 times ours: 16 bits divided by 255.
_NO_WINDOW = _NO_ENERGY / 257**2
# 11 x 11 pixels: the Gaussian of sigma 1.5 cut at 3.5 sigma
_SSIM_SIDE = 11


def si_mse(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Scale-invariant squared error, mean (a p - g)^2 with the scale a of `lsq_scale`, in [0, inf); lower is better.

    Parameters
    ----------
    pred, target : [H, W], or [..., H, W, C] of 1 or 3 channels; numpy or torch, on any device
    mask : [..., H, W] or [H, W], bool or uint8, optional
        The pixels that count; all if it is not given. Nothing outside is looked at.

    Returns
    -------
    float
        For leading axes float64 [...], an array or a tensor as the input is.

    Raises
    ------
    SampleError
        Shapes that differ, no valid pixel, or values that aren't finite there.
    UndefinedScore
        Ground truth that is zero at every valid pixel: scale 0 would make any prediction perfect. Only of the metrics
        with a free scale.

    References
    ----------
    Luo et al. 2024, IntrinsicDiffusion, released evaluation.

    Examples
    --------
    >>> si_mse([[1.0, 2.0]], [[0.5, 1.0]]), si_mse([[1.0, 1.0]], [[0.0, 1.0]])
    (0.0, 0.25)
    """
    return _each(lambda p, g, valid: _si_mse(*_masked(p, g, valid)), pred, target, mask)


def lsq_scale(pred: Any, target: Any, mask: Any = None) -> Scores:
    """The scalar a that minimises sum (a p - g)^2 over valid pixels and all channels; see `si_mse`.

    sum(g p) / max(sum(p^2), 1e-6), and 0 if sum(p^2) <= 1e-5, as in the released evaluation. So a black prediction
    stays black: it is scored for all that it misses.

    Examples
    --------
    >>> lsq_scale([[1.0, 2.0]], [[0.5, 1.0]])
    0.5
    """
    return _each(lambda p, g, valid: _scale(*_masked(p, g, valid)), pred, target, mask)


def map_rmse(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Root of the mean (p - g)^2 over valid pixels and channels, in [0, inf), lower is better; see `si_mse`.

    Examples
    --------
    >>> map_rmse([[0.5, 0.5]], [[0.0, 1.0]])
    0.5
    """
    return _each(lambda p, g, valid: math.sqrt(_mse(p, g, valid)), pred, target, mask)


def psnr(pred: Any, target: Any, mask: Any = None) -> Scores:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) dB, of data in [0, 1]; higher is better; see `si_mse`.

    Equal maps give ``inf``: the perfect value, which JSON can't hold, so a caller that stores it must map it.

    Examples
    --------
    >>> round(psnr([[0.5, 0.6]], [[0.4, 0.5]]), 9)
    20.0
    """

    def one(p: Map, g: Map, valid: Mask) -> float:
        mse = _mse(p, g, valid)
        return -10 * math.log10(mse) if mse > 0 else math.inf

    return _each(one, pred, target, mask)


def ssim(pred: Any, target: Any, mask: Any = None, *, border: str = "crop") -> Scores:
    """Structural similarity of data in [0, 1], in [-1, 1], higher is better; see `si_mse`.

    Gaussian weights of sigma 1.5 (11 x 11), population covariance, K1 = 0.01, K2 = 0.03, data range 1; the
    mean over channels and pixels. Pixels outside the mask are 0 in both maps, as published, so they count as equal:
    values of different masks don't compare.

    Parameters
    ----------
    border : str
        "crop": the mean over pixels more than 5 from the border, as Wang et al. 2004, scikit-image, and torchmetrics
        up to 1.4.1. "whole": over all pixels, of maps that are mirrored at the border, as torchmetrics since 1.4.2.

    Raises
    ------
    SampleError
        Also a map under 11 pixels.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli 2004.

    Examples
    --------
    >>> round(ssim(np.eye(12), np.eye(12)), 12)
    1.0
    """
    if border not in _SSIM:
        raise unknown("border of SSIM", border, _SSIM)

    def one(p: Map, g: Map, valid: Mask) -> float:
        _masked(p, g, valid)
        if min(valid.shape) < _SSIM_SIDE:
            raise SampleError(f"map of {valid.shape[0]} x {valid.shape[1]} pixels: SSIM needs "
                              f"{_SSIM_SIDE} x {_SSIM_SIDE}")  # fmt: skip
        return _SSIM[border](_zeroed(p, valid), _zeroed(g, valid))

    return _each(one, pred, target, mask)


def lmse(pred: Any, target: Any, mask: Any = None, *, form: str = "grosse") -> Scores:
    """Local scale-invariant MSE, in [0, inf), lower is better; see `si_mse`.

    Parameters
    ----------
    form : str
        Two published forms whose values don't compare.

        "grosse" (Grosse et al. 2009): windows of 20 pixels every 10, whole ones only, each scaled on its own; the
        sum of squared errors of all windows over the sum of squared ground truth of all windows, in [0, 1].
        Its authors compare grey maps: colour maps are averaged over channels first.

        "luo" (Luo et al. 2024): windows of a tenth of the long side every half window, cut at the border; `si_mse`
        of each, one scale for all channels; the plain mean, where a window without a valid pixel counts 0.

    Raises
    ------
    UndefinedScore
        Also a map without a whole window (under 20 pixels, "grosse").

    Examples
    --------
    >>> ramp = np.linspace(0.1, 1, 400).reshape(20, 20)
    >>> round(lmse(0.5 * ramp, ramp), 12), round(lmse(np.zeros((20, 20)), ramp), 12)
    (0.0, 1.0)
    """
    if form not in _LMSE:
        raise unknown("form of LMSE", form, _LMSE)

    def one(p: Map, g: Map, valid: Mask) -> float:
        _scale(*_masked(p, g, valid))
        return _LMSE[form](_zeroed(p, valid), _zeroed(g, valid), valid)

    return _each(one, pred, target, mask)


def _each(measure: Callable[[Map, Map, Mask], float], pred: Any, target: Any, mask: Any) -> Scores:
    shape = tuple(pred.shape) if hasattr(pred, "shape") else np.shape(pred)
    if len(shape) > 2 and shape[-1] not in (1, 3):
        raise SampleError(f"a map of shape {shape} has {shape[-1]} channels, expected [H, W] or [..., H, W, C] with C "
                          "1 or 3: move the channels last, give grey maps an axis")  # fmt: skip
    return each_image(measure, pred, target, mask, axes=2 if len(shape) <= 2 else 3)


def _si_mse(p: Floats, g: Floats) -> float:
    return float(np.mean((_scale(p, g) * p - g) ** 2))


def _mse(pred: Map, target: Map, valid: Mask) -> float:
    p, g = _masked(pred, target, valid)
    return float(np.mean((p - g) ** 2))


def _ssim_crop(p: Floats, g: Floats) -> float:
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image has no types
            g, p, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def _ssim_whole(p: Floats, g: Floats) -> float:
    from scipy.ndimage import gaussian_filter

    def mean(values: Floats) -> Floats:
        return np.asarray(gaussian_filter(values, 1.5, truncate=3.5, mode="mirror", axes=(0, 1)))

    mean_p, mean_g = mean(p), mean(g)
    variance = np.maximum(mean(p * p) - mean_p**2, 0) + np.maximum(mean(g * g) - mean_g**2, 0)
    covariance = mean(p * g) - mean_p * mean_g
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_p * mean_g + c1) * (2 * covariance + c2) / ((mean_p**2 + mean_g**2 + c1) * (variance + c2))
    return float(similarity.mean())


_SSIM: dict[str, Callable[[Floats, Floats], float]] = {"crop": _ssim_crop, "whole": _ssim_whole}


def _lmse_grosse(p: Floats, g: Floats, valid: Mask, size: int = 20, shift: int = 10) -> float:
    """Maps [H, W, C] that are 0 outside the mask."""
    p, g = p.mean(axis=2), g.mean(axis=2)
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


_LMSE: dict[str, Callable[[Floats, Floats, Mask], float]] = {"grosse": _lmse_grosse, "luo": _lmse_luo}


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
    p, g = (a.reshape(*valid.shape, -1)[valid].astype(np.float64) for a in (pred, target))
    if p.size == 0:
        raise SampleError("no valid pixel: an empty mask?")
    for name, values in (("prediction", p), ("ground truth", g)):
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if bad:
            raise SampleError(f"{name} is NaN or infinite at {bad} of {len(values)} valid pixels")
    return p, g
