"""Networks known by name: catalogue/*.toml says where their weights are and which adapter runs them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import UsageError
from reasonx_eval.types import TASK_OF_KIND, Kind, Task


class Named(BaseModel):
    """One network.

    hub : id of its checkpoint on the hub; none for networks inside the package, or chosen by task
    adapter : "module:Class" that runs it
    chooses : for a name that picks a checkpoint by the task, the entries it picks from
    kinds : what it gives, preferred first
    parameters_m : parameters in millions; download_mb : size of the checkpoint
    trained_on : datasets whose numbers are not zero-shot for it
    unavailable : why this program can't run it, where it can't
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub: str | None = None
    adapter: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    task: list[Task] = Field(min_length=1)
    kind: list[Kind] = []
    licence: str | None = None
    parameters_m: float | None = Field(None, gt=0)
    download_mb: float | None = Field(None, gt=0)
    chooses: list[str] = []
    trained_on: list[str] = []
    options: dict[str, Any] = {}
    notes: str = ""
    unavailable: str | None = None

    @model_validator(mode="after")
    def _runs_or_says_why(self) -> Named:
        if self.unavailable is None and self.adapter is None:
            raise ValueError("a network needs an adapter, or says why it is unavailable")
        stray = [k for k in self.kind if TASK_OF_KIND[k] not in self.task]
        if stray:
            raise ValueError(f"kind {stray[0]} is of none of its tasks")
        return self


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: list[Named]


def listed(hub_id: str | None) -> Named | None:
    """The entry of the catalogue with this hub id; a folder has no hub id, and so no entry."""
    return None if hub_id is None else next((one for one in catalogue().values() if one.hub == hub_id), None)


@cache
def catalogue() -> Mapping[str, Named]:
    """All networks by name, in the order of the files."""
    found: dict[str, Named] = {}
    folder = resources.files("reasonx_eval.models") / "catalogue"
    for path in sorted((p for p in folder.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name):
        try:
            listed = _Catalogue.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).model
        except (ValidationError, tomllib.TOMLDecodeError) as error:
            raise UsageError(str(error), where=str(path)) from None
        for entry in listed:
            if entry.name in found:
                raise UsageError(f"model {entry.name} is listed twice", where=str(path))
            found[entry.name] = entry
    return found
