"""What is asked about a pair of points, in words, and what the two candidate answers say about them.

The wording is data (``questions.toml``); another file replaces all of it, for judges that were trained on theirs. The
digest of a template belongs to the key of every stored answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.files import canonical_json
from reasonx_eval.io.validation import explain
from reasonx_ft.types import Order

Meaning: TypeAlias = Literal["red", "green", "same", "different"]

MODALITIES: Final = ("depth", "normals", "irradiance", "albedo")
DEFAULT_FILE: Final = Path(__file__).with_name("questions.toml")

_Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


@dataclass(frozen=True)
class Template:
    """The wording of one modality.

    question : asked after the marked photo
    prefix : how the answer is made to begin
    answers : meaning -> candidate, as it follows the prefix: red and green, or for albedo same and different
    """

    modality: str
    question: str
    prefix: str
    answers: Mapping[Meaning, str]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over everything that is asked and read."""
        return sha256_text(canonical_json(self.document()))[:16]

    def document(self) -> dict[str, Any]:
        """As JSON, for the files that hold answers."""
        return {"modality": self.modality, "question": self.question, "prefix": self.prefix,
                "answers": dict(self.answers)}  # fmt: skip

    def positive(self, order: Order) -> Meaning:
        """The meaning that says "the FIRST point", or for albedo "the SAME"."""
        if self.modality == "albedo":
            return "same"
        return "red" if order == "red-first" else "green"

    def negative(self, order: Order) -> Meaning:
        """The other meaning: "the SECOND point", or for albedo "DIFFERENT"."""
        if self.modality == "albedo":
            return "different"
        return "green" if order == "red-first" else "red"

    def candidates(self, order: Order) -> tuple[str, str]:
        """The two candidate texts, the one for FIRST or SAME first."""
        return self.answers[self.positive(order)], self.answers[self.negative(order)]

    def probability(self, says: Meaning, p: float, order: Order) -> float:
        """The probability of FIRST or SAME, from the probability `p` of the candidate that `says` something.

        Raises
        ------
        UsageError
            A meaning that this template has no candidate for.
        """
        if says not in self.answers:
            raise unknown("answer", says, self.answers, where=self.modality)
        return p if says == self.positive(order) else 1.0 - p


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    question: _Text
    prefix: _Text
    answers: dict[Meaning, _Text]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: _Entry | None = None
    normals: _Entry | None = None
    irradiance: _Entry | None = None
    albedo: _Entry | None = Field(default=None)

    @model_validator(mode="after")
    def _meanings(self) -> _File:
        for modality in MODALITIES:
            entry = getattr(self, modality)
            if entry is None:
                continue
            expected = {"same", "different"} if modality == "albedo" else {"red", "green"}
            if set(entry.answers) != expected:
                raise ValueError(f"{modality}: answers must be {' and '.join(sorted(expected))}, "
                                 f"not {', '.join(sorted(entry.answers)) or 'none'}")  # fmt: skip
            if len(set(entry.answers.values())) != 2:
                raise ValueError(f"{modality}: both answers have the same text")
        return self


@dataclass(frozen=True)
class Questions:
    """The templates by modality; some may be missing, then those can't be asked."""

    templates: Mapping[str, Template]

    def __getitem__(self, modality: str) -> Template:
        """Raises UsageError for a modality without a template."""
        if modality not in self.templates:
            raise unknown("modality", modality, self.templates, where="questions")
        return self.templates[modality]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.templates)


def read_questions(path: Path | str | None = None) -> Questions:
    """The templates of a file; None is the file that comes with this package.

    Raises
    ------
    UsageError
        A file that can't be read, an unknown key, a candidate missing, or two that are alike.
    """
    return _default() if path is None else _read(Path(path))


@cache
def _default() -> Questions:
    return _read(DEFAULT_FILE)


def _read(path: Path) -> Questions:
    where = str(path)
    try:
        file = _File.model_validate(read_toml(path))
    except FileNotFoundError:
        raise UsageError("no such file", where=where) from None
    except ValidationError as error:
        raise UsageError(explain(error), where=where) from None
    found = {m: getattr(file, m) for m in MODALITIES if getattr(file, m) is not None}
    if not found:
        raise UsageError(f"no questions in it: it needs one of the tables {', '.join(MODALITIES)}", where=where)
    return Questions({m: Template(m, e.question, e.prefix, e.answers) for m, e in found.items()})
