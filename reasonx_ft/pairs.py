"""Which two points of a photo are asked about. Decided by the photo and a seed, never by a prediction.

Points are pixels of the canonical 512 x 512 square, at least 30 from its border, at a distance from one of five bands.
Two samplers:

bands       as published: the band, the distance in it, the direction and the place are drawn at random
stratified  the bands in equal numbers, first points spread evenly over the cells of a 4 x 4 grid, and every other pair
            chosen, among candidates, for a small difference of colour in the photo: of the two answers about albedo,
            "same" is rare between random points, and this brings it nearer to balance

Both give n pairs from a stream keyed by (seed, photo digest), and the first k of n pairs are those of any other n >= k:
asking for more pairs later asks nothing twice.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.seeding import rng
from reasonx_ft.judges.base import CANONICAL, ORDERS, Order

Sampler: TypeAlias = Literal["bands", "stratified"]
SAMPLERS: Final[tuple[Sampler, ...]] = get_args(Sampler)

#: distance of a pair in pixels: a range that the least distance is drawn from, and the greatest
BANDS: Final = (((20, 20), 40), ((30, 50), 80), ((60, 100), 150), ((120, 200), 280), ((220, 300), 350))
BAND_NAMES: Final = ("very near", "near", "middle", "far", "very far")
BORDER: Final = 30
MOST: Final = 100_000

_GRID: Final = 4
#: among how many candidates a pair of small colour difference is looked for
_CANDIDATES: Final = 6
_BLOCK: Final = 64  # divides CANONICAL; photo statistics are means over CANONICAL / _BLOCK pixels
_ROUND: Final = 256
_ROUNDS: Final = 400


def sample_pairs(
    image: NDArray[np.uint8], digest: str, n: int, *, seed: int = 0, sampler: Sampler = "stratified",
    size: tuple[int, int] | None = None,
) -> NDArray[np.int16]:  # fmt: skip
    """n different pairs of points, int16 [n, 2, 2]: (pair, first or second, (x, y)).

    No two pairs have the same two points, in whichever order, and the points of a pair lie in different pixels of the
    photo itself, however small it is.

    Parameters
    ----------
    image : uint8 [512, 512, 3], the photo in canonical size; only `stratified` looks at it
    digest : of the photo; with `seed` it keys the stream
    n : number of pairs, 1 to 100,000
    size : (height, width) of the photo as it came, where that is less than canonical

    Raises
    ------
    UsageError
        An unknown sampler, or n out of range.
    SampleError
        A photo too small for n pairs.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if not 1 <= n <= MOST:
        raise UsageError(f"{n} pairs a photo; needs 1 to {MOST}")
    stream = rng(seed, digest, "pairs", sampler)
    contrast = _contrast(image) if sampler == "stratified" else None
    height, width = size if size is not None else (CANONICAL, CANONICAL)
    kept: list[NDArray[np.int64]] = []
    seen: set[int] = set()
    for number in range(_ROUNDS + n // _ROUND * 4):
        drawn = _round_of_bands(stream) if contrast is None else _round_of_strata(stream, contrast, number)
        pixel = (2 * drawn + 1) * (width, height) // (2 * CANONICAL)
        same_pixel = (pixel[:, 0] == pixel[:, 1]).all(axis=1)
        drawn = drawn[~same_pixel]
        place = drawn[..., 1] * CANONICAL + drawn[..., 0]
        keys = place.min(axis=1) * CANONICAL**2 + place.max(axis=1)
        for pair, key in zip(drawn, keys.tolist(), strict=True):
            if key not in seen:
                seen.add(key)
                kept.append(pair)
        if len(kept) >= n:
            return np.stack(kept[:n]).astype(np.int16)
        if number >= 20 and not kept:
            break
    raise SampleError(f"only {len(kept)} of {n} pairs of points found: the photo has {width} x {height} pixels")


def _second(stream: np.random.Generator, first: NDArray[np.int64], band: NDArray[np.int64]) -> NDArray[np.int64]:
    """A second point at a distance from the pair's band, int64 [..., 2]; x = -1 where it falls outside the borders."""
    bounds = np.array([(low, high, top) for (low, high), top in BANDS], dtype=np.float64)[band]
    u = stream.random((3, *band.shape))
    least = bounds[..., 0] + u[0] * (bounds[..., 1] - bounds[..., 0])
    distance = least + u[1] * (bounds[..., 2] - least)
    angle = 2 * np.pi * u[2]
    step = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * distance[..., None]
    second: NDArray[np.int64] = first + np.floor(step + 0.5).astype(np.int64)
    inside = ((second >= BORDER) & (second < CANONICAL - BORDER)).all(axis=-1)
    # rounding to pixels moves an end by up to 0.7: out of the band by that much is out
    squared = ((second - first) ** 2).sum(axis=-1)
    inside &= (squared >= bounds[..., 0] ** 2) & (squared <= bounds[..., 2] ** 2)
    second[~inside] = -1
    return second


def _round_of_bands(stream: np.random.Generator) -> NDArray[np.int64]:
    """Pairs of the published sampler, int64 [up to _ROUND, 2, 2]."""
    band = stream.integers(0, len(BANDS), _ROUND)
    kept = np.empty((_ROUND, 2, 2), dtype=np.int64)
    open_ = np.ones(_ROUND, dtype=np.bool_)
    # only the place and the direction are drawn again, so that far pairs stay as frequent as near ones
    for _ in range(60):
        first = stream.integers(BORDER, CANONICAL - BORDER, (_ROUND, 2))
        second = _second(stream, first, band)
        fits = open_ & (second[:, 0] >= 0)
        kept[fits, 0], kept[fits, 1] = first[fits], second[fits]
        open_ &= ~fits
    found: NDArray[np.int64] = kept[~open_]
    return found


def _round_of_strata(stream: np.random.Generator, contrast: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Pairs of the stratified sampler: every band once in every cell, int64 [up to 80, 2, 2].

    Pairs of all bands, alike and unguided, alternate, so that any beginning of the list is balanced too.
    """
    cells = np.stack([stream.permutation(_GRID**2) for _ in BANDS], axis=1)  # [16, 5]
    band = np.broadcast_to(np.arange(len(BANDS)), cells.shape)
    edge = np.linspace(BORDER, CANONICAL - BORDER, _GRID + 1)
    tries = 12 * _CANDIDATES
    shape = (*cells.shape, tries)
    start = np.stack([edge[cells % _GRID], edge[cells // _GRID]], axis=-1)  # [16, 5, 2]
    first = np.floor(start[..., None, :] + stream.random((*shape, 2)) * (edge[1] - edge[0])).astype(np.int64)
    second = _second(stream, first, np.broadcast_to(band[..., None], shape))
    fits = second[..., 0] >= 0
    # the first few candidates that fit; an unguided pair takes the very first
    rank = np.cumsum(fits, axis=-1)
    candidate = fits & (rank <= _CANDIDATES)
    block = CANONICAL // _BLOCK
    a, b = first // block, np.maximum(second, 0) // block
    difference = np.abs(contrast[a[..., 1], a[..., 0]] - contrast[b[..., 1], b[..., 0]]).sum(axis=-1)
    alike = (np.add.outer(np.arange(cells.shape[0]), np.arange(cells.shape[1])) + number) % 2 == 0
    order = np.where(alike[..., None], difference, rank.astype(np.float64))
    best = np.where(candidate, order, np.inf).argmin(axis=-1)[..., None, None]
    pairs = np.concatenate([np.take_along_axis(p, best, axis=2) for p in (first, second)], axis=2)
    turn = stream.random(cells.shape) < 0.5
    pairs = np.where(turn[..., None, None], pairs[..., ::-1, :], pairs)
    chosen: NDArray[np.int64] = pairs[fits.any(axis=-1)]
    return chosen


def _contrast(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What colour differences are measured in, float64 [64, 64, 3]: chromaticity, and a little of lightness.

    Means over 8 x 8 pixels are sums of whole numbers: the same everywhere.
    """
    step = CANONICAL // _BLOCK
    # whole rows are added, in the 16 bits that 8 x 255 fits: numpy's own sums over short axes take three times as long
    lines = image.reshape(_BLOCK, step, CANONICAL * 3)
    rows = lines[:, 0].astype(np.uint16)
    for k in range(1, step):
        rows += lines[:, k]
    pixels = rows.reshape(_BLOCK, _BLOCK, step, 3)
    total = pixels[:, :, 0].astype(np.int64)
    for k in range(1, step):
        total += pixels[:, :, k]
    light = total.sum(axis=-1, keepdims=True)
    # black has no chromaticity; a little grey added keeps noise in the dark small
    shares = (total + 512.0) / (light + 1536.0)
    return np.concatenate([shares[..., :2], 0.2 * light / (3 * 255 * step**2)], axis=-1)


def bands_of(pairs: NDArray[np.integer]) -> NDArray[np.int8]:
    """The distance band of each pair, int8 [n].

    The published ranges overlap, so bands are told apart at distances of 40, 80, 150 and 280 pixels.

    Parameters
    ----------
    pairs : integers [n, 2, 2]
    """
    step = (pairs[:, 0].astype(np.int64) - pairs[:, 1]) ** 2
    tops = np.array([top for _, top in BANDS[:-1]], dtype=np.int64) ** 2
    found: NDArray[np.int8] = np.searchsorted(tops, step.sum(axis=1), side="left").astype(np.int8)
    return found


def draw_orders(digest: str, n: int, *, seed: int = 0) -> list[Order]:
    """Which point of each pair is red, drawn at random; the first k of n don't depend on n."""
    return [ORDERS[int(u >= 0.5)] for u in rng(seed, digest, "orders").random(n)]
