"""Confidence intervals: 10,000 resamples of the means of 8 metrics over 1,000 images."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.speed.conftest import Measure
from reasonx_eval.io import seeding
from reasonx_eval.statistics.bootstrap import bootstrap_ci

IMAGES, METRICS, RESAMPLES = 1_000, 8, 10_000
GROUP = f"bootstrap: {METRICS} metrics, {IMAGES:,} images, {RESAMPLES:,} resamples"

bootstrap = pytest.mark.benchmark(group=GROUP)


@cache
def values() -> Any:
    """Skewed and correlated as errors are, float64 [n, metrics]."""
    stream = seeding.rng(0, "bootstrap values")
    return np.exp(0.5 * stream.standard_normal((IMAGES, METRICS)) + stream.standard_normal((IMAGES, 1)))


def ours(columns: int, resamples: int = RESAMPLES) -> Any:
    return bootstrap_ci(values()[:, :columns], resamples=resamples, seed=0)


def scipy_bca(column: int, resamples: int = RESAMPLES) -> Any:
    from scipy.stats import bootstrap as scipy_bootstrap

    found = scipy_bootstrap((values()[:, column],), np.mean, n_resamples=resamples, method="BCa", vectorized=True,
                            random_state=np.random.default_rng(0))  # fmt: skip
    return found.confidence_interval


@cache
def assert_forms_agree() -> None:
    """Of two streams of draws, so to a twentieth of the interval's width; to rounding in tests of the formulas."""
    low, high = ours(METRICS)
    for column in range(METRICS):
        theirs = scipy_bca(column)
        width = high[column] - low[column]
        assert abs(theirs.low - low[column]) < width / 20
        assert abs(theirs.high - high[column]) < width / 20


@bootstrap
def test_ours(measure: Measure) -> None:
    assert_forms_agree()
    measure("ours", lambda: ours(METRICS), form="8 metrics: counts times values, in blocks",
            against=lambda: scipy_bca(0), against_form="scipy's bootstrap of one metric")  # fmt: skip


@bootstrap
def test_ours_one_metric(measure: Measure) -> None:
    measure("library", lambda: ours(1), form="ours, for one metric")


@bootstrap
def test_scipy(measure: Measure) -> None:
    measure("peer", lambda: [scipy_bca(k) for k in range(METRICS)], form="scipy.stats.bootstrap, metric by metric",
            rounds=3)  # fmt: skip


@bootstrap
def test_scipy_one_metric(measure: Measure) -> None:
    measure("library", lambda: scipy_bca(0), form="scipy.stats.bootstrap, one metric")


@bootstrap
def test_bound(measure: Measure) -> None:
    def draw() -> None:
        stream = seeding.rng(0, "bootstrap")
        for _ in range(10):
            stream.integers(0, IMAGES, size=(RESAMPLES // 10, IMAGES))

    measure("bound", draw, form="the random numbers alone")
