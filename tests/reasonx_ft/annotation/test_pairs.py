"""Pairs of points and coordinate maps: hand-worked values, an independent formula in fractions, planted photos."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.seeding import rng
from reasonx_eval.metrics.points import pixels
from reasonx_ft.annotation.coordinates import View, canonical_points, fractions
from reasonx_ft.annotation.pairs import (
    BANDS,
    BORDER,
    SAMPLERS,
    Sampler,
    _least_contrast,
    bands_of,
    draw_orders,
    sample_pairs,
)


def _noise(seed: int = 0) -> NDArray[np.uint8]:
    return rng(seed, "photo").integers(0, 256, (512, 512, 3), dtype=np.uint8)


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_distance_border_and_uniqueness(sampler: str) -> None:
    pairs = sample_pairs(_noise(), "d", 600, sampler=sampler)
    assert pairs.shape == (600, 2, 2)
    assert pairs.dtype == np.int16
    assert pairs.min() >= BORDER
    assert pairs.max() < 512 - BORDER
    distance = np.sqrt(((pairs[:, 0].astype(float) - pairs[:, 1]) ** 2).sum(axis=1))
    assert distance.min() >= 20
    assert distance.max() <= 350
    # 20-40, and then each band's own reach: nothing lies in no band
    inside = [(distance >= low) & (distance <= top) for (low, _), top in BANDS]
    assert np.any(inside, axis=0).all()
    ends = np.sort(pairs.astype(np.int64) @ [1, 512], axis=1)
    assert len(np.unique(ends, axis=0)) == 600


def test_same_key_same_pairs_and_any_other_key_others(sampler: str) -> None:
    one = sample_pairs(_noise(), "d", 40, seed=3, sampler=sampler)
    np.testing.assert_array_equal(one, sample_pairs(_noise(), "d", 40, seed=3, sampler=sampler))
    assert (one != sample_pairs(_noise(), "e", 40, seed=3, sampler=sampler)).any()
    assert (one != sample_pairs(_noise(), "d", 40, seed=4, sampler=sampler)).any()


def test_more_pairs_begin_with_fewer(sampler: str) -> None:
    many = sample_pairs(_noise(), "d", 333, sampler=sampler)
    for n in (1, 40, 100):
        np.testing.assert_array_equal(sample_pairs(_noise(), "d", n, sampler=sampler), many[:n])
    assert draw_orders("d", 5) == draw_orders("d", 50)[:5]
    assert set(draw_orders("d", 50)) == {"red-first", "green-first"}


def test_published_sampler_draws_all_bands_equally_often() -> None:
    pairs = sample_pairs(_noise(), "d", 5000, sampler="bands")
    distance = np.sqrt(((pairs[:, 0].astype(float) - pairs[:, 1]) ** 2).sum(axis=1))
    # below 30 there is only the first band, half of which lies there
    assert 0.18 < (distance < 30).mean() * 2 < 0.24
    counts = np.bincount(bands_of(pairs), minlength=5) / 5000
    assert (counts > 0.12).all()


def test_published_sampler_does_not_look_at_the_photo() -> None:
    flat = np.full((512, 512, 3), 9, np.uint8)
    np.testing.assert_array_equal(sample_pairs(_noise(), "d", 40, sampler="bands"),
                                  sample_pairs(flat, "d", 40, sampler="bands"))  # fmt: skip


def test_stratified_is_even_over_bands_and_cells() -> None:
    pairs = np.concatenate([sample_pairs(_noise(), f"d{k}", 80) for k in range(20)])
    cell = (pairs.reshape(-1, 2, 2).astype(int) - BORDER) * 4 // (512 - 2 * BORDER)
    number = cell[..., 1] * 4 + cell[..., 0]
    counts = np.bincount(number.ravel(), minlength=16) / number.size
    assert counts.min() > 0.045
    assert counts.max() < 0.08
    # the first five pairs of any photo are one of each band
    firsts = np.stack([bands_of(sample_pairs(_noise(), f"d{k}", 5)) for k in range(20)])
    assert np.mean([len(set(f.tolist())) for f in firsts]) > 4


def test_stratified_finds_equal_colours_more_often_than_chance() -> None:
    # twelve stripes of different colours: points of one stripe are rare
    stripes = rng(1, "stripes").integers(0, 256, (12, 3), dtype=np.uint8)
    photo = np.repeat(stripes[np.arange(512) * 12 // 512][None], 512, axis=0)

    def alike(sampler: str) -> float:
        pairs = np.concatenate([sample_pairs(photo, f"d{k}", 40, sampler=sampler) for k in range(10)])  # type: ignore[arg-type]
        stripe = pairs[..., 0].astype(int) * 12 // 512
        return float((stripe[:, 0] == stripe[:, 1]).mean())

    assert alike("stratified") > alike("bands") + 0.15


def test_the_pair_of_least_contrast_is_among_the_first_that_fit() -> None:
    draw = rng(0, "contrast")
    contrast = draw.random((64, 64, 3))
    ends, fits = draw.integers(0, 512, (4, 50, 72)).astype(np.int16), draw.random((50, 72)) < 0.2
    fits[0], fits[1] = False, np.arange(72) == 71
    found = _least_contrast(contrast, ends, fits)
    for k in range(1, 50):
        first = np.flatnonzero(fits[k])[:6]
        x1, y1, x2, y2 = ends[:, k, first] // 8
        away = [sum(abs(contrast[b, a] - contrast[d, c])) for a, b, c, d in zip(x1, y1, x2, y2, strict=True)]
        assert found[k] == first[np.argmin(away)]
    assert found[1] == 71


@pytest.mark.parametrize(("n", "digests"), [
    (40, {"stratified": "64bb36a8214dee52", "bands": "abc5a85ef1e50c71"}),
    (333, {"stratified": "6e5deeba8ba2d8d4", "bands": "f83395ff80885f54"}),
])  # fmt: skip
def test_pairs_of_stores_that_exist_are_drawn_again(n: int, digests: dict[str, str], sampler: Sampler) -> None:
    """Another pair of the same photo would be asked about anew, in every store."""
    photo = rng(5, "coarse").integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    pairs = sample_pairs(photo, "d", n, seed=2, size=(341, 512), sampler=sampler)
    assert hashlib.sha256(pairs.astype("<i2").tobytes()).hexdigest()[:16] == digests[sampler]


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 1), (7, 5), (16, 16)])
def test_points_of_tiny_photos_lie_in_different_pixels(size: tuple[int, int], sampler: str) -> None:
    pairs = sample_pairs(_noise(), "d", 40, size=size, sampler=sampler)
    where = View(*size).locate(pairs)
    assert ((where.rows[:, 0] != where.rows[:, 1]) | (where.cols[:, 0] != where.cols[:, 1])).all()


def test_one_pixel_has_no_pairs(sampler: str) -> None:
    with pytest.raises(SampleError, match="1 x 1 pixels"):
        sample_pairs(_noise(), "d", 1, size=(1, 1), sampler=sampler)


@pytest.mark.parametrize("n", [0, -1, 100_001])
def test_numbers_out_of_range(n: int) -> None:
    with pytest.raises(UsageError, match="pairs a photo"):
        sample_pairs(_noise(), "d", n)
    with pytest.raises(UsageError, match="did you mean 'bands'"):
        sample_pairs(_noise(), "d", 1, sampler="band")  # type: ignore[arg-type]


def test_bands_are_told_apart_at_their_tops() -> None:
    pairs = np.array([[[30, 30], [30 + d, 30]] for d in (20, 40, 41, 80, 81, 150, 151, 280, 281, 350)])
    assert bands_of(pairs).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


# coordinates


def test_by_hand() -> None:
    points = np.array([[0, 0], [511, 511], [256, 255]])
    where = View(96, 128).locate(points)
    assert where.cols.tolist() == [0, 127, 64]
    assert where.rows.tolist() == [0, 95, 47]
    assert where.inside.all()
    flipped = View(96, 128, flip=True).locate(points)
    assert flipped.cols.tolist() == [127, 0, 63]
    # the right half of a photo of 96 x 128, at twice its size
    half = View(192, 128, crop=(64, 0, 128, 96), of=(96, 128)).locate(points)
    assert half.cols.tolist() == [-1, 127, 0]
    assert half.inside.tolist() == [False, True, True]
    assert half.rows.tolist() == [-1, 191, 95]


@pytest.mark.parametrize("view", [
    View(96, 128), View(37, 5, flip=True), View(1, 1), View(480, 640), View(512, 512),
    View(64, 64, crop=(3, 7, 90, 71), of=(97, 131)), View(99, 13, crop=(100, 1, 101, 479), of=(480, 640), flip=True),
])  # fmt: skip
def test_against_exact_fractions(view: View) -> None:
    points = rng(0, "points").integers(0, 512, (400, 2))
    where = view.locate(points)
    left, top, right, bottom = view.box
    for (x, y), row, col, inside in zip(points.tolist(), where.rows, where.cols, where.inside, strict=True):
        u = (Fraction(2 * x + 1, 1024) * view.of[1] - left) / (right - left)
        v = (Fraction(2 * y + 1, 1024) * view.of[0] - top) / (bottom - top)
        assert inside == (0 <= u < 1 and 0 <= v < 1)
        if inside:
            c = int(u * view.width)
            assert (row, col) == (int(v * view.height), view.width - 1 - c if view.flip else c)


@pytest.mark.parametrize("size", [(96, 128), (480, 640), (333, 77), (512, 512), (1024, 2048)])
def test_uncropped_maps_are_read_where_the_metrics_read_them(size: tuple[int, int]) -> None:
    grid = np.stack(np.meshgrid(np.arange(512), np.arange(512)), axis=-1).reshape(-1, 2)
    rows, cols = pixels(points=fractions(grid), height=size[0], width=size[1])
    where = View(*size).locate(grid)
    np.testing.assert_array_equal(where.rows, rows)
    np.testing.assert_array_equal(where.cols, cols)


def test_a_planted_map_is_found_again_after_crop_resize_and_flip() -> None:
    # each pixel of the photo holds its own number; cropping and mirroring with numpy must give the number back
    photo = np.arange(96 * 128).reshape(96, 128)
    points = sample_pairs(_noise(), "d", 200).reshape(-1, 2)
    at = View(96, 128).locate(points)
    expected = photo[at.rows, at.cols]
    crop = (16, 8, 112, 72)
    seen = photo[crop[1] : crop[3], crop[0] : crop[2]].repeat(2, axis=0).repeat(2, axis=1)[:, ::-1]
    where = View(*seen.shape, crop=crop, of=(96, 128), flip=True).locate(points)
    assert 0 < where.inside.sum() < len(points)
    np.testing.assert_array_equal(seen[where.rows, where.cols][where.inside], expected[where.inside])
    outside = (at.cols < 16) | (at.cols >= 112) | (at.rows < 8) | (at.rows >= 72)
    np.testing.assert_array_equal(where.inside, ~outside)


def test_fractions_come_back() -> None:
    points = rng(0, "p").integers(0, 512, (99, 2))
    np.testing.assert_array_equal(canonical_points(fractions(points)), points)


@pytest.mark.parametrize("make", [
    lambda: View(0, 5), lambda: View(5, 5, crop=(0, 0, 513, 10)), lambda: View(5, 5, crop=(4, 0, 4, 10)),
    lambda: View(5, 5, crop=(-1, 0, 4, 10)), lambda: View(5, 5).locate(np.array([[0, 512]])),
    lambda: View(5, 5).locate(np.array([[-1, 0]])), lambda: View(5, 5).locate(np.array([[0.5, 0.5]])),
    lambda: canonical_points(np.array([[1.0, 0.0]])), lambda: canonical_points(np.array([[np.nan, 0.0]])),
])  # fmt: skip
def test_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]
