"""Plots: well-formed, in place, and silent where there is nothing to draw."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from reasonx_eval.leaderboard import page_plots as plots
from reasonx_eval.leaderboard.tables import LeaderboardTable, make_tables
from reasonx_eval.protocols.protocol import get_protocol
from tests.reasonx_eval.leaderboard.makers import crowd, draw, make

WILD = get_protocol("depth/scenes-wild")


def _parsed(svg: str | None) -> ET.Element:
    """As XML, with quotes around the attributes that HTML allows without."""
    assert svg is not None
    return ET.fromstring(re.sub(r'(\s[\w-]+)=([\w-]+)(?=[\s/>])', r'\1="\2"', svg))


def _table() -> LeaderboardTable:
    worse = {m: [v + (0.1 if WILD.metrics[0] == m else 0) for v in c] for m, c in draw(WILD, 30, 0.2, "x").items()}
    (table,) = make_tables([
        make("base", draw(WILD, 30, 0.2, "x"), seconds=0.01),
        make("up", draw(WILD, 30, 0.1, "y"), base="base", seconds=1),
        make("down <b>", worse, base="base", seconds=0.1),
        make("seen", draw(WILD, 30, 0.2, "z"), trained_on=["scenes-wild"]),
    ])
    return table


def test_points_lie_where_their_numbers_are() -> None:
    svg = _parsed(plots.scatter(_table()))
    circles = {c.get("class"): c for c in svg.findall("circle")}
    assert set(circles) == {"p", "h"}, "a hollow circle is not ranked"
    triangles = [p for p in svg.findall("path") if p.get("class") == "p"]
    assert len(triangles) == 2
    names = {t.text: float(t.get("x", "nan")) for t in svg.findall("text") if t.text in ("base", "up", "down <b>")}
    assert set(names) == {"base", "up", "down <b>"}
    assert "base 0.1" in str(svg.get("aria-label")) or "base 0.2" in str(svg.get("aria-label"))
    x = [float(re.findall(r"M([\d.]+)", t.get("d", ""))[0]) for t in triangles]
    assert max(x) > float(circles["p"].get("cx", "nan")), "one second is right of ten milliseconds"


def test_arrows_say_in_words_what_their_colours_say() -> None:
    svg = _parsed(plots.arrows(_table()))
    found = [g.get("class") for g in svg.findall("g")]
    words = [t.text for t in svg.findall("text") if t.text in ("better", "worse", "unclear")]
    assert found == ["g", "w"]
    assert words == ["better", "worse"]
    start, head = (float(re.findall(r"M([\d.]+)", p.get("d", ""))[0]) for p in svg.findall("g")[0].findall("path"))
    assert head < start, "a smaller error is to the left"


def test_a_distribution_has_a_median_inside_its_axis_for_each_row() -> None:
    svg = _parsed(plots.distributions(_table()))
    areas = [p for p in svg.findall("path") if p.get("class") == "a"]
    ticks = [p for p in svg.findall("path") if p.get("class") == "k"]
    assert len(areas) == len(ticks) == 4
    assert "half of the images" in str(svg.get("aria-label"))
    assert all(0 < float(re.findall(r"M([\d.]+)", t.get("d", ""))[0]) < plots.WIDTH for t in ticks)


def test_nothing_is_drawn_of_nothing() -> None:
    (alone,) = make_tables([make("one", draw(WILD, 1, 0.2, "x"))])
    assert plots.scatter(alone) is None
    assert plots.arrows(alone) is None
    assert plots.distributions(alone) is None
    (untimed,) = make_tables([make(n, draw(WILD, 5, 0.2, n), seconds=None) for n in "ab"])
    assert plots.scatter(untimed) is None


@pytest.mark.parametrize("values", [[0.5] * 5, [0.0] * 5, [1e90] * 5, [1e-300] * 5, [0.0, 1e90, 1.0, 2.0, 3.0]])
def test_extreme_values_stay_on_the_paper(values: list[float]) -> None:
    (table,) = make_tables([make(n, {m: values for m in WILD.metrics}, seconds=s) for n, s in (("a", 0.0), ("b", 1e9))])
    for svg in (plots.scatter(table), plots.distributions(table)):
        _parsed(svg)
        assert "nan" not in str(svg)
        assert "inf" not in re.sub(r'aria-label="[^"]*"', "", str(svg))


def test_crowds_are_cut_to_the_first_rows() -> None:
    (table,) = make_tables(crowd(40, 1, n=10))
    assert len([p for p in _parsed(plots.distributions(table)).findall("path") if p.get("class") == "a"]) == plots.MOST
