"""The streaming median equals numpy's on every kind of distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.errors import SampleError
from reasonx_eval.metrics import kernels
from reasonx_eval.metrics import streaming_median as module
from reasonx_eval.metrics.kernels import Bins
from reasonx_eval.metrics.streaming_median import binned_median, median_of, streaming_median


@pytest.fixture
def small_gather(monkeypatch):
    # forces the histogram route on test-sized data
    monkeypatch.setattr(module, "_GATHER", 50)


def _draw(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return {
        "uniform": lambda: rng.uniform(-3, 180, n),
        "heavy tail": lambda: rng.standard_cauchy(n) ** 3,
        "few values": lambda: rng.integers(0, 3, n).astype(np.float64),
        "two clusters": lambda: np.concatenate([np.full(n // 2, 1.0), np.full(n - n // 2, 2.0)]),
        "constant": lambda: np.full(n, 7.25),
        "tiny spread": lambda: 1.0 + rng.integers(0, 400, n) * 2.0**-52,
    }[kind]()


@pytest.mark.parametrize("kind", ["uniform", "heavy tail", "few values", "two clusters", "constant", "tiny spread"])
@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4001])
def test_equals_numpy(small_gather, kind, n):
    values = _draw(kind, n)
    pieces = [np.empty(0), *np.array_split(values, 7)]
    assert streaming_median(lambda: pieces) == np.median(values)
    assert median_of(values.copy()) == np.median(values)


def _binned(values):
    bins = Bins(0.0, 180.0, module.BINS)
    counts = bins.empty()
    module.count(values, bins, counts)
    return binned_median(lambda: [values], bins, counts)


def test_known_bounds_change_nothing(small_gather):
    values = np.random.default_rng(0).uniform(0, 180, 3000)
    values[:2] = 0.0, 180.0
    assert _binned(values) == np.median(values)


@pytest.mark.parametrize("bad", [-1e-9, 180.1, math.nan, math.inf])
def test_values_outside_known_bounds_are_refused(bad):
    values = np.linspace(0, 180, 99)
    values[[3, 50]] = bad
    with pytest.raises(SampleError, match="2 of 99"):
        _binned(values)
    with kernels.switched_off(), pytest.raises(SampleError, match="2 of 99"):
        _binned(values)


def test_float32_pieces_are_compared_in_float64(small_gather):
    values = np.random.default_rng(1).random(1000, np.float32)
    assert streaming_median(lambda: [values]) == np.median(values.astype(np.float64))


def test_nothing_is_nan():
    assert math.isnan(streaming_median(lambda: []))
