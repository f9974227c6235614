"""From points of the canonical square to pixels of a map: exactly, under any resize, crop and mirroring.

Photos are asked about at 512 x 512; a network predicts at its own size, of a crop, perhaps of the mirrored photo. The
place of a point is the centre of its canonical pixel. All arithmetic is in whole numbers, so no rounding decides a
pixel, and an uncropped map is read where `reasonx_eval.metrics.points.pixels` reads it: int(fraction * size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_ft.types import CANONICAL

#: beyond it the products below could leave 64 bits
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Located:
    """Where points lie in a map.

    rows, cols : int64 [...], pixels of the map; -1 where the point is outside
    inside : bool [...], False for points that the crop leaves out
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """What a map shows of a photo: a crop of it, then resized to the map's size, then mirrored.

    height, width : of the map, pixels
    crop : (left, top, right, bottom), pixels of the photo at size `of`, without right and bottom; None is all of it
    of : (height, width) of the photo that `crop` refers to
    flip : the map is mirrored left to right: its column 0 is the crop's right edge

    Raises
    ------
    UsageError
        An empty size, or a crop that is empty or leaves the photo.
    """

    height: int
    width: int
    crop: tuple[int, int, int, int] | None = None
    of: tuple[int, int] = (CANONICAL, CANONICAL)
    flip: bool = False

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not all(1 <= n <= _LARGEST for n in (self.height, self.width, *self.of)):
            raise UsageError(f"sizes must be 1 to {_LARGEST}: map {self.height} x {self.width}, photo {self.of}")
        if not (0 <= left < right <= self.of[1] and 0 <= top < bottom <= self.of[0]):
            raise UsageError(f"crop (left {left}, top {top}, right {right}, bottom {bottom}) is empty or leaves the "
                             f"photo of {self.of[0]} x {self.of[1]} pixels")  # fmt: skip

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The crop, (left, top, right, bottom) in pixels of the photo at size `of`."""
        return self.crop if self.crop is not None else (0, 0, self.of[1], self.of[0])

    def locate(self, points: NDArray[np.integer]) -> Located:
        """Rows and columns of canonical points.

        Parameters
        ----------
        points : integers [..., 2], (x, y) in 0..511

        Raises
        ------
        UsageError
            A point that is not in the canonical square.
        """
        check_points(points)
        left, top, right, bottom = self.box
        wide = points.astype(np.int64)
        cols = _place(wide[..., 0], self.of[1], left, right, self.width)
        rows = _place(wide[..., 1], self.of[0], top, bottom, self.height)
        inside = (cols >= 0) & (cols < self.width) & (rows >= 0) & (rows < self.height)
        if self.flip:
            cols = self.width - 1 - cols
        return Located(np.where(inside, rows, -1), np.where(inside, cols, -1), inside)


def _place(values: NDArray[np.int64], size: int, start: int, stop: int, extent: int) -> NDArray[np.int64]:
    """floor(((v + 1/2) / CANONICAL * size - start) / (stop - start) * extent), exactly."""
    place = (2 * values + 1) * size - 2 * CANONICAL * start
    found: NDArray[np.int64] = place * extent // (2 * CANONICAL * (stop - start))
    return found


def check_points(points: NDArray[np.integer]) -> None:
    """Refuse what is no array of canonical points.

    Raises
    ------
    UsageError
        Not integers [..., 2], or outside 0..511.
    """
    if points.ndim < 1 or points.shape[-1] != 2 or not np.issubdtype(points.dtype, np.integer):
        raise UsageError(f"points are {points.dtype} {points.shape}, expected integers [..., 2]")
    if points.size and (points.min() < 0 or points.max() >= CANONICAL):
        raise UsageError(f"points lie in {points.min()} to {points.max()}, expected 0 to {CANONICAL - 1}")


def fractions(points: NDArray[np.integer]) -> NDArray[np.float64]:
    """Canonical points as fractions of width and height, float64 [..., 2] in (0, 1): what `metrics.ordinal` takes."""
    check_points(points)
    return (points.astype(np.float64) + 0.5) / CANONICAL


def canonical_points(where: NDArray[np.float64]) -> NDArray[np.int16]:
    """The canonical pixels, int16 [..., 2], of fractions (x, y) in [0, 1).

    Raises
    ------
    UsageError
        A fraction outside [0, 1), or NaN.
    """
    if not ((where >= 0) & (where < 1)).all():
        raise UsageError("points must be fractions in [0, 1) of width and height")
    return (where * CANONICAL).astype(np.int16)
