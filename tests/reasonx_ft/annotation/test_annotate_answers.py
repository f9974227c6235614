"""Annotating by judges that answer badly: the exit code, the reasons and the warnings tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import PartialRun
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.annotate import Plan, Summary, annotate, raise_if_partial
from reasonx_ft.annotation.one_sided import OneSided
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.cli.main import cli
from reasonx_ft.types import Answer, Judge, JudgeInfo, Question
from tests.reasonx_ft.judges.fake_server import Reply, completion, modality_of, serving

NONE = float("nan")


class Saying(Judge):
    """Answers as a function of question and number."""

    batch_size = 16

    def __init__(self, says: Callable[[Question, int], Answer], problems: Mapping[str, int] | None = None) -> None:
        self._says, self._problems, self.n = says, problems or {}, 0

    @property
    def info(self) -> JudgeInfo:
        return JudgeInfo("saying", "1", reading="words")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.n += len(questions)
        return [self._says(q, self.n - len(questions) + k) for k, q in enumerate(questions)]

    def problems(self) -> Mapping[str, int]:
        return self._problems


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for k in range(3):
        image = rng(k, "p").integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{k}.png")
    return tmp_path / "photos"


def run(photos: Path, judge: Judge, pairs: int = 5) -> Summary:
    return annotate(open_photos(str(photos)), judge, photos.parent / "store", read_questions(), Plan(pairs=pairs))


@pytest.mark.parametrize(("flags", "partial"), [
    (["ok"], False),
    (["garbage"], True),
    (["refused"], True),  # nothing but refusals
    (["ok"] * 9 + ["garbage"], True),
    (["ok"] * 39 + ["garbage"], False),
    (["ok"] * 119 + ["failed"], True),  # asking again may mend it
    (["ok", "refused"], False),  # points without ground truth, say
])  # fmt: skip
def test_questions_without_an_answer_make_a_run_partial(photos: Path, flags: list[str], partial: bool) -> None:
    def says(q: Question, k: int) -> Answer:
        flag = flags[k % len(flags)]
        return Answer(0.7) if flag == "ok" else Answer(NONE, flag)  # type: ignore[arg-type]

    summary = run(photos, Saying(says, {"too short; try: -O max_tokens=9": 4}))
    assert (summary.asked, summary.reading) == (120, "words")
    if not partial:
        raise_if_partial(summary, photos)
        return
    with pytest.raises(PartialRun, match="questions have no answer") as caught:
        raise_if_partial(summary, photos)
    assert "4: too short; try: -O max_tokens=9" in str(caught.value)


def test_a_judge_that_answers_nothing_is_not_asked_on(photos: Path) -> None:
    judge = Saying(lambda q, k: Answer(NONE, "garbage"))
    summary = run(photos, judge, pairs=80)
    assert summary.hopeless
    assert summary.asked == judge.n < 300 < 3 * 80 * 8
    with pytest.raises(PartialRun, match="no more were asked"):
        raise_if_partial(summary, photos)
    again = run(photos, Saying(lambda q, k: Answer(0.6)), pairs=2)
    assert (again.known, again.unanswered) == (16, 16)


def test_a_judge_that_always_says_one_colour_is_warned_about(photos: Path) -> None:
    def says(q: Question, k: int) -> Answer:
        if q.modality == "albedo":
            return Answer(1.0)
        if q.modality == "normals":  # a sound one: the same point whatever its colour
            return Answer(float(q.first < q.second))
        red = q.modality == "depth"
        return Answer(float((q.order == "red-first") == red))

    warnings = run(photos, Saying(says), pairs=10).warnings
    assert [w.partition(":")[0] for w in warnings] == ["depth", "irradiance", "albedo"]
    assert "60 of 60 answers name red" in warnings[0]
    assert "60 of 60 answers name green" in warnings[1]
    assert "all 60 answers are yes" in warnings[2]


def test_few_or_undecided_answers_are_not_suspicious() -> None:
    counts = OneSided()
    counts.add("depth", np.zeros(11, np.int8), np.ones(11))
    counts.add("distance", np.zeros(19, np.int8), np.array([0.0] + [1.0] * 18))
    counts.add("normals", np.zeros(100, np.int8), np.full(100, 0.5))
    counts.add("irradiance", np.zeros(100, np.int8), np.full(100, np.nan))
    counts.add("albedo", np.zeros(100, np.int8), np.array([0.0] * 99 + [1.0]))
    assert counts.warnings() == []


def test_few_answers_to_each_question_are_looked_at_together() -> None:
    counts = OneSided()
    for modality in ("depth", "normals", "irradiance"):
        counts.add(modality, np.array([0, 1] * 3), np.array([1.0, 0.0] * 3))
    assert counts.warnings() == ["depth, normals, irradiance: 18 of 18 answers name red, whichever point is red: "
                                 "this judge doesn't look at the points"]  # fmt: skip


def cut_off(body: dict[str, object], number: int) -> Reply:
    return Reply(completion("Okay, the red point is closer, it receives more light. Yes", finish="length"))


def test_exit_6_with_the_setting_that_mends_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = photos.parent / "store"
    with serving(cut_off) as (url, _):
        line = ["annotate", str(photos), "--judge", f"server:{url}", "--out", str(store), "--pairs", "1", "-q"]
        assert run_cli(cli, line) == 6
    said = capsys.readouterr()
    assert "reading   words: an answer is 1 or 0" in said.out
    assert "24 of 24 questions have no answer (24 garbage)" in said.err
    assert "-O max_tokens=4096" in said.err
    [judge] = json.loads((store / "meta.json").read_text())["judges"].values()
    assert judge["options"]["reading"] == "text"


def test_a_name_with_escapes_steers_no_terminal_and_keys_stay_away(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("REASONX_API_KEY", key)
    store = photos.parent / "store"

    def says(body: dict[str, object], number: int) -> Reply:
        return Reply(completion("no" if modality_of(body) == "albedo" else "red"))

    with serving(says, models=(f"m \x1b]0;own\x07 Bearer {key}",)) as (url, seen):
        line = ["annotate", str(photos), "--judge", f"server:{url}", "--out", str(store), "--pairs", "1"]
        assert run_cli(cli, line) == 0
    assert key in str(seen.bodies[-1]["model"])  # the server gets the name that it gave
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "m \\x1b]0;own\\x07 Bearer ***" in said.out
    written = b"".join(p.read_bytes() for p in store.rglob("*") if p.is_file())
    assert key.encode() not in written
    assert b"\x1b]0" not in written


def test_names_of_photos_steer_no_terminal(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "a\x1b]0;own\x07.png").write_bytes(b"no picture")
    line = ["annotate", str(photos), "--judge", "tiny", "--out", str(photos.parent / "s"), "--pairs", "1", "-q"]
    assert run_cli(cli, line) == 6
    assert "a\\x1b]0;own\\x07.png" in (said := capsys.readouterr()).err
    assert run_cli(cli, ["annotate", "no\x1b[2Jfolder", *line[2:]]) == 2
    assert "no\\x1b[2Jfolder" in (wrong := capsys.readouterr()).err
    assert "\x1b" not in said.out + said.err + wrong.err
