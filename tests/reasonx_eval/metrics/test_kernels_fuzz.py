"""Kernels under odd arguments: nothing is written beside an array, nothing crashes, no number differs from numpy's.

`make sanitize` runs this file on kernels that were built with the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from reasonx_eval.errors import ReasonXError
from reasonx_eval.metrics import align, angles, kernels
from reasonx_eval.metrics.depth_sums import NAMES, measure_depth
from reasonx_eval.metrics.normals import WITHIN
from reasonx_eval.metrics.valid_pixels import ValidPixels
from reasonx_eval.types import Alignment

LIMITS = tuple(WITHIN.values())
GUARD = 32
ROUNDS = int(os.environ.get("REASONX_FUZZ_ROUNDS", "60"))
NUMBERS = (0.0, 1.0, -1.0, 0.5, 180.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan)
COUNTS = (0, 1, 2, 63, 64, -1, -2, -65, -(2**31), 2**31 - 1, 2**31, 2**62, -(2**62), 2**63 - 1, -(2**63))


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    """The kernels of this process, or those of the file that REASONX_KERNELS names."""
    path, kept = os.environ.get("REASONX_KERNELS"), kernels._module
    if path:
        spec = importlib.util.spec_from_file_location("reasonx_eval.metrics.kernels._compiled", path)
        assert spec is not None
        assert spec.loader is not None
        kernels._module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels._module)
    if kernels._module is None:
        pytest.skip("the compiled kernels were not built for this machine")
    yield kernels._module
    kernels._module = kept


def guarded(size: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """An array inside a larger one whose other items are 77, and the larger one."""
    whole = np.full(size + 2 * GUARD, 77, dtype=dtype)
    return whole[GUARD : GUARD + size], whole


def untouched(whole: np.ndarray) -> bool:
    return bool((whole[:GUARD] == 77).all() and (whole[len(whole) - GUARD :] == 77).all())


def laid_out(rng: Generator, array: np.ndarray) -> np.ndarray:
    """The same values in another layout: a window, reversed rows, every other column, misaligned, swapped bytes, ..."""
    way = rng.integers(9)
    if way == 0:
        whole = np.full((array.shape[0] + 3, array.shape[1] + 5, *array.shape[2:]), 1, dtype=array.dtype)
        whole[2 : 2 + array.shape[0], 3 : 3 + array.shape[1]] = array
        return whole[2 : 2 + array.shape[0], 3 : 3 + array.shape[1]]
    if way == 1:
        return array[::-1].copy()[::-1]
    if way == 2:
        return array.repeat(2, axis=1)[:, ::2]
    if way == 3:
        return np.asfortranarray(array)
    if way == 4 and array.size:
        raw = np.zeros(array.nbytes + 1, np.uint8)
        out = raw[1:].view(array.dtype).reshape(array.shape)
        out[...] = array
        return out
    if way == 5:
        return array.astype(array.dtype.newbyteorder(">"))
    if way == 6 and array.size:
        return np.broadcast_to(array[:1], array.shape)
    if way == 7:
        array.flags.writeable = False
    return array


def depth_maps(rng: Generator) -> dict[str, np.ndarray]:
    shape = tuple(int(n) for n in rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 33, 1023, 1025], 2, p=[0.04, *[0.1] * 9, 0.06]))
    dtypes = rng.choice(["f4", "f8", "f2", "i4", "u1", "?"], 2, p=[0.4, 0.4, 0.05, 0.05, 0.05, 0.05])
    target = rng.uniform(0.4, 9, shape)
    pred = target * 0.3 + rng.normal(0.3, 0.3, shape)
    mask = rng.random(shape) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.6, 0.3])
    if rng.random() < 0.3 and mask.size:
        for array in (pred, target):
            array.flat[rng.integers(array.size)] = rng.choice(NUMBERS)
    with np.errstate(all="ignore"):
        return {"pred": laid_out(rng, pred.astype(dtypes[0])), "target": laid_out(rng, target.astype(dtypes[1])),
                "mask": laid_out(rng, mask)}  # fmt: skip


def attempt(call: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return call()
    except ReasonXError as error:
        return str(error)


def same(found: Any, plain: Any) -> None:
    if isinstance(found, str) or isinstance(plain, str):
        assert found == plain
    else:
        np.testing.assert_allclose(found, plain, rtol=1e-7, atol=1e-9)


def numbers(fit: Alignment) -> list[float]:
    return [fit.scale, fit.shift, float(fit.n_valid)]


def scores(maps: dict[str, np.ndarray], fit: Alignment) -> list[float]:
    return list(measure_depth(ValidPixels(**maps), alignment=fit, names=NAMES, clip_m=(1e-3, 20.0)).values())


@pytest.mark.parametrize("seed", range(4))
def test_depth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        maps = depth_maps(rng)
        space = rng.choice(["depth", "disparity"])
        fit = Alignment("affine", str(space), *rng.choice(NUMBERS[:7], 2), 1)  # type: ignore[arg-type]
        calls = (lambda maps=maps, space=space: numbers(align.fit(**maps, space=space)),
                 lambda maps=maps, fit=fit: scores(maps, fit))  # fmt: skip
        for call in calls:
            with kernels.switched_off():
                plain = attempt(call)
            same(attempt(call), plain)


@pytest.mark.parametrize("seed", range(2))
def test_normals(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(ROUNDS):
        maps = depth_maps(rng)
        for name in ("pred", "target"):
            flat = np.asarray(maps[name])
            vectors = np.stack([flat, np.ones_like(flat), np.zeros_like(flat)], axis=-1)
            maps[name] = laid_out(rng, vectors)
        with kernels.switched_off():
            plain = attempt(lambda maps=maps: angles.angular_errors(**maps))
        same(attempt(lambda maps=maps: angles.angular_errors(**maps)), plain)


def test_a_mask_of_other_bytes_than_0_and_1_counts_as_true(module: ModuleType) -> None:
    mask = np.array([[2, 0, 255, 1, 3]], np.uint8).view(np.bool_)
    vectors = np.tile(np.eye(3)[0], (1, 5, 1))
    out, whole = guarded(8, np.float64)
    assert module.angles_between(vectors, vectors, mask, out) == 4
    assert out[:4].tolist() == [0.0] * 4
    assert untouched(whole)


@pytest.mark.parametrize("room", [0, 1, 4, 7, 8])
def test_angles_have_room_or_are_left_to_numpy(module: ModuleType, room: int) -> None:
    vectors, mask = np.tile(np.eye(3)[0], (2, 2, 1)), np.ones((2, 2), bool)
    out, whole = guarded(room, np.float64)
    try:
        assert module.angles_between(vectors, vectors, mask, out) == (4 if room == 8 else None)
    except ValueError:
        assert room == 0
    assert untouched(whole)


@pytest.mark.parametrize("seed", range(4))
def test_bins(module: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    refused = 0
    for _ in range(ROUNDS):
        low, high, factor = (float(rng.choice(NUMBERS)) if rng.random() < 0.5 else float(rng.normal(0, 50))
                             for _ in range(3))  # fmt: skip
        count = int(rng.choice(np.array(COUNTS, dtype=object))) if rng.random() < 0.5 else int(rng.integers(-9, 99))
        values = np.concatenate([rng.normal(0, 60, rng.integers(0, 70)), rng.choice(NUMBERS, 3)])
        counts, whole = guarded(int(rng.integers(0, 200)), np.int64)
        out, taken = guarded(int(rng.integers(0, 70)), np.float64)
        bins = (low, high, factor, count)
        first, last = (int(rng.choice(np.array(COUNTS, dtype=object))) for _ in range(2))
        for function, arguments in (
            (module.count_bins, (values, bins, counts)), (module.sum_angles, (values, LIMITS, bins, counts)),
            (module.take_bins, (values, bins, first, last, out)),
        ):  # fmt: skip
            try:
                function(*arguments)
            except ValueError:
                refused += 1
        assert untouched(whole), bins
        assert untouched(taken), bins
    assert refused > ROUNDS


@pytest.mark.parametrize("bins", [
    (0.0, 10.0, -1.0, 20), (0.0, 10.0, 0.0, 20), (0.0, 10.0, math.nan, 20), (0.0, 10.0, 1.0, -20), (0.0, 10.0, 1.0, 0),
    (10.0, 0.0, 1.0, -5), (10.0, 0.0, 1.0, 20), (math.nan, 10.0, 1.0, 20), (0.0, math.inf, 1.0, 20),
    (0.0, 10.0, 1.0, 10), (0.0, 10.0, 1.0, 2**31), (-1e308, 1e308, 1e-308, 20), (0.0, 0.0, math.inf, 20),
])  # fmt: skip
def test_bins_that_could_lie_beside_the_counts_are_refused(module: ModuleType, bins: tuple[Any, ...]) -> None:
    values, (counts, whole) = np.linspace(-20, 20, 41), guarded(64, np.int64)
    for function, arguments in (
        (module.count_bins, (values, bins, counts)), (module.sum_angles, (values, LIMITS, bins, counts)),
        (module.take_bins, (values, bins, 0, 9, np.empty(41))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="bins"):
            function(*arguments)
    assert (counts == 77).all()
    assert untouched(whole)


@pytest.mark.parametrize("counts", [
    np.zeros(20, np.int64), np.zeros(64, np.int32), np.zeros(64, np.uint64), np.zeros(64), np.zeros((8, 8), np.int64),
    np.zeros(128, np.int64)[::2], b"x" * 512,
])  # fmt: skip
def test_counts_of_another_type_or_too_few_are_refused(module: ModuleType, counts: Any) -> None:
    with pytest.raises((ValueError, BufferError)):
        module.count_bins(np.ones(9), (0.0, 10.0, 2.0, 21), counts)
    read_only = np.zeros(64, np.int64)
    read_only.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        module.count_bins(np.ones(9), (0.0, 10.0, 2.0, 21), read_only)


def test_objects_that_are_no_arrays_are_errors(module: ModuleType) -> None:
    mask = np.ones((2, 2), bool)
    for wrong in (None, 1, "x", b"x", [1.0], memoryview(b"abc")):
        for call in (lambda wrong=wrong: module.depth_moments(wrong, wrong, mask, False),
                     lambda wrong=wrong: module.angles_between(mask, wrong, mask, np.empty(5)),
                     lambda wrong=wrong: module.take_bins(wrong, (0.0, 1.0, 1.0, 2), 0, 1, np.empty(5))):  # fmt: skip
            try:
                assert call() is None
            except (TypeError, ValueError, BufferError):
                continue
