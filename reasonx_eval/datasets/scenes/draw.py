"""Random draws whose bits depend on nothing but the key: raw 64-bit words of PCG64 and exact arithmetic.

numpy's own distributions are avoided: those that use logarithms differ between builds, and their streams may
change between releases. The raw words of the bit generator are guaranteed not to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from reasonx_eval.datasets.scenes.exact import Array
from reasonx_eval.io.seeding import rng

_T = TypeVar("_T")
_UNIT = 2.0**-53
# Four independent 16-bit integers: mean 131070, variance (2**32 - 1) / 3
_FOUR_MEAN = 131070.0
_FOUR_STD = 37837.22


class Draw:
    """A stream of draws for (seed, keys).

    Parameters
    ----------
    seed : the suite's seed
    keys : strings that name the stream; different keys give independent streams
    """

    def __init__(self, seed: int, *keys: str) -> None:
        self._bits = rng(seed, *keys).bit_generator

    def words(self, n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.asarray(self._bits.random_raw(n), dtype=np.uint64)

    def units(self, n: int) -> Array:
        """n values in [0, 1)."""
        return (self.words(n) >> np.uint64(11)).astype(np.float64) * _UNIT

    def unit(self) -> float:
        return (int(self._bits.random_raw()) >> 11) * _UNIT

    def span(self, limits: tuple[float, float]) -> float:
        """Uniform in [low, high)."""
        return limits[0] + (limits[1] - limits[0]) * self.unit()

    def inverse_span(self, limits: tuple[float, float]) -> float:
        """In [low, high] with a uniform inverse: small values are more likely."""
        low, high = limits
        return low * high / (high - self.unit() * (high - low))

    def integer(self, low: int, high: int) -> int:
        """An integer in low .. high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def key(self) -> int:
        """A 32-bit integer, for hashes."""
        return int(self._bits.random_raw()) & 0xFFFFFFFF

    def flag(self, chance: float) -> bool:
        return self.unit() < chance

    def sign(self) -> float:
        return 1.0 if self.unit() < 0.5 else -1.0

    def choice(self, items: Sequence[_T]) -> _T:
        return items[self.integer(0, len(items) - 1)]

    def weighted(self, weights: Mapping[str, int]) -> str:
        """A key of `weights` with a chance in proportion to its whole-number weight."""
        left = self.integer(1, sum(weights.values()))
        for name, weight in weights.items():
            left -= weight
            if left <= 0:
                return name
        raise AssertionError("the weights are positive whole numbers")

    def order(self, n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """A random permutation of 0 .. n - 1."""
        return np.argsort(self.words(n), kind="stable")

    def bell(self, n: int) -> Array:
        """n values of mean 0 and standard deviation 1 from sums of four uniforms: within 3.5, close to Gaussian."""
        w = self.words(n)
        low = np.uint64(0xFFFF)
        total = (w & low) + ((w >> np.uint64(16)) & low) + ((w >> np.uint64(32)) & low) + (w >> np.uint64(48))
        values: Array = (total.astype(np.float64) - _FOUR_MEAN) / _FOUR_STD
        return values
