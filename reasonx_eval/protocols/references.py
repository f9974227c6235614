"""Published numbers as data: their source, the nearest protocol, and the differences from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.documents import parse_toml
from reasonx_eval.io.validation import explain
from reasonx_eval.protocols.protocol import all_protocols

Status = Literal["printed", "third-party"]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Reference:
    """One published number.

    model : as the source calls it
    protocol : name of the nearest protocol of ours
    metric, value : in this package's units (shares of 1, degrees, metres), as precise as it was printed
    source, table : where it stands
    status : printed (by those who measured it) or third-party (a copy of somebody else's number, or a row of a
        table that mixes copies with re-runs)
    difference : known differences from the protocol; None if there are none
    note : other facts about the table or the model's row (training data, ensemble size)
    """

    model: str
    protocol: str
    metric: str
    value: float
    source: str
    table: str
    status: Status
    difference: str | None = None
    note: str | None = None


class _Table(BaseModel):
    """One published table (or the part of it that one protocol covers).

    remark : differences from the protocol that move no printed digit
    near : other protocols that a reader may hold against these rows -> the differences from them
    rows : model -> one value per metric
    notes : model -> note
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    protocol: Text
    source: Text
    table: Text
    status: Status
    difference: Text | None = None
    remark: Text | None = None
    metrics: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
    near: Mapping[str, Text] = {}
    rows: Mapping[str, list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]] = Field(min_length=1)
    notes: Mapping[str, Text] = {}

    @model_validator(mode="after")
    def _fits(self) -> _Table:
        for model, values in self.rows.items():
            if len(values) != len(self.metrics):
                raise ValueError(f"row '{model}' has {len(values)} values for {len(self.metrics)} metrics")
        for model in self.notes:
            if model not in self.rows:
                raise ValueError(f"a note names '{model}', which has no row")
        return self

    def references(self) -> list[Reference]:
        places = {self.protocol: self.difference, **{p: _joined(self.difference, d) for p, d in self.near.items()}}
        return [
            Reference(model, protocol, metric, value, self.source, self.table, self.status, difference,
                      _joined(self.remark, self.notes.get(model)))
            for protocol, difference in places.items()
            for model, values in self.rows.items()
            for metric, value in zip(self.metrics, values, strict=True)
        ]  # fmt: skip


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    names: Mapping[str, list[Text]] = {}
    table: list[_Table] = Field(min_length=1)

    @model_validator(mode="after")
    def _named(self) -> _File:
        rows = {model for table in self.table for model in table.rows}
        for model, names in self.names.items():
            for name in names:
                if name not in rows:
                    raise ValueError(f"names: '{model}' is called '{name}', which has no row")
        return self


def _joined(first: str | None, second: str | None) -> str | None:
    return "; ".join(text for text in (first, second) if text is not None) or None


def parse_references(text: str, where: str) -> tuple[Reference, ...]:
    """References from TOML text.

    Raises
    ------
    UsageError
        Broken TOML, an unknown or missing key, a row of the wrong length, a protocol that doesn't exist,
        or a metric that it doesn't report.
    """
    return _checked(_parse(text, where), where)


def _checked(file: _File, where: str) -> tuple[Reference, ...]:
    found = tuple(r for t in file.table for r in t.references())
    metrics = {p.name: p.metrics for p in all_protocols().values()}
    for r in found:
        if r.protocol not in metrics:
            raise unknown("protocol", r.protocol, metrics, where=where)
        if r.metric not in metrics[r.protocol]:
            raise UsageError(f"{r.model}: {r.protocol} does not report '{r.metric}', only "
                             f"{', '.join(metrics[r.protocol])}", where=where)  # fmt: skip
    return found


def _parse(text: str, where: str) -> _File:
    try:
        return _File.model_validate(parse_toml(text, where))
    except ValidationError as error:
        raise UsageError(explain(error), where=where) from None


_PACKAGED = resources.files("reasonx_eval") / "protocols" / "data" / "references.toml"


@cache
def _packaged_file() -> _File:
    return _parse(_PACKAGED.read_text(encoding="utf-8"), str(_PACKAGED))


@cache
def _packaged() -> tuple[Reference, ...]:
    return _checked(_packaged_file(), str(_PACKAGED))


@cache
def published_names() -> Mapping[str, tuple[str, ...]]:
    """A model of the catalogue -> its names in published tables; several where it was measured in several ways."""
    return {model: tuple(names) for model, names in _packaged_file().names.items()}


def references(protocol: str | None = None, model: str | None = None) -> list[Reference]:
    """Published numbers, in the order of the file.

    Parameters
    ----------
    protocol : str, optional
        Only those near this protocol; ``name`` or ``name@version``.
    model : str, optional
        Only those of this model; letter case doesn't matter.
    """
    name = None if protocol is None else protocol.partition("@")[0]
    wanted = None if model is None else model.casefold()
    return [r for r in _packaged() if name in (None, r.protocol) and wanted in (None, r.model.casefold())]
