"""One run of the benchmarks, from pytest-benchmark's JSON, and the ratios between its forms."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.goals import Goal


@dataclass(frozen=True)
class Turns:
    """Another form that was timed in turns with one: the median of both times' ratios, and its own seconds."""

    form: str
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Form:
    """One form of a group.

    seconds, spread : median and interquartile range of a call
    memory : peak above the inputs, MiB (of commands: the whole process); None where it wasn't measured
    """

    group: str
    role: str
    form: str
    seconds: float
    spread: float
    rounds: int
    size: float | None = None
    unit: str = ""
    memory: float | None = None
    turns: Turns | None = None


@dataclass(frozen=True)
class Absent:
    """A form that could not be measured, and why."""

    group: str
    role: str
    form: str
    reason: str


@dataclass(frozen=True)
class Run:
    forms: tuple[Form, ...]
    absent: tuple[Absent, ...]
    machine: Mapping[str, Any]

    @property
    def groups(self) -> Sequence[str]:
        """In the order of the run."""
        return list(dict.fromkeys([f.group for f in self.forms] + [a.group for a in self.absent]))

    def of(self, group: str, role: str | None = None, size: float | None = None) -> list[Form]:
        """Forms of a group; `size` None takes every size."""
        return [f for f in self.forms if f.group == group and role in (None, f.role) and size in (None, f.size)]


def read_run(path: Path) -> Run:
    """A file of pytest-benchmark with what `benchmarks.speed.conftest` adds.

    Raises
    ------
    KeyError, ValueError
        Not such a file.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    forms = tuple(_form(b) for b in document["benchmarks"])
    absent = tuple(Absent(**a) for a in document.get("absent", ()))
    return Run(forms=forms, absent=absent, machine=document["machine_info"])


def _form(benchmark: Mapping[str, Any]) -> Form:
    info, stats = benchmark["extra_info"], benchmark["stats"]
    inner = info.get("inner", 1)
    turns = info.get("against")
    return Form(
        group=benchmark["group"], role=info["role"], form=info["form"],
        seconds=stats["median"] / inner, spread=stats["iqr"] / inner, rounds=stats["rounds"],
        size=info.get("size"), unit=info.get("unit", ""), memory=info.get("memory_mib"),
        turns=None if turns is None else Turns(turns["form"], turns["median_s"], turns["ratio"]),
    )  # fmt: skip


def measured(run: Run, goal: Goal) -> float | None:
    """The quantity of a goal in a run; None where the run lacks one of its forms.

    Of several peers, libraries or bounds the fastest counts, so that no slow form flatters the ratio.
    """
    if goal.quantity == "growth":
        return growth(run.of(goal.group, "ours"))
    ours = _largest(run.of(goal.group, "ours", goal.size))
    if ours is None:
        return None
    if goal.quantity == "seconds":
        return ours.seconds
    if goal.quantity == "rate":
        return None if ours.size is None else ours.size / ours.seconds
    if goal.quantity == "memory":
        return ours.memory
    if goal.quantity == "against":
        return None if ours.turns is None else ours.turns.ratio
    others = run.of(goal.group, goal.quantity, ours.size)
    if not others:
        return None
    other = min(f.seconds for f in others)
    return ours.seconds / other if goal.quantity == "bound" else other / ours.seconds


def is_met(goal: Goal, value: float) -> bool:
    """Whether a measured value reaches the goal."""
    if goal.at_least is not None:
        return value >= goal.at_least
    assert goal.at_most is not None
    return value <= goal.at_most


def growth(forms: Iterable[Form]) -> float | None:
    """Slope of log time over log size by least squares: 1 is linear, 2 quadratic; None below two sizes."""
    points = [(math.log(f.size), math.log(f.seconds)) for f in forms if f.size]
    if len({x for x, _ in points}) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _largest(forms: Sequence[Form]) -> Form | None:
    return max(forms, key=lambda f: f.size or 0.0, default=None)
