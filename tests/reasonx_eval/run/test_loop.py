from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io import results
from reasonx_eval.io.records import read_records
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.models.saved.predictions import Saved
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run import provenance
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.run.shards import merge
from reasonx_eval.run.verify import verify_run
from tests.helpers.fakes import Fake, N, Noisy, Undefined, Unjudged

DEPTH = get_protocol("depth/generic")
NORMALS = get_protocol("normals/generic")
POOLED = get_protocol("normals/generic").model_copy(update={"pool": "pixel"})


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the checkout is part of a result; here two runs must not differ by a commit in between."""
    monkeypatch.setattr(provenance, "_git", lambda *_: None)


def _bytes(run_folder: Path, *names: str) -> list[bytes]:
    return [(run_folder / n).read_bytes() for n in names or ("records.jsonl", "result.json", "run.json")]


def test_complete_run_has_one_record_a_sample_and_the_mean_of_them(tmp_path: Path) -> None:
    result = run(Noisy(), Fake(), DEPTH, tmp_path)
    records = read_records(tmp_path / "records.jsonl")
    assert [r.sample_id for r in records] == list(Fake().ids)
    assert result.status == "complete"
    assert result.n_scored == result.n_total == N
    per_image = [r.metrics["abs_rel"] for r in records]
    value = result.aggregate["abs_rel"]
    assert value.value == pytest.approx(np.mean(per_image), rel=1e-14)
    assert value.ci_low is not None
    assert value.ci_high is not None
    assert min(per_image) < value.ci_low < value.value < value.ci_high < max(per_image)
    assert f"n:{N}|acc:depth_affine" in result.signature


@pytest.mark.parametrize("protocol", [DEPTH, NORMALS, POOLED], ids=["depth", "normals", "pooled"])
def test_same_bytes_whatever_the_workers_and_batches(tmp_path: Path, protocol: results.Any) -> None:
    for name, workers, batch in (("a", 1, 1), ("b", 4, 1), ("c", 2, 5)):
        run(Noisy(batch_size=batch), Fake(), protocol, tmp_path / name, RunOptions(workers=workers))
    first = _bytes(tmp_path / "a")
    assert _bytes(tmp_path / "b") == first
    assert _bytes(tmp_path / "c") == first


def test_another_seed_is_another_result(tmp_path: Path) -> None:
    a = run(Noisy(), Fake(), DEPTH, tmp_path / "a", RunOptions(seed=0))
    b = run(Noisy(), Fake(), DEPTH, tmp_path / "b", RunOptions(seed=1))
    assert a.aggregate != b.aggregate


class Stop(BaseException):
    """Like KeyboardInterrupt, but not mistaken for the user's."""


@pytest.mark.parametrize("protocol", [DEPTH, POOLED], ids=["depth", "pooled"])
@pytest.mark.parametrize("after", [1, 5, 11])
def test_interrupted_and_resumed_equals_undisturbed(tmp_path: Path, after: int, protocol: results.Any) -> None:
    run(Noisy(), Fake(), protocol, tmp_path / "whole")

    def stop(done: int, total: int, failed: int) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        run(Noisy(), Fake(), protocol, tmp_path / "cut", progress=stop)
    kept = len(read_records(tmp_path / "cut" / "records.jsonl"))
    assert after <= kept < N
    model = Noisy()
    run(model, Fake(), protocol, tmp_path / "cut")
    assert sum(map(len, model.calls)) == N - kept, "a finished sample was predicted again"
    assert _bytes(tmp_path / "cut") == _bytes(tmp_path / "whole")


def test_unfinished_last_line_is_scored_again(tmp_path: Path) -> None:
    run(Noisy(), Fake(), DEPTH, tmp_path)
    whole = _bytes(tmp_path)
    records = tmp_path / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-20])
    (tmp_path / "result.json").unlink()
    model = Noisy()
    run(model, Fake(), DEPTH, tmp_path)
    assert model.calls == [["room/11"]]
    assert _bytes(tmp_path) == whole


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    run(Noisy(), Fake(), DEPTH, tmp_path)
    records = tmp_path / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join([lines[0], lines[1][:30] + "\n", *lines[2:]]))
    with pytest.raises(DataError, match=r"records.jsonl:2: not readable JSON"):
        run(Noisy(), Fake(), DEPTH, tmp_path)


def test_finished_run_is_read_not_repeated(tmp_path: Path) -> None:
    first = run(Noisy(), Fake(), DEPTH, tmp_path)
    model = Noisy()
    assert run(model, Fake(), DEPTH, tmp_path) == first
    assert model.calls == []


def test_another_run_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(Noisy(), Fake(), DEPTH, tmp_path)
    with pytest.raises(NotComparable, match=r"seed: 0 -> 7"):
        run(Noisy(), Fake(), DEPTH, tmp_path, RunOptions(seed=7))
    with pytest.raises(NotComparable, match=r'model.name: "noisy" -> "other"'):
        run(Noisy(name="other"), Fake(), DEPTH, tmp_path)
    assert run(Noisy(), Fake(), DEPTH, tmp_path, RunOptions(seed=7, force=True)).provenance.seed == 7


def test_a_failed_sample_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    data = Fake(broken={"room/02"})
    result = run(Noisy(fail={"room/05"}, batch_size=4), data, DEPTH, tmp_path)
    assert result.status == "partial"
    assert result.failed == {
        "room/02": "load: room/02.png: file is empty (0 bytes)",
        "room/05": "model noisy: RuntimeError: CUDA error: something with a second line",
    }
    assert result.n_scored == N - 2
    assert f"n:{N - 2}/{N}|" in result.signature
    assert result.n_scored + len(result.failed) == result.n_total


def test_failed_samples_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    run(Noisy(fail={"room/05"}), Fake(), DEPTH, tmp_path / "a")
    again = run(Noisy(), Fake(), DEPTH, tmp_path / "a")
    assert again.status == "partial"
    mended = run(Noisy(), Fake(), DEPTH, tmp_path / "a", RunOptions(retry_failed=True))
    assert mended.status == "complete"
    run(Noisy(), Fake(), DEPTH, tmp_path / "b")
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_all_failed_has_no_number(tmp_path: Path) -> None:
    result = run(Noisy(fail=Fake().ids), Fake(), DEPTH, tmp_path)
    assert result.status == "failed"
    assert all(v.value is None and v.reason for v in result.aggregate.values())


def test_undefined_sample_is_counted_apart_and_does_not_fail_the_run(tmp_path: Path) -> None:
    result = run(Noisy(), Unjudged(), DEPTH, tmp_path)
    assert result.status == "complete"
    assert result.undefined == {"room/03": "no judgement with weight"}
    assert result.aggregate["abs_rel"].n == N - 1


def test_a_model_cant_declare_a_score_undefined(tmp_path: Path) -> None:
    result = run(Undefined(), Fake(), DEPTH, tmp_path)
    assert result.failed == {"room/03": "model noisy: too hard"}
    assert result.status == "partial"


def test_limit_is_spread_evenly_and_partial(tmp_path: Path) -> None:
    result = run(Noisy(), Fake(), DEPTH, tmp_path, RunOptions(selection=Selection(limit=4)))
    ids = [r.sample_id for r in read_records(tmp_path / "records.jsonl")]
    assert ids == ["room/00", "room/03", "room/06", "room/09"]
    assert result.status == "partial"
    assert not result.failed
    assert "n:4/12" in result.signature


def test_select_names_what_is_wrong() -> None:
    ids = list(Fake().ids)
    assert select(ids, Selection(samples=["room/07", "room/01"])) == ["room/01", "room/07"]
    assert select(ids, Selection(limit=99)) == ids
    for selection, words in (
        (Selection(samples=["room/99"]), "no such sample: room/99"),
        (Selection(limit=0), "at least 1"),
        (Selection(shard="5/4"), "1 <= i <= n"),
        (Selection(shard="a/4"), "1 <= i <= n"),
    ):
        with pytest.raises(UsageError, match=words):
            select(ids, selection)


@pytest.mark.parametrize("protocol", [DEPTH, POOLED], ids=["depth", "pooled"])
def test_shards_merge_to_the_same_numbers(tmp_path: Path, protocol: results.Any) -> None:
    whole = run(Noisy(), Fake(group=True), protocol, tmp_path / "whole")
    shards = []
    for k in (3, 1, 5, 2, 4):
        shards.append(tmp_path / f"s{k}")
        run(Noisy(), Fake(group=True), protocol, shards[-1], RunOptions(selection=Selection(shard=f"{k}/5")))
    merged = merge(shards, tmp_path / "merged")
    assert merged.aggregate == whole.aggregate
    assert merged.status == "complete"
    assert _bytes(tmp_path / "merged") == _bytes(tmp_path / "whole")


def test_merge_refuses_what_is_not_the_whole(tmp_path: Path) -> None:
    for k in (1, 2):
        run(Noisy(), Fake(), DEPTH, tmp_path / f"s{k}", RunOptions(selection=Selection(shard=f"{k}/3")))
    run(Noisy(), Fake(), DEPTH, tmp_path / "seed", RunOptions(seed=1, selection=Selection(shard="3/3")))
    run(Noisy(), Fake(), DEPTH, tmp_path / "plain")
    one, two = tmp_path / "s1", tmp_path / "s2"
    with pytest.raises(UsageError, match="shards are missing: 3/3"):
        merge([one, two], tmp_path / "m")
    with pytest.raises(UsageError, match="given twice"):
        merge([one, one, two], tmp_path / "m")
    with pytest.raises(NotComparable, match=r"seed: 0 -> 1"):
        merge([one, two, tmp_path / "seed"], tmp_path / "m")
    with pytest.raises(UsageError, match="not a shard"):
        merge([tmp_path / "plain"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_grouped_interval_differs_from_ungrouped(tmp_path: Path) -> None:
    free = run(Noisy(), Fake(), DEPTH, tmp_path / "a").aggregate["abs_rel"]
    grouped = run(Noisy(), Fake(group=True), DEPTH, tmp_path / "b").aggregate["abs_rel"]
    assert free.value == grouped.value
    assert free.ci_low != grouped.ci_low


def test_pooled_equals_all_pixels_together(tmp_path: Path) -> None:
    result = run(Noisy(), Fake(), POOLED, tmp_path, RunOptions(keep_pixels=True))
    errors = np.concatenate([np.load(p) for p in sorted((tmp_path / "pixels").rglob("*.npy"))])
    assert errors.size == N * 24 * 32
    values = {k: v.value for k, v in result.aggregate.items()}
    assert values["mean_deg"] == pytest.approx(errors.mean(), rel=1e-12)
    assert values["median_deg"] == pytest.approx(np.median(errors), rel=1e-12)
    assert values["within_11_25"] == pytest.approx((errors < 11.25).mean(), rel=1e-12)
    median = result.aggregate["median_deg"]
    assert median.ci_low is not None
    assert median.ci_high is not None
    assert median.ci_low < np.median(errors) < median.ci_high


def test_pixels_are_gone_after_a_complete_run(tmp_path: Path) -> None:
    result = run(Noisy(), Fake(), POOLED, tmp_path)
    assert not (tmp_path / "pixels").exists()
    lines = verify_run(result, tmp_path)
    assert "ok    mean_deg" in lines
    assert any("median_deg can be recomputed only" in line for line in lines)


def test_saved_predictions_score_to_the_same_records(tmp_path: Path) -> None:
    run(Noisy(), Fake(), DEPTH, tmp_path / "a", RunOptions(save_predictions=True))
    run(Saved(tmp_path / "a" / "predictions"), Fake(), DEPTH, tmp_path / "b")
    assert _bytes(tmp_path / "a", "records.jsonl") == _bytes(tmp_path / "b", "records.jsonl")


def test_verify_accepts_a_good_run_and_names_what_was_changed(tmp_path: Path) -> None:
    result = run(Noisy(), Fake(), DEPTH, tmp_path)
    assert any("recomputed from 12 records" in line for line in verify_run(result, tmp_path))
    path = tmp_path / "result.json"
    raw = json.loads(path.read_text())
    raw["aggregate"]["abs_rel"]["value"] *= 0.5
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="abs_rel"):
        verify_run(results.load_result(tmp_path), tmp_path)
    records = tmp_path / "records.jsonl"
    records.write_text(records.read_text().replace("room/00", "room/xx"))
    with pytest.raises(DataError, match="records sha256"):
        verify_run(result, tmp_path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def nested(done: int, total: int, failed: int) -> None:
        if done == 1:
            with pytest.raises(UsageError, match="another process"):
                run(Noisy(), Fake(), DEPTH, tmp_path)

    run(Noisy(), Fake(), DEPTH, tmp_path, progress=nested)


def test_wrong_kind_and_wrong_count_are_the_models_fault(tmp_path: Path) -> None:
    class Wrong(Noisy):
        def predict(self, samples, kind, seed):  # type: ignore[no-untyped-def]
            return super().predict(samples, "normal", seed)

    class Few(Noisy):
        def predict(self, samples, kind, seed):  # type: ignore[no-untyped-def]
            return []

    wrong = run(Wrong(), Fake(), DEPTH, tmp_path / "a")
    assert set(wrong.failed.values()) == {"model noisy: was asked for depth_affine and gave normal"}
    few = run(Few(), Fake(), DEPTH, tmp_path / "b")
    assert set(few.failed.values()) == {"model noisy: gave 0 predictions for 1 images"}
