"""Where a network's files are: a local folder, or a hub id in the local cache or on the hub; and their digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_file

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
#: what is downloaded before anything else: it says what the rest is
_SMALL = ["*.json", "*.txt", "*.model"]
#: files that decide what a network computes, besides its weights
_CONFIGS = (".json", ".txt", ".model")


@dataclass(frozen=True)
class Checkpoint:
    """A network's files.

    folder : where they are on this machine
    source : what the user named: a path, or a hub id
    revision : commit of a hub snapshot; None for a folder
    """

    folder: Path
    source: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """What to call it: the last part of the hub id, or the folder's name."""
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
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"not a readable JSON file: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise UsageError("not a JSON object", where=str(path))
    return value


def is_hub_id(spec: str) -> bool:
    """``owner/name``, optionally ``@revision``: what a hub id looks like."""
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
        # many repositories hold the same weights in both formats and two precisions: the best of what there is
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
