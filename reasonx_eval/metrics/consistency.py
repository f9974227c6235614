"""Do a model's depth and normals describe the same surface?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.arrays import to_mask, to_numpy
from reasonx_eval.metrics.valid_pixels import dot


def normals_from_depth(
    depth: Any, mask: Any = None, *, intrinsics: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unit normals of the surface that a depth map describes, towards the camera.

    Pixels are back-projected, X = (u - cx) z / fx and Y = (v - cy) z / fy with u, v counted from 0, and the
    normal is the cross product of the central differences down and across: exact on planes.

    Parameters
    ----------
    depth : [H, W], z in metres (any unit: normals don't depend on scale); numpy or torch
    mask : [H, W], bool or uint8, where depth is known; everywhere if it is not given
    intrinsics : float64 [3, 3], pixels, no skew

    Returns
    -------
    normal : float64 [H, W, 3], frame x right, y down, z forward; 0 where not valid
    mask : bool [H, W], where the pixel and its four neighbours are valid, finite and positive; never
        at the border

    Raises
    ------
    SampleError
        Shapes that differ, or intrinsics without positive focal lengths.

    Examples
    --------
    A wall at constant depth faces the camera; border pixels have no normal:

    >>> normal, known = normals_from_depth(np.full((3, 3), 2.0), intrinsics=np.eye(3))
    >>> normal[1, 1].tolist(), int(known.sum())
    ([0.0, 0.0, -1.0], 1)
    """
    depth = to_numpy(depth)
    mask = to_mask(mask, depth.shape)
    normal = np.zeros((*depth.shape, 3))
    good = np.zeros(depth.shape, dtype=np.bool_)
    for rows, n, fine in _normal_blocks(depth, mask, intrinsics):
        normal[rows, 1:-1] = n
        good[rows, 1:-1] = fine
    return normal, good


def depth_normal_consistency(
    depth: Any, normal: Any, mask: Any = None, *, intrinsics: NDArray[np.float64]
) -> dict[str, float]:
    """How far predicted normals are from those of the predicted depth; 0 is perfect agreement.

    Parameters
    ----------
    depth : [H, W], metric or up to scale (an unknown shift changes normals); numpy or torch
    normal : [H, W, 3], frame x right, y down, z forward, any length
    mask : [H, W], bool or uint8, pixels to compare, all by default; those without four valid neighbours don't count
    intrinsics : float64 [3, 3], pixels

    Returns
    -------
    dict
        consistency_deg : mean angle, degrees in [0, 180]
        consistency_rmse : root of the mean squared difference of the components of unit vectors (each in
            [-1, 1]), in [0, 2 / sqrt(3)]

    Raises
    ------
    SampleError
        Shapes that differ, no pixel to compare, or a normal that isn't finite at one.

    Examples
    --------
    A wall at constant depth faces the camera:

    >>> facing = np.tile([0.0, 0.0, -1.0], (4, 4, 1))
    >>> depth_normal_consistency(np.ones((4, 4)), facing, intrinsics=np.eye(3))
    {'consistency_deg': 0.0, 'consistency_rmse': 0.0}
    """
    depth, normal = to_numpy(depth), to_numpy(normal)
    mask = to_mask(mask, depth.shape)
    if normal.shape != (*depth.shape, 3):
        raise SampleError(f"normals {normal.shape} and depth {depth.shape} differ in size")
    n, total, squares = 0, 0.0, 0.0
    for rows, derived, fine in _normal_blocks(depth, mask, intrinsics):
        if not fine.any():
            continue
        errors = angular_errors(pred=normal[rows, 1:-1], target=derived, mask=fine)
        # the squared distance of unit vectors is (2 sin(angle / 2))^2
        chord = 2 * np.sin(np.radians(errors) / 2)
        n += errors.size
        total += float(errors.sum())
        squares += dot(chord, chord)
    if n == 0:
        raise SampleError("no pixel with four valid neighbours: depth has no normals")
    return {"consistency_deg": total / n, "consistency_rmse": math.sqrt(squares / (3 * n))}


def _normal_blocks(
    depth: NDArray[Any], mask: NDArray[np.bool_], intrinsics: NDArray[np.float64]
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.bool_]]]:
    """Rows, their unit normals [b, W - 2, 3] and where these are known [b, W - 2], without the border."""
    if depth.ndim != 2 or mask.shape != depth.shape:
        raise SampleError(f"depth {depth.shape} and mask {mask.shape} must both be [H, W]")
    fx, fy, cx, cy = _focal(intrinsics)
    height, width = depth.shape
    if width < 3:
        return
    for block in row_blocks(max(0, height - 2), width):
        # one row above and one below
        rows = slice(block.start, block.stop + 2)
        z = depth[rows].astype(np.float64)
        known = mask[rows] & np.isfinite(z) & (z > 0)
        z[~known] = np.nan
        x = z * ((np.arange(width) - cx) / fx)
        y = z * ((np.arange(rows.start, rows.stop) - cy) / fy)[:, None]
        across = [a[1:-1, 2:] - a[1:-1, :-2] for a in (x, y, z)]
        down = [a[2:, 1:-1] - a[:-2, 1:-1] for a in (x, y, z)]
        # down x across points at the camera: y x x = -z
        n = np.stack([down[i] * across[j] - down[j] * across[i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
        length = np.sqrt((n**2).sum(axis=-1))
        # NaN lengths, from unknown neighbours, compare as false
        fine = known[1:-1, 1:-1] & (length > 0)
        n /= np.where(fine, length, 1.0)[..., None]
        n[~fine] = 0.0
        yield slice(block.start + 1, block.stop + 1), n, fine


def _focal(intrinsics: NDArray[np.float64]) -> tuple[float, float, float, float]:
    k = np.asarray(intrinsics, dtype=np.float64)
    if k.shape != (3, 3) or not np.isfinite(k).all() or not (k[0, 0] > 0 and k[1, 1] > 0):
        raise SampleError(f"intrinsics must be a finite [3, 3] matrix with positive focal lengths, got {k.tolist()}")
    return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
