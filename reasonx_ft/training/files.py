"""What a training leaves behind while it runs: a checkpoint to go on from, a log, and a clean stop on Ctrl-C."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from pydantic import BaseModel

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.documents import parse_json
from reasonx_eval.io.files import canonical_json, encode_json, needing_space, replacing, write_bytes

CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.jsonl"


def save_state(path: Path, config: BaseModel, state: Mapping[str, Any]) -> None:
    """Tensors, numbers and containers of them, with the configuration they belong to; written whole or not at all."""
    with replacing(path) as handle:
        torch.save({"config": config.model_dump_json(), **state}, handle)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU; `config` is a dict.

    Raises
    ------
    DataError
        It can't be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {**state, "config": parse_json(state["config"], str(path)), "step": int(state["step"])}
    except Exception as error:
        raise DataError(f"not a checkpoint ({' '.join(str(error).split())[:200]})", where=str(path),
                        fix="--force to start anew") from None  # fmt: skip


def check_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint of another configuration: a UsageError that names the fields that differ."""
    differ = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if differ:
        said = ", ".join(f"{k} {theirs.get(k)} (now {ours.get(k)})" for k in differ)
        raise UsageError(f"an unfinished training with another configuration: {said}", where=str(path),
                         fix="the same options, another --out, or --force to start anew")  # fmt: skip


def rise_and_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the peak of the learning rate in a step: a linear rise over `warmup` steps, then half a cosine to 0."""
    return min(1.0, (step + 1) / (warmup + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


class JsonLog:
    """A JSON object a line, written through at once.

    Parameters
    ----------
    keep_below : lines of later steps are dropped first: those steps are done again
    """

    def __init__(self, path: Path, keep_below: int) -> None:
        kept = [line for line in _lines(path) if line["step"] <= keep_below]
        write_bytes(path, b"".join(map(_line, kept)))
        self._path, self._handle = path, path.open("ab", buffering=0)

    def write(self, line: Mapping[str, Any]) -> None:
        data = _line(line)
        with needing_space(self._path):
            while data:  # a disk that fills up takes a part first
                data = data[self._handle.write(data) :]

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()


def _line(values: Mapping[str, Any]) -> bytes:
    return encode_json(canonical_json(values) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = parse_json(text, str(path))
        except DataError:
            continue  # cut off when the process was killed
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line


def claim(out: Path, model: str, *, force: bool) -> None:
    """Make sure that a folder is free for a training of `model`: new, or one to go on with.

    The card is written last: weights without one are of a training that was stopped.

    Raises
    ------
    UsageError
        It holds finished weights, and `force` is not given.
    """
    finished = out / f"{model}.json"
    if force:
        for path in (finished, finished.with_suffix(".safetensors"), out / CHECKPOINT, out / LOG):
            path.unlink(missing_ok=True)
    elif out.exists() and not out.is_dir():
        raise UsageError("a file, not a folder", where=str(out))
    elif finished.exists():
        raise UsageError(f"{model}.safetensors is there already", where=str(out), fix="--force, or another --out")
