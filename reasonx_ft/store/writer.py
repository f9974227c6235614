"""Answers on their way into shards: buffered, and written before much can be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np

from reasonx_eval.errors import UsageError
from reasonx_ft.judges.base import Answer, JudgeInfo, Question
from reasonx_ft.questions import Questions
from reasonx_ft.store.meta import update_meta
from reasonx_ft.store.schema import FLAGS, Columns
from reasonx_ft.store.shards import About, write_shard

ROWS = 50_000
SECONDS = 20.0

_FLAG = {flag: k for k, flag in enumerate(FLAGS)}


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
        self._waiting: list[tuple[Question, Answer]] = []
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
        if len(questions) != len(answers):
            raise UsageError(f"{len(questions)} questions, {len(answers)} answers: the judge is broken",
                             where=f"judge {self._revision}")  # fmt: skip
        if not self._waiting:
            self._since = self._clock()
        self._waiting += zip(questions, answers, strict=True)
        if len(self._waiting) >= self._rows or self._clock() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self.shards.append(write_shard(self.folder, self._columns(), self.about))
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

    def _columns(self) -> Columns:
        n, questions = len(self._waiting), [q for q, _ in self._waiting]
        names: dict[str, str] = {}  # by digest, the first that a photo has
        asked: dict[tuple[str, str], int] = {}  # modality and order, numbered as they come
        for q in questions:
            names.setdefault(q.photo.digest, q.photo.id)
        photos = {digest: k for k, digest in enumerate(names)}
        stream = [asked.setdefault((q.modality, q.order), len(asked)) for q in questions]
        # one array of all numbers at once: setting rows of an array one by one takes several times as long
        points = np.fromiter(chain.from_iterable((*q.first, *q.second) for q in questions), np.int16, 4 * n)
        answers = [a for _, a in self._waiting]
        return Columns(
            photos=tuple(bytes.fromhex(d) for d in photos),
            names=tuple(names.values()),
            streams=tuple((m, order, self._templates[m], self._revision) for m, order in asked),
            photo=np.array([photos[q.photo.digest] for q in questions], np.int32),
            stream=np.array(stream, np.int32),
            points=points.reshape(n, 4),
            probability=np.array([a.probability for a in answers], np.float32),
            flag=np.array([_FLAG[a.flag] for a in answers], np.int8),
            seconds=np.array([a.seconds for a in answers], np.float32),
        )


def about_of(info: JudgeInfo, questions: Questions) -> About:
    """What a shard says about its judge and wording."""
    judge = {"name": info.name, "licence": info.licence, "parameters": info.parameters,
             "trained_on": list(info.trained_on), "options": dict(info.options), "notes": list(info.notes)}  # fmt: skip
    return About({t.digest: t.document() for t in questions.templates.values()}, {info.revision: judge})
