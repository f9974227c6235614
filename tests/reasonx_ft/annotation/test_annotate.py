"""Annotating: what is asked, that nothing is asked twice, and that nothing that was written is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import PartialRun, UsageError
from reasonx_eval.io.seeding import rng, stream_seed
from reasonx_ft.annotation.annotate import Plan, annotate, raise_if_partial
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import Questions, read_questions
from reasonx_ft.cli.main import cli
from reasonx_ft.types import ORDERS, Answer, Flag, Judge, JudgeInfo, Question

QUESTIONS = read_questions()
PLAN = Plan(pairs=5, workers=1)


class Counting(Judge):
    """Answers a number keyed by the question, and remembers what it was asked."""

    def __init__(self, batch_size: int = 16, flags: Sequence[Flag] = ("ok",)) -> None:
        self.batch_size, self.flags = batch_size, flags
        self.batches: list[list[Question]] = []

    @property
    def info(self) -> JudgeInfo:
        return JudgeInfo("counting", "1")

    @property
    def asked(self) -> list[tuple[object, ...]]:
        return [key(q) for batch in self.batches for q in batch]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.batches.append(list(questions))
        return [self._answer(q) for q in questions]

    def _answer(self, q: Question) -> Answer:
        draw = stream_seed(0, *map(str, key(q)))
        flag = self.flags[draw % len(self.flags)]
        return Answer(draw / 2**128, seconds=0.001) if flag == "ok" else Answer(float("nan"), flag)


def key(q: Question) -> tuple[object, ...]:
    return q.photo.digest, q.first, q.second, q.modality, q.order


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for k in range(6):
        Image.fromarray(rng(k, "p").integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path / f"{k}.png")
    return path


def _run(folder: Path, judge: Judge, out: Path, plan: Plan = PLAN, questions: Questions = QUESTIONS, **more: object):  # type: ignore[no-untyped-def]
    return annotate(open_photos(str(folder), **more), judge, out, questions, plan)  # type: ignore[arg-type]


def test_every_question_once_and_the_four_of_a_picture_together(folder: Path, tmp_path: Path) -> None:
    judge = Counting(batch_size=10)
    summary = _run(folder, judge, tmp_path / "s")
    assert summary.asked == len(judge.asked) == 6 * 5 * 2 * 4
    assert len(set(judge.asked)) == len(judge.asked)
    for batch in judge.batches:
        assert len(batch) in (12, 4, 8), "whole pictures, at least ten questions but for the last"
        for k in range(0, len(batch), 4):
            picture = batch[k : k + 4]
            assert [q.modality for q in picture] == list(PLAN.modalities)
            assert len({(q.photo.digest, q.first, q.second, q.order) for q in picture}) == 1
    # a batch holds pictures of several photos
    assert any(len({q.photo.digest for q in batch}) > 1 for batch in judge.batches)
    store = Store.open(tmp_path / "s")
    assert len(store) == 240
    asked = [q for batch in judge.batches for q in batch]
    answers = {key(q): a.probability for q, a in zip(asked, Counting().ask(asked), strict=True)}
    c = store.columns
    for row in range(len(c)):
        m, order, _, _ = c.streams[c.stream[row]]
        x1, y1, x2, y2 = c.points[row].tolist()
        about = (c.photos[c.photo[row]].hex(), (x1, y1), (x2, y2), m, order)
        assert c.probability[row] == np.float32(answers[about])
    raise_if_partial(summary, tmp_path)


def test_the_same_run_again_asks_nothing_and_a_larger_one_the_rest(folder: Path, tmp_path: Path) -> None:
    first = Counting()
    _run(folder, first, tmp_path / "s", replace(PLAN, modalities=("depth", "albedo")))
    again = Counting()
    summary = _run(folder, again, tmp_path / "s", replace(PLAN, modalities=("depth", "albedo")))
    assert again.batches == []
    assert (summary.asked, summary.known) == (0, 120)
    more = Counting()
    summary = _run(folder, more, tmp_path / "s", replace(PLAN, pairs=7))
    assert summary.known == 120
    assert not set(more.asked) & set(first.asked)
    assert len(set(more.asked) | set(first.asked)) == 6 * 7 * 2 * 4


def test_shards_and_batches_change_no_answer(folder: Path, tmp_path: Path) -> None:
    _run(folder, Counting(), tmp_path / "one")
    for k in (1, 2, 3):
        _run(folder, Counting(batch_size=k), tmp_path / "three", shard=f"{k}/3")
    rows = []
    for name in ("one", "three"):
        table = Store.open(tmp_path / name).table(modality="normals")
        rows.append([(d, *(v.tolist() for v in table.of(d))) for d in table.digests])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("orders", "n"), [("both", 2), ("red-first", 1), ("random", 1)])
def test_orders(folder: Path, tmp_path: Path, orders: str, n: int) -> None:
    judge = Counting()
    _run(folder, judge, tmp_path / "s", replace(PLAN, pairs=20, orders=orders))  # type: ignore[arg-type]
    by_pair = Counter(k[:4] for k in judge.asked)
    assert set(by_pair.values()) == {n}
    used = Counter(k[4] for k in judge.asked)
    if orders == "red-first":
        assert set(used) == {"red-first"}
    else:
        assert set(used) == set(ORDERS)
        assert abs(used["red-first"] - used["green-first"]) < 0.4 * len(judge.asked)


def test_another_wording_is_another_question(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "q.toml"
    file.write_text('[depth]\nquestion = "Q"\nprefix = "P"\nanswers = { red = " r", green = " g" }\n')
    plan = replace(PLAN, modalities=("depth",))
    _run(folder, Counting(), tmp_path / "s", plan)
    judge = Counting()
    _run(folder, judge, tmp_path / "s", plan, read_questions(file))
    assert len(judge.asked) == 60
    with pytest.raises(UsageError, match="unknown modality 'normals'"):
        _run(folder, Counting(), tmp_path / "s", PLAN, read_questions(file))


def test_answers_that_are_none_are_asked_again_only_on_request(folder: Path, tmp_path: Path) -> None:
    summary = _run(folder, Counting(flags=("ok", "failed", "refused")), tmp_path / "s")
    lost = summary.flags["failed"] + summary.flags["refused"]
    assert 0 < lost < summary.asked
    assert _run(folder, Counting(), tmp_path / "s").asked == 0
    assert _run(folder, Counting(), tmp_path / "s", replace(PLAN, retry=True)).asked == lost
    store = Store.open(tmp_path / "s")
    assert not np.isnan(store.columns.probability).any()
    assert store.verify().sound


def test_one_photo_in_several_files_is_asked_about_once(folder: Path, tmp_path: Path) -> None:
    for name in ("copy.png", "a.png"):
        (folder / name).write_bytes((folder / "3.png").read_bytes())
    judge = Counting()
    summary = _run(folder, judge, tmp_path / "s")
    assert (summary.photos, summary.repeated) == (6, 2)
    assert len(judge.asked) == len(set(judge.asked)) == 240


def test_unreadable_photos_are_reported_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:100])
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    summary = _run(folder, Counting(), tmp_path / "s")
    assert summary.photos == 5
    assert set(summary.unreadable) == {"2.png", "one.png"}
    with pytest.raises(PartialRun, match="2 of 7 photos"):
        raise_if_partial(summary, tmp_path)


def test_a_damaged_shard_is_asked_again(folder: Path, tmp_path: Path) -> None:
    _run(folder, Counting(), tmp_path / "s", replace(PLAN, rows=100))
    shards = Store.open(tmp_path / "s").shards
    shards[0].write_bytes(shards[0].read_bytes()[:-1])
    lost = 240 - len(Store.open(tmp_path / "s"))
    summary = _run(folder, Counting(), tmp_path / "s")
    assert summary.asked == lost > 0
    assert shards[0].name in summary.damaged[0]


def test_a_judge_that_breaks_keeps_what_it_said(folder: Path, tmp_path: Path) -> None:
    class Breaks(Counting):
        def ask(self, questions: Sequence[Question]) -> list[Answer]:
            if len(self.batches) == 3:
                raise UsageError("the server is gone")
            return super().ask(questions)

    judge = Breaks()
    with pytest.raises(UsageError, match="the server is gone"):
        _run(folder, judge, tmp_path / "s")
    assert len(Store.open(tmp_path / "s")) == 48
    rest = Counting()
    _run(folder, rest, tmp_path / "s")
    assert not set(rest.asked) & set(judge.asked)
    assert len(set(rest.asked) | set(judge.asked)) == 240


def test_a_judge_that_gives_too_few_answers(folder: Path, tmp_path: Path) -> None:
    class Short(Counting):
        def ask(self, questions: Sequence[Question]) -> list[Answer]:
            return super().ask(questions)[1:]

    with pytest.raises(UsageError, match="16 questions, 15 answers"):
        _run(folder, Short(), tmp_path / "s")
    assert len(Store.open(tmp_path / "s")) == 0


# the command

JUDGE = """
import os, time
from reasonx_ft.types import Answer, Judge, JudgeInfo
from reasonx_eval.io.seeding import stream_seed
class Logged(Judge):
    batch_size = 4
    def __init__(self, log: str, pause: float = 0.01):
        self.log, self.pause = open(log, "a"), pause
    @property
    def info(self): return JudgeInfo("logged", "1")
    def ask(self, questions):
        for q in questions:
            self.log.write(repr((q.photo.digest, q.first, q.second, q.modality, q.order)) + "\\n")
        self.log.flush()
        time.sleep(self.pause)
        return [Answer(stream_seed(0, q.photo.digest, q.modality, str(q.first)) / 2**128) for q in questions]
    def close(self): self.log.close()
"""


def _command(tmp_path: Path, folder: Path, *more: str) -> list[str]:
    (tmp_path / "judge.py").write_text(JUDGE)
    return [sys.executable, "-m", "reasonx_ft.cli.main", "annotate", str(folder), "--judge",
            f"{tmp_path / 'judge.py'}:Logged", "-O", f"log={tmp_path / 'log'}", "--pairs", "10",
            "--out", str(tmp_path / "s"), *more]  # fmt: skip


def _stored(store: Path) -> set[str]:
    c = Store.open(store).columns
    found = set()
    for row in range(len(c)):
        m, order, _, _ = c.streams[c.stream[row]]
        x1, y1, x2, y2 = c.points[row].tolist()
        found.add(repr((c.photos[c.photo[row]].hex(), (x1, y1), (x2, y2), m, order)))
    return found


def _until(process: subprocess.Popen[bytes], store: Path, shards: int) -> None:
    while process.poll() is None and (not store.is_dir() or len(list(store.glob("answers-*"))) < shards):
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_resumed_nothing_written_is_asked_again(folder: Path, tmp_path: Path) -> None:
    log, store = tmp_path / "log", tmp_path / "s"
    draw = random.Random(0)
    written: set[str] = set()
    for kill in range(3):
        began = len(log.read_text().splitlines()) if log.is_file() else 0
        have = len(list(store.glob("answers-*"))) if store.is_dir() else 0
        with subprocess.Popen(_command(tmp_path, folder, "--flush-seconds", "0.1"), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:  # fmt: skip
            _until(process, store, have + 2)
            time.sleep(draw.uniform(0, 0.1))
            assert process.poll() is None, f"ended before kill {kill}"
            os.kill(process.pid, signal.SIGKILL)
        asked = log.read_text().splitlines()[began:]
        assert not written & set(asked), "what was in a shard was asked again"
        assert len(asked) == len(set(asked)), "asked twice within a run"
        now = _stored(store)
        assert now > written, "what was in a shard was lost"
        assert now <= set(log.read_text().splitlines())
        written = now
    began = len(log.read_text().splitlines())
    last = subprocess.run(_command(tmp_path, folder, "-O", "pause=0", "--json"), capture_output=True, check=False)
    assert last.returncode == 0, last.stderr.decode()
    lines = log.read_text().splitlines()
    assert set(lines[began:]) == _stored(store) - written
    assert len(_stored(store)) == 6 * 10 * 2 * 4
    summary = json.loads(last.stdout)
    assert (summary["known"], summary["asked"]) == (len(written), 480 - len(written))
    assert Store.open(store).verify().sound


@pytest.mark.slow
def test_ctrl_c_writes_what_waits(folder: Path, tmp_path: Path) -> None:
    log, store = tmp_path / "log", tmp_path / "s"
    with subprocess.Popen(_command(tmp_path, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (log.is_file() and len(log.read_text().splitlines()) > 20):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 6, err.decode()
    assert b"goes on from there" in err
    assert b"asked" in out
    assert b"Traceback" not in err
    assert _stored(store) == set(log.read_text().splitlines())


def test_on_the_command_line_with_the_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["annotate", "dataset:scenes-wild/train", "--judge", "oracle", "--limit", "3", "--pairs", "8",
                 "--out", str(tmp_path / "s"), "-O", "preset=perfect"]  # fmt: skip
    assert run_cli(cli, [*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["asked"], summary["known"], summary["photos"], summary["judge"]) == (192, 0, 3, "oracle")
    assert run_cli(cli, arguments) == 0
    assert "192 had been asked before" in capsys.readouterr().out
    for stats in Store.open(tmp_path / "s").stats():
        assert stats.order_agreement == 1.0
        assert stats.pairs == 24
    store = Store.open(tmp_path / "s")
    assert store.table(modality="depth").digests == store.table(modality="albedo").digests


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--judge", "orakle"], 2, "did you mean 'oracle'"),
    (["--judge", "oracle"], 2, "dataset:NAME instead of a folder"),
    (["--judge", "oracle", "--modalities", "depth,norm"], 2, "unknown modality 'norm'"),
    (["--judge", "oracle", "--modalities", ","], 2, "at least one"),
    (["--judge", "oracle", "--modalities", "depth,depth"], 2, "each once"),
    (["--judge", "oracle", "--pairs", "0"], 2, "--pairs is 0"),
    (["--judge", "oracle", "--shard", "9/9"], 2, "empty"),
    (["--judge", "oracle", "--questions", "none.toml"], 2, "no such file"),
    (["--judge", "oracle", "--dataset-option", "a=1"], 2, "are for dataset:NAME"),
])  # fmt: skip
def test_wrong_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
                        code: int, message: str) -> None:  # fmt: skip
    assert run_cli(cli, ["annotate", str(folder), "--out", str(tmp_path / "s"), *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_store_that_is_a_file_or_full_of_photos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["annotate", "dataset:scenes-wild", "--judge", "oracle", "--limit", "1", "--out"]
    for out in (folder, folder / "1.png"):
        assert run_cli(cli, [*arguments, str(out)]) == 2
    err = capsys.readouterr().err
    assert "not a judgement store" in err
    assert "a file, not a folder" in err


def test_exit_code_6_names_the_photo(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "2.png").write_bytes(b"")
    (tmp_path / "judge.py").write_text(JUDGE)
    judge, log = f"{tmp_path / 'judge.py'}:Logged", f"log={tmp_path / 'log'}"
    assert run_cli(cli, ["annotate", str(folder), "--out", str(tmp_path / "s"), "--judge", judge, "-O", log,
                         "-O", "pause=0", "--pairs", "2"]) == 6  # fmt: skip
    err = capsys.readouterr().err
    assert "left out" in err
    assert "2.png: file is empty" in err
    assert "1 of 6 photos" in err


def test_the_function_asks_what_the_command_asks(folder: Path, tmp_path: Path) -> None:
    from reasonx_ft import annotate as public

    arguments = ["annotate", str(folder), "--judge", "tiny", "--pairs", "3", "--modalities", "depth,albedo", "-q"]
    assert run_cli(cli, [*arguments, "--orders", "random", "--seed", "4", "--out", str(tmp_path / "command")]) == 0
    settings = {"pairs": 3, "modalities": ("depth", "albedo"), "orders": "random", "seed": 4}
    summary = public(str(folder), "tiny", tmp_path / "function", **settings)  # type: ignore[arg-type]
    assert (summary.judge, summary.photos, summary.asked) == ("tiny", 6, 36)
    assert _stored(tmp_path / "function") == _stored(tmp_path / "command") != set()
    assert public(open_photos(str(folder)), "tiny", tmp_path / "function", **settings).known == 36  # type: ignore[arg-type]


def test_the_function_takes_an_object_as_judge(folder: Path, tmp_path: Path) -> None:
    from reasonx_ft import annotate as public

    judge = Counting()
    assert public(folder, judge, tmp_path / "s", pairs=2, limit=1).asked == len(judge.asked) == 16


@pytest.mark.parametrize(("wrong", "message"), [
    ({"modalities": ("depht",)}, "did you mean 'depth'"), ({"pairs": 0}, "needs 1 or more"),
    ({"judge": "tinny"}, "did you mean 'tiny'"), ({"limit": 0}, "limit"),
])  # fmt: skip
def test_wrong_arguments_of_the_function(folder: Path, tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    from reasonx_ft import annotate as public

    with pytest.raises(UsageError, match=message):
        public(**{"photos": folder, "judge": "tiny", "out": tmp_path / "s", **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys, reasonx_ft.cli.main as m\n"
            "for a in ([], ['annotate'], ['judgements'], ['judgements', 'merge']):\n"
            "    m.cli.main([*a, '--help'], standalone_mode=False)\n"
            "print(sorted({'torch', 'matplotlib', 'pyarrow', 'transformers'} & set(sys.modules)))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
