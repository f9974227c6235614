"""Questions about two marked points of a photo, answers as probabilities, and what a judge is.

A judge sees the photo and the points, never a prediction: one answer serves every sample of a policy, every step and
every epoch, so answers are collected once and kept (`reasonx_ft.annotation.judgements`).
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

#: photos are brought to this square before points are chosen and drawn; the published judge knows no other size
CANONICAL: Final = 512

Order: TypeAlias = Literal["red-first", "green-first"]
ORDERS: Final[tuple[Order, Order]] = ("red-first", "green-first")

#: why an answer has no probability
Flag: TypeAlias = Literal["ok", "refused", "garbage", "failed"]
FLAGS: Final[tuple[Flag, ...]] = get_args(Flag)


@dataclass(frozen=True)
class Photo:
    """A photo that questions are asked about.

    id : for people; the key is `digest`
    image : uint8 [H, W, 3], sRGB, at its own size
    digest : 32 hex digits of a sha256 over its shape and pixels
    sample_id : id in the dataset it came from, for judges that know the ground truth; None for plain files
    """

    id: str
    image: NDArray[np.uint8] = field(repr=False)
    digest: str
    sample_id: str | None = None


def photo_digest(image: NDArray[np.uint8]) -> str:
    """32 hex digits of a sha256 over shape and pixels: the same photo in another file format is the same photo."""
    digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Question:
    """One relative question.

    first, second : (x, y) of the two points, integer pixels of the photo at CANONICAL x CANONICAL
    modality : depth (which is closer), normals (which faces the camera more), irradiance (which receives more light),
        albedo (whether both have the same base colour)
    order : which of the two points is drawn red; the other is green
    """

    photo: Photo
    first: tuple[int, int]
    second: tuple[int, int]
    modality: str
    order: Order


@dataclass(frozen=True)
class Answer:
    """What a judge says.

    probability : that the FIRST point is closer, faces the camera more, receives more light; for albedo that both are
        the SAME. About points, not colours: the answers of both orders can be compared. NaN where there is none,
        and then `flag` says why; never 0 for nothing
    seconds : spent on it, as far as it can be told in a batch
    """

    probability: float
    flag: Flag = "ok"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if math.isnan(self.probability) == (self.flag == "ok"):
            raise ValueError("an answer has a probability, or a flag that says why not")
        if not math.isnan(self.probability) and not 0 <= self.probability <= 1:
            raise ValueError(f"{self.probability} is not a probability")


@dataclass(frozen=True)
class QuestionBatch:
    """Questions about one photo as columns, N rows in the order they are asked.

    pairs : int16 [P, 2, 2], (pair, first or second, (x, y)), pixels of the photo at CANONICAL x CANONICAL
    modalities : [M]
    pair : int32 [N], row of `pairs`
    modality : int8 [N], row of `modalities`
    order : int8 [N], row of ORDERS
    """

    photo: Photo
    pairs: NDArray[np.int16] = field(repr=False)
    modalities: tuple[str, ...]
    pair: NDArray[np.int32] = field(repr=False)
    modality: NDArray[np.int8] = field(repr=False)
    order: NDArray[np.int8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pair)

    def part(self, rows: slice | NDArray[np.bool_]) -> QuestionBatch:
        """Some of the questions."""
        return replace(self, pair=self.pair[rows], modality=self.modality[rows], order=self.order[rows])

    def questions(self) -> list[Question]:
        """The same as objects, one a row."""
        ends = [((x1, y1), (x2, y2)) for (x1, y1), (x2, y2) in self.pairs.tolist()]
        rows = zip(self.pair.tolist(), self.modality.tolist(), self.order.tolist(), strict=True)
        return [Question(self.photo, ends[k][0], ends[k][1], self.modalities[m], ORDERS[o]) for k, m, o in rows]


@dataclass(frozen=True)
class AnswerBatch:
    """Answers as columns, N rows; what each means is told at `Answer`.

    probability : float64 [N], NaN where there is none
    flag : int8 [N], row of FLAGS
    seconds : float64 [N]

    Raises
    ------
    ValueError
        A probability outside [0, 1], or one that its flag contradicts.
    """

    probability: NDArray[np.float64]
    flag: NDArray[np.int8]
    seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        none = np.isnan(self.probability)
        if (none == (self.flag == FLAGS.index("ok"))).any():
            raise ValueError("an answer has a probability, or a flag that says why not")
        outside = (self.probability < 0) | (self.probability > 1)
        if outside.any():
            raise ValueError(f"{self.probability[outside][0]} is not a probability")

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> AnswerBatch:
        """Single answers, in order."""
        return cls(np.array([a.probability for a in answers], np.float64),
                   np.array([FLAGS.index(a.flag) for a in answers], np.int8),
                   np.array([a.seconds for a in answers], np.float64))  # fmt: skip

    def __len__(self) -> int:
        return len(self.probability)


@dataclass(frozen=True)
class JudgeInfo:
    """Who answers.

    name : shown in tables
    revision : digest of everything that can change an answer (weights, wording read-out, number type); part of the
        key of every stored answer
    trained_on : datasets whose accuracy is not held out
    reading : how a probability comes about: log-probabilities, or words (it is then 1 or 0); None if it is neither
    """

    name: str
    revision: str
    licence: str | None = None
    parameters: int | None = None
    trained_on: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reading: Literal["log-probabilities", "words"] | None = None


class Judge(ABC):
    """Answers questions, independent of the batch they come in and of their order."""

    #: questions that one call of `ask` is best given
    batch_size: int = 64

    @property
    @abstractmethod
    def info(self) -> JudgeInfo: ...

    @abstractmethod
    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order.

        A question that can't be answered gives NaN and a flag; an exception means that no answer of this call counts
        (a wrong address, a broken model).
        """

    def answer(self, batches: Sequence[QuestionBatch]) -> AnswerBatch:
        """One answer a row, all batches after one another; the same as `ask` gives to the same questions.

        For judges that answer a photo's pairs all at once: they needn't make an object of every question.
        """
        return AnswerBatch.of(self.ask([question for batch in batches for question in batch.questions()]))

    def answers(
        self, calls: Iterable[Sequence[QuestionBatch]]
    ) -> Iterator[tuple[Sequence[QuestionBatch], AnswerBatch]]:
        """Every call with its answers, in order; a judge that works on several at a time may take some ahead."""
        for batches in calls:
            yield batches, self.answer(batches)

    def problems(self) -> Mapping[str, int]:
        """Why questions have had no answer, each reason with the setting that mends it -> how many questions."""
        return {}

    def close(self) -> None:  # noqa: B027  # nothing to free is the rule
        """Free what `ask` holds."""
