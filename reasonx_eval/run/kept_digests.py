"""Digests of ground truth kept from run to run, so that files that stayed as they were aren't hashed again.

A record is bound to its ground truth by a digest of the decoded arrays, which takes as long as decoding them. It is
kept in the user's cache folder beside what the system says of the files it came from, and taken from there while that
is so: path, size, inode, and the times of change of content and of inode, to the nanosecond. A file that is written in
place or replaced has another time of change of its inode, which no program can set. A file that changed less than two
seconds before it was read isn't kept: a second change could bear the same time. What is trusted is therefore the file
system; bits that decay on a disk leave these marks as they are, and a run with `fresh` looks at the bytes again.

What is kept holds for one version of the package's source and of the libraries it decodes with.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import reasonx_eval
from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import ReasonXError
from reasonx_eval.io.files import cache_folder, canonical_json, sha256_text, write_text
from reasonx_eval.run.provenance import package_versions
from reasonx_eval.scoring import array_digest
from reasonx_eval.types import Target

#: of each file of a sample: path, size, inode, time of change of the content and of the inode, ns
Stamp: TypeAlias = tuple[tuple[str, int, int, int, int], ...]

#: a file that changed this long before it was read can't change again under the same time, ns
_SETTLED: int = 2 * 10**9
#: targets that are maps; hashing the others takes no longer than asking for the state of their files
_MAPS = frozenset({"depth", "normals", "albedo", "irradiance"})


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stamp: Stamp
    digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class _Kept(BaseModel):
    """What is kept of one target of one data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    reader: str
    entries: dict[str, _Entry]


class KeptDigests:
    """Digests of one target of a data set's samples, safe to use from several threads.

    Parameters
    ----------
    dataset : its ``files`` name all that the target of a sample is decoded from
    file : where they are kept; need not exist
    fresh : hash everything, and keep that instead of what was kept before
    """

    def __init__(self, dataset: Dataset, file: Path, *, fresh: bool = False) -> None:
        self._dataset, self._file = dataset, file
        self._known = {} if fresh else _load(file)
        self._new: dict[str, _Entry] = {}

    def before(self, sample_id: str) -> Callable[[Target], str]:
        """To be called before a sample is read; gives the function that takes its target to its digest."""
        started = time.time_ns()
        stamp = self._stamp(sample_id)
        if stamp is None:
            return array_digest

        def digest(target: Target) -> str:
            known = self._known.get(sample_id)
            unchanged = self._stamp(sample_id) == stamp
            if unchanged and known is not None and known.stamp == stamp:
                return known.digest
            found = array_digest(target)
            if unchanged and _settled(stamp, started):
                self._new[sample_id] = _Entry(stamp=stamp, digest=found)
            return found

        return digest

    def _stamp(self, sample_id: str) -> Stamp | None:
        """The state of a sample's files; None where one is missing, or there is none."""
        try:
            return tuple(_state(path) for path in self._dataset.files(sample_id)) or None
        except (OSError, ReasonXError):
            return None  # reading the sample gives the message

    def save(self) -> None:
        """Write what is new, beside what another process may have written; a folder that can't be written is left."""
        if self._new:
            reader = reader_digest()
            assert reader is not None
            kept = _Kept(reader=reader, entries={**_load(self._file), **self._new})
            with suppress(OSError):
                write_text(self._file, kept.model_dump_json())


def _state(path: Path) -> tuple[str, int, int, int, int]:
    state = os.stat(path)
    return os.path.abspath(path), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _settled(stamp: Stamp, read_ns: int) -> bool:
    """Whether no file could have changed once more within the tick of a clock that its last change is dated by."""
    return all(max(changed, inode_changed) + _SETTLED < read_ns for *_, changed, inode_changed in stamp)


def _load(file: Path) -> dict[str, _Entry]:
    """What is kept and was made by this version; nothing where the file is absent or damaged: it costs one hashing."""
    with suppress(OSError, ValidationError):
        kept = _Kept.model_validate_json(file.read_bytes())
        if kept.reader == reader_digest():
            return kept.entries
    return {}


def kept_digests(dataset: Dataset, target: str, folder: Path, *, fresh: bool = False) -> KeptDigests | None:
    """The digests kept in `folder` of one target of a data set; None where none can be.

    Rendered data has no files, small targets are hashed as quickly as their files are looked at, and of a plug-in
    it isn't known what code reads its files.
    """
    kind = type(dataset)
    own = kind.__module__.startswith(f"{reasonx_eval.__name__}.") and kind.files is not Dataset.files
    if not own or target not in _MAPS or reader_digest() is None:
        return None
    options = {key: str(value) for key, value in dataset.options.items()}
    name = sha256_text(canonical_json([kind.__name__, str(dataset.root), options, target]))
    return KeptDigests(dataset, folder / f"{name[:32]}.json", fresh=fresh)


def default_folder() -> Path:
    """Where the commands keep digests: ``reasonx/digests`` in the user's cache folder."""
    return cache_folder("digests")


@cache
def reader_digest() -> str | None:
    """sha256 of all that decides what a file decodes to: the package's source and the libraries' versions.

    None where the package is installed without its source, so that a change of it couldn't be seen.
    """
    folder = Path(reasonx_eval.__file__).parent
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".so", ".txt"))
    if not any(path.suffix == ".py" for path in sources):
        return None
    digest = hashlib.sha256(canonical_json(package_versions()).encode())
    for path in sources:
        content = path.read_bytes()
        digest.update(f"|{path.relative_to(folder)}:{len(content)}|".encode())
        digest.update(content)
    return digest.hexdigest()
