"""The report on speed: ratios from a hand-made run, and what it says of what was not measured."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import report
from benchmarks.speed.goals import GOALS, LIMITS, PLOTS, Goal
from benchmarks.speed.measured import Run, growth, is_met, measured, read_run


def entry(group: str, role: str, seconds: float, **info: Any) -> dict[str, Any]:
    stats = {"median": seconds, "iqr": seconds / 10, "rounds": 11}
    known = {"role": role, "form": f"{role} form", "size": None, "unit": "", "memory_mib": None}
    return {"group": group, "stats": stats, "extra_info": known | info}


BENCHMARKS = [
    entry("walk", "ours", 0.002, memory_mib=3.5),
    entry("walk", "peer", 0.5, form="slow peer"),
    entry("walk", "peer", 0.3, form="peer"),
    entry("walk", "library", 0.01),
    entry("walk", "bound", 0.0008),
    # ten calls a round: the file holds the rounds' times
    entry("turns", "ours", 0.5, inner=10, against={"form": "the bound", "median_s": 0.04, "ratio": 1.2}),
    *(entry("sweep", "ours", 1e-3 * n, size=n, unit="images") for n in (10, 20, 40)),
    *(entry("sweep", "peer", 1e-3 * n**2, size=n, unit="images") for n in (10, 20, 40)),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    document = {
        "benchmarks": BENCHMARKS,
        "absent": [{"group": "walk", "role": "library", "form": "other|lib", "reason": "isn't installed"}],
        "machine_info": {"cpu": {"brand_raw": "Abacus"}, "cores": 2, "system": "Linux", "python": "3.11.7",
                         "versions": {"numpy": "2.4.6", "torch": None}},
    }  # fmt: skip
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def run(file: Path) -> Run:
    return read_run(file)


@pytest.mark.parametrize(("goal", "value"), [
    (Goal("walk", "peer", at_least=1), 150),  # the fastest peer, 0.3 s
    (Goal("walk", "library", at_least=1), 5),
    (Goal("walk", "bound", at_most=1), 2.5),
    (Goal("walk", "seconds", at_most=1), 0.002),
    (Goal("walk", "memory", at_most=1), 3.5),
    (Goal("turns", "against", at_most=1), 1.2),
    (Goal("turns", "seconds", at_most=1), 0.05),
    (Goal("sweep", "growth", at_most=1), 1.0),
    (Goal("sweep", "rate", at_least=1), 1000),
    (Goal("sweep", "peer", at_least=1), 40),  # the largest size
    (Goal("sweep", "peer", at_least=1, size=20), 20),
])  # fmt: skip
def test_quantities_of_a_run_worked_by_hand(run: Run, goal: Goal, value: float) -> None:
    assert measured(run, goal) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("goal", [
    Goal("nowhere", "peer", at_least=1), Goal("walk", "against", at_most=1), Goal("turns", "memory", at_most=1),
    Goal("turns", "bound", at_most=1), Goal("sweep", "peer", at_least=1, size=30), Goal("walk", "growth", at_most=1),
    Goal("walk", "rate", at_least=1),
])  # fmt: skip
def test_what_was_not_measured_has_no_value(run: Run, goal: Goal) -> None:
    assert measured(run, goal) is None


def test_growth_of_a_quadratic_peer(run: Run) -> None:
    assert growth(run.of("sweep", "peer")) == pytest.approx(2.0, rel=1e-12)


def test_a_goal_is_met_from_its_limit_on() -> None:
    assert is_met(Goal("", "peer", at_least=10), 10.0)
    assert not is_met(Goal("", "peer", at_least=10), 9.99)
    assert is_met(Goal("", "bound", at_most=1.15), 1.15)
    assert not is_met(Goal("", "bound", at_most=1.15), 1.151)


def test_report_says_what_is_met_and_what_is_not(run: Run) -> None:
    goals = [Goal("walk", "peer", at_least=150), Goal("turns", "against", at_most=1.15),
             Goal("gone", "peer", at_least=2)]  # fmt: skip
    text = report.render(run, goals, {"sweep": "sweep.svg"})
    rows = [line for line in text.splitlines() if " at least " in line or " at most " in line]
    assert [row.removesuffix(" |").split(" | ")[-2:] for row in rows] == [
        ["150", "met"], ["1.2", "**not met**"], ["", "not measured"],
    ]  # fmt: skip
    assert "| **ours** | ours form | 2.00 ± 0.2 | 150x | 2.50x | 3.5 |" in text
    assert "| library | other\\|lib (not measured: isn't installed) |" in text
    assert "takes 1.20 times as long as the bound (40.0 ms); 11 pairs" in text
    assert "Time of peer form grows as size to the power of 2.00." in text
    assert "Abacus, 2 cores" in text
    assert "torch" not in text
    assert "](sweep.svg)" in text


def test_a_limit_stands_with_its_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "walk", "Legs.")
    text = report.render(run, (), {})
    assert text.index("## walk") < text.index("The limit: Legs.") < text.index("## turns")


def test_report_and_plots_are_written_and_are_the_same_again(file: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(PLOTS, "sweep", "sweep.svg")
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert report.main([str(file), str(folder)]) == 0
    for name in ("README.md", "sweep.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "goal" in (tmp_path / "a" / "README.md").read_text()


def test_every_goal_has_one_limit_and_stands_once() -> None:
    assert all((g.at_least is None) != (g.at_most is None) for g in GOALS)
    keys = [(g.group, g.quantity, g.size) for g in GOALS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("value", "shown"), [
    (0.0853, "0.0853"), (18.71, "18.7"), (1461.2, "1,460"), (0.0, "0"), (9.999, "10.00"), (123456.0, "123,000"),
    (0.000123456, "0.000123"),
])  # fmt: skip
def test_three_significant_digits(value: float, shown: str) -> None:
    assert report.significant(value) == shown


def test_significant_digits_keep_the_value() -> None:
    for k in range(-20, 20):
        value = 1.2345 * 1.7**k
        assert math.isclose(float(report.significant(value).replace(",", "")), value, rel_tol=5e-3)
