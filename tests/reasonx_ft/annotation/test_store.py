"""The judgement store against sets and dictionaries of Python, damage, and several writers."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.judgements import Store, merge
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.annotation.store.shards import Damaged, read_shard
from reasonx_ft.cli.main import cli
from reasonx_ft.types import ORDERS, Answer, JudgeInfo, Order, Photo, Question

QUESTIONS = read_questions()
INFO = JudgeInfo("judge", "rev0", licence="none", trained_on=("x",), options={"a": 1})
NAN = float("nan")


def _photo(k: int) -> Photo:
    return Photo(f"photo {k}", np.zeros((1, 1, 3), np.uint8), hashlib.sha256(str(k).encode()).hexdigest()[:32])


def _question(photo: int = 0, first: tuple[int, int] = (30, 31), second: tuple[int, int] = (400, 481),
              modality: str = "depth", order: Order = "red-first") -> Question:  # fmt: skip
    return Question(_photo(photo), first, second, modality, order)


def _write(folder: Path, rows: Sequence[tuple[Question, Answer]], info: JudgeInfo = INFO) -> Path:
    with Store.open(folder, create=True).writer(info, QUESTIONS) as writer:
        writer.append([q for q, _ in rows], [a for _, a in rows])
    return writer.shards[0]


def _random(n: int, seed: int = 0) -> list[tuple[Question, Answer]]:
    draw = rng(seed, "rows")
    rows = []
    for k in range(n):
        x1, y1, x2, y2 = (int(v) for v in draw.integers(0, 512, 4))
        question = _question(int(draw.integers(0, 9)), (x1, y1), (x2, y2), list(QUESTIONS.modalities)[k % 4],
                             ORDERS[k % 2])  # fmt: skip
        rows.append((question, Answer(float(draw.random())) if k % 7 else Answer(NAN, "refused")))
    return rows


def _known(store: Store, q: Question, revision: str = "rev0", template: str | None = None) -> bool:
    streams = [(q.modality, q.order, template or QUESTIONS[q.modality].digest, revision)]
    points = np.array([[*q.first, *q.second]])
    return bool(store.known(q.photo.digest, points, streams, np.array([0]))[0])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [(_question(), Answer(0.25, seconds=0.5)), (_question(1, modality="albedo"), Answer(NAN, "garbage"))]
    path = _write(tmp_path / "s", rows)
    table = pq.read_table(path).to_pylist()
    assert table[0] == {
        "photo": bytes.fromhex(_photo(0).digest), "photo_id": "photo 0", "x1": 30, "y1": 31, "x2": 400, "y2": 481,
        "modality": "depth", "order": "red-first", "template": QUESTIONS["depth"].digest, "judge": "rev0",
        "probability": 0.25, "flag": "ok", "seconds": 0.5,
    }  # fmt: skip
    assert math.isnan(table[1]["probability"])
    assert table[1]["flag"] == "garbage"
    assert path.name == f"answers-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.parquet"
    store = Store.open(tmp_path / "s")
    assert len(store) == 2
    assert store.judges() == {"rev0": "judge"}
    meta = json.loads((tmp_path / "s" / "meta.json").read_text())
    assert meta["schema"] == 1
    assert meta["templates"][QUESTIONS["depth"].digest]["question"] == QUESTIONS["depth"].question
    assert meta["judges"]["rev0"]["trained_on"] == ["x"]
    # a shard alone says the same
    (tmp_path / "s" / "meta.json").unlink()
    assert Store.open(tmp_path / "s").about.judges["rev0"]["name"] == "judge"


def test_types_are_compact(tmp_path: Path) -> None:
    schema = pq.read_schema(_write(tmp_path / "s", _random(10)))
    assert schema.field("photo").type == pa.binary(16)
    assert {str(schema.field(n).type) for n in ("x1", "y1", "x2", "y2")} == {"int16"}
    assert all(pa.types.is_dictionary(schema.field(n).type) for n in ("modality", "order", "template", "judge", "flag"))
    assert schema.field("probability").type == schema.field("seconds").type == pa.float32()


def test_known_is_exact_in_every_part_of_the_key(tmp_path: Path) -> None:
    _write(tmp_path / "s", [(_question(), Answer(0.25))])
    store = Store.open(tmp_path / "s")
    assert _known(store, _question())
    others = [
        _question(1), _question(first=(31, 31)), _question(first=(30, 30)), _question(second=(399, 481)),
        _question(second=(400, 480)), _question(modality="normals"), _question(order="green-first"),
        _question(first=(400, 481), second=(30, 31)), _question(first=(31, 30)),
    ]  # fmt: skip
    assert not any(_known(store, q) for q in others)
    assert not _known(store, _question(), revision="rev1")
    assert not _known(store, _question(), template="0" * 16)


def test_known_against_a_set(tmp_path: Path) -> None:
    rows = _random(3000)
    for part in (rows[:800], rows[800:1500], rows[1500:2000]):
        _write(tmp_path / "s", part)
    store = Store.open(tmp_path / "s")
    have = {(q.photo.digest, q.first, q.second, q.modality, q.order) for q, _ in rows[:2000]}
    streams = [(m, o, QUESTIONS[m].digest, "rev0") for m in QUESTIONS.modalities for o in ORDERS]
    for k in range(9):
        asked = [q for q, _ in rows if q.photo.digest == _photo(k).digest]
        points = np.array([[*q.first, *q.second] for q in asked])
        stream = np.array([streams.index((q.modality, q.order, QUESTIONS[q.modality].digest, "rev0")) for q in asked])
        found = store.known(_photo(k).digest, points, streams, stream)
        assert found.tolist() == [(q.photo.digest, q.first, q.second, q.modality, q.order) in have for q in asked]
        assert 0 < found.sum() < len(found)


def test_answers_without_probability_are_known_unless_asked_for_again(tmp_path: Path) -> None:
    _write(tmp_path / "s", [(_question(), Answer(NAN, "failed"))])
    store = Store.open(tmp_path / "s")
    streams = [("depth", "red-first", QUESTIONS["depth"].digest, "rev0")]
    points, stream = np.array([[30, 31, 400, 481]]), np.array([0])
    assert store.known(_photo(0).digest, points, streams, stream).tolist() == [True]
    assert store.known(_photo(0).digest, points, streams, stream, with_probability=True).tolist() == [False]
    _write(tmp_path / "s", [(_question(), Answer(0.75))])
    store = Store.open(tmp_path / "s")
    assert store.known(_photo(0).digest, points, streams, stream, with_probability=True).tolist() == [True]
    # whichever name comes first, the answer that is one counts, and that is no contradiction
    assert store.columns.probability.tolist() == [0.75]
    found = store.verify()
    assert (found.duplicates, found.conflicts, found.sound) == (1, 0, True)


def test_of_two_answers_the_first_shard_in_name_order_counts(tmp_path: Path) -> None:
    shards = {_write(tmp_path / "s", [(_question(), Answer(p)), (_question(1), Answer(0.5))]).name: p
              for p in (0.125, 0.25, 0.375)}  # fmt: skip
    store = Store.open(tmp_path / "s")
    assert len(store) == 2
    first = shards[min(shards)]
    assert sorted(store.columns.probability.tolist()) == sorted([first, 0.5])
    found = store.verify()
    assert (found.rows, found.duplicates, found.conflicts, found.sound) == (6, 4, 2, False)
    for conflict in found.examples:
        assert conflict.probabilities[0] == first
        assert shards[conflict.shards[1]] == conflict.probabilities[1]
        assert conflict.shards[0] == min(shards)
        assert (conflict.photo, conflict.points) == (_photo(0).digest, (30, 31, 400, 481))


def test_the_same_answers_again_are_the_same_file(tmp_path: Path) -> None:
    assert _write(tmp_path / "s", _random(20)) == _write(tmp_path / "s", _random(20))
    assert len(Store.open(tmp_path / "s").shards) == 1


# damage


def _cut(data: bytes) -> bytes:
    return data[:-40]


def _flip(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


@pytest.mark.parametrize("harm", [_cut, _flip, lambda d: b"", lambda d: d + b"x"])
def test_a_damaged_shard_is_named_and_the_others_count(
    tmp_path: Path, harm: object, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    good, bad = _write(tmp_path / "s", _random(20, 0)), _write(tmp_path / "s", _random(20, 1))
    bad.write_bytes(harm(bad.read_bytes()))  # type: ignore[operator]
    store = Store.open(tmp_path / "s")
    assert store.shards == (good,)
    assert [d.path for d in store.damaged] == [bad]
    assert len(store) == 20
    assert run_cli(cli, ["judgements", "verify", str(tmp_path / "s")]) == 4
    out, err = capsys.readouterr()
    assert bad.name in err
    assert "1 damaged" in out
    assert run_cli(cli, ["judgements", "stats", str(tmp_path / "s")]) == 4


def _named(folder: Path, table: pa.Table) -> Path:
    """A file that is named rightly, whatever is in it."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    path = folder / f"answers-{hashlib.sha256(buffer.getvalue()).hexdigest()[:32]}.parquet"
    path.write_bytes(buffer.getvalue())
    return path


def test_files_with_the_right_name_and_the_wrong_content(tmp_path: Path) -> None:
    shard = _write(tmp_path / "s", _random(4))
    table = pq.read_table(shard)
    meta = {b"reasonx.judgements": json.dumps({"schema": 2, "templates": {}, "judges": {}}).encode()}

    def with_column(name: str, values: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    wrong = {
        "no column flag": table.drop_columns(["flag"]),
        "newer version": table.replace_schema_metadata(meta),
        "not a shard": table.replace_schema_metadata({}),
        "a value is missing": with_column("seconds", pa.array([1.0, None, 1.0, 1.0], pa.float32())),
        "a point outside": with_column("x1", pa.array([1, 2, 3, 512], pa.int16())),
        "unknown flag": with_column("flag", pa.array(["ok", "odd", "ok", "ok"])),
        "unknown modality": with_column("modality", pa.array(["depth"] * 3 + ["colour"])),
        "its flag contradicts": with_column("probability", pa.array([NAN] * 4, pa.float32())),
        "probability outside": with_column("probability", pa.array([NAN, 2, 0, 0], pa.float32())),
        "16 bytes": with_column("photo", pa.array(["ab"] * 4)),
    }
    for reason, content in wrong.items():
        path = _named(tmp_path, content)
        found = read_shard(path)
        assert isinstance(found, Damaged), reason
        assert reason in found.reason


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "s", _random(4))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "s" / "mine.parquet")
    (tmp_path / "s" / ".answers-00.parquet.123.part").write_bytes(b"half")
    (tmp_path / "s" / "README.md").write_text("a dataset card")
    store = Store.open(tmp_path / "s")
    assert len(store) == 4
    assert store.verify().sound
    assert run_cli(cli, ["judgements", "verify", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "not read: mine.parquet (not a shard)" in out
    assert "left by a killed process" in out


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        Store.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    for create in (False, True):
        with pytest.raises(UsageError, match="a file, not a folder"):
            Store.open(tmp_path / "file", create=create)
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(UsageError, match="not a judgement store"):
        Store.open(photos)
    Store.open(photos, create=True)
    (photos / "a.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="an empty or a new folder"):
        Store.open(photos, create=True)
    (photos / "a.jpg").rename(photos / "meta.json")
    for text in ("{", "[]", '{"kind": "reasonx judgements", "schema": 9}', '{"kind": "other", "schema": 1}'):
        (photos / "meta.json").write_text(text)
        with pytest.raises(DataError, match="not a description of a judgement store"):
            Store.open(photos)
    with pytest.raises(UsageError, match="can't be made"):
        Store.open(tmp_path / "file" / "below", create=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "s", create=True)

    def refuse(path: Path, value: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("reasonx_ft.annotation.store.meta.write_json", refuse)
    with pytest.raises(UsageError, match="can't be written to: Read-only file system"):
        store.writer(INFO, QUESTIONS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_leave_to_write(tmp_path: Path) -> None:
    _write(tmp_path / "s", _random(4))
    (tmp_path / "s").chmod(0o555)
    try:
        assert len(Store.open(tmp_path / "s")) == 4
        with pytest.raises(UsageError, match="can't be written to"):
            Store.open(tmp_path / "s").writer(INFO, QUESTIONS)
    finally:
        (tmp_path / "s").chmod(0o755)


# writing


def test_the_writer_flushes_by_number_by_age_and_at_the_end(tmp_path: Path) -> None:
    from reasonx_ft.annotation.store.writer import Writer

    now = [0.0]
    Store.open(tmp_path / "s", create=True)
    writer = Writer(tmp_path / "s", INFO, QUESTIONS, rows=3, seconds=10, clock=lambda: now[0])
    rows = iter(_random(20))

    def add(n: int) -> int:
        batch = list(itertools.islice(rows, n))
        writer.append([q for q, _ in batch], [a for _, a in batch])
        return len(writer.shards)

    assert add(2) == 0
    assert add(1) == 1
    assert add(1) == 1
    now[0] = 9.9
    assert add(1) == 1
    now[0] = 10.0
    assert add(0) == 2, "the oldest has waited long enough"
    now[0] = 15.0
    assert add(1) == 2, "a new wait begins with a new answer"
    with pytest.raises(RuntimeError, match="judge died"), writer:
        raise RuntimeError("judge died")
    assert len(Store.open(tmp_path / "s")) == 6
    with pytest.raises(UsageError, match="1 questions, 0 answers"):
        writer.append([_question()], [])


@pytest.mark.slow
def test_two_processes_write_one_store(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import tests.reasonx_ft.annotation.test_store as t\n"
        "me = int(sys.argv[2])\n"
        "rows = t._random(400, me) + t._random(100, 99)\n"
        "store = t.Store.open(Path(sys.argv[1]), create=True)\n"
        "with store.writer(t.INFO, t.QUESTIONS, rows=50) as writer:\n"
        "    for k in range(0, 500, 10):\n"
        "        writer.append([q for q, _ in rows[k:k + 10]], [a for _, a in rows[k:k + 10]])\n"
    )
    root = Path(__file__).parents[3]
    commands = [[sys.executable, "-c", code, str(tmp_path / "s"), str(k)] for k in range(2)]
    sizes = []
    with subprocess.Popen(commands[0], cwd=root) as one, subprocess.Popen(commands[1], cwd=root) as two:
        while one.poll() is None or two.poll() is None:
            if (tmp_path / "s" / "meta.json").is_file():
                store = Store.open(tmp_path / "s")
                assert not store.damaged, "a reader saw half a shard"
                sizes.append(len(store))
            time.sleep(0.1)
    assert (one.returncode, two.returncode) == (0, 0)
    assert sizes == sorted(sizes)
    expected = {(q.photo.digest, q.first, q.second, q.modality, q.order)
                for seed in (0, 1, 99) for q, _ in _random(400 if seed < 99 else 100, seed)}  # fmt: skip
    store = Store.open(tmp_path / "s")
    assert len(store) == len(expected)
    assert store.verify().sound


# reading for training


def test_table_averages_the_orders(tmp_path: Path) -> None:
    _write(tmp_path / "s", [
        (_question(0), Answer(0.9)), (_question(0, order="green-first"), Answer(0.5)),
        (_question(0, first=(50, 50)), Answer(0.25)),
        (_question(0, (60, 60)), Answer(NAN, "refused")), (_question(0, (60, 60), order="green-first"), Answer(1.0)),
        (_question(1), Answer(NAN, "failed")),
        (_question(2, modality="albedo"), Answer(0.0)),
    ])  # fmt: skip
    table = Store.open(tmp_path / "s").table(modality="depth")
    points, p = table.of(_photo(0).digest)
    assert points.tolist() == [[[30, 31], [400, 481]], [[50, 50], [400, 481]], [[60, 60], [400, 481]]]
    np.testing.assert_allclose(p, [0.7, 0.25, 1.0], rtol=1e-6)
    np.testing.assert_allclose(table.gap, [0.4, np.nan, np.nan], rtol=1e-6)
    assert table.digests == (_photo(0).digest,)
    assert _photo(1).digest not in table
    assert len(table.of(_photo(1).digest)[1]) == 0
    assert table.kept(min_confidence=0.45).of(_photo(0).digest)[1].tolist() == [0.25, 1.0]
    assert table.kept(max_gap=0.3).of(_photo(0).digest)[1].tolist() == [0.25, 1.0]
    assert len(table.kept(min_distance=574)) == 1
    assert len(table.kept()) == 3


def test_table_against_dictionaries(tmp_path: Path) -> None:
    rows = _random(600)
    red = [q for q, a in rows if q.order == ORDERS[0] and a.flag == "ok" and q.photo.digest != _photo(3).digest]
    twice = [(Question(q.photo, q.first, q.second, q.modality, ORDERS[1]), Answer(0.5)) for q in red]
    _write(tmp_path / "s", rows)
    _write(tmp_path / "s", twice)
    store = Store.open(tmp_path / "s")
    said: dict[tuple[str, str, tuple[int, ...]], list[float]] = {}
    for q, a in (*rows, *twice):
        if a.flag == "ok":
            said.setdefault((q.modality, q.photo.digest, (*q.first, *q.second)), []).append(a.probability)
    assert {len(v) for v in said.values()} == {1, 2}
    seen = 0
    for modality in QUESTIONS.modalities:
        table = store.table(modality=modality)
        assert list(table.digests) == sorted(table.digests)
        for digest in table.digests:
            for (first, second), p in zip(*(v.tolist() for v in table.of(digest)), strict=True):
                assert p == pytest.approx(np.mean(said[modality, digest, (*first, *second)]), abs=1e-6)
                seen += 1
    assert seen == len(said)


def test_whose_answers(tmp_path: Path) -> None:
    _write(tmp_path / "s", [(_question(), Answer(0.9))])
    _write(tmp_path / "s", [(_question(), Answer(0.1))], JudgeInfo("other", "abc123"))
    store = Store.open(tmp_path / "s")
    with pytest.raises(UsageError, match=r"the store has answers of .*other \(abc123\)"):
        store.table(modality="depth")
    assert store.table(modality="depth", judge="other").probability.tolist() == [np.float32(0.1)]
    assert store.table(modality="depth", judge="rev").probability.tolist() == [np.float32(0.9)]
    with pytest.raises(UsageError, match="unknown judge"):
        store.table(modality="depth", judge="nobody")
    with pytest.raises(UsageError, match="no answers about albedo"):
        store.table(modality="albedo", judge="other")
    with pytest.raises(UsageError, match="did you mean 'depth'"):
        store.table(modality="dept")
    assert not store.verify().conflicts, "two judges may differ"


def test_wordings_are_not_mixed(tmp_path: Path) -> None:
    _write(tmp_path / "s", [(_question(), Answer(0.9))])
    file = tmp_path / "q.toml"
    file.write_text('[depth]\nquestion = "Q"\nprefix = "P"\nanswers = { red = " r", green = " g" }\n')
    other = read_questions(file)
    with Store.open(tmp_path / "s").writer(INFO, other) as writer:
        writer.append([_question()], [Answer(0.1)])
    store = Store.open(tmp_path / "s")
    assert len(store) == 2
    with pytest.raises(UsageError, match="in 2 wordings"):
        store.table(modality="depth")
    table = store.table(modality="depth", template=other["depth"].digest)
    assert table.probability.tolist() == [np.float32(0.1)]


def test_stats_by_hand(tmp_path: Path) -> None:
    green: Order = "green-first"
    _write(tmp_path / "s", [
        (_question(0), Answer(0.9, seconds=1)), (_question(0, order=green), Answer(0.75, seconds=1)),
        (_question(1), Answer(0.9)), (_question(1, order=green), Answer(0.25)),
        (_question(2), Answer(0.0)), (_question(2, order=green), Answer(NAN, "garbage")),
        (_question(2, first=(99, 99)), Answer(1.0)),
        (_question(0, modality="albedo"), Answer(0.5)),
    ])  # fmt: skip
    albedo, depth = Store.open(tmp_path / "s").stats()
    assert (albedo.modality, albedo.answers, albedo.order_agreement, albedo.both_orders) == ("albedo", 1, None, 0)
    assert (depth.answers, depth.photos, depth.pairs, depth.both_orders) == (7, 3, 4, 2)
    assert depth.flags == {"ok": 6, "refused": 0, "garbage": 1, "failed": 0}
    assert depth.order_agreement == 0.5
    assert depth.order_gap == pytest.approx((0.15 + 0.65) / 2, abs=1e-6)
    assert sum(depth.histogram) == 6
    assert (depth.histogram[0], depth.histogram[5], depth.histogram[15], depth.histogram[19]) == (1, 1, 1, 1)
    assert depth.seconds == 2


# joining


def test_merge_depends_on_the_answers_alone(tmp_path: Path) -> None:
    rows = _random(500)
    _write(tmp_path / "whole", rows)
    for k in rng(0, "order").permutation(8):
        _write(tmp_path / "parts", rows[k * 64 : k * 64 + 64])
    before = Store.open(tmp_path / "parts")
    names = []
    for source in ("whole", "parts"):
        written = merge([Store.open(tmp_path / source)], tmp_path / f"merged-{source}")
        names.append([p.name for p in written])
    assert names[0] == names[1]
    assert len(names[0]) == 1
    after = Store.open(tmp_path / "merged-parts")
    assert len(after) == len(before) == 500
    assert after.about.templates == before.about.templates
    assert all(_known(after, q) for q, _ in rows)
    sizes = [sum(p.stat().st_size for p in (tmp_path / f).iterdir()) for f in ("parts", "merged-parts")]
    assert sizes[1] < sizes[0] / 2


def test_merge_in_place_keeps_damaged_shards_and_runs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    folder = tmp_path / "s"
    shards = [_write(folder, _random(10, k)) for k in range(5)]
    shards[2].write_bytes(b"PAR1")
    assert run_cli(cli, ["judgements", "merge", str(folder)]) == 4
    assert shards[2].name in capsys.readouterr().err
    store = Store.open(folder)
    assert len(store.shards) == 1
    assert [d.path for d in store.damaged] == [shards[2]]
    assert len(store) == 40
    shards[2].unlink()
    assert run_cli(cli, ["judgements", "merge", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 40
    assert Store.open(folder).shards == store.shards, "what is joined already stays as it is"


def test_merge_of_several_into_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "a", _random(10, 0))
    _write(tmp_path / "b", _random(10, 1), JudgeInfo("other", "rev1"))
    out = tmp_path / "all"
    assert run_cli(cli, ["judgements", "merge", str(out), str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "20 answers, 1 shards written from 2" in capsys.readouterr().out
    assert Store.open(out).judges() == {"rev0": "judge", "rev1": "other"}
    assert len(Store.open(tmp_path / "a")) == 10
    assert json.loads((out / "meta.json").read_text())["judges"].keys() == {"rev0", "rev1"}


def test_shards_that_vanish_while_they_are_read_are_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    for k in range(3):
        _write(tmp_path / "s", _random(10, k))
    opened = Store.open(tmp_path / "s")
    times = []

    def racing(path: Path) -> object:
        times.append(path)
        if len(times) == 2:  # the first shard has been read, the others are about to vanish
            monkeypatch.undo()
            merge([opened], tmp_path / "s", remove=True)
            monkeypatch.setattr("reasonx_ft.annotation.judgements.read_shard", racing)
        return read_shard(path)

    monkeypatch.setattr("reasonx_ft.annotation.judgements.read_shard", racing)
    found = Store.open(tmp_path / "s")
    assert len(times) == 4
    assert not found.damaged
    assert len(found) == len(opened) == 30


def test_show_and_stats_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "s", _random(40))
    assert run_cli(cli, ["judgements", "show", str(tmp_path / "s"), "--json", "--limit", "1000"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 40
    assert sum(r["probability"] is None for r in rows) == sum(r["flag"] == "refused" for r in rows) == 6
    one = _photo(4)
    for name in (one.digest[:10], one.id):
        assert run_cli(cli, ["judgements", "show", str(tmp_path / "s"), "--photo", name, "--json"]) == 0
        assert {r["photo"] for r in json.loads(capsys.readouterr().out)} == {one.digest}
    assert run_cli(cli, ["judgements", "show", str(tmp_path / "s"), "--photo", "zz"]) == 2
    assert run_cli(cli, ["judgements", "show", str(tmp_path / "s"), "--modality", "albedo", "--judge", "judge"]) == 0
    assert run_cli(cli, ["judgements", "stats", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "refused" in out
    assert "40 answers in 1 shards" in out
    assert run_cli(cli, ["judgements", "stats", str(tmp_path / "none")]) == 2


# a store that heals


def test_a_shard_with_other_bytes_is_set_aside_and_written_anew(tmp_path: Path) -> None:
    rows = _random(20)
    path = _write(tmp_path, rows)
    sound = path.read_bytes()
    path.write_bytes(sound[:100])
    assert len(Store.open(tmp_path)) == 0
    assert _write(tmp_path, rows) == path
    assert path.read_bytes() == sound
    assert path.with_name(path.name + ".damaged").read_bytes() == sound[:100]
    healed = Store.open(tmp_path)
    assert len(healed) == 20
    assert healed.verify().sound


def test_merge_deletes_nothing_before_the_merged_shard_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [_write(tmp_path, _random(20, seed)) for seed in (0, 1)]

    def damaged(path: Path) -> Damaged:
        return Damaged(path, "cut short")

    store = Store.open(tmp_path)
    monkeypatch.setattr("reasonx_ft.annotation.judgements.read_shard", damaged)
    with pytest.raises(DataError, match="no source was deleted"):
        merge([store], tmp_path, remove=True)
    assert all(path.exists() for path in sources)


def test_merge_replaces_a_damaged_shard_of_the_merged_name(tmp_path: Path) -> None:
    sources = [_write(tmp_path, _random(20, seed)) for seed in (0, 1)]
    [merged] = merge([Store.open(tmp_path)], tmp_path)
    merged.write_bytes(merged.read_bytes()[:50])
    [again] = merge([Store.open(tmp_path)], tmp_path, remove=True)
    assert again == merged
    assert not any(path.exists() for path in sources)
    assert len(Store.open(tmp_path)) == 40


def test_verify_names_the_command_that_mends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, _random(20))
    path.write_bytes(path.read_bytes()[:-1])
    assert run_cli(cli, ["judgements", "verify", str(tmp_path)]) == 4
    out = capsys.readouterr().out
    assert f"damaged: {path.name}" in out
    assert f"annotate ... --out {tmp_path}" in out


@pytest.mark.parametrize("metadata", [
    "[]", "{}", '{"schema": {}}', '{"schema": 1, "templates": 1, "judges": {}}',
    '{"schema": 1, "templates": {"a": 1}, "judges": {}}', "[" * 1_000_000,
])  # fmt: skip
def test_metadata_of_another_form_is_a_damaged_shard(metadata: str, tmp_path: Path) -> None:
    table = pq.read_table(_write(tmp_path / "a", _random(5)), use_threads=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"reasonx.judgements": metadata}), buffer)
    path = tmp_path / f"answers-{hashlib.sha256(buffer.getvalue()).hexdigest()[:32]}.parquet"
    path.write_bytes(buffer.getvalue())
    assert isinstance(read_shard(path), Damaged)


def test_a_small_file_of_very_many_rows_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, _random(20))
    monkeypatch.setenv("REASONX_MAX_PARQUET_ROWS", "19")
    found = read_shard(path)
    assert isinstance(found, Damaged)
    assert "20 rows: more than the limit of 19" in found.reason


def test_a_judges_name_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, _random(8), JudgeInfo("evil\x1b]0;title\x07", "rev1", licence="none", trained_on=(), options={}))
    assert run_cli(cli, ["judgements", "stats", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
