"""Aggregates: intervals of pooled medians, notes on few images, and results whose intervals are by an older method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reasonx_eval.errors import DataError
from reasonx_eval.io.results import load_result
from reasonx_eval.run.verify import verify_run
from reasonx_eval.statistics.aggregate import aggregate, rough_note, with_present_intervals
from reasonx_eval.statistics.bootstrap import METHOD
from tests.reasonx_eval.statistics.planted import DEPTH, POOLED, depth_records, edit_result, pooled_records, write_run


def test_few_images_and_few_scenes_are_said() -> None:
    assert rough_note(depth_records({"abs_rel": np.ones(10)})) == []
    (note,) = rough_note(depth_records({"abs_rel": np.ones(9)}))
    assert note.startswith("9 images: intervals of fewer than 10 are rough")
    (note,) = rough_note(depth_records({"abs_rel": np.ones(30)}, groups=["a", "b", "c"] * 10))
    assert note.startswith("3 scenes: ")
    assert rough_note(depth_records({"abs_rel": np.ones(1)})) == []  # has no interval at all


def test_interval_of_a_pooled_median_is_that_of_the_pixels(tmp_path: Path) -> None:
    """Images of equal medians but unequal sizes, resampled by scipy pixel by pixel."""
    draw = np.random.default_rng(0)
    errors = [draw.gamma(4.0, 3.0 + 0.3 * draw.normal(), size=int(n)) for n in draw.integers(200, 600, size=40)]
    errors = [np.clip(e, 0, 179) for e in errors]
    folder = write_run(tmp_path / "run", pooled_records(errors), protocol=POOLED, pixels=errors)
    value = load_result(folder).aggregate["median_deg"]
    order = np.arange(40)
    wanted = scipy_stats.bootstrap((order,), lambda k: float(np.median(np.concatenate([errors[i] for i in k]))),
                                   vectorized=False, n_resamples=2000, method="percentile",
                                   confidence_level=0.966, rng=np.random.default_rng(1))  # fmt: skip
    low, high = wanted.confidence_interval
    assert value.value == pytest.approx(np.median(np.concatenate(errors)), rel=1e-12)
    assert (value.ci_low, value.ci_high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_older_intervals_are_taken_again_and_verified_but_for_them(tmp_path: Path) -> None:
    records = depth_records({"abs_rel": np.random.default_rng(1).gamma(2, size=30)})
    folder = write_run(tmp_path / "run", records)
    result = load_result(folder)
    assert result.interval_method == METHOD
    assert any("intervals recomputed" in line for line in verify_run(result, folder))

    def older(document: dict) -> None:
        del document["interval_method"]
        document["aggregate"]["abs_rel"] |= {"ci_low": 1.0, "ci_high": 3.0}

    edit_result(folder, older)
    old = load_result(folder)
    lines = verify_run(old, folder)
    assert any(line.startswith("note  its intervals were taken by an older method (bca@1") for line in lines)
    assert old.aggregate["abs_rel"].ci_low == 1.0
    assert with_present_intervals(old.aggregate, records, DEPTH) == aggregate(records, DEPTH) == result.aggregate
    edit_result(folder, lambda document: document["aggregate"]["abs_rel"].update(value=9.0))
    with pytest.raises(DataError, match="abs_rel"):
        verify_run(load_result(folder), folder)


def test_older_intervals_of_pooled_values_are_taken_again_but_for_the_median(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    errors = [draw.uniform(0, 90, size=int(n)) for n in draw.integers(50, 90, size=15)]
    records = pooled_records(errors)
    now = load_result(write_run(tmp_path / "run", records, protocol=POOLED, pixels=errors)).aggregate
    old = {name: value.model_copy(update={"ci_low": 0.0, "ci_high": 1.0}) for name, value in now.items()}
    again = with_present_intervals(old, records, POOLED)
    assert (again["median_deg"].ci_low, again["median_deg"].ci_high) == (0.0, 1.0)
    assert {k: v for k, v in again.items() if k != "median_deg"} == {k: v for k, v in now.items() if k != "median_deg"}
