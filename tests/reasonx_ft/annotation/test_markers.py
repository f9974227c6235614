"""Marker drawing against a drawing by hand and a slow one written from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.markers import Painter, canonical, draw_markers
from reasonx_ft.types import ORDERS, Order, Photo, Question, photo_digest

#: the marker by hand: a ring of distances 4 to 6, a dot of distances 0 and 1
DRAWING = (
    "......#......",
    "...#######...",
    "..#########..",
    ".###.....###.",
    ".##.......##.",
    ".##...#...##.",
    "###..###..###",
    ".##...#...##.",
    ".##.......##.",
    ".###.....###.",
    "..#########..",
    "...#######...",
    "......#......",
)


def _photo(height: int = 512, width: int = 512, seed: int = 0) -> Photo:
    image = rng(seed, "photo").integers(50, 200, (height, width, 3), dtype=np.uint8)
    return Photo(f"p{seed}", image, photo_digest(image))


def test_geometry() -> None:
    black = np.zeros((512, 512, 3), np.uint8)
    picture = draw_markers(black, np.array([[100, 200]]), np.array([[400, 300]]))[0]
    mask = np.array([[c == "#" for c in row] for row in DRAWING])
    np.testing.assert_array_equal(picture[194:207, 94:107, 0] == 255, mask)
    np.testing.assert_array_equal(picture[294:307, 394:407, 1] == 255, mask)
    assert (picture[..., 0] > 0).sum() == (picture[..., 1] > 0).sum() == mask.sum()
    assert not picture[..., 2].any()
    assert not black.any()


def _slow(image: NDArray[np.uint8], red: tuple[int, int], green: tuple[int, int]) -> NDArray[np.uint8]:
    out = image.copy()
    for (px, py), colour in ((red, (255, 0, 0)), (green, (0, 255, 0))):
        for y in range(512):
            for x in range(max(0, px - 8), min(512, px + 9)):
                d2 = (x - px) ** 2 + (y - py) ** 2
                if 16 <= d2 <= 36 or d2 <= 1:
                    out[y, x] = colour
    return out


def test_against_the_definition_also_at_the_border_and_overlapping() -> None:
    image = _photo().image
    red = np.array([[30, 40], [0, 0], [511, 3], [250, 250]])
    green = np.array([[300, 41], [511, 511], [2, 508], [255, 252]])
    pictures = draw_markers(image, red, green)
    for k in range(4):
        np.testing.assert_array_equal(pictures[k], _slow(image, tuple(red[k]), tuple(green[k])))


def test_orders_swap_the_colours_and_nothing_else() -> None:
    photo, painter = _photo(), Painter()
    by_order = {o: painter.paint(Question(photo, (60, 70), (300, 310), "depth", o)) for o in ORDERS}
    assert by_order["red-first"][70, 60].tolist() == [255, 0, 0]
    assert by_order["green-first"][70, 60].tolist() == [0, 255, 0]
    assert by_order["red-first"][310, 300].tolist() == [0, 255, 0]
    changed = (by_order["red-first"] != by_order["green-first"]).any(axis=-1)
    swapped = by_order["green-first"][changed][:, [1, 0, 2]]
    np.testing.assert_array_equal(by_order["red-first"][changed], swapped)


def test_canonical_is_pillows_antialiased_bilinear() -> None:
    photo = _photo(700, 1100)
    expected = np.asarray(Image.fromarray(photo.image).resize((512, 512), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(canonical(photo.image), expected)
    square = _photo().image
    assert canonical(square) is square
    # it averages: a fine checkerboard becomes grey, plain bilinear sampling would keep black and white
    board = np.where(np.indices((2048, 2048)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    grey = canonical(np.repeat(board[..., None], 3, axis=-1))[8:-8, 8:-8]
    assert np.abs(grey.astype(int) - 127).max() <= 2
    assert canonical(np.asfortranarray(photo.image)).shape == (512, 512, 3)


def test_questions_about_one_picture_share_it() -> None:
    a, b = _photo(40, 60, 1), _photo(40, 60, 2)
    asked = [
        Question(photo, (60, 70), (200, 210), modality, order)
        for photo in (a, b) for order in ORDERS for modality in ("depth", "albedo")
    ]  # fmt: skip
    painter = Painter(photos=1)
    pictures, which = painter.paint_all(asked)
    assert pictures.shape == (4, 512, 512, 3)
    assert which.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for q, k in zip(asked, which, strict=True):
        np.testing.assert_array_equal(pictures[k], Painter().paint(q))


def test_the_photo_is_not_written_into() -> None:
    photo = _photo()
    before = photo.image.copy()
    order: Order = "red-first"
    Painter().paint(Question(photo, (60, 70), (200, 210), "depth", order))
    np.testing.assert_array_equal(photo.image, before)


def test_points_outside_are_refused() -> None:
    with pytest.raises(UsageError, match="expected 0 to 511"):
        draw_markers(_photo().image, np.array([[512, 0]]), np.array([[0, 0]]))
