"""How often intervals cover a known mean, and how often the gate errs, by simulation beside other methods.

A column of the samples is a trial, so that one call of the library's own functions takes all trials at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.seeding import rng
from reasonx_eval.statistics.bootstrap import bootstrap_ci
from reasonx_eval.statistics.skewed_test import p_above, p_below

Floats: TypeAlias = NDArray[np.float64]

#: name -> (samples of a size, their mean)
SHAPES: Final[Mapping[str, tuple[Callable[[np.random.Generator, tuple[int, int]], Floats], float]]] = {
    "normal": (lambda r, size: r.normal(size=size), 0.0),
    "exponential": (lambda r, size: r.exponential(size=size), 1.0),
    "log-normal (.8)": (lambda r, size: r.lognormal(0, 0.8, size=size), math.exp(0.32)),
    "beta (8, 1)": (lambda r, size: r.beta(8, 1, size=size), 8 / 9),
    "log-normal (1)": (lambda r, size: r.lognormal(0, 1, size=size), math.exp(0.5)),
    "difference of log-normals (1)": (
        lambda r, size: r.lognormal(0, 1, size=size) - r.lognormal(0, 1, size=size), 0.0),
}  # fmt: skip

CONFIDENCE: Final = 0.95
ALPHA: Final = 1 - CONFIDENCE


def sample(shape: str, n: int, trials: int, seed: int) -> tuple[Floats, float]:
    """Values [n, trials] and their true mean."""
    draw, mean = SHAPES[shape]
    return draw(rng(seed, "statistics", shape, str(n)), (n, trials)), mean


def ours(values: Floats, resamples: int) -> tuple[Floats, Floats]:
    ends = bootstrap_ci(values, seed=0, resamples=resamples)
    assert ends is not None
    return ends


def students(values: Floats, resamples: int = 0) -> tuple[Floats, Floats]:
    from scipy.special import stdtrit

    n = len(values)
    half = stdtrit(n - 1, 1 - ALPHA / 2) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def bca(values: Floats, resamples: int, *, widened: bool = False) -> tuple[Floats, Floats]:
    """BCa at its nominal level; widened: at that of Hesterberg's expanded percentile interval."""
    from scipy.special import ndtri, stdtrit

    from reasonx_eval.statistics.bootstrap import acceleration, bca_levels

    n = len(values)
    z = float(stdtrit(n - 1, 1 - ALPHA / 2)) * math.sqrt(n / (n - 1)) if widened else float(ndtri(1 - ALPHA / 2))
    spread = _resampled(values - values.mean(axis=0), resamples)
    left_out = (values.sum(axis=0) - values) / (n - 1)
    levels = np.stack([bca_levels(np.array([-z, z]), spread[k], acceleration(left_out[:, k]))
                       for k in range(values.shape[1])])  # fmt: skip
    ends = np.stack([np.quantile(one, level) for one, level in zip(spread, levels, strict=True)])
    return values.mean(axis=0) + ends[:, 0], values.mean(axis=0) + ends[:, 1]


def studentised(values: Floats, resamples: int) -> tuple[Floats, Floats]:
    """The bootstrap of Student's t: its quantiles among resamples, in place of the table's."""
    n, mean = len(values), values.mean(axis=0)
    residual = values - mean
    counts = _counts(n, resamples)
    means = (counts @ residual / n).T
    spread = np.maximum((counts @ residual**2 / n).T - means**2, 0) * n / (n - 1)
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(means / np.sqrt(spread / n), nan=0.0)
    low, high = np.quantile(t, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    return mean - high * error, mean - low * error


def _counts(n: int, resamples: int) -> Floats:
    drawn = rng(0, "bootstrap").multinomial(n, np.full(n, 1 / n), size=resamples)
    return drawn.astype(np.float64)


def _resampled(residual: Floats, resamples: int) -> Floats:
    return np.asarray((_counts(len(residual), resamples) @ residual / len(residual)).T)


METHODS: Final[Mapping[str, Callable[..., tuple[Floats, Floats]]]] = {
    "ours": ours, "Student's t": students, "BCa": bca,
    "BCa, widened": lambda values, resamples: bca(values, resamples, widened=True),
    "studentised bootstrap": studentised,
}  # fmt: skip


def coverage(shape: str, n: int, *, trials: int, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Method -> share of intervals that cover, and their mean width beside Student's."""
    values, mean = sample(shape, n, trials, seed)
    low, high = students(values)
    usual = float((high - low).mean())
    found = {}
    for name, method in METHODS.items():
        low, high = method(values, resamples)
        found[name] = {"coverage": float(((low <= mean) & (mean <= high)).mean()),
                       "width": float((high - low).mean()) / usual}  # fmt: skip
    return found


def gate_errors(
    shape: str, n: int, *, side: int, trials: int, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Rule -> shares of false "pass" and false "regressed", of runs that are worse by just the margin.

    Parameters
    ----------
    side : 1, a tail of images that got much worse, or -1, much better
    """
    values, mean = sample(shape, n, trials, seed)
    worse = side * (values - mean)  # beyond the margin, [n, trials]
    value, left_out = worse.mean(axis=0), ((worse.sum(axis=0) - worse) / (n - 1)).T
    good, bad = ours(worse, resamples)
    within = np.array([p_below(v, rest, 0.0) for v, rest in zip(value, left_out, strict=True)])
    beyond = np.array([p_above(v, rest, 0.0) for v, rest in zip(value, left_out, strict=True)])
    flipped = sign_flip(worse, resamples)
    t_good, t_bad = students(worse)
    b_good, b_bad = bca(worse, resamples, widened=True)
    rules: dict[str, tuple[Any, Any]] = {
        "ours": ((bad < 0) & (within < ALPHA / 2), (good > 0) & (beyond < ALPHA)),
        "studentised sign flip": (flipped[0] < ALPHA / 2, flipped[1] < ALPHA),
        "Student's t": (t_bad < 0, t_good > 0), "BCa, widened": (b_bad < 0, b_good > 0),
    }  # fmt: skip
    return {name: {"pass": float(np.mean(passed)), "regressed": float(np.mean(regressed))}
            for name, (passed, regressed) in rules.items()}  # fmt: skip


def sign_flip(worse: Floats, flips: int) -> tuple[Floats, Floats]:
    """One-sided p-values, below and above 0, of Student's t under flips of the signs, [trials] each."""
    n = len(worse)
    signs = np.where(rng(0, "exchange").random((flips, n)) < 0.5, -1.0, 1.0)
    squares = (worse**2).sum(axis=0)

    def t(means: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(means / np.sqrt((squares / n - means**2) / (n - 1)))

    observed, flipped = t(worse.mean(axis=0)), t(signs @ worse / n)
    below = ((flipped <= observed).sum(axis=0) + 1) / (flips + 1)
    above = ((flipped >= observed).sum(axis=0) + 1) / (flips + 1)
    return below, above
