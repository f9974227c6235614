"""judge.json: how often a judge of point pairs is right, typed and versioned like result.json.

A folder holds ``judge.json``, ``records.jsonl`` (one line a photo, with every answer) and plots. Written by
reasonx-ft judge-eval; read here without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reasonx_eval.errors import DataError
from reasonx_eval.io.documents import read_model
from reasonx_eval.io.files import write_json
from reasonx_eval.io.results import DatasetRef, ModelRef, Provenance, Value
from reasonx_eval.io.selection import Selection

#: raise it when a field changes its meaning, and keep reading every older number
JUDGE_SCHEMA: Final = 1
FILE: Final = "judge.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeRef(_Part):
    """Who answered; revision is a digest of everything that can change an answer.

    reading : how its answers are read, log-probabilities or words (then 1 or 0); None for neither, and in older results
    """

    name: str
    revision: str
    licence: str | None = None
    parameters: int | None = None
    trained_on: list[str] = []
    options: dict[str, Any] = {}
    notes: list[str] = []
    reading: str | None = None


class CalibrationBin(_Part):
    """Answers whose confidence, max(p, 1 - p), lies in [low, high): how many, their mean confidence, share right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


class Disagreements(_Part):
    """The pairs on which judge and base say different things: a judge helps only where it is right on them.

    right : share of them on which the judge is right; n is their number
    base_accuracy : of the base on all answered pairs (albedo: mean over same and different)
    """

    base: str
    right: Value
    base_accuracy: Value


class ModalityResult(_Part):
    """One kind of question. Shares are in [0, 1]; every n counts pairs.

    accuracy : share right of the answered pairs that the ground truth decides; both colour orders make one answer,
        the mean of their probabilities; exactly one half is wrong
    balanced : for albedo, the mean of the shares right among pairs that are the same and that are different
    by_band : accuracy (albedo: balanced) in each band of distance
    consistency : share of pairs on which the two colour orders say the same; None where one order was asked
    order_gap : mean absolute difference of the two orders' probabilities
    calibration_error : expected calibration error over ten bins of equal width; bins : its curve
    n_asked, n_answered : decided pairs asked about, and those with a probability; flags : why the rest has none
    """

    accuracy: Value
    balanced: Value | None = None
    by_band: dict[str, Value]
    consistency: Value | None = None
    order_gap: float | None = None
    calibration_error: float | None
    bins: list[CalibrationBin]
    disagreements: Disagreements | None = None
    n_asked: int
    n_answered: int
    flags: dict[str, int]

    @property
    def headline(self) -> Value:
        """The figure to compare judges by: balanced where there is one."""
        return self.balanced or self.accuracy

    @model_validator(mode="after")
    def _nothing_lost(self) -> ModalityResult:
        if self.n_answered > self.n_asked:
            raise ValueError("more pairs answered than asked")
        return self


class JudgeResult(_Part):
    """One judge on the point pairs of one dataset.

    status : complete where every photo of the split was scored and every question has an answer
    n_total : photos of the split; n_scored of them have figures, `failed` says why others have none
    questions : modality -> digest of the wording
    warnings : what is suspicious about the answers
    """

    schema_: int = Field(JUDGE_SCHEMA, alias="schema")
    what: Literal["judge"] = "judge"
    status: Literal["complete", "partial", "failed"]
    signature: str
    judge: JudgeRef
    dataset: DatasetRef
    selection: Selection
    base: ModelRef | None = None
    questions: dict[str, str] = {}
    modalities: dict[str, ModalityResult]
    confidence: float
    resamples: int
    n_total: int
    n_scored: int
    failed: dict[str, str]
    warnings: list[str] = []
    records_sha256: str
    provenance: Provenance

    @property
    def lacking(self) -> bool:
        """Whether something that was asked for has no figure: a photo failed, or a question has no answer."""
        return bool(self.failed) or any(m.n_answered < m.n_asked for m in self.modalities.values())

    @model_validator(mode="after")
    def _status_fits(self) -> JudgeResult:
        if self.n_scored + len(self.failed) > self.n_total:
            raise ValueError("more photos scored and failed than there are")
        answered = all(m.n_answered == m.n_asked for m in self.modalities.values())
        whole = self.n_scored == self.n_total and not self.failed and answered
        if (self.status == "complete") != whole:
            raise ValueError(f"status '{self.status}' does not fit {self.n_scored} photos of {self.n_total}")
        return self


def load_judge_result(path: str | Path) -> JudgeResult:
    """Read a judge's result, named by its folder or by its judge.json.

    Raises
    ------
    DataError
        No such file, or not a judge's result.
    NotComparable
        Written by a newer version of the program.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        return read_model(file, JudgeResult, "judge's result", kind="judge result", newest=JUDGE_SCHEMA)
    except FileNotFoundError:
        raise DataError("no such file", where=str(file), fix="reasonx-ft judge-eval writes one") from None


def save_judge_result(folder: Path, result: JudgeResult) -> Path:
    """Write judge.json into a folder, whole or not at all."""
    path = folder / FILE
    write_json(path, result.model_dump(mode="json", by_alias=True))
    return path
