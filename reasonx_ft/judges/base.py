"""Questions about two marked points of a photo, answers as probabilities, and what a judge is.

A judge sees the photo and the points, never a prediction: one answer serves every sample of a policy, every step and
every epoch, so answers are collected once and kept (`reasonx_ft.judgements`).
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: photos are brought to this square before points are chosen and drawn; the published judge knows no other size
CANONICAL: Final = 512

Order: TypeAlias = Literal["red-first", "green-first"]
ORDERS: Final[tuple[Order, Order]] = ("red-first", "green-first")

#: why an answer has no probability
Flag: TypeAlias = Literal["ok", "refused", "garbage", "failed"]


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
class JudgeInfo:
    """Who answers.

    name : shown in tables
    revision : digest of everything that can change an answer (weights, wording read-out, number type); part of the
        key of every stored answer
    trained_on : datasets whose accuracy is not held out
    """

    name: str
    revision: str
    licence: str | None = None
    parameters: int | None = None
    trained_on: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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

    def close(self) -> None:  # noqa: B027  # nothing to free is the rule
        """Free what `ask` holds."""
