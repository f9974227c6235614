"""Models known by name: catalogue/*.toml says which class runs each and where its weights are; the list of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import UsageError
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.plugins import describe_failure, imported, load_plugin, plugins
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.models.loading.checkpoint import Checkpoint, cached_folder, is_hub_id
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Task

#: of entry points
GROUP: Final = "reasonx_eval.models"


class CatalogueEntry(BaseModel):
    """One model.

    adapter : "module:Class" that runs it; its keyword parameters are the model's options (see `load.construct`)
    hub : id of its checkpoint on the hub; none for models inside the package, or chosen by task
    chooses : for a name that picks a checkpoint by the task, the entries it picks from
    task, kind : its outputs, preferred first; left out for models inside the package, which state them
    parameters_m : parameters in millions; download_mb : size of the checkpoint
    trained_on : datasets whose numbers are not zero-shot for it
    classes : names in model_index.json (_class_name) or config.json (architectures); a folder or hub id with one of
        them is run by this entry's adapter
    unavailable : why this program can't run it, where it can't
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub: str | None = None
    adapter: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    task: list[Task] = []
    kind: list[Kind] = []
    licence: str | None = None
    parameters_m: float | None = Field(None, gt=0)
    download_mb: float | None = Field(None, gt=0)
    chooses: list[str] = []
    classes: list[str] = []
    trained_on: list[str] = []
    options: dict[str, Any] = {}
    notes: str = ""
    unavailable: str | None = None

    @model_validator(mode="after")
    def _runs_or_says_why(self) -> CatalogueEntry:
        if self.unavailable is None and self.adapter is None:
            raise ValueError("a model needs an adapter, or says why it is unavailable")
        if not self.task and not self.built_in:
            raise ValueError("a model with weights of its own needs its tasks: nothing is loaded to list it")
        stray = [k for k in self.kind if TASK_OF_KIND[k] not in self.task]
        if stray:
            raise ValueError(f"kind {stray[0]} is of none of its tasks")
        return self

    @property
    def built_in(self) -> bool:
        """It is constructed from the package alone."""
        return self.adapter is not None and self.hub is None and not self.chooses


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: list[CatalogueEntry]


def entry_of(hub_id: str | None) -> CatalogueEntry | None:
    """The entry with this hub id; a folder has no hub id, and so no entry."""
    return None if hub_id is None else next((one for one in catalogue().values() if one.hub == hub_id), None)


def adapter_of(checkpoint: Checkpoint) -> str | None:
    """The adapter of the entry that lists a class which the checkpoint names; None if no entry does."""
    named = set(checkpoint.classes)
    return next((one.adapter for one in catalogue().values() if named.intersection(one.classes)), None)


def checkpoint_info(checkpoint: Checkpoint, *, name: str, parameters: int | None, options: Mapping[str, Any],
                    notes: tuple[str, ...] = ()) -> ModelInfo:  # fmt: skip
    """Description of a network with files: their digest, and the catalogue's facts about their hub id."""
    known = entry_of(checkpoint.hub_id)
    return ModelInfo(
        name=name, source=checkpoint.source, weights_sha256=checkpoint.digest, parameters=parameters, options=options,
        licence=known.licence if known else None, trained_on=tuple(known.trained_on) if known else (),
        notes=(*notes, *_origin(checkpoint)),
    )  # fmt: skip


def _origin(checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.revision is not None:
        return (f"revision {checkpoint.revision}",)
    if is_hub_id(checkpoint.source):
        return (f"read from the folder {checkpoint.folder.resolve()}, not from the hub",)
    return ()


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """All models by name, in the order of the files."""
    found: dict[str, CatalogueEntry] = {}
    folder = resources.files("reasonx_eval.models") / "catalogue"
    for path in sorted((p for p in folder.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name):
        try:
            listed = _Catalogue.model_validate(read_toml(path)).model
        except ValidationError as error:
            raise UsageError(str(error), where=str(path)) from None
        for entry in listed:
            if entry.name in found:
                raise UsageError(f"model {entry.name} is listed twice", where=str(path))
            found[entry.name] = entry
    return found


@dataclass(frozen=True)
class ModelRow:
    """One line of ``reasonx-eval list models``.

    source : "built in", the hub id, or "module:attribute" of a plug-in
    parameters_m : millions of parameters, where known
    why_not : why it is not available here, else None
    how : how to get it, where it is not
    facts : anything else that is known
    """

    name: str
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    source: str
    licence: str | None
    parameters_m: float | None = None
    why_not: str | None = None
    how: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def available(self) -> bool:
        return self.why_not is None


def list_models() -> list[ModelRow]:
    """The catalogue, then plug-ins; a broken one is a row that says why, never an exception.

    Models inside the package are constructed. Of others only the catalogue's data are read, and of plug-ins only the
    class is looked at, because constructing one may load weights.
    """
    rows = [_built_in_row(entry) if entry.built_in else _row(entry) for entry in catalogue().values()]
    return rows + [_plugin_row(name) for name in sorted(plugins(GROUP)) if name not in catalogue()]


def _built_in_row(entry: CatalogueEntry) -> ModelRow:
    try:
        model: Model = imported(str(entry.adapter))()
        kinds, info = model.kinds, model.info
        millions = None if info.parameters is None else round(info.parameters / 1e6, 2)
        facts = {"code": entry.adapter, "trained_on": list(info.trained_on), "notes": entry.notes}
        return ModelRow(entry.name, tuple(kinds), tuple(k for ks in kinds.values() for k in ks), "built in",
                        info.licence, millions, facts={k: v for k, v in facts.items() if v})  # fmt: skip
    except Exception as error:
        return ModelRow(entry.name, (), (), "built in", None, why_not=describe_failure(error))


def _row(entry: CatalogueEntry) -> ModelRow:
    why, how = entry.unavailable, None
    hubs = [h for h in (entry.hub, *(catalogue()[n].hub for n in entry.chooses)) if h is not None]
    if why is None and hubs and not any(map(cached_folder, hubs)):
        why = "not in the local cache of the hub"
        how = "; ".join(f"hf download {h}" for h in hubs) + "; a run does it where the hub answers"
    facts = {"download_mb": entry.download_mb, "trained_on": entry.trained_on, "notes": entry.notes,
             "adapter": entry.adapter, "options": entry.options}  # fmt: skip
    return ModelRow(entry.name, tuple(entry.task), tuple(entry.kind), entry.hub or "built in", entry.licence,
                    entry.parameters_m, why, how, {k: v for k, v in facts.items() if v})  # fmt: skip


def _plugin_row(name: str) -> ModelRow:
    entry = plugins(GROUP)[name]
    try:
        cls = load_plugin("model", entry)
        stated = inspect.getattr_static(cls, "kind", ())
        listed = (stated,) if isinstance(stated, str) else stated if isinstance(stated, (list, tuple)) else ()
        kinds = tuple(k for k in listed if isinstance(k, str) and k in KINDS)
        licence = inspect.getattr_static(cls, "licence", None)
        tasks = tuple(dict.fromkeys(TASK_OF_KIND[k] for k in kinds))
        return ModelRow(name, tasks, kinds, entry.value, licence if isinstance(licence, str) else None)
    except Exception as error:
        return ModelRow(name, (), (), entry.value, None, why_not=describe_failure(error))
