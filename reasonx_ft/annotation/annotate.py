"""Ask a judge about many photos and keep the answers: photos -> pairs -> questions -> judge -> store.

What is in a shard of the store is never asked again; the guarantee in full:

- a question whose key is in the store when the run begins is not asked, and within a run none is asked twice, also
  where one photo lies in several files;
- an answer that the judge gave is in a shard at the latest when `rows` answers wait, or with the first batch that
  arrives `seconds` after the oldest waiting one, or when the run ends, by an exception or Ctrl-C too;
- so kill -9 loses at most what waits and the batch under way; those are asked again, nothing else;
- two processes see each other's answers when they start, not while they run: give each its own `shard`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import PartialRun, SampleError, UsageError
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.markers import canonical
from reasonx_ft.annotation.one_sided import OneSided
from reasonx_ft.annotation.pairs import Sampler, draw_orders, sample_pairs
from reasonx_ft.annotation.photos import Photos
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.annotation.store.writer import ROWS, SECONDS
from reasonx_ft.training.interrupts import interrupts
from reasonx_ft.training.prefetch import ahead
from reasonx_ft.types import FLAGS, ORDERS, AnswerBatch, Judge, Photo, QuestionBatch

AskedOrders: TypeAlias = Literal["both", "red-first", "random"]

#: share of questions without an answer that is no failure: some models now and then say something else
_FEW: Final = 0.05
#: after so many questions without one answer no more are asked
_HOPELESS: Final = 256

#: (answers so far, answers in all, photos that can't be read)
Progress: TypeAlias = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is asked about each photo.

    pairs : pairs of points a photo
    modalities : of which the questions are
    orders : both colour orders of each pair, one, or one drawn at random
    sampler, seed : of the pairs (`reasonx_ft.annotation.pairs`)
    retry : ask again what was answered without a probability
    rows, seconds : how many answers may wait for a shard, and how long
    workers : threads that read photos ahead
    """

    pairs: int = 40
    modalities: tuple[str, ...] = ("depth", "normals", "irradiance", "albedo")
    orders: AskedOrders = "both"
    sampler: Sampler = "stratified"
    seed: int = 0
    retry: bool = False
    rows: int = ROWS
    seconds: float = SECONDS
    workers: int = 2

    def per_photo(self) -> int:
        """Questions about one photo."""
        return self.pairs * len(self.modalities) * (2 if self.orders == "both" else 1)

    def check(self, questions: Questions) -> None:
        """Raise UsageError for a value out of range, or a modality without a question."""
        if self.pairs < 1:
            raise UsageError(f"--pairs is {self.pairs}; needs 1 or more")
        for modality in self.modalities:
            _ = questions[modality]
        if len(set(self.modalities)) != len(self.modalities) or not self.modalities:
            raise UsageError(f"modalities {', '.join(self.modalities) or 'none'}: each once, and at least one")


@dataclass
class Summary:
    """What a run did.

    judge, revision : the judge's name, and the digest that its answers are stored under
    photos : seen, each once; repeated : further files with the pixels of one seen before
    unreadable : name -> why
    known : questions that had been asked before; unanswered : those of them without an answer
    asked : questions put to the judge; flags : what became of them
    reading : how the judge's answers are read: log-probabilities or words
    problems : why questions have no answer, with the setting that mends it -> how many, as far as the judge knows
    warnings : what is suspicious about the answers
    hopeless : it was stopped because none of the first questions was answered
    damaged : shards of the store that can't be used; what they held was asked again
    interrupted : it was stopped; the same call goes on
    """

    judge: str = ""
    revision: str = ""
    photos: int = 0
    repeated: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    known: int = 0
    unanswered: int = 0
    asked: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    reading: str | None = None
    problems: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    shards: int = 0
    seconds: float = 0.0
    damaged: list[str] = field(default_factory=list)
    interrupted: bool = False
    hopeless: bool = False

    @property
    def lost(self) -> int:
        """Questions of this run that have no answer; a refusal is one, unless there is nothing else."""
        refused = self.flags.get("refused", 0) if self.flags.get("ok") else 0
        return self.asked - self.flags.get("ok", 0) - refused


def annotate(
    photos: Photos, judge: Judge, folder: Path, questions: Questions, plan: Plan, progress: Progress | None = None
) -> Summary:  # fmt: skip
    """Ask everything about the photos that the store in `folder` has no answer to.

    The judge gets whole pictures: the questions about one pair in one colour order stay in one batch, in the order of
    `plan.modalities`, and a batch holds at least `judge.batch_size` questions, unless nothing is left. The next batch
    is made ready while the judge works on one.

    Raises
    ------
    UsageError
        A folder that is no store or can't be written to, a modality without a question, a judge that gives another
        number of answers.
    """
    plan.check(questions)
    store = Store.open(folder, create=True)
    info = judge.info
    summary = Summary(info.name, info.revision, damaged=[f"{d.path}: {d.reason}" for d in store.damaged],
                      reading=info.reading)  # fmt: skip
    began = time.monotonic()
    total = len(photos) * plan.per_photo()
    asker = _Asker(store, judge, questions, plan, summary)
    calls = ahead(_calls(asker.question_batches(photos), max(judge.batch_size, 1)))
    sides = OneSided()
    with interrupts() as stop, store.writer(info, questions, rows=plan.rows, seconds=plan.seconds) as writer, \
            closing(calls):  # fmt: skip
        for batches, answers in judge.answers(calls):
            writer.add(batches, answers)
            _count(batches, answers, summary, sides)
            if progress is not None:
                skipped = (len(summary.unreadable) + summary.repeated) * plan.per_photo()
                progress(summary.asked, total - skipped - summary.known, len(summary.unreadable))
            summary.hopeless = summary.asked >= _HOPELESS and not {"ok", "refused"} & summary.flags.keys()
            if stop.is_set() or summary.hopeless:
                summary.interrupted = stop.is_set()
                break
    summary.problems, summary.warnings = dict(judge.problems()), sides.warnings()
    summary.shards, summary.seconds = len(writer.shards), time.monotonic() - began
    return summary


def _count(batches: Sequence[QuestionBatch], answers: AnswerBatch, summary: Summary, sides: OneSided) -> None:
    summary.asked += len(answers)
    for flag in dict.fromkeys(answers.flag.tolist()):  # in the order in which they come
        summary.flags[FLAGS[flag]] = summary.flags.get(FLAGS[flag], 0) + int(np.count_nonzero(answers.flag == flag))
    start = 0
    for batch in batches:
        probability = answers.probability[start : start + len(batch)]
        start += len(batch)
        for k, modality in enumerate(batch.modalities):
            rows = batch.modality == k
            sides.add(modality, batch.order[rows], probability[rows])


def _calls(batches: Iterator[QuestionBatch], size: int) -> Iterator[list[QuestionBatch]]:
    """Pictures together until they hold `size` questions; a picture is all that is asked of a pair in one order."""
    waiting: list[QuestionBatch] = []
    n = 0
    for batch in batches:
        start, ends = 0, _ends_of_pictures(batch)
        while True:
            k = int(np.searchsorted(ends, start + size - n))
            if k == len(ends):
                break
            stop = int(ends[k])
            yield [*waiting, batch.part(slice(start, stop))]
            waiting, n, start = [], 0, stop
        if start < len(batch):
            waiting.append(batch.part(slice(start, None)))
            n += len(waiting[-1])
    if waiting:
        yield waiting


def _ends_of_pictures(batch: QuestionBatch) -> NDArray[np.int64]:
    """Behind which rows a picture ends, int64, the last of them len(batch)."""
    changes = (np.diff(batch.pair) != 0) | (np.diff(batch.order) != 0)
    return np.append(np.flatnonzero(changes) + 1, len(batch))


class _Asker:
    """Which questions are left."""

    def __init__(self, store: Store, judge: Judge, questions: Questions, plan: Plan, summary: Summary) -> None:
        self._store, self._plan, self._summary = store, plan, summary
        revision = judge.info.revision
        #: rows: order, then modality
        self._streams = [(m, o, questions[m].digest, revision) for o in ORDERS for m in plan.modalities]
        self._seen: set[str] = set()

    def question_batches(self, photos: Photos) -> Iterator[QuestionBatch]:
        """The questions that are left, over all photos."""
        for name, photo in photos.read_ahead(self._plan.workers):
            try:
                if isinstance(photo, SampleError):
                    raise photo
                if photo.digest in self._seen:
                    self._summary.repeated += 1
                    continue
                self._seen.add(photo.digest)
                left = self._left(photo)
            except SampleError as error:
                self._summary.unreadable[name] = str(error)
                continue
            self._summary.photos += 1
            if len(left):
                yield left

    def _left(self, photo: Photo) -> QuestionBatch:
        plan = self._plan
        image = canonical(photo.image)
        pairs = sample_pairs(image, photo.digest, plan.pairs, seed=plan.seed, sampler=plan.sampler,
                             size=photo.image.shape[:2])  # fmt: skip
        n = len(plan.modalities)
        pair, order = self._pictures(photo.digest)
        modality = np.tile(np.arange(n, dtype=np.int8), len(pair))
        batch = QuestionBatch(photo, pairs, plan.modalities, np.repeat(pair, n), modality, np.repeat(order, n))
        points = pairs.reshape(-1, 4)[batch.pair]
        stream = batch.order.astype(np.int64) * n + batch.modality
        answered = self._store.known(photo.digest, points, self._streams, stream, with_probability=True)
        known = answered if plan.retry else self._store.known(photo.digest, points, self._streams, stream)
        self._summary.known += int(np.count_nonzero(known))
        self._summary.unanswered += int(np.count_nonzero(known & ~answered))
        return batch.part(~known)

    def _pictures(self, digest: str) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Number of the pair and row of ORDERS, of everything that is shown of a photo."""
        plan = self._plan
        each = np.arange(plan.pairs, dtype=np.int32)
        if plan.orders == "both":
            return np.repeat(each, len(ORDERS)), np.tile(np.arange(len(ORDERS), dtype=np.int8), plan.pairs)
        if plan.orders == "red-first":
            return each, np.zeros(plan.pairs, np.int8)
        drawn = draw_orders(digest, plan.pairs, seed=plan.seed)
        return each, np.array([ORDERS.index(order) for order in drawn], np.int8)


def raise_if_partial(summary: Summary, folder: Path) -> None:
    """Raise PartialRun where the run was stopped, photos could not be read, or more than a few questions failed.

    Any question that failed for technical reasons counts; words that can't be read do where they are more than 5 %.
    """
    if summary.interrupted:
        raise PartialRun(f"interrupted: what was answered is in {folder}",
                         fix="the same command goes on from there")  # fmt: skip
    if summary.unreadable:
        n = len(summary.unreadable)
        raise PartialRun(f"{n} of {n + summary.photos + summary.repeated} photos can't be read (listed above)")
    if summary.lost and (summary.flags.get("failed") or summary.lost > _FEW * summary.asked):
        by_flag = ", ".join(f"{n:,} {flag}" for flag, n in sorted(summary.flags.items()) if flag != "ok")
        why = "".join(f"\n  {n:,}: {reason}" for reason, n in summary.problems.items())
        end = "; no more were asked" if summary.hopeless else ""
        raise PartialRun(f"{summary.lost:,} of {summary.asked:,} questions have no answer ({by_flag}){end}{why}",
                         fix="what is said above; the same command with --retry-failed asks them again")  # fmt: skip
