"""Manifests: the source of official files, and the state of one's own files when they were frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.doctor.findings import Finding, some
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.files import write_text
from reasonx_eval.io.validation import explain

MANIFEST_NAME = "manifest.toml"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Progress = Callable[[int, int], None]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Table):
    """An official file; bytes and digests only where they are published.

    name : the file's name as offered
    size : roughly, for people, where the exact number of bytes isn't known
    """

    name: str
    url: str | None = None
    size: str | None = None
    bytes: int | None = Field(None, ge=0)
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    contains: str = ""


class SplitEntry(_Table):
    n: int = Field(ge=1)
    ids_sha256: Sha256 | None = None


class FileEntry(_Table):
    """path : relative to the dataset's root, with forward slashes"""

    path: str
    bytes: int = Field(ge=0)
    sha256: Sha256


class Manifest(_Table):
    """kind official: how to get the files (DatasetInfo has licence and homepage); frozen: the files of one split."""

    schema_: Literal[1] = Field(alias="schema")
    kind: Literal["official", "frozen"]
    dataset: str
    layout: str = ""
    notes: str = ""
    archives: tuple[Archive, ...] = ()
    splits: dict[str, SplitEntry] = {}
    files: tuple[FileEntry, ...] = ()


def official_manifest(name: str) -> Manifest | None:
    """The manifest of an official dataset in the package, or None if there is none."""
    path = resources.files("reasonx_eval") / "protocols" / "data" / "manifests" / f"{name}.toml"
    return read_manifest(path) if path.is_file() else None


def read_manifest(path: Path | Traversable) -> Manifest:
    """A manifest file.

    Raises
    ------
    DataError
        No such file, broken TOML, or keys and values that no manifest has.
    """
    try:
        return Manifest.model_validate(read_toml(path, error=DataError))
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except ValidationError as error:
        raise DataError(f"not a manifest: {explain(error, most=5)}", where=str(path)) from None


def frozen_manifest(dataset: Dataset) -> Manifest | None:
    """The manifest that lies beside the data, or None."""
    if dataset.root is None or not (dataset.root / MANIFEST_NAME).is_file():
        return None
    return read_manifest(dataset.root / MANIFEST_NAME)


def split_files(dataset: Dataset) -> list[str]:
    """The files of the split, relative to the root, sorted, each once.

    Raises
    ------
    UsageError
        The dataset reads no files, or files outside its root.
    """
    paths = {path for sample_id in dataset.ids for path in dataset.files(sample_id)}
    if not paths or dataset.root is None:
        raise UsageError("this dataset is not read from files, so there is nothing to freeze", where=dataset.name)
    try:
        return sorted(path.relative_to(dataset.root).as_posix() for path in paths)
    except ValueError as error:
        raise UsageError(f"a file lies outside the dataset's folder: {error}", where=dataset.name) from None


def freeze(dataset: Dataset, *, progress: Progress | None = None) -> Manifest:
    """Sizes and digests of every file of the split, and the digest of its ids.

    Raises
    ------
    DataError
        A file is missing; nothing is frozen then.
    UsageError
        The dataset has no files.
    """
    names = split_files(dataset)
    assert dataset.root is not None
    missing = [name for name in names if not (dataset.root / name).is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(names)} files are missing: {some(missing)}", where=dataset.name,
                        fix="complete the files or take their ids out of the split, then freeze again")  # fmt: skip
    entries = []
    for done, name in enumerate(names):
        path = dataset.root / name
        entries.append(FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256_file(path)))
        if progress is not None:
            progress(done + 1, len(names))
    splits = {dataset.split: SplitEntry(n=len(dataset.ids), ids_sha256=dataset.ids_digest)}
    return Manifest(schema=1, kind="frozen", dataset=dataset.name, splits=splits, files=tuple(entries))


def write_manifest(manifest: Manifest, path: Path, *, force: bool = False) -> None:
    """Write a frozen manifest as TOML, atomically.

    Raises
    ------
    UsageError
        The file exists and `force` is not set: a freeze that overwrites hides changes.
    """
    if path.exists() and not force:
        raise UsageError("exists already", where=str(path), fix="--out FILE, or --force to replace it")
    lines = ["schema = 1", f"kind = {_quoted(manifest.kind)}", f"dataset = {_quoted(manifest.dataset)}"]
    for name, split in manifest.splits.items():
        lines += ["", f"[splits.{_quoted(name)}]", f"n = {split.n}", f"ids_sha256 = {_quoted(split.ids_sha256 or '')}"]
    for entry in manifest.files:
        lines += ["", "[[files]]", f"path = {_quoted(entry.path)}", f"bytes = {entry.bytes}",
                  f"sha256 = {_quoted(entry.sha256)}"]  # fmt: skip
    try:
        write_text(path, "\n".join(lines) + "\n")
    except UnicodeEncodeError:
        raise DataError("a file name is not valid UTF-8, which TOML can't hold", where=str(path),
                        fix="rename the file") from None  # fmt: skip


def _quoted(text: str) -> str:
    # a JSON string is a TOML basic string, except that TOML wants DEL escaped too
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def verify_frozen(dataset: Dataset, manifest: Manifest, *, progress: Progress | None = None) -> list[Finding]:
    """Compare the split's files, byte by byte, and its ids with a frozen manifest."""
    entry = manifest.splits.get(dataset.split)
    if entry is None:
        return [Finding("manifest", "warn", f"it covers split {some(sorted(manifest.splits))}, not '{dataset.split}': "
                        "files not verified", f"reasonx-eval doctor {dataset.info.name} --split {dataset.split} "
                        "--freeze --out FILE")]  # fmt: skip
    assert dataset.root is not None
    findings = []
    if (entry.n, entry.ids_sha256) != (len(dataset.ids), dataset.ids_digest):
        findings.append(Finding("split", "fail", f"{len(dataset.ids)} ids with digest {dataset.ids_digest[:12]}, "
                                f"frozen were {entry.n} with {(entry.ids_sha256 or '')[:12]}"))  # fmt: skip
    now = set(split_files(dataset))
    then = {f.path: f for f in manifest.files}
    missing = [n for n in then if not (dataset.root / n).is_file()]
    extra = sorted(n for n in now - set(then) if (dataset.root / n).is_file())
    changed = []
    for done, (name, file) in enumerate(then.items()):
        path = dataset.root / name
        if path.is_file() and (path.stat().st_size != file.bytes or sha256_file(path) != file.sha256):
            changed.append(name)
        if progress is not None:
            progress(done + 1, len(then))
    for what, names in (("missing", missing), ("changed since the freeze", changed), ("not in the manifest", extra)):
        if names:
            findings.append(Finding("files", "fail", f"{len(names)} {what}: {some(names)}", _restore(what)))
    if not (missing or changed or extra):
        total = sum(f.bytes for f in manifest.files)
        findings.append(Finding("files", "ok", f"{len(then)} files are as frozen, sha256 of each ({megabytes(total)})"))
    return findings


def _restore(what: str) -> str:
    if what == "missing":
        return "restore the files"
    return "restore the files, or, if the change is meant, freeze again: --freeze --force"


def verify_split(dataset: Dataset, manifest: Manifest) -> list[Finding]:
    """Compare count and digest of the ids with an official manifest."""
    entry = manifest.splits.get(dataset.split)
    if entry is None:
        return []
    if entry.n != len(dataset.ids):
        return [Finding("split", "fail", f"{len(dataset.ids)} ids in '{dataset.split}', "
                        f"the official split has {entry.n}")]  # fmt: skip
    if entry.ids_sha256 not in (None, dataset.ids_digest):
        return [Finding("split", "fail", f"the ids of '{dataset.split}' are not the official ones "
                        f"(digest {dataset.ids_digest[:12]}, official {str(entry.ids_sha256)[:12]})")]  # fmt: skip
    return []


def archive_problems(path: Path, known: Archive, *, hashes: bool = True) -> list[str]:
    """Differences between a file and its published size and digests; empty if there are none."""
    size = path.stat().st_size
    if known.bytes is not None and size != known.bytes:
        return [f"{size} bytes, published are {known.bytes}: an interrupted download?"]
    if not hashes:
        return []
    problems = []
    for algorithm, expected in (("sha256", known.sha256), ("md5", known.md5)):
        if expected is None:
            continue
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, algorithm).hexdigest()
        if found != expected:
            problems.append(f"{algorithm} is {found}, published is {expected}: a damaged or another file")
    return problems


def verify_official(root: Path, archives: Sequence[Archive], *, hashes: bool) -> list[Finding]:
    """Compare official files that lie in the root with their published sizes and digests.

    Parameters
    ----------
    hashes : also compute digests, where one is published
    """
    findings = []
    for archive in archives:
        path = root / archive.name
        if not path.is_file():
            continue
        problems = archive_problems(path, archive, hashes=hashes)
        known = [k for k in ("bytes", "sha256", "md5") if getattr(archive, k) and (hashes or k == "bytes")]
        if problems:
            findings.append(Finding("files", "fail", f"{archive.name}: {'; '.join(problems)}", "fetch it again"))
        elif known:
            findings.append(Finding("files", "ok", f"{archive.name}: {' and '.join(known)} as published"))
    return findings


def megabytes(n: int) -> str:
    """A number of bytes for people."""
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n} bytes"
