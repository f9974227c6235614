"""Questions as columns: they are those of single questions, and judges and the store give the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.annotate import Plan, annotate
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import MODALITIES, read_questions
from reasonx_ft.judges.tiny import TinyJudge
from reasonx_ft.types import (
    FLAGS,
    Answer,
    AnswerBatch,
    Judge,
    JudgeInfo,
    Photo,
    Question,
    QuestionBatch,
    photo_digest,
)

INFO = JudgeInfo("some", "r1")


def _batch(k: int, rows: int = 300, modalities: tuple[str, ...] = MODALITIES) -> QuestionBatch:
    """Any questions about a photo, some of them more than once, pairs in no order."""
    draw = rng(k, "batch")
    image = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return QuestionBatch(Photo(f"{k}.png", image, photo_digest(image)),
                 draw.integers(0, 512, (90, 2, 2)).astype(np.int16),
                 modalities, draw.integers(0, 90, rows).astype(np.int32),
                 draw.integers(0, len(modalities), rows).astype(np.int8),
                 draw.integers(0, 2, rows).astype(np.int8))  # fmt: skip


def test_rows_are_questions() -> None:
    pairs = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.int16)
    batch = QuestionBatch(_batch(0).photo, pairs, ("albedo", "depth"), np.array([1, 0, 1], np.int32),
                  np.array([0, 1, 1], np.int8), np.array([1, 0, 0], np.int8))  # fmt: skip
    expected = [Question(batch.photo, (5, 6), (7, 8), "albedo", "green-first"),
                Question(batch.photo, (1, 2), (3, 4), "depth", "red-first"),
                Question(batch.photo, (5, 6), (7, 8), "depth", "red-first")]  # fmt: skip
    assert batch.questions() == expected
    assert batch.part(slice(1, None)).questions() == expected[1:]
    assert batch.part(np.array([True, False, True])).questions() == expected[::2]
    assert len(batch.part(slice(0, 0))) == 0


def test_columns_of_answers_are_checked_as_single_ones_are() -> None:
    answers = [Answer(0.25, seconds=2.0), Answer(float("nan"), "refused"), Answer(1.0)]
    batch = AnswerBatch.of(answers)
    assert [FLAGS[k] for k in batch.flag] == ["ok", "refused", "ok"]
    np.testing.assert_array_equal(batch.probability, [0.25, np.nan, 1.0])
    assert batch.seconds.tolist() == [2.0, 0.0, 0.0]
    assert len(AnswerBatch.of([])) == 0
    for p, flag, message in ((np.nan, 0, "says why not"), (0.5, 1, "says why not"), (1.5, 0, "1.5 is not"),
                             (-0.5, 0, "-0.5 is not")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            AnswerBatch(np.array([0.5, p]), np.array([0, flag], np.int8), np.zeros(2))


class Single(Judge):
    """A judge that knows single questions only, as most do; another's answers."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self.batch_size = judge, judge.batch_size

    @property
    def info(self) -> JudgeInfo:
        return self._judge.info

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return self._judge.ask(questions)


def test_the_small_judge_answers_columns_as_it_answers_questions() -> None:
    batches = [_batch(0), _batch(1, 7, ("normals",)), _batch(2, 0), _batch(3, 65, ("albedo", "depth"))]
    judge = TinyJudge(threads=2)
    found, expected = judge.answer(batches), Single(TinyJudge(threads=1)).answer(batches)
    assert len(found) == 372
    for name in ("probability", "flag", "seconds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(judge.answer([])) == 0


def test_a_network_that_gives_nothing_fails_in_columns_too() -> None:
    judge = TinyJudge(threads=1)
    judge.network.place.data[:] = float("nan")
    batch = _batch(0, 5)
    assert {FLAGS[k] for k in judge.answer([batch]).flag} == {"failed"}
    assert {a.flag for a in judge.ask(batch.questions())} == {"failed"}


def _random_answers(n: int) -> AnswerBatch:
    draw = rng(0, "given")
    flag = draw.integers(0, len(FLAGS), n).astype(np.int8)
    return AnswerBatch(np.where(flag == 0, draw.random(n), np.nan), flag, draw.random(n))


def test_the_store_keeps_columns_as_it_keeps_questions(tmp_path: Path) -> None:
    """The same bytes: photos, streams and their numbers don't tell how answers came."""
    # one photo comes twice, under another name the second time
    again = _batch(0, 40)
    renamed = QuestionBatch(Photo("again.png", again.photo.image, again.photo.digest), again.pairs, again.modalities,
                    again.pair, again.modality, again.order)  # fmt: skip
    batches = [_batch(0), _batch(1, 7, ("normals",)), _batch(2, 0), renamed, _batch(3, 65, ("albedo", "depth"))]
    given = _random_answers(412)
    answers = [Answer(p, FLAGS[f], s) for p, f, s in zip(given.probability.tolist(), given.flag.tolist(),
                                                         given.seconds.tolist(), strict=True)]  # fmt: skip
    with Store.open(tmp_path / "columns", create=True).writer(INFO, read_questions()) as writer:
        writer.add(batches[:2], AnswerBatch.of(answers[:307]))
        writer.add(batches[2:], AnswerBatch.of(answers[307:]))
        writer.add([], AnswerBatch.of([]))
    with Store.open(tmp_path / "single", create=True).writer(INFO, read_questions()) as writer:
        writer.append([q for batch in batches for q in batch.questions()], answers)
    found, expected = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("columns", "single"))
    assert found == expected
    assert len(found) == 2
    assert Store.open(tmp_path / "columns").columns.names == ("0.png", "1.png", "3.png")


def test_columns_and_single_questions_fill_the_same_shards(tmp_path: Path) -> None:
    """Pairs, orders and batches too: the run that makes no object of a question writes what one that does would."""
    for k in range(4):
        image = rng(k, "photo").integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    for orders in ("both", "random", "red-first"):
        plan = Plan(pairs=13, modalities=("albedo", "depth", "normals"), orders=orders, rows=100)
        written = []
        for name, judge in (("columns", TinyJudge()), ("single", Single(TinyJudge()))):
            judge.batch_size = 50
            out = tmp_path / orders / name
            annotate(open_photos(str(tmp_path / "0.png")), judge, out, read_questions(), plan)
            for path in sorted(tmp_path.glob("*.png")):
                annotate(open_photos(str(path)), judge, out, read_questions(), plan)
            written.append({p.name: p.read_bytes() for p in out.iterdir()})
        assert written[0] == written[1]


def test_more_answers_than_questions_are_refused(tmp_path: Path) -> None:
    writer = Store.open(tmp_path / "s", create=True).writer(INFO, read_questions())
    with pytest.raises(UsageError, match="7 questions, 8 answers: the judge is broken"), writer:
        writer.add([_batch(0, 7)], _random_answers(8))
    assert len(Store.open(tmp_path / "s")) == 0
