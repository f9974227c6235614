"""The list of models: what there is, whether it can run here, and how to get it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonx_eval.models.base import Model
from reasonx_eval.models.loading.catalogue import Named, catalogue
from reasonx_eval.models.loading.hub import cached_folder
from reasonx_eval.models.loading.load import GROUP
from reasonx_eval.registry import MODELS, describe_failure, plugins, resolve
from reasonx_eval.types import KINDS, TASK_OF_KIND


@dataclass(frozen=True)
class ModelRow:
    """One line of ``reasonx-eval list models``.

    source : "built in", the hub id, or "module:attribute" of a plug-in
    parameters_m : millions of parameters, where known
    why_not : why it is not available here, else None
    how : how to get it, where it is not
    facts : what else is known
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
    """Baselines, the catalogue, then plug-ins; a broken one is a row that says why, never an exception.

    Baselines are constructed; of the catalogue only its data are read, of plug-ins only the class is looked at,
    because constructing one may load weights.
    """
    rows = [_registered_row(name, source) for name, source in MODELS.items()]
    rows += [_catalogue_row(named) for named in catalogue().values()]
    taken = {row.name for row in rows}
    return rows + [_plugin_row(name, e.value) for name, e in sorted(plugins(GROUP).items()) if name not in taken]


def _registered_row(name: str, source: str) -> ModelRow:
    try:
        model: Model = resolve(GROUP, MODELS, "model", name)()
        kinds = model.kinds
        listed = tuple(k for ks in kinds.values() for k in ks)
        info = model.info
        millions = None if info.parameters is None else round(info.parameters / 1e6, 2)
        facts = {"code": source, "trained_on": list(info.trained_on)}
        return ModelRow(name, tuple(kinds), listed, "built in", info.licence, millions,
                        facts={k: v for k, v in facts.items() if v})  # fmt: skip
    except Exception as error:
        return ModelRow(name, (), (), "built in", None, why_not=describe_failure(error))


def _catalogue_row(named: Named) -> ModelRow:
    why, how = named.unavailable, None
    hubs = [h for h in (named.hub, *(catalogue()[n].hub for n in named.chooses)) if h is not None]
    if why is None and hubs and not any(map(cached_folder, hubs)):
        why = "not in the local cache of the hub"
        how = "; ".join(f"hf download {h}" for h in hubs) + "; a run does it where the hub answers"
    facts = {"download_mb": named.download_mb, "trained_on": named.trained_on, "notes": named.notes,
             "adapter": named.adapter, "options": named.options}  # fmt: skip
    return ModelRow(named.name, tuple(named.task), tuple(named.kind), named.hub or "built in", named.licence,
                    named.parameters_m, why, how, {k: v for k, v in facts.items() if v})  # fmt: skip


def _plugin_row(name: str, source: str) -> ModelRow:
    try:
        cls = resolve(GROUP, MODELS, "model", name)
        stated = inspect.getattr_static(cls, "kind", ())
        listed = (stated,) if isinstance(stated, str) else stated if isinstance(stated, (list, tuple)) else ()
        kinds = tuple(k for k in listed if isinstance(k, str) and k in KINDS)
        licence = inspect.getattr_static(cls, "licence", None)
        tasks = tuple(dict.fromkeys(TASK_OF_KIND[k] for k in kinds))
        return ModelRow(name, tasks, kinds, source, licence if isinstance(licence, str) else None)
    except Exception as error:
        return ModelRow(name, (), (), source, None, why_not=describe_failure(error))
