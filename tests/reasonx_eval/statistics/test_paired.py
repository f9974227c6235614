"""Paired statistics against scipy and against what was planted: differences, intervals, coverage, findings, ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.comparison_table import cells
from reasonx_eval.statistics.bootstrap import bootstrap_ci
from reasonx_eval.statistics.columns import Column, column, columns
from reasonx_eval.statistics.comparison import compare_runs, reward_lines
from reasonx_eval.statistics.join import join
from reasonx_eval.statistics.paired import Settings, adjust, interval, paired
from reasonx_eval.statistics.ranks import rank_ranges, tie_group
from reasonx_eval.statistics.runs import load_run
from tests.reasonx_eval.statistics.planted import POOLED, depth_records, ids, planted, pooled_records, write_run

FAST = Settings(resamples=1000, permutations=1000)


def of(*values: Any, name: str = "abs_rel", groups: tuple[str, ...] | None = None) -> Column:
    table = np.array(values, dtype=np.float64)
    return Column(metric_info(name), tuple(ids(table.shape[1])), table, table, np.ones(table.shape[1]), groups=groups)


def test_difference_wins_and_worst_by_hand() -> None:
    result = paired(of([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.25, 0.7]), settings=FAST)
    assert result.base == pytest.approx(0.25)
    assert result.other == pytest.approx(0.3375)
    assert result.difference == pytest.approx(0.0875)
    assert (result.wins, result.losses, result.ties, result.n, result.clusters) == (1, 2, 1, 4, 4)
    assert [w.sample_id for w in result.worst] == ["room/0003", "room/0001"]
    assert [w.worse_by for w in result.worst] == pytest.approx([0.3, 0.1])
    # differences 0, 0.1, -0.05, 0.3: of the 8 signs of the last three, the sum 0.35 is reached by +++ and ++-, twice
    assert result.p == pytest.approx(4 / 8)
    assert result.exact


def test_direction_of_the_metric_decides_what_is_worse() -> None:
    values = [[0.1, 0.2, 0.3], [0.2, 0.1, 0.5]]
    lower, higher = paired(of(*values), settings=FAST), paired(of(*values, name="delta1"), settings=FAST)
    assert (lower.wins, lower.losses) == (higher.losses, higher.wins) == (1, 2)
    assert lower.worse_by == -higher.worse_by > 0
    assert lower.worse_interval == (lower.ci_low, lower.ci_high)
    assert higher.worse_interval == (-higher.ci_high, -higher.ci_low)
    assert [w.sample_id for w in higher.worst] == ["room/0001"]


def test_exchanging_the_runs_mirrors_everything() -> None:
    a, b = planted(30, 0.01, 0.8, 0)
    there, back = paired(of(a, b), settings=FAST), paired(of(b, a), settings=FAST)
    assert there.difference == -back.difference
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low), rel=1e-9)
    assert there.p == back.p
    assert (there.wins, there.losses) == (back.losses, back.wins)


def test_interval_is_that_of_the_differences() -> None:
    a, b = planted(80, 0.01, 0.8, 1)
    ours = interval(a, b, np.ones(80), settings=Settings(resamples=40_000))
    assert ours == bootstrap_ci(b - a, seed=0, resamples=40_000)


def test_interval_of_a_difference_of_roots() -> None:
    draw = np.random.default_rng(3)
    w = draw.integers(50, 200, size=60).astype(float)
    a = w * draw.gamma(4, size=60)
    b = a * draw.uniform(1.0, 1.3, size=60)
    low, high = interval(a, b, w, root=True, settings=Settings(resamples=4000))
    difference = math.sqrt(b.sum() / w.sum()) - math.sqrt(a.sum() / w.sum())
    # the delta method: a unit adds (b / sqrt(B) - a / sqrt(A)) / 2 to the difference
    part = (b / math.sqrt(b.sum() / w.sum()) - a / math.sqrt(a.sum() / w.sum())) / 2
    residual = part - w * part.sum() / w.sum()
    error = math.sqrt((residual**2).sum()) / w.sum()
    assert low == pytest.approx(difference - 2 * error, abs=0.25 * error)
    assert high == pytest.approx(difference + 2 * error, abs=0.25 * error)
    assert interval(a, a, w, root=True, settings=FAST) == (0.0, 0.0)


def test_no_interval_from_one_unit() -> None:
    single = paired(of([0.1], [0.2]), settings=FAST)
    assert (single.ci_low, single.worse_interval, single.p, single.finding) == (None, None, 1.0, "too few")
    scene = paired(of([0.1, 0.2], [0.2, 0.4], groups=("a", "a")), settings=FAST)
    assert (scene.ci_low, scene.clusters, scene.n) == (None, 1, 2)


def test_scenes_are_resampled_and_exchanged_whole() -> None:
    a, b = planted(12, 0.02, 0.5, 4)
    scenes = tuple(np.repeat(list("abcdefghijkl"), 5))
    repeated = paired(of(np.repeat(a, 5), np.repeat(b, 5), groups=scenes), settings=FAST)
    plain = paired(of(a, b), settings=FAST)
    assert (repeated.clusters, repeated.n) == (12, 60)
    assert repeated.p == plain.p
    assert (repeated.ci_low, repeated.ci_high) == pytest.approx((plain.ci_low, plain.ci_high), rel=1e-9)
    naive = paired(of(np.repeat(a, 5), np.repeat(b, 5)), settings=FAST)
    assert naive.p < plain.p


def test_findings() -> None:
    a = np.linspace(0.1, 0.2, 40)
    assert paired(of(a, a), settings=FAST).finding == "same"
    assert paired(of(a, a + 0.01), settings=FAST).finding == "worse"
    assert paired(of(a, a + 0.01, name="delta1"), settings=FAST).finding == "improved"
    assert paired(of(a, a + 0.01 * np.resize([1, -1], 40)), settings=FAST).finding == "no evidence"
    same = paired(of(a, a), settings=FAST)
    assert (same.p, same.ci_low, same.ci_high, same.difference) == (1.0, 0.0, 0.0, 0.0)


def test_correction_is_over_the_whole_family() -> None:
    rows = [paired(of(*planted(40, effect, 0.9, k)), settings=FAST) for k, effect in enumerate((0.006, 0.001, 0.0))]
    p = sorted(r.p for r in rows)
    adjusted = sorted(r.p_adjusted for r in adjust(rows))
    assert adjusted[0] == pytest.approx(min(1, 3 * p[0]))
    assert adjusted[1] == pytest.approx(max(adjusted[0], min(1, 2 * p[1])))
    assert all(a.p == r.p for a, r in zip(adjust(rows), rows, strict=True))


def test_pooled_run_against_its_pixels(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    first = [draw.uniform(0, 40, size=n) for n in draw.integers(20, 60, size=25)]
    second = [e * draw.uniform(0.9, 1.3) for e in first]
    runs = [load_run(write_run(tmp_path / n, pooled_records(e), protocol=POOLED, pixels=e))
            for n, e in (("a", first), ("b", second))]  # fmt: skip
    table = {r.name: r for r in (paired(c, settings=FAST) for c in columns(join(runs)))}
    a, b = np.concatenate(first), np.concatenate(second)
    assert table["mean_deg"].difference == pytest.approx(b.mean() - a.mean())
    assert table["rmse_deg"].difference == pytest.approx(math.sqrt((b**2).mean()) - math.sqrt((a**2).mean()))
    for name in ("mean_deg", "rmse_deg"):
        r = table[name]
        assert r.ci_low < r.difference < r.ci_high
        assert r.finding == "worse"
    median = table["median_deg"]
    assert median.finding == "untested"
    assert "pooled median" in str(median.reason)
    # of all samples of both runs, so the results' own values hold
    assert median.difference == pytest.approx(np.median(b) - np.median(a))
    assert median.ci_low is None
    assert math.isnan(median.p)
    assert median.losses > median.wins


def test_pooled_median_of_other_samples_than_the_results_is_absent(tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    errors = [draw.uniform(0, 40, size=30) for _ in range(5)]
    records = pooled_records(errors)
    a = load_run(write_run(tmp_path / "a", records, protocol=POOLED, pixels=errors))
    b = load_run(write_run(tmp_path / "b", records[:4], protocol=POOLED, pixels=errors[:4], n_total=5))
    result = paired(column(join([a, b]), "median_deg"), settings=FAST)
    assert math.isnan(result.base)
    assert cells(result)[1:4] == ["-", "-", "-"]


def test_few_clusters_can_not_find_anything_and_say_so() -> None:
    """Four scenes, all worse: p can't be below 0.125, so that an interval without 0 is no "no evidence"."""
    scenes = tuple(np.repeat(list("abcd"), 3))
    a = np.linspace(0.1, 0.2, 12)
    one = adjust([paired(of(a, a + 0.02 + 0.001 * np.sin(np.arange(12)), groups=scenes), settings=FAST)])[0]
    assert one.ci_low > 0
    assert (one.p, one.least_p, one.finding) == (0.125, 0.125, "too few")
    # five tests: Holm's correction takes the least p of ten images, 1/512, to 0.0098; of eight, 1/128, to 0.039
    for n, tests, finding in ((10, 5, "worse"), (6, 1, "worse"), (6, 5, "too few"), (8, 5, "worse")):
        wave = 0.02 + 0.001 * np.sin(np.arange(n))
        rows = adjust([paired(of(a[:n], a[:n] + wave), settings=FAST)] * tests)
        assert {r.finding for r in rows} == {finding}, (n, tests)
        assert rows[0].least_p == pytest.approx(tests * 2.0 ** (1 - n))


def test_a_difference_below_rounding_is_none() -> None:
    a = np.linspace(0.1, 0.2, 40)
    for shift, name in ((3e-8, "abs_rel"), (-3e-8, "delta1"), (1e-16, "abs_rel")):
        rounded = paired(of(a, a + shift, name=name), settings=FAST)
        assert (rounded.finding, rounded.wins, rounded.losses, rounded.ties) == ("same", 0, 0, 40)
    # of perfect predictions: 1e-12 and 4e-12 are both nothing
    assert paired(of(a * 1e-11, a * 4e-11), settings=FAST).finding == "same"
    assert paired(of(a, a * 1.00001), settings=FAST).finding == "worse"


def test_more_scatter_that_both_runs_share_changes_nothing() -> None:
    a, b = planted(200, 0.01, 0.5, 6)
    common = np.random.default_rng(7).normal(size=200)
    tight, loose = (paired(of(a + s * common, b + s * common), settings=FAST) for s in (0.0, 5.0))
    assert loose.difference == pytest.approx(tight.difference, rel=1e-9)
    assert (loose.ci_low, loose.ci_high) == pytest.approx((tight.ci_low, tight.ci_high), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "correlation"), [(30, 0.9), (120, 0.5)])
def test_coverage_of_a_planted_effect_and_false_findings(n: int, correlation: float) -> None:
    """400 pairs of runs with a known mean difference; then 400 without one."""
    covered = exact = found = 0
    for k in range(400):
        a, b = planted(n, 0.004, correlation, k)
        result = paired(of(a, b), settings=FAST)
        covered += result.ci_low <= 0.004 <= result.ci_high
        low, high = scipy_stats.ttest_rel(b, a).confidence_interval(0.95)
        exact += low <= 0.004 <= high
        found += paired(of(*planted(n, 0.0, correlation, 1000 + k)), settings=FAST).finding != "no evidence"
    # 400 trials at 95 % vary by 1.1 %; ours holds the interval that is exact for normal differences, and is wider for
    # few clusters, since others are skewed
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400) <= covered / 400 <= 0.99
    assert exact <= covered <= exact + 0.04 * 400
    assert found / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_ranks_by_hand() -> None:
    draw = np.random.default_rng(8)
    common = draw.normal(size=60)
    noise = 0.001 * draw.normal(size=(4, 60))
    # two that can't be told apart, one clearly better, one clearly worse
    col = of(common + noise[0] + 1.0, common + noise[1], common + noise[2] + 1.0, common + noise[3] + 2.0)
    assert [str(r) for r in rank_ranges(col)] == ["2-3", "1", "2-3", "4"]
    assert tie_group(rank_ranges(col)) == [1]
    higher = of(*col.values, name="delta1")
    assert [str(r) for r in rank_ranges(higher)] == ["2-3", "4", "2-3", "1"]


def test_ranks_of_runs_that_are_alike_span_everything() -> None:
    draw = np.random.default_rng(9)
    col = of(*(draw.normal(size=50) for _ in range(6)))
    assert {str(r) for r in rank_ranges(col)} == {"1-6"}
    same = of(*[np.arange(5.0)] * 3)
    assert {str(r) for r in rank_ranges(same)} == {"1-3"}
    assert [str(r) for r in rank_ranges(of(np.arange(5.0)))] == ["1"]
    # four images can't tell three runs apart, however large the difference: 2/16 times 3 pairs
    assert {str(r) for r in rank_ranges(of(np.zeros(4), np.ones(4), np.full(4, 9.0)))} == {"1-3"}


def test_ranks_need_an_aggregate() -> None:
    col = of([1.0, 2.0])
    with pytest.raises(ValueError, match="why not"):
        rank_ranges(Column(col.info, col.ids, col.values, col.top, col.weight, reason="why not"))


def _tuned(tmp_path: Path, worse: float) -> Any:
    base = {"abs_rel": np.linspace(0.1, 0.3, 40), "delta1": np.linspace(0.5, 0.9, 40)}
    tuned = {"abs_rel": base["abs_rel"] - 0.02, "delta1": base["delta1"] - worse}
    options = {"tuning": {"rewarded": ["abs_rel"]}}
    a = load_run(write_run(tmp_path / "a", depth_records(base), name="base"))
    b = load_run(write_run(tmp_path / "b", depth_records(tuned), name="tuned", options=options))
    return compare_runs([a, b], FAST)


def test_rewarded_and_other_metrics(tmp_path: Path) -> None:
    sad = _tuned(tmp_path / "sad", 0.1)
    assert sad.rewarded == ("abs_rel",)
    lines = reward_lines([sad])
    assert lines[0] == "tuned: rewarded ‡  1 improved"
    assert lines[1].startswith("tuned: not rewarded  1 worse, 6 same (depth/generic@1 delta1 -0.1")
    assert "worse elsewhere" in lines[2]
    assert len(reward_lines([_tuned(tmp_path / "glad", -0.01)])) == 2
    a = load_run(tmp_path / "sad" / "a")
    assert reward_lines([compare_runs([a, a], FAST)]) == []


def test_several_runs_are_one_family(tmp_path: Path) -> None:
    names = "abc"
    runs = [load_run(write_run(tmp_path / n, depth_records({"abs_rel": planted(40, 0.0, 0.9, k)[0]}), name=n))
            for k, n in enumerate(names)]  # fmt: skip
    two, three = compare_runs(runs[:2], FAST), compare_runs(runs, FAST)
    assert [len(rows) for rows in three.rows] == [8, 8]
    first = {r.name: r for r in two.rows[0]}["abs_rel"]
    again = {r.name: r for r in three.rows[0]}["abs_rel"]
    assert first.p == again.p
    assert again.p_adjusted >= first.p_adjusted
    assert column(three.joined, "abs_rel").means[1] == pytest.approx(again.other)
