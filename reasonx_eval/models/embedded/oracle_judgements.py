"""A reflectance image that agrees with as many pairwise judgements as possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget

# One step of "darker" is a factor of two: far beyond every published threshold (1.1 and 1.2), also where
# ratios are taken after a gamma of 1/2.2 (2 ** (1 / 2.2) = 1.37).
_STEP = 2.0
# WHDR raises reflectance to 1e-10 before it divides; all levels together stay well above that.
_RANGE = 1e8


class _Order:
    """Classes of equally dark points with a strict partial order that never contradicts itself."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))
        self.lighter: list[set[int]] = [set() for _ in range(n)]

    def find(self, point: int) -> int:
        while self.parent[point] != point:
            self.parent[point] = self.parent[self.parent[point]]
            point = self.parent[point]
        return point

    def reaches(self, start: int, goal: int) -> bool:
        """Whether class `goal` must be lighter than class `start`."""
        stack, seen = [start], {start}
        while stack:
            for after in {self.find(p) for p in self.lighter[stack.pop()]}:
                if after == goal:
                    return True
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return False

    def add(self, first: int, second: int, darker: int) -> bool:
        """Accept a judgement unless it contradicts the accepted ones; whether it was accepted."""
        a, b = self.find(first), self.find(second)
        if darker == SAME:
            if a != b:
                if self.reaches(a, b) or self.reaches(b, a):
                    return False
                self.parent[b] = a
                self.lighter[a] |= self.lighter[b]
            return True
        low, high = (a, b) if darker == FIRST else (b, a)
        if low == high or self.reaches(high, low):
            return False
        self.lighter[low].add(high)
        return True

    def levels(self) -> NDArray[np.int64]:
        """For each point, the longest chain of strictly darker classes below it."""
        roots = {self.find(p) for p in range(len(self.parent))}
        after = {r: {self.find(p) for p in self.lighter[r]} for r in roots}
        before = dict.fromkeys(roots, 0)
        for following in after.values():
            for r in following:
                before[r] += 1
        level = dict.fromkeys(roots, 0)
        ready = [r for r in roots if before[r] == 0]
        while ready:
            r = ready.pop()
            for s in after[r]:
                level[s] = max(level[s], level[r] + 1)
                before[s] -= 1
                if before[s] == 0:
                    ready.append(s)
        return np.array([level[self.find(p)] for p in range(len(self.parent))], dtype=np.int64)


def solve_reflectance(target: JudgementTarget, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """One reflectance in (0, 1] per cell, such that the judgements hold.

    Judgements are taken from the heaviest to the lightest; one that contradicts those before it (as a cycle of
    "darker", or "darker" within a chain of "equal") is dropped. Where nothing is dropped the result is exact for
    any threshold and any power-law encoding; otherwise it is a good answer, not always the best one, because
    thresholds would allow "equal" not to be transitive.

    Parameters
    ----------
    target : judgements
    cells : int64 [P], which pixel each point falls in; points that share a pixel share a reflectance

    Returns
    -------
    float64 [max(cells) + 1], the darkest level 1e-8 at least, the lightest 1
    """
    order = _Order(int(cells.max()) + 1)
    for j in np.argsort(-target.weight, kind="stable"):
        darker = int(target.darker[j])
        if darker in (SAME, FIRST, SECOND):
            first, second = target.pairs[j]
            order.add(int(cells[first]), int(cells[second]), darker)
    levels = order.levels()
    top = int(levels.max())
    step = _STEP if _STEP**top <= _RANGE else _RANGE ** (1.0 / top)
    return np.asarray(step ** (levels - top).astype(np.float64))


def paint_reflectance(target: JudgementTarget, height: int, width: int) -> NDArray[np.float64]:
    """The solved reflectances as a grey image, float64 [H, W, 3]; every pixel takes its nearest point's value.

    A point lies in pixel ``(int(y * H), int(x * W))``, as WHDR reads it; 1.0 belongs to the last pixel.

    Raises
    ------
    SampleError
        No points or no judgements: there is nothing to satisfy.
    """
    from scipy.ndimage import distance_transform_edt

    if len(target.points) == 0 or len(target.pairs) == 0:
        raise SampleError("no judgements, so there is no reflectance that satisfies them")
    rows = np.minimum((target.points[:, 1] * height).astype(np.int64), height - 1)
    columns = np.minimum((target.points[:, 0] * width).astype(np.int64), width - 1)
    pixels, cells = np.unique(rows * width + columns, return_inverse=True)
    image = np.zeros((height, width))
    image.flat[pixels] = solve_reflectance(target, cells.reshape(-1).astype(np.int64))
    nearest = distance_transform_edt(image == 0, return_distances=False, return_indices=True)
    return np.repeat(image[tuple(nearest)][..., None], 3, axis=-1)
