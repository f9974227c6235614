"""Answers on their way into shards: buffered, and written before much can be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.annotation.store.meta import update_meta
from reasonx_ft.annotation.store.schema import Columns, concatenate
from reasonx_ft.annotation.store.shards import About, write_shard
from reasonx_ft.types import ORDERS, Answer, AnswerBatch, JudgeInfo, Question, QuestionBatch

ROWS = 50_000
SECONDS = 20.0


class Writer:
    """Collects one judge's answers and writes them as shards.

    A shard is written as soon as `rows` answers wait, or the oldest of them has waited `seconds` when more arrive, and
    on `flush`, `close` and leaving the ``with`` block, by an exception too. A process that is killed loses no more than
    what waits; what is in a shard is safe.

    Parameters
    ----------
    folder : of the store
    info : who answers; the revision becomes part of every key
    questions : the wording that was asked

    Raises
    ------
    UsageError
        The folder can't be written to.
    """

    def __init__(
        self, folder: Path, info: JudgeInfo, questions: Questions, *, rows: int = ROWS, seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.about = about_of(info, questions)
        self._revision = info.revision
        self._templates = {m: t.digest for m, t in questions.templates.items()}
        self._rows, self._seconds, self._clock = rows, seconds, clock
        self._waiting: list[Columns] = []
        self._since = 0.0
        self.shards: list[Path] = []
        try:
            update_meta(folder, self.about)
        except OSError as error:
            raise UsageError(f"can't be written to: {error.strerror or error}", where=str(folder)) from None

    def append(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        """Take answers, one a question.

        Raises
        ------
        UsageError
            Another number of answers than of questions: the judge is broken, and nothing of it is kept.
        OSError
            A shard can't be written; the answers keep waiting.
        """
        self._check(len(questions), len(answers))
        self._take([self._of_questions(questions, AnswerBatch.of(answers))] if questions else [])

    def add(self, batches: Sequence[QuestionBatch], answers: AnswerBatch) -> None:
        """Take answers, one a row of the batches, one batch after another; raises what `append` raises."""
        self._check(sum(map(len, batches)), len(answers))
        ends = np.cumsum([len(batch) for batch in batches]).tolist()
        self._take([self._of_batch(batch, answers, slice(end - len(batch), end))
                    for batch, end in zip(batches, ends, strict=True) if len(batch)])  # fmt: skip

    def _check(self, questions: int, answers: int) -> None:
        if questions != answers:
            raise UsageError(f"{questions} questions, {answers} answers: the judge is broken",
                             where=f"judge {self._revision}")  # fmt: skip

    def _take(self, parts: Sequence[Columns]) -> None:
        if not self._waiting:
            self._since = self._clock()
        self._waiting += parts
        if sum(map(len, self._waiting)) >= self._rows or self._clock() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            # photos and streams in the order of their first rows, whatever was asked in one go
            columns = concatenate(self._waiting).compact()
            self.shards.append(write_shard(self.folder, columns, self.about))
            self._waiting = []

    def close(self) -> None:
        """Write what waits, and say in meta.json what there is."""
        self.flush()
        update_meta(self.folder, self.about)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(self, modality: str, order: str) -> tuple[str, str, str, str]:
        return modality, order, self._templates[modality], self._revision

    def _of_batch(self, batch: QuestionBatch, answers: AnswerBatch, rows: slice) -> Columns:
        return Columns(
            photos=(bytes.fromhex(batch.photo.digest),),
            names=(batch.photo.id,),
            streams=tuple(self._stream(m, o) for m in batch.modalities for o in ORDERS),
            photo=np.zeros(len(batch), np.int32),
            stream=batch.modality.astype(np.int32) * len(ORDERS) + batch.order,
            points=batch.pairs.reshape(-1, 4)[batch.pair],
            probability=answers.probability[rows].astype(np.float32),
            flag=answers.flag[rows],
            seconds=answers.seconds[rows].astype(np.float32),
        )

    def _of_questions(self, questions: Sequence[Question], answers: AnswerBatch) -> Columns:
        names: dict[str, str] = {}  # by digest, the first that a photo has
        asked: dict[tuple[str, str], int] = {}  # modality and order, numbered as they come
        for q in questions:
            names.setdefault(q.photo.digest, q.photo.id)
        photos = {digest: k for k, digest in enumerate(names)}
        stream = [asked.setdefault((q.modality, q.order), len(asked)) for q in questions]
        # one array of all numbers at once: setting rows of an array one by one takes several times as long
        points = np.fromiter(chain.from_iterable((*q.first, *q.second) for q in questions), np.int16)
        return Columns(
            photos=tuple(bytes.fromhex(d) for d in photos),
            names=tuple(names.values()),
            streams=tuple(self._stream(m, o) for m, o in asked),
            photo=np.array([photos[q.photo.digest] for q in questions], np.int32),
            stream=np.array(stream, np.int32),
            points=points.reshape(-1, 4),
            probability=answers.probability.astype(np.float32),
            flag=answers.flag,
            seconds=answers.seconds.astype(np.float32),
        )


def about_of(info: JudgeInfo, questions: Questions) -> About:
    """What a shard says about its judge and wording."""
    judge = {"name": info.name, "licence": info.licence, "parameters": info.parameters,
             "trained_on": list(info.trained_on), "options": dict(info.options), "notes": list(info.notes)}  # fmt: skip
    return About({t.digest: t.document() for t in questions.templates.values()}, {info.revision: judge})
