"""Times of a sampler, written out; a step always goes to the next one of the list.

Schedulers of libraries compute the next time from a stride, which misses the list where the number of steps does not
divide the number of training times (15 of 1000: 9 of 14 steps go astray).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.seeding import rng
from reasonx_ft.grpo.kernels import rf_time

Spacing = Literal["trailing", "leading", "linspace"]


@dataclass(frozen=True)
class Schedule:
    """Times of T steps.

    times : T + 1 rectified-flow times, falling, in [0, 1]; the last is where sampling ends
    timesteps : T numbers, the time of each step as the network's input
    """

    times: tuple[float, ...]
    timesteps: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2 or len(self.timesteps) != len(self.times) - 1:
            raise ValueError(f"{len(self.times)} times and {len(self.timesteps)} steps; needs one time more than steps")
        if not all(1 >= t > s >= 0 for t, s in itertools.pairwise(self.times)):
            raise ValueError(f"times must fall within [0, 1]: {self.times}")

    def __len__(self) -> int:
        return len(self.timesteps)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """(time, next time) of each step."""
        return itertools.pairwise(self.times)


def linear(steps: int) -> Schedule:
    """1 to 0 in equal steps."""
    if steps < 1:
        raise UsageError(f"{steps} steps; needs 1 or more")
    return of_times([1 - i / steps for i in range(steps)] + [0.0])


def of_times(times: Sequence[float]) -> Schedule:
    """A rectified flow's own times, which are the network's input as they are."""
    return Schedule(tuple(times), tuple(times[:-1]))


def variance_preserving(
    alphas_cumprod: Sequence[float], steps: int, spacing: Spacing = "trailing", *, offset: int = 0,
    final_alpha: float | None = None,
) -> Schedule:  # fmt: skip
    """The grid of a diffusion model, in rectified-flow times.

    Parameters
    ----------
    alphas_cumprod : of the training times, falling, in [0, 1]
    spacing, offset : as diffusers' schedulers name them (`timestep_spacing`, `steps_offset`)
    final_alpha : cumulative alpha at which sampling ends; default: that of training time 0

    Raises
    ------
    UsageError
        More steps than training times, or an unknown spacing.
    """
    total = len(alphas_cumprod)
    if not 1 <= steps <= total:
        raise UsageError(f"{steps} steps; needs 1 to {total}, the number of training times")
    indices = _grid(total, steps, spacing, offset)
    end = float(alphas_cumprod[0] if final_alpha is None else final_alpha)
    times = [rf_time(float(alphas_cumprod[i])) for i in indices] + [rf_time(end)]
    if times[-1] >= times[-2]:  # the last index is 0 already, and sampling would end where it is
        times[-1] = 0.0
    return Schedule(tuple(times), tuple(float(i) for i in indices))


def _grid(total: int, steps: int, spacing: Spacing, offset: int) -> list[int]:
    if spacing == "trailing":
        found = np.round(np.arange(total, 0, -total / steps)) - 1
    elif spacing == "leading":
        found = (np.arange(steps) * (total // steps))[::-1] + offset
    elif spacing == "linspace":
        found = np.round(np.linspace(0, total - 1, steps))[::-1]
    else:
        raise unknown("spacing", spacing, ("trailing", "leading", "linspace"))
    return [int(i) for i in found[:steps]]


def scored_steps(steps: int, *, window: int | None, within: float = 1.0, seed: int = 0, step: int = 0) -> range:
    """Which steps of a rollout are noisy and scored; never the last.

    Parameters
    ----------
    window : number of neighbouring steps; None: all but the last
    within : share of the steps, from the noisy end, that the window lies in
    seed, step : of the run and the optimiser step; the window's place depends on nothing else, so that it is one
        for all samples of all images (windows that differ within a group make training collapse)

    Raises
    ------
    UsageError
        A rollout of one step, which has none to score; a window that does not fit.
    """
    if steps < 2:
        raise UsageError(f"a rollout of {steps} step has none to score: the last one is deterministic",
                         fix="2 steps or more")  # fmt: skip
    if not 0 < within <= 1:
        raise UsageError(f"the window of scored steps lies within the first {within} of the steps; needs (0, 1]")
    if window is None:
        return range(steps - 1)
    if not 1 <= window <= steps - 1:
        raise UsageError(f"a window of {window} scored steps in a rollout of {steps}; needs 1 to {steps - 1}")
    places = max(1, min(math.ceil(within * steps), steps - 1) - window + 1)
    start = int(rng(seed, "window", str(step)).integers(places))
    return range(start, start + window)
