"""The picture a judge sees: the photo at 512 x 512 with the two points drawn in.

A marker is a hollow circle with a dot in it, pure red or pure green, without antialiasing: pixels whose distance from
the point is within 1 of the outline's radius 5, or at most 1 (the dot). Where two markers overlap, green covers red.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_ft.annotation.coordinates import check_points
from reasonx_ft.types import CANONICAL, Photo, Question

RED: Final = (255, 0, 0)
GREEN: Final = (0, 255, 0)
OUTLINE_RADIUS: Final = 5
LINE_HALF_WIDTH: Final = 1
CENTRE_RADIUS: Final = 1


def _stamp() -> NDArray[np.int64]:
    """Offsets (x, y) of the pixels of a marker, int64 [S, 2]."""
    reach = OUTLINE_RADIUS + LINE_HALF_WIDTH
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.sqrt(x**2 + y**2)
    painted = (np.abs(distance - OUTLINE_RADIUS) <= LINE_HALF_WIDTH) | (distance <= CENTRE_RADIUS)
    return np.stack([x[painted], y[painted]], axis=-1)


_STAMP: Final = _stamp()


def canonical(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo, uint8 [H, W, 3], at 512 x 512 by Pillow's bilinear filter, which averages where it shrinks.

    The aspect ratio is not kept: the canonical square is the whole photo.
    """
    if image.shape[:2] == (CANONICAL, CANONICAL):
        return image
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(image)).resize((CANONICAL, CANONICAL), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def draw_markers(
    image: NDArray[np.uint8], red: NDArray[np.integer], green: NDArray[np.integer]
) -> NDArray[np.uint8]:  # fmt: skip
    """One picture a pair, uint8 [N, 512, 512, 3].

    Parameters
    ----------
    image : uint8 [512, 512, 3]
    red, green : integers [N, 2], (x, y) of the points in each colour; what a marker has outside the picture is left out
    """
    check_points(red)
    check_points(green)
    pictures = np.repeat(image[None], len(red), axis=0)
    for points, colour in ((red, RED), (green, GREEN)):
        where = points.astype(np.int64)[:, None, :] + _STAMP
        number = np.broadcast_to(np.arange(len(points))[:, None], where.shape[:2])
        inside = ((where >= 0) & (where < CANONICAL)).all(axis=-1)
        pictures[number[inside], where[..., 1][inside], where[..., 0][inside]] = colour
    return pictures


class Painter:
    """Pictures of questions; keeps the resized photos of the last few. Threads may share it.

    Parameters
    ----------
    photos : how many 512 x 512 photos are kept, 0.8 MB each
    """

    def __init__(self, photos: int = 8) -> None:
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._limit = photos
        self._lock = threading.Lock()

    def canonical(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo at 512 x 512, uint8 [512, 512, 3]; not to be written into."""
        with self._lock:
            found = self._kept.pop(photo.digest, None)
            if found is None:
                found = canonical(photo.image)
            self._kept[photo.digest] = found
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
            return found

    def paint(self, question: Question) -> NDArray[np.uint8]:
        """The marked photo of one question, uint8 [512, 512, 3]."""
        first, second = (np.array([p], dtype=np.int64) for p in (question.first, question.second))
        red, green = (first, second) if question.order == "red-first" else (second, first)
        picture: NDArray[np.uint8] = draw_markers(self.canonical(question.photo), red, green)[0]
        return picture

    def paint_all(self, questions: Sequence[Question]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The distinct pictures of several questions, and which of them each question is about.

        Questions about the same photo, points and order share one picture: the four modalities of a pair.

        Returns
        -------
        pictures : uint8 [P, 512, 512, 3], in order of first use
        which : int64 [Q], rows of `pictures`
        """
        rows: dict[tuple[str, tuple[int, int], tuple[int, int], str], int] = {}
        distinct: list[Question] = []
        which = np.empty(len(questions), dtype=np.int64)
        for k, q in enumerate(questions):
            key = (q.photo.digest, q.first, q.second, q.order)
            if key not in rows:
                rows[key] = len(distinct)
                distinct.append(q)
            which[k] = rows[key]
        pictures = np.empty((len(distinct), CANONICAL, CANONICAL, 3), dtype=np.uint8)
        for k, q in enumerate(distinct):
            pictures[k] = self.paint(q)
        return pictures, which
