"""Axes reversed by the compiled kernels against numpy, at sizes that leave columns and items over."""

from __future__ import annotations

import numpy as np
import pytest

from reasonx_eval.datasets.formats import hdf5_rows
from reasonx_eval.metrics import kernels

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no compiled kernels")

SIZES = [(1, 1), (3, 5), (4, 16), (8, 4), (7, 33), (9, 18), (37, 29), (136, 480), (0, 5), (5, 0)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i4", "u4"])
def test_words(size: tuple[int, int], dtype: str) -> None:
    block = np.random.default_rng(0).integers(0, 1 << 30, size).astype(dtype)
    around = np.full((size[1] + 4, size[0] + 5), 7, dtype=dtype)
    assert kernels.turn(block=block, out=around[2:-2, 3:-2])
    expected = np.full_like(around, 7)
    expected[2:-2, 3:-2] = block.T
    assert np.array_equal(around, expected)  # not one byte beside it is written


@pytest.mark.parametrize("size", SIZES)
def test_colours(size: tuple[int, int]) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, size[0] + 3, size[1]), dtype=np.uint8)
    block = stored[:, 1 : 1 + size[0]]
    around = np.full((size[1] + 4, size[0] + 5, 3), 7, dtype=np.uint8)
    assert kernels.turn(block=block, out=around[2:-2, 3:-2])
    expected = np.full_like(around, 7)
    expected[2:-2, 3:-2] = block.transpose(2, 1, 0)
    assert np.array_equal(around, expected)


@pytest.mark.parametrize(
    ("block", "out"),
    [
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)),
        (np.zeros((4, 5), np.float32), np.zeros((5, 4), np.int32)),
        (np.zeros((4, 5), np.float32), np.zeros((5, 8), np.float32)[:, ::2]),
        (np.zeros((4, 10), np.float32)[:, ::2], np.zeros((5, 4), np.float32)),
        (np.zeros((4, 8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)),
        (np.zeros((3, 8, 8), np.float32), np.zeros((8, 8, 3), np.float32)),
        (np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)[..., :3]),
        (np.zeros(4, np.float32), np.zeros(4, np.float32)),
    ],
    ids=["eight bytes", "sizes", "types", "rows apart", "items apart", "four planes", "float planes", "four channels",
         "a vector"],
)  # fmt: skip
def test_other_arrays_are_left_to_numpy(block: np.ndarray, out: np.ndarray) -> None:
    before = out.copy()
    assert not kernels.turn(block=block, out=out)
    assert np.array_equal(out, before)


def test_numpy_takes_over_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.random.default_rng(0).integers(0, 256, (3, 300, 29), dtype=np.uint8)
    out = np.zeros((31, 310, 3), dtype=np.uint8)
    monkeypatch.setattr(kernels, "_module", None)
    hdf5_rows._turn(block, out, (0, 5, 1))
    expected = np.zeros_like(out)
    expected[1:30, 5:305] = block.transpose(2, 1, 0)
    assert np.array_equal(out, expected)
