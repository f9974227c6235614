"""A network's files: where they are (a folder, or a hub id), their digest, and the tensors of safetensors files."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io import documents
from reasonx_eval.io.digests import sha256_file

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
#: downloaded first: these files name the others
_SMALL = ["*.json", "*.txt", "*.model"]
#: files besides the weights that can change a prediction
_CONFIGS = (".json", ".txt", ".model")
#: the safetensors format allows no longer header
_MAX_HEADER: Final = 100_000_000
#: the start of names in weights saved from a wrapped network: DataParallel, DistributedDataParallel, torch.compile
WRAPPER: Final = r"^(?:(?:module|_orig_mod)\.)+"
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A network's files.

    folder : where they are on this machine
    source : the path or hub id that the user gave
    revision : commit of a hub snapshot; None for a folder
    """

    folder: Path
    source: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """The last part of the hub id, or the folder's name."""
        return self.folder.resolve().name if self.hub_id is None else self.hub_id.rpartition("/")[2]

    @property
    def hub_id(self) -> str | None:
        """``owner/name``; None for a folder, even one whose path looks like a hub id: it may hold anything."""
        return None if self.revision is None else self.source.partition("@")[0]

    @cached_property
    def index(self) -> Mapping[str, Any] | None:
        """``model_index.json``: this is a diffusers pipeline."""
        return read_json(self.folder / "model_index.json")

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        """``config.json``: this is a transformers model."""
        return read_json(self.folder / "config.json")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that its configuration says it is of."""
        architectures = (self.config or {}).get("architectures")
        named = [(self.index or {}).get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
        return tuple(name for name in named if isinstance(name, str))

    @cached_property
    def digest(self) -> str:
        """sha256 over the names and contents of all weights and configurations, the same wherever they lie."""
        total = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and path.suffix in (*_WEIGHTS, *_CONFIGS) and not name.startswith("."):
                total.update(f"{name}\t{sha256_file(path)}\n".encode())
        return total.hexdigest()


def read_json(path: Path) -> Mapping[str, Any] | None:
    """A JSON object, or None where there is no such file.

    Raises
    ------
    UsageError
        The file is there and is not a JSON object.
    """
    if not path.is_file():
        return None
    value = documents.read_json(path, error=UsageError)
    if not isinstance(value, dict):
        raise UsageError("not a JSON object", where=str(path))
    return value


def is_hub_id(spec: str) -> bool:
    """Whether text has the form of a hub id: ``owner/name``, optionally ``@revision``."""
    return bool(_HUB_ID.fullmatch(spec))


def find_checkpoint(spec: str, *, allow_pickle: bool = False) -> Checkpoint:
    """The files of a local folder or a hub id.

    A hub id is taken from the local cache if it is there (``HF_HUB_OFFLINE=1`` looks nowhere else), else downloaded.
    Pickled weights are downloaded only if asked for and there are no others.

    Raises
    ------
    UsageError
        No such folder, not in the cache while the hub is out of reach, or an id that the hub does not know.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, spec)
    if not is_hub_id(spec):
        raise UsageError("no such folder, and not a hub id (owner/name)", where=spec)
    return _snapshot(spec, allow_pickle)


def _snapshot(spec: str, allow_pickle: bool) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    name, _, revision = spec.partition("@")
    get = partial(snapshot_download, name, revision=revision or None)
    try:
        folder = Path(get(allow_patterns=_SMALL))
        # many repositories hold the same weights in both formats and two precisions: take the best there is
        wanted: list[tuple[str, str | None]] = [("*.safetensors", "*.fp16.*"), ("*.safetensors", None)]
        if allow_pickle and not (folder / "model_index.json").is_file():
            wanted.append(("*.bin", None))
        for pattern, ignored in wanted:
            if not any(p for p in folder.rglob(pattern) if ".fp16." not in p.name or ignored is None):
                get(allow_patterns=pattern, ignore_patterns=ignored)
            if any(folder.rglob(pattern)):
                break
    except RepositoryNotFoundError:
        raise UsageError("the hub has no such model, or it is private", where=spec) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = "HF_HUB_OFFLINE is set" if _offline() else f"the hub is out of reach ({type(error).__name__})"
        raise UsageError(f"not in the local cache, and {reason}", where=spec,
                         fix=f"hf download {name}  (on a machine that reaches the hub; the cache can be copied), "
                             f"or name a local folder") from None  # fmt: skip
    return Checkpoint(folder, spec, folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_folder(hub_id: str) -> Path | None:
    """The newest snapshot of a hub id in the local cache, without asking the hub; None if it is not there."""
    from huggingface_hub import constants

    repo = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
    ref = repo / "refs" / "main"
    if not ref.is_file():
        return None
    snapshot = repo / "snapshots" / ref.read_text(encoding="utf-8").strip()
    return snapshot if snapshot.is_dir() else None


@dataclass(frozen=True)
class Weights:
    """The weight files of one network.

    files : one, or the shards of one
    variant : None for full files; "fp16" where only half-precision copies are there
    """

    files: tuple[Path, ...]
    variant: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(name for path in self.files for name in tensor_shapes(path))

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for path in self.files for shape in tensor_shapes(path).values())


def find_weights(folder: Path, stem: str) -> Weights:
    """The safetensors files of one network, each with a sound header.

    Parameters
    ----------
    folder : a network's own folder
    stem : name of its files: ``diffusion_pytorch_model`` (diffusers) or ``model`` (transformers)

    Raises
    ------
    UsageError
        No such folder, no weights, only pickled weights, a shard missing, or a file of another format.
    """
    if not folder.is_dir():
        raise UsageError("no such folder: the checkpoint is incomplete", where=str(folder))
    for variant in (None, "fp16"):
        part = "" if variant is None else f".{variant}"
        files = weight_files(folder, f"{stem}{part}.safetensors", f"{stem}.safetensors.index{part}.json")
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


def weight_files(folder: Path, name: str, index: str) -> tuple[Path, ...]:
    """One file of weights, or the shards that its index names; () where there is neither.

    Raises
    ------
    UsageError
        An index that names no shards or one outside the folder, or a shard that is missing.
    """
    if (folder / name).exists():
        return (folder / name,)
    found = read_json(folder / index)
    if found is None:
        return ()
    shards = found.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UsageError("has no weight_map", where=str(folder / index))
    for shard in (names := sorted({str(s) for s in shards.values()})):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise UsageError(f"shard {shard} is missing: an interrupted download?", where=str(folder),
                             fix="copy or download the folder again")  # fmt: skip
    return tuple(folder / shard for shard in names)


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
        value = documents.parse_json(raw, "header")
    except DataError:
        return None
    if not isinstance(value, dict):
        return None
    tensors = [v for k, v in value.items() if k != "__metadata__"]
    sound = all(isinstance(v, dict) and {"shape", "data_offsets"} <= set(v) for v in tensors)
    return value if sound else None
