"""Submission files: what is written is read again, and nothing that was changed is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.leaderboard.submissions import (
    Submission,
    read_all,
    read_submission,
    submission_path,
    write_submission,
)
from reasonx_eval.leaderboard.submit import submit
from tests.reasonx_eval.leaderboard.makers import make, with_pictures, write
from tests.reasonx_eval.statistics.planted import POOLED, pooled_records, write_run

VALUES = {"abs_rel": [0.1, 0.2, 0.4], "delta1": [0.9, 0.8, 0.7]}


def test_a_file_is_read_as_it_was_written_in_readable_lines(tmp_path: Path) -> None:
    one = with_pictures(make("net", VALUES, groups=["a", "a", "b"]))
    path = tmp_path / submission_path(one)
    write_submission(path, one)
    assert path == tmp_path / "depth/scenes-wild@1/net.json"
    assert read_submission(path) == one
    line = next(x for x in path.read_text().splitlines() if '"abs_rel": [' in x)
    assert line.strip() == '"abs_rel": [0.1, 0.2, 0.4],'


def test_every_bit_of_a_value_survives(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324]
    folder = write(tmp_path, [make("net", {"abs_rel": values})])
    runs, _ = read_all(folder)
    assert runs[0].samples.column("abs_rel").tolist() == values


@pytest.mark.parametrize(("what", "edit"), [
    ("value", lambda d: d["samples"]["values"]["abs_rel"].__setitem__(0, 0.0999)),
    ("interval", lambda d: d["result"]["aggregate"]["abs_rel"].__setitem__("ci_low", 0.2)),
    ("average", lambda d: d["result"]["aggregate"]["abs_rel"].__setitem__("value", 0.01)),
    ("id", lambda d: d["samples"]["ids"].__setitem__(0, "im/0009")),
    ("order", lambda d: d["samples"]["ids"].reverse()),
    ("scene", lambda d: d["samples"]["groups"].__setitem__(0, "b")),
    ("name", lambda d: d["result"]["model"].__setitem__("trained_on", [])),
    ("date", lambda d: d["timing"].__setitem__("finished", "2020-01-01T00:00:00")),
])  # fmt: skip
def test_an_edited_file_is_refused(tmp_path: Path, what: str, edit: Callable[[Any], None]) -> None:
    one = make("net", VALUES, groups=["a", "a", "b"], trained_on=["iiw"])
    path = write(tmp_path, [one]) / submission_path(one)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="digest"):
        read_submission(path)


def test_reformatting_a_file_changes_nothing(tmp_path: Path) -> None:
    one = make("net", VALUES)
    path = write(tmp_path, [one]) / submission_path(one)
    path.write_bytes(json.dumps(json.loads(path.read_text()), indent=4).replace("\n", "\r\n").encode())
    assert read_submission(path) == one


def _forged(one: Submission, **samples: Any) -> Submission:
    forged = one.model_copy(update={"samples": one.samples.model_copy(update=samples)})
    return forged.model_copy(update={"digest": forged.expected_digest()})


@pytest.mark.parametrize(("samples", "message"), [
    ({"values": {**make("net", VALUES).samples.values, "abs_rel": [0.1, 0.2, 0.3]}}, "abs_rel: the result says 0.23"),
    ({"values": {"abs_rel": [0.1, 0.2, 0.4]}}, "delta1 has an average and no values"),
    ({"ids": ["a", "b"]}, "2 images for a result of 3"),
])  # fmt: skip
def test_a_new_digest_does_not_make_wrong_columns_right(tmp_path: Path, samples: Any, message: str) -> None:
    one = _forged(make("net", VALUES), **samples)
    path = write(tmp_path, [one]) / submission_path(one)
    with pytest.raises(DataError, match="not a reviewed result" if "ids" in samples else message):
        read_submission(path)


@pytest.fixture
def pooled(tmp_path: Path) -> Submission:
    """A run whose metrics pool the pixels of all images."""
    errors = [np.random.default_rng(k).uniform(0, 40, 50 + k) for k in range(4)]
    run = write_run(tmp_path / "run", pooled_records(errors), protocol=POOLED, pixels=errors)
    found = read_submission(submit([run], tmp_path / "reviewed")[0].path)
    assert isinstance(found, Submission)
    assert found.result.aggregate["rmse_deg"].value == pytest.approx(np.sqrt((np.concatenate(errors) ** 2).mean()))
    return found


@pytest.mark.parametrize("name", [m for m in POOLED.metrics if m != "median_deg"])
def test_a_pooled_average_is_that_of_the_stored_sums(tmp_path: Path, pooled: Submission, name: str) -> None:
    value = pooled.result.aggregate[name].value
    assert value is not None
    changed = pooled.result.aggregate[name].model_copy(update={"value": value * 1.001})
    result = pooled.result.model_copy(update={"aggregate": {**pooled.result.aggregate, name: changed}})
    forged = _forged(pooled.model_copy(update={"result": result}))
    with pytest.raises(DataError, match=f"{name}: the result says"):
        read_submission(write(tmp_path / "to", [forged]) / submission_path(forged))


@pytest.mark.parametrize(("kind", "key", "column", "message"), [
    ("sums", "sum_sq", None, "rmse_deg is pooled, and the images have no sum 'sum_sq'"),
    ("sums", "count", None, "have no sum 'count'"),
    ("sums", "count", [0.0] * 4, "sums that no pixels give"),
    ("values", "median_deg", None, "median_deg has an average and no values"),
])  # fmt: skip
def test_pooled_columns_are_all_there(
    tmp_path: Path, pooled: Submission, kind: str, key: str, column: list[float] | None, message: str
) -> None:
    columns = {k: v for k, v in getattr(pooled.samples, kind).items() if k != key}
    forged = _forged(pooled, **{kind: columns if column is None else {**columns, key: column}})
    with pytest.raises(DataError, match=message):
        read_submission(write(tmp_path / "to", [forged]) / submission_path(forged))


def test_a_metric_that_vanished_is_missed(tmp_path: Path) -> None:
    one = make("net", VALUES)
    rest = {k: v for k, v in one.result.aggregate.items() if k != "delta1"}
    forged = _forged(one.model_copy(update={"result": one.result.model_copy(update={"aggregate": rest})}))
    with pytest.raises(DataError, match="no 'delta1' among its numbers"):
        read_submission(write(tmp_path, [forged]) / submission_path(forged))


def test_a_sample_may_not_be_there_twice(tmp_path: Path) -> None:
    one = _forged(make("net", VALUES), ids=["a", "a", "b"])
    path = write(tmp_path, [one]) / submission_path(one)
    with pytest.raises(DataError, match="twice"):
        read_submission(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1, "what": "run", "surprise": 1}', "\xff"])
def test_other_files_are_no_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "depth" / "x@1" / "net.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="not a reviewed result"):
        read_all(tmp_path)


def test_a_newer_schema_says_so(tmp_path: Path) -> None:
    path = tmp_path / "depth" / "x@1" / "net.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 99, "unheard": "of"}')
    with pytest.raises(NotComparable, match="schema 99 is newer"):
        read_all(tmp_path)


def test_a_file_in_another_place_is_refused_with_the_place(tmp_path: Path) -> None:
    one = make("net", VALUES)
    for wrong in ("depth/scenes-wild@1/other.json", "depth/scenes-wild@2/net.json", "net.json"):
        folder = tmp_path / wrong.replace("/", "_")
        write_submission(folder / wrong, one)
        with pytest.raises(DataError, match="belongs in"):
            read_all(folder)


def test_no_folder_is_a_wrong_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_all(tmp_path / "nothing")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    one = make("net", VALUES)
    path = write(tmp_path, [one]) / submission_path(one)
    text = path.read_text()
    for place in ('"abs_rel": [0.1', '"confidence": 0.95'):
        for number in ("NaN", "Infinity", "1e999"):
            path.write_text(text.replace(place, place.rpartition(" ")[0] + (" [" if "[" in place else " ") + number))
            with pytest.raises(DataError):
                read_submission(path)
    huge = make("net", {"abs_rel": [1e200, 1e200, 1e200]})
    with pytest.raises(DataError, match="no measurement"):
        read_submission(write(tmp_path, [huge]) / submission_path(huge))


@pytest.mark.parametrize("rules", [{}, {"metrics": "abs_rel"}, {"name": "depth/other"}, {"version": 7}])
def test_rules_that_are_not_those_of_the_digest_are_refused(tmp_path: Path, rules: dict[str, object]) -> None:
    one = make("net", VALUES)
    changed = {**one.result.protocol.rules, **rules} if rules else {}
    protocol = one.result.protocol.model_copy(update={"rules": changed})
    forged = _forged(one.model_copy(update={"result": one.result.model_copy(update={"protocol": protocol})}))
    with pytest.raises(DataError, match="not those of its digest"):
        read_submission(write(tmp_path, [forged]) / submission_path(forged))


@pytest.mark.parametrize("name", ["../../outside", "/etc/x", "a//b", "a\\b"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    one = make("net", VALUES)
    protocol = one.result.protocol.model_copy(update={"name": name})
    with pytest.raises(DataError, match="no name of a protocol"):
        submission_path(one.model_copy(update={"result": one.result.model_copy(update={"protocol": protocol})}))
