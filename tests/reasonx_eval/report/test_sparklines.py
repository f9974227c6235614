from __future__ import annotations

import doctest

import numpy as np
import pytest

from reasonx_eval.report import rounding, sparklines
from reasonx_eval.report.sparklines import BLOCKS, PLAIN, distribution_row, histogram, round_edges, sparkline


def test_examples() -> None:
    assert doctest.testmod(sparklines).failed == doctest.testmod(rounding).failed == 0


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2, 2, 2], "▁▁▁"),
        ([0, 1], "▁█"),
        ([1, 0], "█▁"),
        ([-4, 0, 4], "▁▅█"),
        ([0, 0, 0, 8], "▁▁▁█"),
    ],
)
def test_lines_by_hand(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_each_character_is_the_mean_of_an_equal_part() -> None:
    # means 0.5, 2.5, 4.5, 6.5 of 0..7, of eight levels over [0, 7]
    assert sparkline(range(8), width=4) == "▁▃▆█"
    assert sparkline(range(8), width=4, levels="abcdefgh") == "acfh"
    assert len(sparkline(np.arange(1000.0), width=30)) == 30


def test_shift_and_scale_change_nothing() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert sparkline(values) == sparkline(3 * values + 7)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        sparkline([1.0, float("nan")])


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (0.0123, 0.4567), (-3.2, 7.9), (1e-7, 3e-7), (5.0, 5.0), (0.0, 0.0), (1000.0, 1001.0)],
)
def test_edges_are_round_and_cover_the_range(low: float, high: float) -> None:
    edges = round_edges(low, high, 12)
    assert edges[0] <= low * (1 + 1e-9) + 1e-12
    assert edges[-1] >= high * (1 - 1e-9) - 1e-12
    assert 1 <= len(edges) - 1 <= 14
    step = edges[1] - edges[0]
    assert np.allclose(np.diff(edges), step)
    mantissa = step / 10.0 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


def test_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(1).gamma(2, 0.1, size=200)
    lines = histogram(values, unit="m")
    assert sum(int(line.split()[-1]) for line in lines) == 200
    assert all(" m  " in line for line in lines)
    longest = max(len(line) for line in lines)
    assert longest < 80


def test_histogram_by_hand() -> None:
    assert histogram([0, 0.1, 0.6, 1.0], bins=2, width=4) == [
        "0.0 to 0.5  ████ 2",
        "0.5 to 1.0  ████ 2",
    ]
    assert histogram([0, 0.1, 0.2, 1.0], bins=2, width=4, blocks=False) == ["0.0 to 0.5  #### 3", "0.5 to 1.0  # 1"]
    assert histogram([0, 0.1, 0.2, 1.0], bins=2, width=4)[1] == "0.5 to 1.0  █▍ 1"
    assert histogram([]) == []


def test_rows_go_from_best_to_worst_in_either_direction() -> None:
    ids, values = ["a", "b", "c"], [0.2, 0.1, 0.4]
    assert distribution_row(ids, values, higher_is_better=False, levels=BLOCKS) == ["▁▃█", "0.1", "0.2", "0.4", "c"]
    assert distribution_row(ids, values, higher_is_better=True, levels=PLAIN) == ["#:_", "0.4", "0.2", "0.1", "b"]
