"""Safetensors files, checked before a library reads them: what is wrong with one, and how many numbers it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.hub import read_json

#: the format allows no longer header
_MAX_HEADER: Final = 100_000_000
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Weights:
    """The weight files of one network.

    files : one, or the shards of one
    variant : None for full files; "fp16" where only half-precision copies are there
    """

    files: tuple[Path, ...]
    variant: str | None = None

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for path in self.files for shape in tensor_shapes(path).values())


def find_weights(folder: Path, stem: str) -> Weights:
    """The safetensors files of one network, each with a sound header.

    Parameters
    ----------
    folder : a network's own folder
    stem : what its files are called: ``diffusion_pytorch_model`` (diffusers) or ``model`` (transformers)

    Raises
    ------
    UsageError
        No such folder, no weights, only pickled weights, a shard missing, or a file that is not what its name says.
    """
    if not folder.is_dir():
        raise UsageError("no such folder: the checkpoint is incomplete", where=str(folder))
    for variant in (None, "fp16"):
        files = _files(folder, stem if variant is None else f"{stem}.{variant}", stem, variant)
        if files:
            for path in files:
                tensor_shapes(path)
            return Weights(files, variant)
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise UsageError(f"the weights are pickled ({pickles[0]}); a pickle can run code, so it is not loaded",
                         where=str(folder), fix="a revision of this checkpoint with .safetensors, or convert it where "
                         "you trust it: save_pretrained(DIR, safe_serialization=True)")  # fmt: skip
    raise UsageError(f"no weights: {stem}.safetensors is missing", where=str(folder))


def _files(folder: Path, name: str, stem: str, variant: str | None) -> tuple[Path, ...]:
    whole = folder / f"{name}.safetensors"
    if whole.exists():
        return (whole,)
    part = f".{variant}" if variant else ""
    index = read_json(folder / f"{stem}.safetensors.index{part}.json")
    if index is None:
        return ()
    named = sorted(set(index.get("weight_map", {}).values()))
    for shard in named:
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise UsageError(f"shard {shard} is missing: an interrupted download?", where=str(folder))
    return tuple(folder / shard for shard in named)


def tensor_shapes(path: Path) -> Mapping[str, Sequence[int]]:
    """The tensors of a safetensors file by name, from its header alone.

    Raises
    ------
    UsageError
        Not a safetensors file, or a part of one.
    """
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(8)
            length = int.from_bytes(head, "little")
            raw = handle.read(length) if 8 + length <= size and length <= _MAX_HEADER else b""
    except OSError as error:
        raise UsageError(f"can't be read: {error.strerror or error}", where=where) from None
    if not size:
        raise UsageError("the file is empty (0 bytes): an interrupted download?", where=where)
    if head == b"version ":
        raise UsageError("a Git LFS pointer, not the weights themselves", where=where, fix="git lfs pull")
    header = _header(raw)
    if header is None:
        raise UsageError("not a safetensors file: its header can't be read (a text file, an error page, or damage?)",
                         where=where, fix="copy or download it again")  # fmt: skip
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    end = 8 + length + max((int(t["data_offsets"][1]) for t in tensors.values()), default=0)
    if end != size:
        raise UsageError(f"the file has {size} bytes, but its header says {end}: an interrupted copy or download?",
                         where=where, fix="copy or download it again")  # fmt: skip
    return {k: tuple(v["shape"]) for k, v in tensors.items()}


def _header(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    tensors = [v for k, v in value.items() if k != "__metadata__"]
    sound = all(isinstance(v, dict) and {"shape", "data_offsets"} <= set(v) for v in tensors)
    return value if sound else None
