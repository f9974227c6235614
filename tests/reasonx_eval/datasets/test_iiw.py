"""IIW: which judgements count, in which order, and what damage looks like."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.datasets.iiw import IIW
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.registry import load_dataset
from reasonx_eval.selftest.writers import iiw_json, write_iiw
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget
from tests.reasonx_eval.datasets.makers import photo

ID = "100010"
POINTS = [(40, 0.25, 0.5, True), (7, 0.75, 0.125, True), (12, 0.0, 1.0, True), (3, 0.5, 0.5, False),
          (5, 0.1, 0.2, None)]  # fmt: skip
COMPARISONS = [
    (7, 40, "E", 0.5),
    (40, 7, "1", 1.25),
    (40, 12, None, 2.0),  # no answer
    (40, 12, "2", None),  # no score
    (40, 12, "2", 0),  # no weight
    (40, 12, "2", -0.5),
    (3, 12, "1", 1.0),  # not opaque
    (12, 5, "1", 1.0),  # opaque unknown
    (40, 12, "X", 1.0),  # no such answer
    (12, 7, "2", 0.125),
]


def judgements(dataset: IIW, sample_id: str = ID) -> JudgementTarget:
    target = dataset.load(sample_id).targets["judgements"]
    assert isinstance(target, JudgementTarget)
    return target


def official_rules(data: Any) -> list[tuple[int, int, str, float]]:
    """Points by id, answer and weight of each judgement that counts: a loop written from the published rules."""
    points = {p["id"]: p for p in data["intrinsic_points"]}
    kept = []
    for c in data["intrinsic_comparisons"]:
        if c["darker"] not in ("1", "2", "E") or c["darker_score"] is None or c["darker_score"] <= 0:
            continue
        if points[c["point1"]]["opaque"] and points[c["point2"]]["opaque"]:
            kept.append((c["point1"], c["point2"], c["darker"], c["darker_score"]))
    return kept


def test_filter_order_and_types(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, iiw_json(POINTS, COMPARISONS))
    target = judgements(IIW(tmp_path, "test"))
    assert target.points.dtype == np.float64
    assert target.points.tolist() == [[0.25, 0.5], [0.75, 0.125], [0.0, 1.0], [0.5, 0.5], [0.1, 0.2]]
    assert target.pairs.dtype == np.int64
    assert target.pairs.tolist() == [[1, 0], [0, 1], [2, 1]]
    assert target.darker.dtype == np.int8
    assert target.darker.tolist() == [SAME, FIRST, SECOND]
    assert target.weight.dtype == np.float64
    assert target.weight.tolist() == [0.5, 1.25, 0.125]


@pytest.mark.parametrize("seed", range(5))
def test_random_files_against_the_rules(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(200)[:30].tolist()
    points = [(i, float(x), float(y), [True, False, None][int(o)]) for i, x, y, o in
              zip(ids, rng.random(30), rng.random(30), rng.choice(3, 30, p=[0.8, 0.1, 0.1]), strict=True)]  # fmt: skip
    answers = ["1", "2", "E", None]
    comparisons = [(*rng.choice(ids, 2, replace=False).tolist(), answers[int(a)], s if s > -1 else None)
                   for a, s in zip(rng.integers(0, 4, 100), rng.normal(0.5, 1, 100).tolist(), strict=True)]  # fmt: skip
    data = iiw_json(points, comparisons)
    write_iiw(tmp_path / "data", ID, data)
    target = judgements(IIW(tmp_path, "test"))
    names = {FIRST: "1", SECOND: "2", SAME: "E"}
    rows = zip(target.pairs.tolist(), target.darker.tolist(), target.weight.tolist(), strict=True)
    found = [(ids[a], ids[b], names[d], w) for (a, b), d, w in rows]
    assert found == official_rules(data)
    assert 0 < len(found) < 100


def test_no_judgements_is_empty_not_an_error(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, iiw_json([], []))
    target = judgements(IIW(tmp_path, "test"))
    assert (target.points.shape, target.pairs.shape, len(target.darker), len(target.weight)) == ((0, 2), (0, 2), 0, 0)


@pytest.mark.parametrize("inside", ["data", "iiw-dataset/data", "."])
def test_roots_photo_and_splits(tmp_path: Path, inside: str) -> None:
    image = photo(np.random.default_rng(0), 32, 48)
    write_iiw(tmp_path / inside, ID, iiw_json(POINTS, COMPARISONS), image)
    dataset = load_dataset("iiw", tmp_path)
    assert (dataset.split, len(dataset)) == ("test", 1046)
    assert len(IIW(tmp_path, "all")) == 5230
    sample = dataset.load(ID)
    assert np.array_equal(sample.image, image)
    assert sample.group is None
    assert [p.name for p in dataset.files(ID)] == [f"{ID}.png", f"{ID}.json"]
    assert all(p.is_file() for p in dataset.files(ID))
    again = pickle.loads(pickle.dumps(dataset)).load(ID)
    assert np.array_equal(pickle.loads(pickle.dumps(again)).image, image)


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, "not json", photo(np.random.default_rng(0), 16, 16))
    assert IIW(tmp_path, "test").load(ID, want=()).targets == {}
    write_iiw(tmp_path / "data", "100091", iiw_json(POINTS, COMPARISONS))  # no photo
    sample = IIW(tmp_path, "test").load("100091", want=("judgements",))
    assert len(sample.targets) == 1
    with pytest.raises(SampleError, match=r"100091\.png: file is missing"):
        _ = sample.image


def test_wrong_ids_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ID\.json"):
        IIW(tmp_path, "test")
    write_iiw(tmp_path / "data", "1", iiw_json(POINTS, COMPARISONS))  # not an id of the set
    with pytest.raises(DataError, match=r"no ID\.json"):
        IIW(tmp_path, "test")
    write_iiw(tmp_path / "data", ID, iiw_json(POINTS, COMPARISONS))
    dataset = IIW(tmp_path, "test")
    with pytest.raises(SampleError, match=r"100091\.json: file is missing"):
        dataset.load("100091")
    with pytest.raises(UsageError, match="100014"):
        dataset.load("100014")  # a training image
    with pytest.raises(UsageError, match="unknown split"):
        IIW(tmp_path, "train")


GOOD = iiw_json(POINTS, COMPARISONS)
CHANGES: list[tuple[str, tuple[Any, ...], Any]] = [
    (r"intrinsic_points\[1\]\.x: Expected `float`, got `str`", ("intrinsic_points", 1, "x"), "0.5"),
    (r"intrinsic_points\[1\]\.y: Expected `float`, got `bool`", ("intrinsic_points", 1, "y"), True),
    (r"intrinsic_points\[0\]\.x: Expected `float` <= 1", ("intrinsic_points", 0, "x"), 320.0),
    (r"intrinsic_points\[0\]\.x: Expected `float` >= 0", ("intrinsic_points", 0, "x"), -0.01),
    (r"intrinsic_points\[0\]\.x: Number out of range", ("intrinsic_points", 0, "x"), 10**400),
    (r"intrinsic_points\[2\]\.id: Expected `int`, got `str`", ("intrinsic_points", 2, "id"), "12"),
    (r"intrinsic_points\[2\]\.id: 40 is the id of an earlier", ("intrinsic_points", 2, "id"), 40),
    (r"intrinsic_points\[2\]\.opaque: Expected `bool \| null`, got `str`", ("intrinsic_points", 2, "opaque"), "true"),
    (r"intrinsic_points\[3\]: Expected `object`, got `array`", ("intrinsic_points", 3), [1, 2]),
    (r"intrinsic_points: Expected `array`, got `object`", ("intrinsic_points",), {"id": 1}),
    (r"intrinsic_comparisons\[1\]\.darker: Expected `str \| null`, got `int`",
     ("intrinsic_comparisons", 1, "darker"), 1),
    (r"intrinsic_comparisons\[1\]\.darker_score: Expected `float \| null`, got `str`",
     ("intrinsic_comparisons", 1, "darker_score"), "1"),
    (r"intrinsic_comparisons\[0\]\.point2: 99 is not the id", ("intrinsic_comparisons", 0, "point2"), 99),
    (r"intrinsic_comparisons\[0\]\.point1: Expected `int`, got `null`", ("intrinsic_comparisons", 0, "point1"), None),
    (r"not valid JSON .*invalid character", ("intrinsic_points", 0, "x"), float("nan")),
    (r"not valid JSON .*invalid character", ("intrinsic_comparisons", 0, "darker_score"), float("inf")),
]


@pytest.mark.parametrize(("message", "path", "value"), CHANGES)
def test_a_wrong_field_is_named(tmp_path: Path, message: str, path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(GOOD)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    write_iiw(tmp_path / "data", ID, data)
    with pytest.raises(SampleError, match=message) as caught:
        IIW(tmp_path, "test").load(ID)
    assert f"{ID}.json" in str(caught.value)


@pytest.mark.parametrize("field", ["id", "x", "y", "opaque"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    data = copy.deepcopy(GOOD)
    del data["intrinsic_points"][2][field]
    write_iiw(tmp_path / "data", ID, data)
    with pytest.raises(SampleError, match=rf"intrinsic_points\[2\]: Object missing required field `{field}`"):
        IIW(tmp_path, "test").load(ID)


@pytest.mark.parametrize(("text", "message"), [
    ("", "file is empty"), ("\n", "file is empty"), ("[]", "Expected `object`, got `array`"),
    ("3", "Expected `object`, got `int`"),
    ("{}", "Object missing required field `intrinsic_points`"), (json.dumps(GOOD)[:-40], "not valid JSON"),
    ("[" * 100000, "Expected `object`, got `array`"), (json.dumps(GOOD) + "}", "not valid JSON"),
])  # fmt: skip
def test_damaged_json(tmp_path: Path, text: str, message: str) -> None:
    write_iiw(tmp_path / "data", ID, text)
    with pytest.raises(SampleError, match=message):
        IIW(tmp_path, "test").load(ID)


def test_json_of_other_bytes(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, GOOD)
    (tmp_path / "data" / f"{ID}.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SampleError, match="not valid JSON"):
        IIW(tmp_path, "test").load(ID)


@pytest.mark.parametrize("keep", [0, 200])
def test_damaged_photo(tmp_path: Path, keep: int) -> None:
    write_iiw(tmp_path / "data", ID, GOOD, np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    path = tmp_path / "data" / f"{ID}.png"
    path.write_bytes(path.read_bytes()[:keep])
    sample = IIW(tmp_path, "test").load(ID)
    with pytest.raises(SampleError, match=rf"{ID}\.png"):
        _ = sample.image


@pytest.mark.parametrize("other", [True, 1.0])
def test_what_only_equals_an_id_is_none(tmp_path: Path, other: Any) -> None:
    data = iiw_json([(1, 0.25, 0.5, True), (2, 0.75, 0.125, True)], [(1, 2, "E", 0.5)])
    data["intrinsic_comparisons"][0]["point1"] = other
    write_iiw(tmp_path / "data", ID, data)
    with pytest.raises(SampleError, match=r"intrinsic_comparisons\[0\].point1: Expected `int`, got `(bool|float)`"):
        IIW(tmp_path, "test").load(ID)


def _scattered(seed: int, *, unknown: bool = False) -> Any:
    """Random judgements of every kind that the format has, some that don't count."""
    rng = np.random.default_rng(seed)
    points = [(int(k), float(x), float(y), [True, False, None][int(o)])
              for k, x, y, o in zip(rng.permutation(90)[:40], rng.random(40), rng.random(40),
                                    rng.choice(3, 40, p=[0.8, 0.1, 0.1]), strict=True)]  # fmt: skip
    ids = [p[0] for p in points]
    comparisons: list[Any] = [
        (ids[int(a)], ids[int(b)], ["1", "2", "E", None, "?"][int(d)], [float(w), None, 0, -1.5, 3][int(s)])
        for a, b, d, w, s in zip(rng.integers(0, 40, 200), rng.integers(0, 40, 200), rng.integers(0, 5, 200),
                                 rng.random(200), rng.integers(0, 5, 200), strict=True)
    ]  # fmt: skip
    if unknown:
        comparisons.append((1000, ids[0], None, 1.0))  # doesn't count, so nobody asks which point it is
    return iiw_json(points, comparisons)


@pytest.mark.parametrize("seed", range(6))
def test_scattered_judgements_by_the_official_rules(tmp_path: Path, seed: int) -> None:
    data = _scattered(seed)
    write_iiw(tmp_path / "data", ID, data)
    found = judgements(IIW(tmp_path, "test"))
    kept = official_rules(data)
    ids = [p["id"] for p in data["intrinsic_points"]]
    assert [(ids[a], ids[b]) for a, b in found.pairs] == [k[:2] for k in kept]
    assert found.weight.tolist() == [k[3] for k in kept]
    assert all(getattr(found, name).flags.c_contiguous for name in ("points", "pairs", "darker", "weight"))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, "\ufeff" + json.dumps(GOOD).replace("}, ", "},\r\n"))
    assert len(judgements(IIW(tmp_path, "test")).darker) == 3


def test_an_unknown_point_is_no_error_where_it_does_not_count(tmp_path: Path) -> None:
    write_iiw(tmp_path / "data", ID, _scattered(1, unknown=True))
    with_unknown = judgements(IIW(tmp_path, "test"))
    write_iiw(tmp_path / "data", ID, _scattered(1))
    without = judgements(IIW(tmp_path, "test"))
    assert np.array_equal(with_unknown.pairs, without.pairs)
    assert np.array_equal(with_unknown.weight, without.weight)
