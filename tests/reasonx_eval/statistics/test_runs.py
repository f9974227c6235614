"""Reading a run refuses what is not what its result was computed from; joining refuses what is not comparable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.statistics.columns import column, columns
from reasonx_eval.statistics.join import differences, join
from reasonx_eval.statistics.pairing import pair_up
from reasonx_eval.statistics.runs import find_runs, load_run
from reasonx_eval.types import Record
from tests.reasonx_eval.statistics.planted import (
    DEPTH,
    POOLED,
    depth_records,
    edit_lines,
    edit_result,
    ids,
    pooled_records,
    write_run,
)


def values(n: int = 20, seed: int = 0) -> dict[str, Any]:
    return {"abs_rel": np.random.default_rng(seed).uniform(0.05, 0.2, size=n)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "a", depth_records(values()))


def test_reads_what_was_written(folder: Path) -> None:
    run = load_run(folder)
    assert [r.sample_id for r in run.records] == ids(20)
    assert run.protocol == DEPTH.model_copy(update={"title": run.protocol.title, "notes": "", "sources": (),
                                                    "compat": None, "default_for": ()})  # fmt: skip
    assert (run.name, run.status, run.rewarded) == ("net", "complete", ())
    assert load_run(folder / "result.json").records == run.records
    moved = folder.parent / "elsewhere.jsonl"
    (folder / "records.jsonl").rename(moved)
    with pytest.raises(DataError, match="no records beside the result"):
        load_run(folder)
    assert load_run(folder, records=moved).records == run.records


def test_rewarded_comes_from_the_tuned_card(tmp_path: Path) -> None:
    options = {"tuning": {"method": "grpo", "rewarded": ["abs_rel", "delta1"]}}
    tuned = write_run(tmp_path / "a", depth_records(values()), options=options)
    assert load_run(tuned).rewarded == ("abs_rel", "delta1")
    for k, odd in enumerate(["abs_rel", {"tuning": 3}, {"tuning": {"rewarded": "abs_rel"}}]):
        options = odd if isinstance(odd, dict) else {}
        assert load_run(write_run(tmp_path / str(k), depth_records(values()), options=options)).rewarded == ()


def _edited(lines: list[str]) -> list[str]:
    return [lines[0].replace('"abs_rel": 0.', '"abs_rel": 0.0'), *lines[1:]]


def _vanished(lines: list[str]) -> list[str]:
    row = json.loads(lines[3])
    del row["metrics"]["abs_rel"]
    return [*lines[:3], json.dumps(row) + "\n", *lines[4:]]


def _nan(lines: list[str]) -> list[str]:
    row = json.loads(lines[3])
    row["metrics"]["abs_rel"] = float("nan")
    return [*lines[:3], json.dumps(row) + "\n", *lines[4:]]


@pytest.mark.parametrize(
    ("change", "words", "resealed"),
    [
        (_edited, "edited, reordered, cut or replaced", "the result says"),
        (lambda lines: lines[::-1], "edited, reordered, cut or replaced", None),
        (lambda lines: lines[:-1], "edited, reordered, cut or replaced", "not those of the records"),
        (lambda lines: [*lines, lines[0]], "is there twice", "is there twice"),
        (_vanished, "edited, reordered, cut or replaced", "has no metric 'abs_rel'"),
        (_nan, "edited, reordered, cut or replaced", "is nan, not a finite number"),
    ],
    ids=["edited", "shuffled", "cut", "duplicated", "vanished", "nan"],
)
def test_records_that_are_not_the_results(folder: Path, change: Any, words: str, resealed: str | None) -> None:
    edit_lines(folder, change)
    with pytest.raises(DataError, match=words) as caught:
        load_run(folder)
    assert caught.value.exit_code == 4
    # a forger who mends the digests too: a new order alone is another true run, everything else is found out
    edit_lines(folder, lambda lines: lines, reseal=True)
    if resealed is None:
        assert load_run(folder).records[0].sample_id == ids(20)[-1]
    else:
        with pytest.raises(DataError, match=resealed):
            load_run(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["aggregate"].pop("abs_rel"), "it vanished"),
        (lambda d: d["aggregate"]["abs_rel"].update(value=0.01), "its records say"),
        (lambda d: d["protocol"]["rules"].update(pool="pixel"), "not the rules of a protocol"),
        (lambda d: d["protocol"]["rules"]["depth"].update(crop="eigen"), "not those of its digest"),
        (lambda d: d.update(signature=d["signature"].replace("align:affine", "align:none")), "signature is not that"),
        (lambda d: d.update(data_sha256="0" * 64), "digest of the ground truth"),
        (lambda d: d.update(failed={"room/0000": "x"}, n_scored=19, status="partial"), "not those of the records"),
        (lambda d: d.update(schema=99), "newer than this program"),
    ],
)
def test_results_that_are_not_their_records(folder: Path, change: Any, words: str) -> None:
    edit_result(folder, change)
    with pytest.raises((DataError, NotComparable), match=words) as caught:
        load_run(folder)
    assert caught.value.exit_code == 4


def test_pooled_numbers_are_checked_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    errors = [draw.uniform(0, 40, size=50) for _ in range(6)]
    folder = write_run(tmp_path / "a", pooled_records(errors), protocol=POOLED, pixels=errors)
    assert load_run(folder).aggregate["mean_deg"].value == pytest.approx(np.concatenate(errors).mean())
    edit_result(folder, lambda d: d["aggregate"]["rmse_deg"].update(value=1.0))
    with pytest.raises(DataError, match=r"rmse_deg: the result says 1\.0"):
        load_run(folder)


def test_find_runs(folder: Path) -> None:
    write_run(folder.parent / "deep/er", depth_records(values()))
    assert [r.where.name for r in find_runs(folder.parent)] == ["a", "er"]
    assert [r.where for r in find_runs(folder)] == [folder]
    (folder.parent / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no result\.json"):
        find_runs(folder.parent / "empty")
    with pytest.raises(UsageError, match="no such run"):
        find_runs(folder.parent / "none")


def test_join_is_by_id_whatever_the_order(tmp_path: Path) -> None:
    records = depth_records(values(8))
    a = load_run(write_run(tmp_path / "a", records))
    b = load_run(write_run(tmp_path / "b", records[::-1]))
    joined = join([a, b])
    assert joined.ids == tuple(ids(8))
    assert joined.whole
    col = column(joined, "abs_rel")
    np.testing.assert_array_equal(col.values[0], col.values[1])


def test_missing_samples_are_named_with_their_reason(tmp_path: Path) -> None:
    records = depth_records(values(6))
    lost = [*records[:2], Record("room/0002", error="CUDA error"), *records[3:5]]
    a = load_run(write_run(tmp_path / "a", records))
    b = load_run(write_run(tmp_path / "b", lost, n_total=6))
    joined = join([a, b])
    assert joined.ids == ("room/0000", "room/0001", "room/0003", "room/0004")
    assert joined.missing == ({}, {"room/0002": "failed: CUDA error", "room/0005": "not in the run"})
    assert not joined.whole
    with pytest.raises(DataError, match="no sample is scored in all"):
        join([load_run(write_run(tmp_path / "c", records[5:], n_total=6)), b])


def test_samples_that_no_run_can_score_are_not_missing(tmp_path: Path) -> None:
    records = [*depth_records(values(5)), Record("room/0005", undefined="no judgement")]
    runs = [load_run(write_run(tmp_path / name, records)) for name in "ab"]
    joined = join(runs)
    assert (joined.undefined, joined.whole, len(joined.ids)) == (("room/0005",), True, 5)


def test_other_rules_and_other_data_are_told_field_by_field(tmp_path: Path) -> None:
    a = load_run(write_run(tmp_path / "a", depth_records(values())))
    other = get_protocol("depth/generic-metric")
    b = load_run(write_run(tmp_path / "b", depth_records(values(), protocol=other), protocol=other, dataset="real"))
    lines = differences(a, b)
    assert 'protocol.name: "depth/generic" -> "depth/generic-metric"' in lines
    assert 'protocol.depth.align.mode: "affine" -> "none"' in lines
    assert 'dataset.name: "fake" -> "real"' in lines
    with pytest.raises(NotComparable, match="not compared") as caught:
        join([a, b])
    assert caught.value.exit_code == 4
    assert differences(a, a) == []


def test_other_ground_truth_and_other_scenes(tmp_path: Path) -> None:
    records = depth_records(values(4), groups=list("aabb"))
    changed = [*records[:3], Record(**{**vars(records[3]), "data": "f" * 16})]
    moved = [*records[:3], Record(**{**vars(records[3]), "group": "z"})]
    a, b, c = (load_run(write_run(tmp_path / n, r)) for n, r in (("a", records), ("b", changed), ("c", moved)))
    with pytest.raises(NotComparable, match="room/0003 was scored against different ground truth"):
        join([a, b])
    with pytest.raises(DataError, match="belongs to scene 'b' in one and 'z'"):
        join([a, c])
    assert join([a, a]).groups == ("a", "a", "b", "b")


def test_metric_that_one_run_has_and_the_other_has_not(tmp_path: Path) -> None:
    whdr = get_protocol("albedo/generic-whdr")
    name = next(m for m in whdr.metrics if m.endswith("_eq"))
    records = depth_records({name: np.linspace(0.1, 0.5, 4)}, protocol=whdr)

    def without(k: int) -> list[Record]:
        hole = Record(**{**vars(records[k]), "metrics": {**records[k].metrics, name: None}})
        return [*records[:k], hole, *records[k + 1 :]]

    a, b, c = (load_run(write_run(tmp_path / n, r, protocol=whdr)) for n, r in
               (("a", without(1)), ("b", without(1)), ("c", without(2))))  # fmt: skip
    col = column(join([a, b]), name)
    assert col.ids == ("room/0000", "room/0002", "room/0003")
    assert col.reason is None
    with pytest.raises(DataError, match="room/0001 has no"):
        column(join([a, c]), name)


def test_metric_that_a_sample_lacks_on_both_sides_has_no_aggregate(tmp_path: Path) -> None:
    records = depth_records(values(4))
    hole = Record(**{**vars(records[2]), "metrics": {**records[2].metrics, "abs_rel": None}})
    runs = [load_run(write_run(tmp_path / n, [*records[:2], hole, records[3]])) for n in "ab"]
    col = column(join(runs), "abs_rel")
    assert col.reason == "undefined for 1 samples: room/0002"
    assert np.isnan(col.means).all()


def test_pooled_columns_are_sums_over_pixels(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    errors = [[draw.uniform(0, 40, size=n) for n in (50, 20, 30)] for _ in "ab"]
    runs = [load_run(write_run(tmp_path / n, pooled_records(e, groups=["x", "x", "y"]), protocol=POOLED, pixels=e))
            for n, e in zip("ab", errors, strict=True)]  # fmt: skip
    table = {c.name: c for c in columns(join(runs))}
    for k, own in enumerate(errors):
        everything = np.concatenate(own)
        assert table["mean_deg"].means[k] == pytest.approx(everything.mean())
        assert table["rmse_deg"].means[k] == pytest.approx(np.sqrt((everything**2).mean()))
        assert table["within_30"].means[k] == pytest.approx((everything < 30).mean())
    assert "pooled median" in str(table["median_deg"].reason)
    top, weight = table["mean_deg"].cluster_sums(0, 1)
    assert weight.tolist() == [70, 30]
    assert top[1, 0] == pytest.approx(errors[1][0].sum() + errors[1][1].sum())


def test_pooled_runs_on_other_pixels(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    runs = []
    for name, sizes in (("a", (50, 20)), ("b", (50, 21))):
        e = [draw.uniform(0, 40, size=n) for n in sizes]
        runs.append(load_run(write_run(tmp_path / name, pooled_records(e), protocol=POOLED, pixels=e)))
    with pytest.raises(NotComparable, match="room/0001 was scored on 20 pixels and on 21"):
        column(join(runs), "mean_deg")


def test_pairing_of_folders_with_many_runs(tmp_path: Path) -> None:
    metric = get_protocol("depth/generic-metric")
    for side in "AB":
        write_run(tmp_path / side / "x", depth_records(values()), name="x")
        write_run(tmp_path / side / "y", depth_records(values()), name="y")
        write_run(tmp_path / side / "z", depth_records(values(), protocol=metric), name=f"z{side}", protocol=metric)
    write_run(tmp_path / "B" / "w", depth_records(values()), name="w")
    groups, left = pair_up([find_runs(tmp_path / side) for side in "AB"])
    assert [tuple(r.name for r in g) for g in groups] == [("x", "x"), ("y", "y"), ("zA", "zB")]
    assert len(left) == 1
    assert "w: only in" in left[0]
    with pytest.raises(UsageError, match="two runs of x under depth/generic"):
        pair_up([[*find_runs(tmp_path / "A"), *find_runs(tmp_path / "A/x")], find_runs(tmp_path / "B")])
    with pytest.raises(NotComparable, match="no protocol that all of them"):
        pair_up([find_runs(tmp_path / "A/z"), [*find_runs(tmp_path / "B/x"), *find_runs(tmp_path / "B/y")]])


def test_digests_of_two_algorithms_are_no_difference_and_are_said(tmp_path: Path) -> None:
    records = depth_records(values(4))
    newer = [Record(**{**vars(r), "data": f"blake3:{k:016x}"}) for k, r in enumerate(records)]
    fewer = [*newer[:3], Record(**{**vars(newer[3]), "n_valid": newer[3].n_valid - 1})]
    a, b, c = (load_run(write_run(tmp_path / n, r)) for n, r in (("a", records), ("b", newer), ("c", fewer)))
    (note,) = join([a, b]).notes
    assert "by the number of valid points alone" in note
    assert join([a, a]).notes == join([b, b]).notes == []
    with pytest.raises(NotComparable, match=r"room/0003 has .* valid points in one"):
        join([a, c])
