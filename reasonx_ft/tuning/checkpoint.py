"""The folder of a run: its run.json, and checkpoints of everything that later steps depend on.

What is random in a run is keyed by (seed, step, photo), so the number of the next step is the position of every random
stream and of the sampler; what else there is to keep are tensors and running statistics. Several checkpoints are kept,
each whole or not there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.files import write_json
from reasonx_eval.io.validation import explain
from reasonx_eval.models.embedded.tuned import CARD_NAME
from reasonx_eval.models.loading.checkpoint import read_json
from reasonx_eval.run.provenance import collect
from reasonx_ft.training.files import check_same, load_state, save_state
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.settings import stored_config

if TYPE_CHECKING:
    from reasonx_ft.tuning.facts import Facts
    from reasonx_ft.tuning.state import TrainState

RUN: Final = "run.json"
LOG: Final = "log.jsonl"
MODEL: Final = "model"
GRIDS: Final = "grids"
TRACKERS: Final = "trackers"


FOLDER: Final = "checkpoints"
BEST: Final = "best.pt"
_NAME: Final = re.compile(r"step-(\d{8})\.pt")


def steps_kept(out: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder, the newest first."""
    found = [_NAME.fullmatch(p.name) for p in (out / FOLDER).glob("step-*.pt")]
    return sorted((int(m[1]) for m in found if m), reverse=True)


def save(out: Path, config: TuneConfig, identity: Mapping[str, str], state: Mapping[str, Any], step: int) -> Path:
    """Write the checkpoint after `step` steps, then drop all but the last `watch.keep`."""
    path = path_of(out, step)
    save_state(path, config, {"identity": dict(identity), "step": step, **state})
    for old in steps_kept(out)[config.watch.keep :]:
        path_of(out, old).unlink(missing_ok=True)
    return path


def save_best(out: Path, config: TuneConfig, identity: Mapping[str, str], state: Mapping[str, Any], step: int) -> None:
    """Keep the weights of the best check beside the run's checkpoints."""
    save_state(out / FOLDER / BEST, config, {"identity": dict(identity), "step": step, **state})


def load(out: Path, config: TuneConfig, identity: Mapping[str, str]) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint, None where there is none, and warnings about those that aren't.

    Raises
    ------
    UsageError
        It is of another configuration, base, photos or judgements.
    DataError
        There are some, and none can be read.
    """
    for left in (out / FOLDER).glob(".*.part"):
        left.unlink(missing_ok=True)  # a killed process was writing it
    warnings: list[str] = []
    for step in steps_kept(out):
        path = path_of(out, step)
        try:
            state = load_state(path)
        except DataError as error:
            warnings.append(str(error))
            continue
        check(state, config, identity, path)
        return state, warnings
    if warnings:
        raise DataError(warnings[0].splitlines()[0], fix="--force to start anew")
    return None, []


def load_best(out: Path) -> dict[str, Any] | None:
    """Weights and step of the best check; None where no check has been made.

    Raises
    ------
    DataError
        The file can't be read.
    """
    path = out / FOLDER / BEST
    return load_state(path) if path.is_file() else None


def check(state: Mapping[str, Any], config: TuneConfig, identity: Mapping[str, str], path: Path) -> None:
    """Refuse a checkpoint that this run would not have come to; names what differs."""
    theirs = stored_config(state["config"], str(path)).deciding()
    check_same(_flat(theirs), _flat(config.deciding()), path)
    for what, digest in identity.items():
        if state["identity"].get(what) != digest:
            raise UsageError(f"an unfinished run with other {what}", where=str(path),
                             fix="the same ones, another --out, or --force to start anew")  # fmt: skip


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found


def path_of(out: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return out / FOLDER / f"step-{step:08d}.pt"


class RunFile(BaseModel):
    """run.json: configuration, sources and versions; everything that `export` needs beside a checkpoint."""

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


def write_run(out: Path, state: TrainState, facts: Facts) -> None:
    """Write run.json."""
    seen, left = collect(seed=state.config.seed), state.photos.left_out
    versions = {k: v for k, v in seen.packages.items() if k in ("torch", "numpy", "diffusers", "transformers")}
    excluded = {m: vars(e) for m, e in state.answers.excluded.items()}
    run = RunFile(
        schema=1, base=state.sources.base, photos=state.sources.photos, store=str(state.sources.store),
        config=state.config, facts={k: v for k, v in asdict(facts).items() if k != "config"},
        identity=dict(state.identity), steps=state.steps,
        left_out={"pairs": excluded, "same_pixel": left.same_pixel, "unjudged": left.unjudged,
                  "unreadable": left.unreadable, "repeated": left.repeated},
        versions={"reasonx": seen.reasonx, "python": seen.python, **versions},
    )  # fmt: skip
    # pydantic can't write keys that are file names in another encoding
    rest = run.model_dump(mode="json", by_alias=True, exclude={"left_out"})
    write_json(out / RUN, {**rest, "left_out": run.left_out})


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
        return RunFile.model_validate({**raw, "config": stored_config(raw.get("config", {}), str(out / RUN))})
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
        for name in (FOLDER, MODEL, GRIDS, TRACKERS):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (RUN, LOG):
            (out / name).unlink(missing_ok=True)
    elif (out / MODEL / CARD_NAME).exists():
        raise UsageError("a finished tuning is there already", where=str(out), fix="--force, or another --out")
