"""result.json: typed, versioned, with everything that a number depends on.

A run folder holds ``run.json`` (the request: the resume key), ``records.jsonl`` (one line a sample),
``result.json`` (aggregate and provenance), ``timing.json`` (dates and seconds, which differ between two
runs of one command; nothing else does) and, if asked for, ``predictions/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from reasonx_eval.errors import DataError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.documents import read_model
from reasonx_eval.io.files import canonical_json, write_json
from reasonx_eval.io.selection import Selection

#: Raise this when a field changes its meaning, keep reading every older number, and add a golden file of
#: the old one to tests/golden.
SCHEMA = 1

#: what a result without `interval_method` has: BCa at its nominal level
FIRST_INTERVALS = "bca@1"

#: of a folder's name, bytes; file systems take 255, and a shard's number is added
_LONGEST_NAME = 160


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Part):
    machine: str
    system: str
    cpu: str
    cores: int
    memory_gib: float | None


class Provenance(_Part):
    """Everything about the machine and the call that could explain a different number.

    packages : versions of what is installed, and which forms scored depth and normals (see `fused`): they agree to
    about 1e-15 relative, not to the last bit
    passed : options the user gave; defaulted : the resolved rest. Output folders are in neither: they
    change no number, and two runs of one command give the same bytes.
    """

    reasonx: str
    commit: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]
    hardware: Hardware
    seed: int
    passed: dict[str, str | int | float | bool | list[str] | None] = {}
    defaulted: dict[str, str | int | float | bool | list[str] | None] = {}


class ModelRef(_Part):
    """Who predicted. options are the passed and the defaulted ones together."""

    name: str
    source: str
    kind: str
    weights_sha256: str | None = None
    licence: str | None = None
    parameters: int | None = None
    base: str | None = None
    trained_on: list[str] = []
    reward: str | None = None
    options: dict[str, Any] = {}
    notes: list[str] = []

    @property
    def rewarded(self) -> tuple[str, ...]:
        """Metrics that the model was tuned on, as its card says; empty for a model that was not, or does not say."""
        tuning = self.options.get("tuning")
        listed = tuning.get("rewarded") if isinstance(tuning, Mapping) else None
        return tuple(str(m) for m in listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else ()


class ProtocolRef(_Part):
    """Which rules: name, version, digest of the rules and the rules themselves."""

    name: str
    version: int
    digest: str
    rules: dict[str, Any]


class DatasetRef(_Part):
    """Which data. ids_sha256 is of the whole split; data_sha256 of the ground truth that was scored."""

    name: str
    split: str
    options: dict[str, Any] = {}
    n: int
    ids_sha256: str


class RunSpec(_Part):
    """Everything that decides the records: two runs with the same spec have the same records."""

    schema_: int = Field(SCHEMA, alias="schema")
    reasonx: str
    model: ModelRef
    protocol: ProtocolRef
    dataset: DatasetRef
    selection: Selection
    seed: int

    @property
    def key(self) -> str:
        return sha256_text(canonical_json(self.model_dump(mode="json", by_alias=True)))


class Value(_Part):
    """An aggregate with both ends of its 95 % bootstrap interval; absent values say why in `reason`."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int
    reason: str | None = None


class Result(_Part):
    """One model under one protocol on one dataset.

    interval_method : how intervals were taken, see `statistics.bootstrap.METHOD`
    """

    schema_: int = Field(SCHEMA, alias="schema")
    status: Literal["complete", "partial", "failed"]
    signature: str
    model: ModelRef
    protocol: ProtocolRef
    dataset: DatasetRef
    selection: Selection
    aggregate: dict[str, Value]
    confidence: float
    resamples: int
    interval_method: str = FIRST_INTERVALS
    n_total: int
    n_scored: int
    n_undefined: int
    failed: dict[str, str]
    undefined: dict[str, str] = {}
    notes: list[str] = []
    data_sha256: str
    predictions_sha256: str
    records_sha256: str
    provenance: Provenance

    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """The run's folder, where this was read from or written to one."""
        return self._folder

    def at(self, folder: Path) -> Result:
        """This result, with the folder that it lies in."""
        self._folder = folder
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.model_dump() == other.model_dump()

    @model_validator(mode="after")
    def _nothing_lost(self) -> Result:
        if self.n_scored + self.n_undefined + len(self.failed) > self.n_total:
            raise ValueError("more samples scored, undefined and failed than there are")
        whole = self.n_scored + self.n_undefined == self.n_total
        if (self.status == "complete") != (whole and not self.failed):
            raise ValueError(f"status '{self.status}' does not fit {self.n_scored} scored of {self.n_total}")
        return self


class Timing(_Part):
    """Dates and seconds of the last process that worked on a run; per image over all processes."""

    started: str
    finished: str
    wall_seconds: float
    samples: int
    predict_seconds_per_image: float | None
    predict_seconds_p95: float | None


def result_path(run: Path) -> Path:
    """A run is named by its folder or by its result.json."""
    return run / "result.json" if run.is_dir() else run


def load_result(run: str | Path) -> Result:
    """Read a result.

    Raises
    ------
    DataError
        No such file, or not a result.
    NotComparable
        Written by a newer version of the program.
    """
    path = result_path(Path(run))
    try:
        return read_model(path, Result, "result", kind="result", newest=SCHEMA).at(path.parent)
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), fix="reasonx-eval run writes one") from None


def load_spec(run: Path) -> RunSpec:
    """The request of a run, from its run.json.

    Raises
    ------
    DataError
        No such file, or not the description of a run.
    """
    path = run / "run.json"
    try:
        return read_model(path, RunSpec, "run", kind="run", fix="--force to start the run again, or another --out")
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), fix="reasonx-eval run writes one") from None


def load_timing(run: Path) -> Timing | None:
    """Dates and seconds of a run; None where there is no such file."""
    path = result_path(run).with_name("timing.json")
    return read_model(path, Timing, "timing") if path.is_file() else None


def save(path: Path, part: BaseModel) -> None:
    """Write a part of a run's folder; as Python's values, because pydantic's JSON loses half surrogate pairs."""
    write_json(path, part.model_dump(by_alias=True))


def spec_difference(old: RunSpec, new: RunSpec) -> list[str]:
    """Every field that differs between two specs, ``field: old -> new``; notes on the model decide no record."""
    first, second = (spec.model_dump(by_alias=True, exclude={"model": {"notes"}}) for spec in (old, new))
    return _difference(first, second, "")


def _difference(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted({*old, *new}):
            found += _difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def run_folder(out: Path, protocol_ref: str, model_name: str, shard: str | None) -> Path:
    """``OUT/PROTOCOL@V/MODEL``, with the shard in the name if there is one."""
    model = re.sub(r"[^\w.+-]+", "-", model_name).strip("-.") or "model"
    if len(model.encode()) > _LONGEST_NAME:
        model = f"{model.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{sha256_text(model_name)[:12]}"
    suffix = "" if shard is None else f".shard-{shard.replace('/', '-of-')}"
    return out / protocol_ref / f"{model}{suffix}"
