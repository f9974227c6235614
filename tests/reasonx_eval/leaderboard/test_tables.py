"""Tables: what goes together, what is ranked, differences to the base against the single-pair statistics."""

from __future__ import annotations

import numpy as np
import pytest

from reasonx_eval.errors import NotComparable
from reasonx_eval.leaderboard.tables import make_tables
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.report.contamination import seen
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.paired import Settings, interval, intervals
from tests.reasonx_eval.leaderboard.makers import draw, make

WILD = get_protocol("depth/scenes-wild")


def _values(mean: float, n: int = 40, key: str = "a") -> dict[str, list[float]]:
    return draw(WILD, n, mean, key)


def test_one_table_for_each_signature_and_never_two_kinds_in_one() -> None:
    tables = make_tables([make("a", _values(0.1)), make("b", _values(0.1), kind="depth_metric"),
                          make("c", _values(0.1), "depth/scenes-synthetic")])  # fmt: skip
    assert [(t.protocol, [r.model.name for r in t.rows]) for t in tables] == [
        ("depth/scenes-synthetic@1", ["c"]), ("depth/scenes-wild@1", ["b"]), ("depth/scenes-wild@1", ["a"]),
    ]  # fmt: skip
    assert all(table.signature.count("acc:") == 1 for table in tables)


def test_ranks_are_ranges_that_clear_differences_separate() -> None:
    same = _values(0.2, key="x")
    other = {m: [v + 1e-4 * (-1) ** k for k, v in enumerate(column)] for m, column in same.items()}
    (table,) = make_tables([make("far", _values(0.6)), make("one", same), make("twin", other)])
    ranks = {row.model.name: str(row.cells["abs_rel"].rank) for row in table.rows}
    assert ranks == {"one": "1-2", "twin": "1-2", "far": "3"}
    assert [row.model.name for row in table.rows][-1] == "far"


def test_partial_trained_and_truth_rows_are_in_the_table_without_a_rank() -> None:
    rows = [make("good", _values(0.3)), make("part", _values(0.1, 20), n_total=40),
            make("seen", _values(0.1, key="s"), trained_on=["Scenes-Wild/train (9)"]),
            make("oracle", _values(0.01, key="o"), source="oracle")]  # fmt: skip
    (table,) = make_tables(rows)
    why = {row.model.name: row.unranked for row in table.rows}
    assert why == {"good": None, "part": "partial: 20 of 40 images",
                   "seen": "trained on this dataset: Scenes-Wild/train (9)",
                   "oracle": "the ground truth itself"}  # fmt: skip
    assert table.rows[0].model.name == "good"
    good = table.rows[0].cells["abs_rel"].rank
    assert good is not None
    assert (good.best, good.worst) == (1, 1), "others must not push a ranked row down"
    assert all(row.cells["abs_rel"].rank is None for row in table.rows[1:])


def test_tuned_rows_stand_below_their_base_with_the_difference_of_their_means() -> None:
    base, tuned = _values(0.3, key="b"), _values(0.2, key="t")
    rows = [make("between", _values(0.25)), make("tuned", tuned, base="hub/base", reward="words"),
            make("base", base, source="hub/base"), make("again", _values(0.15, key="g"), base="tuned")]  # fmt: skip
    (table,) = make_tables(rows)
    assert [(r.model.name, r.base, r.level) for r in table.rows] == [
        ("base", None, 0), ("tuned", "base", 1), ("again", "tuned", 2), ("between", None, 0)]  # fmt: skip
    for metric in ("abs_rel", "delta1"):
        found = table.rows[1].cells[metric].difference
        assert found is not None
        gap = np.array(tuned[metric]) - np.array(base[metric])
        assert found.value == pytest.approx(gap.mean(), rel=1e-12)
        assert found.finding == "better"
        assert found.low is not None
        assert found.high is not None
        assert found.low < gap.mean() < found.high
    assert table.rows[0].cells["abs_rel"].difference is None


def test_a_partial_run_has_no_difference_and_gives_none() -> None:
    rows = [make("base", _values(0.3)), make("part", _values(0.2, 20), n_total=40, base="base"),
            make("child", _values(0.2, key="c"), base="part")]  # fmt: skip
    (table,) = make_tables(rows)
    assert all(cell.difference is None for row in table.rows for cell in row.cells.values())


def test_a_circle_of_bases_keeps_every_row() -> None:
    rows = [make("a", _values(0.3), base="b"), make("b", _values(0.2), base="a"),
            make("self", _values(0.2), base="self")]  # fmt: skip
    (table,) = make_tables(rows)
    assert {row.model.name for row in table.rows} == {"a", "b", "self"}


def test_the_order_of_files_and_of_samples_changes_nothing() -> None:
    rows = [make(f"m{k}", _values(0.1 + 0.03 * k, key=str(k))) for k in range(5)]
    assert make_tables(rows) == make_tables(rows[::-1])


def test_many_intervals_at_once_are_those_of_single_pairs() -> None:
    rng = np.random.default_rng(0)
    groups = tuple(str(k // 3) for k in range(60))
    top = np.abs(rng.normal(size=(5, 60))) + 1
    weight = rng.integers(1, 9, 60).astype(float)
    settings = Settings(resamples=500)
    for names, scale in ((None, np.ones(60)), (groups, weight)):
        column = Column(metric_info("abs_rel"), tuple(map(str, range(60))), top, top * scale, scale, groups=names)
        pairs = [(0, 1), (3, 2), (4, 4)]
        tops, units = column.cluster_sums(*range(5))
        for (base, other), found in zip(pairs, intervals(column, pairs, settings), strict=True):
            assert found == pytest.approx(interval(tops[base], tops[other], units, settings=settings), rel=1e-9)


def test_pooled_columns_use_sums_over_pixels_and_their_root() -> None:
    rules = get_protocol("normals/nyuv2")
    assert rules.pool == "pixel"
    n, count = 30, [float(100 + k) for k in range(30)]
    rng = np.random.default_rng(1)
    rows, wanted = [], {}
    for name, level in (("base", 20.0), ("tuned", 10.0)):
        mean = rng.uniform(0.8, 1.2, n) * level
        sums = {"count": count, "sum": list(mean * count), "sum_sq": list(mean**2 * count)}
        sums |= {m: [c / 2 for c in count] for m in rules.metrics if m.startswith("within")}
        rows.append(make(name, {m: list(mean) for m in rules.metrics}, "normals/nyuv2", kind="normal", sums=sums,
                         **({"base": "base"} if name == "tuned" else {})))  # fmt: skip
        wanted[name] = (sum(sums["sum"]) / sum(count), (sum(sums["sum_sq"]) / sum(count)) ** 0.5)
    (table,) = make_tables(rows)
    tuned = next(r for r in table.rows if r.model.name == "tuned")
    for k, metric in enumerate(("mean_deg", "rmse_deg")):
        found = tuned.cells[metric].difference
        assert found is not None
        assert found.value == pytest.approx(wanted["tuned"][k] - wanted["base"][k], rel=1e-12)
        assert str(tuned.cells[metric].rank) == "1"
    assert tuned.cells["median_deg"].difference is None, "a pooled median is not made of sums"
    other = {**rows[1].samples.sums, "count": [c + 1 for c in count]}
    odd = rows[1].model_copy(update={"samples": rows[1].samples.model_copy(update={"sums": other})})
    with pytest.raises(NotComparable, match="different numbers of pixels"):
        make_tables([rows[0], odd])


def test_same_signature_other_ground_truth_is_refused() -> None:
    with pytest.raises(NotComparable, match="ground truth of model 'b'"):
        make_tables([make("a", _values(0.1)), make("b", _values(0.1), data="other")])


def test_same_signature_other_images_is_refused() -> None:
    first = make("a", _values(0.1), "depth/generic")
    model = first.result.model.model_copy(update={"name": "b"})
    dataset = first.result.dataset.model_copy(update={"ids_sha256": "other"})
    result = first.result.model_copy(update={"model": model, "dataset": dataset})
    with pytest.raises(NotComparable, match="ids of the split of model 'b'"):
        make_tables([first, first.model_copy(update={"result": result})])


def test_one_model_twice_is_refused() -> None:
    with pytest.raises(NotComparable, match="two results of model 'a'"):
        make_tables([make("a", _values(0.1)), make("a", _values(0.2))])


@pytest.mark.parametrize(("trained", "dataset", "expected"), [
    ("NYUv2", "nyuv2", True), ("nyuv2", "nyuv2-normals", True), ("NYU Depth v2", "nyuv2", True),
    ("scenes-synthetic/train (4000)", "scenes-synthetic", True),
    ("scenes-synthetic/train (4000)", "scenes-wild", False), ("diode-indoor", "diode", True),
    ("virtual-kitti-2", "kitti", False), ("mit-states", "mit-intrinsic", False), ("MIT", "mit-intrinsic", True),
    ("hypersim", "iiw", False), ("Intrinsic Images in the Wild", "iiw", True), ("", "iiw", False),
])  # fmt: skip
def test_names_of_training_data(trained: str, dataset: str, expected: bool) -> None:
    assert (seen([trained], dataset) is not None) is expected
