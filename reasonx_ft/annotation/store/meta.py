"""``meta.json``: says that a folder is a judgement store, and what is in it, for people and for a dataset's page.

Everything in it is in the shards too: it is a summary, so two writers may each write theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from reasonx_eval.io.documents import read_model
from reasonx_eval.io.files import write_json
from reasonx_ft.annotation.store.schema import SCHEMA
from reasonx_ft.annotation.store.shards import About

META: Final = "meta.json"


class _Meta(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["reasonx judgements"] = "reasonx judgements"
    version: int = Field(SCHEMA, alias="schema", ge=1, le=SCHEMA)
    templates: dict[str, dict[str, Any]] = {}
    judges: dict[str, dict[str, Any]] = {}


def read_meta(folder: Path) -> About | None:
    """What a store says about itself; None where there is no meta.json.

    Raises
    ------
    DataError
        It is no meta.json of a judgement store, or of a newer version.
    """
    path = folder / META
    try:
        meta = read_model(path, _Meta, "description of a judgement store", kind="store",
                          fix="delete it: it is made anew from the shards")  # fmt: skip
    except FileNotFoundError:
        return None
    return About(meta.templates, meta.judges)


def update_meta(folder: Path, about: About) -> None:
    """Add to meta.json; make it where it is not there."""
    known = about | (read_meta(folder) or About())
    meta = _Meta(templates={k: dict(v) for k, v in sorted(known.templates.items())},
                 judges={k: dict(v) for k, v in sorted(known.judges.items())})  # fmt: skip
    write_json(folder / META, meta.model_dump(mode="json", by_alias=True))
