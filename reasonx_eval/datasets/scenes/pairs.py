"""Questions with exact answers about a rendered scene: judgements of lightness, and ordinal pairs.

Points are centres of pixels, so a map of the picture's size is read exactly where the answer was taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import Array
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.types import FIRST, LEFT_OUT, SAME, SECOND, JudgementTarget, PairTarget

#: distance of a pair in pixels of a picture 512 wide: least (drawn from) .. greatest
BANDS: Final = (((20, 20), 40), ((30, 50), 80), ((60, 100), 150), ((120, 200), 280), ((220, 300), 350))
BORDER: Final = 30.0 / 512.0
PAIRS: Final = 80
_CANDIDATES = 6

#: lightness ratios below the first are "equal", above the second "darker"; between them nobody is asked
EQUAL_BELOW: Final = 1.04
DARKER_ABOVE: Final = 1.25
JUDGEMENTS: Final = 100
_GRID = (9, 12)


def _centres(rows: NDArray[np.int64], columns: NDArray[np.int64], height: int, width: int) -> Array:
    """Image fractions (x, y) of pixel centres, float64 [P, 2]."""
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=-1)


def judgements(albedo: Array, draw: Draw) -> JudgementTarget:
    """Judgements of relative lightness as in IIW, from exact albedo.

    Neighbours on a jittered grid are compared by the channel mean of linear albedo. Ratios near the usual
    thresholds (1.1 and 1.2) are not asked, so the answers hold at both. At most half of the answers are "equal",
    where the scene has others. The weight is certainty: how far the ratio is from 1.1, 1 at most.

    Parameters
    ----------
    albedo : float64 [H, W, 3], linear, > 0.
    draw : stream of the points.
    """
    height, width, _ = albedo.shape
    n = _GRID[0] * _GRID[1]
    jitter = draw.units(2 * n)
    down, across = np.divmod(np.arange(n), _GRID[1])
    rows = np.floor((down + jitter[:n]) / _GRID[0] * height).astype(np.int64)
    columns = np.floor((across + jitter[n:]) / _GRID[1] * width).astype(np.int64)
    grid = np.arange(n).reshape(_GRID)
    steps = [(grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]), (grid[:-1, :-1], grid[1:, 1:])]
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=-1) for a, b in steps])
    turn = draw.units(len(pairs)) < 0.5
    pairs = np.where(turn[:, None], pairs[:, ::-1], pairs)
    lightness = (albedo[..., 0] + albedo[..., 1] + albedo[..., 2])[rows, columns]
    first, second = lightness[pairs[:, 0]], lightness[pairs[:, 1]]
    ratio = np.maximum(first, second) / np.minimum(first, second)
    order = draw.order(len(pairs))
    unequal = order[ratio[order] > DARKER_ABOVE][: JUDGEMENTS // 2]
    room = max(len(unequal), JUDGEMENTS // 5)
    equal = order[ratio[order] < EQUAL_BELOW][:room]
    kept = np.sort(np.concatenate([unequal, equal]))
    darker = np.where(ratio < EQUAL_BELOW, SAME, np.where(first < second, FIRST, SECOND))
    weight = np.minimum(np.where(ratio < EQUAL_BELOW, (1.1 - ratio) / 0.1, (ratio - 1.1) / 0.4), 1.0)
    return JudgementTarget(
        points=_centres(rows, columns, height, width),
        pairs=pairs[kept].astype(np.int64),
        darker=darker[kept].astype(np.int8),
        weight=weight[kept],
    )


def _candidates(draw: Draw, n: int, band: int, height: int, width: int) -> NDArray[np.int64]:
    """Pixels of n pairs whose distance lies in a band, int64 [n, 2, 2] (pair, point, (row, column))."""
    (start, stop), top = BANDS[band]
    scale = width / 512.0
    edge = min(BORDER * width, height / 4.0)
    found: list[NDArray[np.int64]] = []
    have = 0
    for _ in range(60):
        u = draw.units(5 * 4 * n).reshape(5, 4 * n)
        row = np.floor(edge + u[0] * (height - 2.0 * edge))
        column = np.floor(edge + u[1] * (width - 2.0 * edge))
        # a second point anywhere in the square around the first, kept where the distance fits
        reach = top * scale
        other_row = np.floor(row + (2.0 * u[2] - 1.0) * reach + 0.5)
        other_column = np.floor(column + (2.0 * u[3] - 1.0) * reach + 0.5)
        low = (start + (stop - start) * u[4]) * scale
        dy, dx = other_row - row, other_column - column
        square = dy * dy + dx * dx
        fits = (square >= low * low) & (square <= reach * reach) & (square >= 1.0)
        fits &= (other_row >= edge) & (other_row < height - edge)
        fits &= (other_column >= edge) & (other_column < width - edge)
        kept = np.flatnonzero(fits)
        both = np.stack([row, column, other_row, other_column], axis=-1)[kept].astype(np.int64)
        found.append(both.reshape(-1, 2, 2))
        have += len(kept)
        if have >= n:
            break
    return np.concatenate(found)[:n]


def ordinal_pairs(*, depth: NDArray[np.float32], normal: NDArray[np.float32], irradiance: NDArray[np.float32],
                  albedo: NDArray[np.float32], draw: Draw) -> PairTarget:  # fmt: skip
    """Point pairs in the five distance bands with the relation of every modality.

    A band contributes a fifth of the pairs. Half of them have the same base colour where the scene has enough such
    pairs, and among the candidates those that leave out the fewest modalities are taken. Which point comes first
    is random.

    Parameters
    ----------
    depth : [H, W]; normal, irradiance, albedo : [H, W, 3], as in the sample's targets.
    draw : stream of the points.
    """
    height, width = depth.shape
    maps = {"depth": depth, "normals": normal, "irradiance": irradiance, "albedo": albedo}
    per_band = PAIRS // len(BANDS)
    pixels: list[NDArray[np.int64]] = []
    relations: dict[str, list[NDArray[np.int8]]] = {m: [] for m in maps}
    for band in range(len(BANDS)):
        where = _candidates(draw, _CANDIDATES * per_band, band, height, width)
        n = len(where)
        points = _centres(where[..., 0].ravel(), where[..., 1].ravel(), height, width)
        pairs = np.arange(2 * n, dtype=np.int64).reshape(n, 2)
        found = {m: relation(value=v, points=points, pairs=pairs, modality=m) for m, v in maps.items()}
        kept = _choose(found, per_band)
        pixels.append(where[kept])
        for m in maps:
            relations[m].append(found[m][kept])
    where = np.concatenate(pixels)
    return PairTarget(
        points=_centres(where[..., 0].ravel(), where[..., 1].ravel(), height, width),
        pairs=np.arange(2 * len(where), dtype=np.int64).reshape(-1, 2),
        relation={m: np.concatenate(r) for m, r in relations.items()},
    )


def _choose(found: dict[str, NDArray[np.int8]], n: int) -> NDArray[np.intp]:
    """Up to n candidates, half of the same base colour if possible, those with the fewest LEFT_OUT first."""
    undecided = np.zeros(len(found["albedo"]), dtype=np.int64)
    for r in found.values():
        undecided += r == LEFT_OUT
    order = np.argsort(undecided, kind="stable")
    same = order[found["albedo"][order] == SAME]
    different = order[found["albedo"][order] != SAME]
    n_same = min(len(same), max(n // 2, n - len(different)))
    return np.concatenate([same[:n_same], different[: n - n_same]])
