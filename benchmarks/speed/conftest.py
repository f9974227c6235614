"""The `measure` fixture, and what is noted about the machine."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import pytest

from benchmarks.speed.memory import resident_peak, traced_peak

Role = Literal["ours", "peer", "library", "bound"]
Memory = Literal["traced", "resident", "none"]

#: one form is timed for about so long, whatever it costs
_BUDGET_S = 1.5
#: calls that are shorter than this are timed several at a time
_ROUND_S = 2e-3
_ROUNDS = (5, 40)
#: no extra call is spent on timing what takes longer
_LONG_S = 0.5
#: at least so many rounds where two forms are compared closely
_INTERLEAVED = (9, 40)
_ABSENT: pytest.StashKey[list[dict[str, str]]] = pytest.StashKey()


class Measure:
    """Times one form of a group; a test calls it once, after it has asserted that the form is right.

    A test states its group: ``@pytest.mark.benchmark(group="depth metrics, 480x640")``, in words that the report shows.
    """

    def __init__(self, benchmark: Any, absent: list[dict[str, str]]) -> None:
        self._benchmark = benchmark
        self._absent = absent

    def __call__(
        self,
        role: Role,
        function: Callable[[], Any],
        *,
        form: str,
        against: Callable[[], Any] | None = None,
        against_form: str = "",
        size: float | None = None,
        unit: str = "",
        memory: Memory | Callable[[], float | None] = "traced",
        rounds: int | None = None,
        setup: Callable[[], Any] | None = None,
    ) -> None:
        """Time `function` and note what the report needs.

        Parameters
        ----------
        role : whose form it is: ours, what peers do, a library's, or the bound that no form can beat
        function : what is timed, without arguments
        form : what it does, in a few words
        against : timed in turns with `function` (A B A B ...); the report gives the median of the ratios A / B of
            neighbours. For goals near 1, which the drift of a machine between two tests would decide.
        against_form : what `against` does, in a few words
        size, unit : how much of what a form works on, where a group is a sweep over sizes
        memory : peak above the inputs in an extra call: "traced" by Python, "resident" of the process (torch,
            decoders), "none", or a function that gives it in MiB (`Command.peak`)
        rounds : how many; otherwise as many as fit a budget. 1 round of a form whose memory is "resident" is one call
            in all: it is timed while its peak is watched
        setup : runs untimed before each round (drops a cache, say); every round is then one call
        """
        bench = self._benchmark
        bench.extra_info.update(role=role, form=form, size=size, unit=unit)
        if bench.disabled:
            if against is not None:
                against()
            bench.pedantic(function, setup=setup)
            return
        if rounds == 1 and memory == "resident" and against is None:
            # what writes can't be repeated, and what takes long needn't be
            bench.pedantic(lambda: bench.extra_info.update(memory_mib=resident_peak(function)), setup=setup)
            return
        if setup is not None:
            setup()
        start = time.perf_counter()
        # the first call also warms up caches and lazy imports
        bench.extra_info["memory_mib"] = _peak(function, memory)
        once = time.perf_counter() - start
        if once < _LONG_S:
            once = _timed(function)
        other = 0.0 if against is None else _timed(against)
        inner = 1 if setup is not None else max(1, math.ceil(_ROUND_S / max(once, 1e-9)))
        low, high = _ROUNDS if against is None else _INTERLEAVED
        fitting = int((_BUDGET_S if against is None else 4 * _BUDGET_S) / (inner * (once + other)))
        count = rounds if rounds is not None else min(max(fitting, low), high)
        if against is None:
            bench.pedantic(function, setup=setup, rounds=count, iterations=inner)
            return
        others: list[float] = []

        def before() -> None:
            if setup is not None:
                setup()
            others.append(_timed(against, inner))
            if setup is not None:
                setup()

        # a round with a setup is one iteration, so what is short is repeated inside it; the report divides
        bench.extra_info["inner"] = inner
        bench.pedantic(lambda: _repeat(function, inner), setup=before, rounds=count)
        own = [seconds / inner for seconds in bench.stats.stats.data]
        bench.extra_info["against"] = {
            "form": against_form, "median_s": statistics.median(others),
            "ratio": statistics.median(a / b for a, b in zip(own, others, strict=True)),
        }  # fmt: skip

    def absent(self, role: Role, form: str, reason: str) -> NoReturn:
        """Skip a form that can't be measured here; the report shows it with the reason."""
        group = self._benchmark.group or ""
        self._absent.append({"group": group, "role": role, "form": form, "reason": reason})
        pytest.skip(reason)


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    """Times one form; see `Measure`."""
    return Measure(benchmark, request.config.stash[_ABSENT])


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ABSENT] = []


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["absent"] = config.stash[_ABSENT]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The processor and the versions; not the machine's name."""
    machine_info.pop("node", None)
    machine_info["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine_info["python"] = platform.python_version()
    machine_info["versions"] = {name: _version(name) for name in _PACKAGES}


_PACKAGES = ("reasonx", "numpy", "scipy", "torch", "pillow", "imagecodecs", "h5py", "torchmetrics", "scikit-image")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _repeat(function: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        function()


def _timed(function: Callable[[], Any], times: int = 1) -> float:
    """Seconds of one of `times` calls."""
    start = time.perf_counter()
    _repeat(function, times)
    return (time.perf_counter() - start) / times


def _peak(function: Callable[[], Any], memory: Memory | Callable[[], float | None]) -> float | None:
    """Peak of one call of what is timed, which also warms it up, MiB."""
    if memory == "traced":
        return traced_peak(function)
    if memory == "resident":
        return resident_peak(function)
    if callable(memory):
        return memory()  # a call of its own: the function's, first, could leave it nothing to do
    function()
    return None
