"""A reviewed result: one JSON file with everything a leaderboard needs, so that no run folder has to be kept.

``leaderboards/results/PROTOCOL@V/MODEL.json`` holds the run's result.json as it was, its dates and seconds, the value
of every metric for every image (so that paired tests and distributions need no other file), and small pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.files import canonical_json, encode_json, safe_name, write_bytes
from reasonx_eval.io.results import Result, Timing, run_folder
from reasonx_eval.io.validation import explain, refuse_newer
from reasonx_eval.leaderboard.judge_results import JudgeResult
from reasonx_eval.statistics.aggregate import pooled_value

#: raise it when a field changes its meaning, and keep reading every older number
SUBMISSION_SCHEMA: Final = 1

#: how far a recomputed mean may lie from the stored one: another processor may round the last digits otherwise
_TOLERANCE: Final = 1e-9
#: no metric's unit makes a mean error larger; sums of larger ones overflow
_LARGEST: Final = 1e100

#: folder of the judges' results, beside the protocols' folders
JUDGES: Final = "judges"
_AGAIN: Final = "reasonx-eval leaderboard add RUN --force, from the run's own folder"

class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Samples(_Part):
    """What the scored images gave, one column a metric; failed and undefined images have no row.

    ids : in the order of the split; groups : the scene of each, where the dataset names scenes
    values : metric -> one number an image, None where the ground truth defines none; exact float64
    sums : for protocols that pool pixels, the sums that pooled values are made of (records' ``stats``)
    """

    ids: list[str]
    groups: list[str] | None = None
    values: dict[str, list[float | None]]
    sums: dict[str, list[float]] = {}

    @model_validator(mode="after")
    def _rectangular(self) -> Samples:
        n = len(self.ids)
        if len(set(self.ids)) != n:
            raise ValueError("a sample is there twice")
        if self.groups is not None and len(self.groups) != n:
            raise ValueError(f"{len(self.groups)} groups for {n} samples")
        lengths = {k: len(v) for k, v in self.values.items()} | {k: len(v) for k, v in self.sums.items()}
        for name, length in lengths.items():
            if length != n:
                raise ValueError(f"{name}: {length} values for {n} samples")
        return self

    def column(self, metric: str) -> NDArray[np.float64]:
        """Values of one metric, float64 [n]; NaN where the ground truth defines none."""
        return np.array(self.values[metric], dtype=np.float64)


class Picture(_Part):
    """One image of the dataset as a model sees it.

    why : best or worst of the model's images by `metric`, or better, worse: those that changed most from its base
    value, base_value : of this image, in the metric's unit
    panels : what the strip shows, from left to right; webp : the strip, a file in base64; width, height in pixels
    """

    sample_id: str
    why: Literal["best", "worst", "better", "worse"]
    metric: str
    value: float
    base_value: float | None = None
    panels: list[str]
    webp: str = Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    width: int = Field(gt=0, le=1024)
    height: int = Field(gt=0, le=1024)


class Submission(_Part):
    """One model under one protocol, for a leaderboard.

    result : result.json, unchanged; timing : timing.json, None where it is gone
    digest : over all the rest, so that no number changes unnoticed
    """

    schema_: int = Field(SUBMISSION_SCHEMA, alias="schema")
    what: Literal["run"] = "run"
    digest: str
    result: Result
    timing: Timing | None = None
    samples: Samples
    pictures: list[Picture] = []

    def expected_digest(self) -> str:
        """sha256 over the head as canonical JSON and the columns as bytes."""
        digest = hashlib.sha256(_head(self))
        digest.update(encode_json("\n".join(self.samples.ids)))
        for kind in (self.samples.values, self.samples.sums):
            for name in sorted(kind):
                digest.update(encode_json(f"\n{name}\n"))
                digest.update(np.array(kind[name], dtype="<f8").tobytes())
        return digest.hexdigest()


class JudgeSubmission(_Part):
    """One judge of point pairs, for a leaderboard; result : judge.json, unchanged."""

    schema_: int = Field(SUBMISSION_SCHEMA, alias="schema")
    what: Literal["judge"] = "judge"
    digest: str
    result: JudgeResult

    def expected_digest(self) -> str:
        """sha256 over the head as canonical JSON."""
        return hashlib.sha256(_head(self)).hexdigest()


def _head(submission: BaseModel) -> bytes:
    exclude: dict[str, Any] = {"digest": True}
    if isinstance(submission, Submission):
        exclude["samples"] = {"ids", "values", "sums"}
    # of the fields that the file states: those that came later have defaults in older files
    stated = submission.model_dump(mode="json", by_alias=True, exclude=exclude, exclude_unset=True)
    return encode_json(canonical_json(stated))


def sealed(submission: Submission | JudgeSubmission) -> Submission | JudgeSubmission:
    """The same with its digest filled in; every field is stated, so that later defaults don't change the digest."""
    whole = type(submission).model_validate(submission.model_dump(mode="json", by_alias=True))
    return whole.model_copy(update={"digest": whole.expected_digest()})


def write_submission(path: Path, submission: Submission | JudgeSubmission) -> None:
    """Write one file: a line for each field and each column, so that a review's difference stays readable."""
    document = submission.model_dump(mode="json", by_alias=True)
    write_bytes(path, encode_json(_lines(document, 0) + "\n"))


def _lines(value: Any, depth: int) -> str:
    if not isinstance(value, dict) or depth == 3 or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    pad = " " * (depth + 1)
    rows = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {_lines(v, depth + 1)}" for k, v in value.items()]
    return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"


def read_submission(path: Path) -> Submission | JudgeSubmission:
    """Read and check one reviewed file.

    Raises
    ------
    DataError
        Not a reviewed result; its digest or its averages are not those of its values: it was edited.
    NotComparable
        Written by a newer version of the program.
    """
    raw = path.read_bytes()
    kind: type[Submission] | type[JudgeSubmission]
    kind = JudgeSubmission if path.parent.parent.name == JUDGES else Submission
    try:
        submission = kind.model_validate_json(raw)
    except ValidationError as error:
        refuse_newer(_parsed(raw), SUBMISSION_SCHEMA, str(path))
        raise DataError(f"not a reviewed result: {explain(error, most=3)}", where=str(path), fix=_AGAIN) from None
    refuse_newer({"schema": submission.schema_}, SUBMISSION_SCHEMA, str(path))
    if submission.digest != _digest(submission, path):
        raise DataError("its digest is not that of its contents: the file was edited", where=str(path), fix=_AGAIN)
    if isinstance(submission, Submission):
        check_samples(submission, str(path))
    return submission


def _digest(submission: Submission | JudgeSubmission, path: Path) -> str:
    try:
        return submission.expected_digest()
    except ValueError as error:  # NaN or infinity where JSON has none
        raise DataError(f"not a reviewed result: {error}", where=str(path), fix=_AGAIN) from None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def check_samples(submission: Submission, where: str) -> None:
    """The columns must be those of the result: as many images, every metric, every average.

    Raises
    ------
    DataError
        They are not, or the rules are not those of their digest.
    """
    result, samples = submission.result, submission.samples
    _check_rules(result, where)
    for name in samples.values:
        if (np.abs(samples.column(name)) > _LARGEST).any():
            raise DataError(f"{name}: a value beyond {_LARGEST:g} is no measurement", where=where, fix=_AGAIN)
    if len(samples.ids) != result.n_scored:
        raise DataError(f"{len(samples.ids)} images for a result of {result.n_scored}", where=where, fix=_AGAIN)
    missing = [m for m in result.protocol.rules["metrics"] if m not in result.aggregate]
    if missing:
        raise DataError(f"no '{missing[0]}' among its numbers, which {result.protocol.name} reports", where=where,
                        fix=_AGAIN)  # fmt: skip
    pooled = result.protocol.rules.get("pool") == "pixel"
    for name, value in result.aggregate.items():
        if name not in samples.values:
            raise DataError(f"{name} has an average and no values", where=where, fix=_AGAIN)
        if value.value is not None:
            n, again = _pooled(samples, name, value.value, where) if pooled else _mean(samples.values[name])
            if n != value.n or not math.isclose(again, value.value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                raise DataError(f"{name}: the result says {value.value} of {value.n}, the images give {again} of {n}",
                                where=where, fix=_AGAIN)  # fmt: skip


def _mean(values: Sequence[float | None]) -> tuple[int, float]:
    known = [v for v in values if v is not None]
    return len(known), math.fsum(known) / len(known) if known else math.nan


def _pooled(samples: Samples, name: str, stored: float, where: str) -> tuple[int, float]:
    """From the sums of the images; they don't hold a pooled median, which is taken as it is."""
    try:
        again = pooled_value(samples.sums, name)
    except KeyError as error:
        raise DataError(f"{name} is pooled, and the images have no sum {error}", where=where, fix=_AGAIN) from None
    except (ZeroDivisionError, ValueError):
        raise DataError(f"{name}: sums that no pixels give", where=where, fix=_AGAIN) from None
    return len(samples.ids), stored if again is None else again


def submission_path(submission: Submission) -> Path:
    """``PROTOCOL@V/MODEL.json``; generic protocols serve many datasets, and the name says which."""
    result = submission.result
    generic = result.protocol.rules.get("dataset") == "any"
    name = f"{result.model.name}.{result.dataset.name}" if generic else result.model.name
    folder = run_folder(Path(), _inside(f"{result.protocol.name}@{result.protocol.version}"), name, None)
    return folder.with_name(folder.name + ".json")


def judge_path(judge: JudgeSubmission) -> Path:
    """``judges/DATASET/JUDGE.json``."""
    folder = run_folder(Path(JUDGES), _inside(judge.result.dataset.name), judge.result.judge.name, None)
    return folder.with_name(folder.name + ".json")


def _check_rules(result: Result, where: str) -> None:
    """Name, version, task and metrics are read from the rules, so the rules must be those that the digest is of."""
    ref, rules = result.protocol, result.protocol.rules
    metrics = rules.get("metrics")
    stated = isinstance(metrics, list) and bool(metrics) and all(isinstance(m, str) for m in metrics)
    if (not stated or (rules.get("name"), rules.get("version")) != (ref.name, ref.version)
            or not isinstance(rules.get("task"), str) or sha256_text(canonical_json(rules)) != ref.digest):  # fmt: skip
        raise DataError(f"the rules of {ref.name}@{ref.version} are not those of its digest", where=where, fix=_AGAIN)


def _inside(folder: str) -> str:
    """A folder's name from a result, which must not lead anywhere else."""
    try:
        return safe_name(folder)
    except ValueError:
        raise DataError(f"'{folder}' is no name of a protocol or dataset", where="result") from None


def submission_files(folder: Path) -> list[Path]:
    """Every reviewed file of a folder, sorted by name.

    Raises
    ------
    UsageError
        No such folder.
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=str(folder), fix=f"reasonx-eval leaderboard add RUN --to {folder}")
    return sorted(folder.rglob("*.json"))


def read_all(folder: Path) -> tuple[list[Submission], list[JudgeSubmission]]:
    """All reviewed results of a folder: models, and judges.

    Raises
    ------
    DataError
        One of them is damaged, or lies where another result belongs.
    NotComparable
        One was written by a newer version.
    """
    runs: list[Submission] = []
    judges: list[JudgeSubmission] = []
    for path in submission_files(folder):
        one = read_submission(path)
        place = judge_path(one) if isinstance(one, JudgeSubmission) else submission_path(one)
        if path != folder / place:
            raise DataError(f"this file belongs in {folder / place}: its name and folder are those of its result",
                            where=str(path), fix=f"mv '{path}' '{folder / place}'")  # fmt: skip
        if isinstance(one, JudgeSubmission):
            judges.append(one)
        else:
            runs.append(one)
    return runs, judges
