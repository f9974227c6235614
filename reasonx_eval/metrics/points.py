"""From point coordinates, fractions of width and height, to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError


def pixels(*, points: NDArray[np.float64], height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each point: int(y * height), int(x * width), truncated (Bell et al. 2014).

    Parameters
    ----------
    points : float64 [P, 2], (x, y) in [0, 1)

    Raises
    ------
    SampleError
        A point outside [0, 1) or NaN: there is no such pixel.
    """
    inside = (points >= 0) & (points < 1)
    if not inside.all():
        bad = ~inside.all(axis=1)
        x, y = points[bad][0]
        raise SampleError(f"{np.count_nonzero(bad)} of {len(points)} points lie outside the image, the first at "
                          f"x = {x:g}, y = {y:g}: coordinates must be fractions in [0, 1)")  # fmt: skip
    where = (points * (width, height)).astype(np.int64)
    return where[:, 1], where[:, 0]


def check_pairs(*, pairs: NDArray[Any], n_points: int) -> None:
    """Refuse pairs that aren't rows of the points.

    Raises
    ------
    SampleError
        Not [J, 2], or an index outside the points.
    """
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise SampleError(f"pairs have shape {pairs.shape}, expected [J, 2]")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= n_points):
        raise SampleError(f"pairs refer to points {pairs.min()} to {pairs.max()}, but there are only {n_points}")
