"""Measured albedo of labelled regions (MAW: Wu et al. 2023): intensity and chromaticity errors.

A region's value is the plain mean of linear RGB over its pixels and its weight their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore
from reasonx_eval.io.color import linear_to_srgb

Floats = NDArray[np.float64]

_LEAST_ENERGY = 1e-6


def region_means(*, pred: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean value and number of pixels of each region, in ascending order of label.

    Parameters
    ----------
    pred : [H, W, 3], linear
    labels : integer [H, W]; the smallest label present is the background, as in the released evaluation

    Returns
    -------
    means : float64 [R, 3];  weights : float64 [R]

    Raises
    ------
    SampleError
        Shapes that differ, or a value that isn't finite inside a region.
    UndefinedScore
        One label only: no region.
    """
    if pred.ndim != 3 or pred.shape[2] != 3 or labels.shape != pred.shape[:2] or labels.dtype.kind not in "iu":
        raise SampleError(f"prediction {pred.shape} must be [H, W, 3] and labels ({labels.dtype} {labels.shape}) "
                          "integers [H, W]")  # fmt: skip
    found, index = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise UndefinedScore("the label map has no region beside the background")
    index = index.ravel()
    weights = np.bincount(index).astype(np.float64)
    sums = [np.bincount(index, weights=pred[..., c].ravel().astype(np.float64)) for c in range(3)]
    means = (np.stack(sums, axis=1) / weights[:, None])[1:]
    if not np.isfinite(means).all():
        bad = found[1:][~np.isfinite(means).all(axis=1)]
        raise SampleError(f"prediction is NaN or infinite in regions {bad.tolist()}")
    return means, weights[1:]


def maw_intensity(*, pred: NDArray[Any], labels: NDArray[Any], colors: NDArray[Any]) -> float:
    """Weighted mean squared error of region intensity after one scale per image, in [0, inf), lower is better.

    Intensities are channel means; the scale is sum(w p g) / max(sum(w p^2), 1e-6). A black prediction stays
    black and scores the mean squared ground truth. Papers print 100 times the mean over images.

    Parameters
    ----------
    pred : [H, W, 3], linear RGB
    labels : integer [H, W], see `region_means`
    colors : [R, 3], measured linear RGB, in ascending order of label

    Raises
    ------
    SampleError
        See `region_means`; or measured colours that don't match the regions, aren't finite, or are black.
    """
    p, g, w = _regions(pred, labels, colors)
    p, g = p.mean(axis=1), g.mean(axis=1)
    scale = (w * p * g).sum() / max((w * p * p).sum(), _LEAST_ENERGY)
    return float((w * (g - scale * p) ** 2).sum() / w.sum())


def maw_chroma(*, pred: NDArray[Any], labels: NDArray[Any], colors: NDArray[Any]) -> float:
    """Weighted mean CIEDE2000 of regions, each brought to its measured intensity, in [0, inf), lower is better.

    The scale of a region is p g / max(p^2, 1e-6) of the channel means: a black region stays black and pays
    for its lightness. Linear RGB is encoded as sRGB, clipped to [0, 1], before CIELAB (D65, 2 degrees). CIELAB is
    scikit-image's; the authors use the package colour-science, whose values differ by up to 5e-4 relative.

    Parameters
    ----------
    pred, labels, colors : as in `maw_intensity`, which also says what is refused
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    p, g, w = _regions(pred, labels, colors)
    mean_p, mean_g = p.mean(axis=1), g.mean(axis=1)
    scale = mean_p * mean_g / np.maximum(mean_p**2, _LEAST_ENERGY)
    lab_p, lab_g = (rgb2lab(np.clip(linear_to_srgb(v), 0, 1)[None])[0] for v in (p * scale[:, None], g))
    differences = deltaE_ciede2000(lab_g, lab_p)  # type: ignore[no-untyped-call]  # scikit-image has no types
    return float((w * differences).sum() / w.sum())


def _regions(pred: NDArray[Any], labels: NDArray[Any], colors: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    means, weights = region_means(pred=pred, labels=labels)
    measured = np.asarray(colors, dtype=np.float64)
    if measured.shape != means.shape:
        raise SampleError(f"{len(means)} regions, but measured colours of shape {measured.shape}")
    if not (np.isfinite(measured).all() and (measured >= 0).all() and measured.any()):
        raise SampleError("measured colours must be finite, not negative and not all black")
    return means, measured, weights
