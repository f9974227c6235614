"""What lies in a run's folder, and whether the folder is free for a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.errors import UsageError
from reasonx_eval.io.files import write_json
from reasonx_eval.io.validation import explain
from reasonx_eval.models.embedded.tuned import CARD_NAME
from reasonx_eval.models.loading.checkpoint import read_json
from reasonx_eval.run.provenance import collect
from reasonx_ft.tuning.checkpoint import FOLDER
from reasonx_ft.tuning.config import TuneConfig

if TYPE_CHECKING:
    from reasonx_ft.tuning.export import Facts
    from reasonx_ft.tuning.prepare import Prepared

RUN: Final = "run.json"
LOG: Final = "log.jsonl"
MODEL: Final = "model"
GRIDS: Final = "grids"
EVENTS: Final = "events"


class RunFile(BaseModel):
    """run.json: what was asked, and on what; everything that `export` needs beside a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(1, alias="schema")
    base: str
    photos: str
    store: str
    config: TuneConfig
    facts: dict[str, Any]
    identity: dict[str, str]
    steps: int
    left_out: dict[str, Any]
    versions: dict[str, str]


def write_run(out: Path, prepared: Prepared, facts: Facts) -> None:
    """Write run.json."""
    seen, left = collect(seed=prepared.config.seed), prepared.photos.left_out
    versions = {k: v for k, v in seen.packages.items() if k in ("torch", "numpy", "diffusers", "transformers")}
    excluded = {m: vars(e) for m, e in prepared.answers.excluded.items()}
    write_json(out / RUN, RunFile(
        schema=1, base=prepared.sources.base, photos=prepared.sources.photos, store=str(prepared.sources.store),
        config=prepared.config, facts={k: v for k, v in asdict(facts).items() if k != "config"},
        identity=dict(prepared.identity), steps=prepared.steps,
        left_out={"pairs": excluded, "same_pixel": left.same_pixel, "unjudged": left.unjudged,
                  "unreadable": left.unreadable, "repeated": left.repeated},
        versions={"reasonx": seen.reasonx, "python": seen.python, **versions},
    ).model_dump(mode="json", by_alias=True))  # fmt: skip


def read_run(out: Path) -> RunFile:
    """The run.json of a folder.

    Raises
    ------
    UsageError
        There is none, or it is not one of these.
    """
    raw: Mapping[str, Any] | None = read_json(out / RUN)
    if raw is None:
        raise UsageError(f"no {RUN}: not the folder of a tuning", where=str(out))
    try:
        return RunFile.model_validate(raw)
    except ValidationError as error:
        raise UsageError(explain(error), where=str(out / RUN)) from None


def claim_run(out: Path, *, force: bool) -> None:
    """Make sure that a folder is free for a run: new, or one to go on with.

    Raises
    ------
    UsageError
        It is a file; or it holds a finished run, and `force` is not given.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("a file, not a folder", where=str(out))
    if force:
        for name in (FOLDER, MODEL, GRIDS, EVENTS):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (RUN, LOG):
            (out / name).unlink(missing_ok=True)
    elif (out / MODEL / CARD_NAME).exists():
        raise UsageError("a finished tuning is there already", where=str(out), fix="--force, or another --out")
