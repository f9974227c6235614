"""Checkpoints of a run: everything that later steps depend on, several kept, each whole or not there.

What is random in a run is keyed by (seed, step, photo), so the number of the next step is the position of every random
stream and of the sampler; what else there is to keep are tensors and running statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import DataError, UsageError
from reasonx_ft.training.files import check_same, load_state, save_state
from reasonx_ft.tuning.config import TuneConfig

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
    theirs = TuneConfig.model_validate(state["config"]).deciding()
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
