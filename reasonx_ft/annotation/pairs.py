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
from reasonx_eval.io.seeding import rng
from reasonx_ft.types import CANONICAL, ORDERS, Order

Sampler: TypeAlias = Literal["bands", "stratified"]
SAMPLERS: Final[tuple[Sampler, ...]] = get_args(Sampler)

#: distance of a pair in pixels: a range that the least distance is drawn from, and the greatest
BANDS: Final = (((20, 20), 40), ((30, 50), 80), ((60, 100), 150), ((120, 200), 280), ((220, 300), 350))
BAND_NAMES: Final = ("very near", "near", "middle", "far", "very far")
BORDER: Final = 30
MOST: Final = 100_000

#: rows: least distance from, least distance to, greatest distance; a column a band
_BOUNDS: Final = np.array([(low, high, top) for (low, high), top in BANDS], dtype=np.float64).T
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
        drawn = drawn[_apart(drawn, width, height)]
        new = []
        for row, key in enumerate(_keys(drawn)):
            if key not in seen:
                seen.add(key)
                new.append(row)
        kept.append(drawn[new])
        if len(seen) >= n:
            return np.concatenate(kept)[:n].astype(np.int16)
        if number >= 20 and not seen:
            break
    raise SampleError(f"only {len(seen)} of {n} pairs of points found: the photo has {width} x {height} pixels")


def _apart(pairs: NDArray[np.int64], width: int, height: int) -> NDArray[np.bool_]:
    """Whether the points of a pair lie in different pixels of the photo itself, bool [n]."""
    pixel = (2 * pairs + 1) * (width, height) // (2 * CANONICAL)
    differ: NDArray[np.bool_] = pixel[:, 0] != pixel[:, 1]
    return differ[:, 0] | differ[:, 1]


def _keys(pairs: NDArray[np.int64]) -> list[int]:
    """One number a pair, the same for its points in either order."""
    first, second = (pairs[..., 1] * CANONICAL + pairs[..., 0]).T
    keys: list[int] = (np.minimum(first, second) * CANONICAL**2 + np.maximum(first, second)).tolist()
    return keys


def _second(
    stream: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64], band: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """A second point at a distance from the pair's band: its x and y, whole numbers, and whether it fits.

    One that falls outside the borders doesn't fit; its x and y are 0.

    Parameters
    ----------
    x, y : [...], of the first point, whole numbers
    band : of a shape that is broadcast to that of x
    """
    low, high, top = _BOUNDS[:, band]
    u = stream.random((3, *x.shape))
    least = low + u[0] * (high - low)
    distance = least + u[1] * (top - least)
    angle = 2 * np.pi * u[2]
    across, down = np.floor(np.cos(angle) * distance + 0.5), np.floor(np.sin(angle) * distance + 0.5)
    # rounding to pixels moves an end by up to 0.7: out of the band by that much is out
    squared = across**2 + down**2
    fits = (squared >= low**2) & (squared <= top**2)
    ends = x + across, y + down
    for end in ends:
        fits &= (end >= BORDER) & (end < CANONICAL - BORDER)
    return ends[0] * fits, ends[1] * fits, fits


def _round_of_bands(stream: np.random.Generator) -> NDArray[np.int64]:
    """Pairs of the published sampler, int64 [up to _ROUND, 2, 2]."""
    band = stream.integers(0, len(BANDS), _ROUND)
    kept = np.empty((_ROUND, 2, 2), dtype=np.int64)
    open_ = np.ones(_ROUND, dtype=np.bool_)
    # only the place and the direction are drawn again, so that far pairs stay as frequent as near ones
    for _ in range(60):
        first = stream.integers(BORDER, CANONICAL - BORDER, (_ROUND, 2))
        x, y, fits = _second(stream, first[:, 0].astype(np.float64), first[:, 1].astype(np.float64), band)
        fits &= open_
        kept[fits, 0], kept[fits, 1] = first[fits], np.stack([x[fits], y[fits]], axis=-1)
        open_ &= ~fits
    found: NDArray[np.int64] = kept[~open_]
    return found


def _round_of_strata(stream: np.random.Generator, contrast: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Pairs of the stratified sampler: every band once in every cell, int64 [up to 80, 2, 2].

    Pairs of all bands, alike and unguided, alternate, so that any beginning of the list is balanced too.
    """
    cells = np.stack([stream.permutation(_GRID**2) for _ in BANDS], axis=1)  # [16, 5]
    edge = np.linspace(BORDER, CANONICAL - BORDER, _GRID + 1)
    shape = (*cells.shape, 12 * _CANDIDATES)
    # x and y apart, here and below: sums and tests over an axis of two numbers take most of the time otherwise
    drawn = stream.random((*shape, 2)) * (edge[1] - edge[0])
    x, y = (np.floor(edge[cell][..., None] + drawn[..., k])
            for k, cell in enumerate((cells % _GRID, cells // _GRID)))  # fmt: skip
    second_x, second_y, fits = _second(stream, x, y, np.arange(len(BANDS))[:, None])
    ends = np.stack([x, y, second_x, second_y]).astype(np.int16)  # [4, 16, 5, tries]
    best = fits.argmax(axis=-1)  # an unguided pair takes the very first that fits
    alike = (np.add.outer(np.arange(cells.shape[0]), np.arange(cells.shape[1])) + number) % 2 == 0
    best[alike] = _least_contrast(contrast, ends[:, alike], fits[alike])
    pairs = np.take_along_axis(ends, best[None, ..., None], axis=-1)[..., 0]
    turn = stream.random(cells.shape) < 0.5
    pairs = np.where(turn, pairs[[2, 3, 0, 1]], pairs)
    return pairs[:, fits.any(axis=-1)].T.reshape(-1, 2, 2).astype(np.int64)


def _least_contrast(
    contrast: NDArray[np.float64], ends: NDArray[np.int16], fits: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Of each pair's first few candidates that fit, the one of the smallest difference of colour, int64 [A].

    Parameters
    ----------
    ends : int16 [4, A, tries], (x1, y1, x2, y2)
    fits : bool [A, tries]
    """
    candidate = fits & (np.cumsum(fits, axis=-1) <= _CANDIDATES)
    x1, y1, x2, y2 = ends[:, candidate] // (CANONICAL // _BLOCK)
    step = np.abs(contrast[y1, x1] - contrast[y2, x2])
    difference = np.full(fits.shape, np.inf)
    difference[candidate] = step[:, 0] + step[:, 1] + step[:, 2]
    best: NDArray[np.int64] = difference.argmin(axis=-1)
    return best


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
