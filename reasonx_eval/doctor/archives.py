"""Members of .zip, .tar and .7z archives, none of which is trusted: names, kinds, sizes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from reasonx_eval.errors import DataError, UsageError

BLOCK = 1 << 20
#: bytes that the disk keeps free
RESERVE = 64 << 20
#: archives that unpack to more than so many times their size are refused, unless that is less than FREE_BYTES
MAX_RATIO = 100
FREE_BYTES = 256 << 20
#: a header of a tar (a long name, extended attributes) is read whole: no sound one is as large
_MAX_HEADER = 16 << 20
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Target:
    """Where an archive is unpacked to, and how many bytes it may become (None: MAX_RATIO times its size)."""

    archive: Path
    root: Path
    max_bytes: int | None = None

    def require_limit(self, n_bytes: int) -> None:
        """Refuse more bytes than the archive may become.

        Raises
        ------
        DataError
            States both numbers and the flag that raises the limit.
        """
        limit = self.max_bytes
        if limit is None:
            limit = max(FREE_BYTES, MAX_RATIO * self.archive.stat().st_size)
        if n_bytes > limit:
            raise DataError(f"unpacks to {n_bytes} bytes or more, the limit is {limit}: an archive made to fill the "
                            "disk?", where=str(self.archive),
                            fix="--max-bytes N, if its source says that it is so large")  # fmt: skip

    def require_room(self, members: Sequence[tuple[str, int]]) -> None:
        """Refuse an archive that declares more than its limit, or than the disk has (files that are there take none).

        Raises
        ------
        DataError
            Too many bytes, or too little room.
        """
        self.require_limit(sum(size for _, size in members))
        needed = sum(size for name, size in members if not (self.root / name).is_file())
        free = shutil.disk_usage(self.root).free - RESERVE
        if needed > free:
            raise DataError(f"declares {needed} bytes to write, the disk has {max(free, 0)} left: "
                            "another disk, or an archive made to fill it?", where=str(self.archive))  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A regular file of an archive; `open` gives its content."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def safe_member(name: str, archive: Path) -> Path:
    """A member's name as a relative path.

    Raises
    ------
    DataError
        Absolute, upward, with a drive, a backslash or a NUL in it, or empty.
    """
    parts = [p for p in name.split("/") if p not in ("", ".")]
    bad = name.startswith("/") or ".." in parts or any(c in name for c in "\\\0") or not parts or ":" in parts[0]
    if bad:
        raise DataError(f"{name!r} would be written outside the folder: not unpacked", where=str(archive),
                        fix="get the archive from its official source")  # fmt: skip
    return Path(*parts)


def is_complete(target: Path, member: Member) -> bool:
    """Whether the file lies there already: the right size and, where the archive has one, the right checksum."""
    if not target.is_file() or target.stat().st_size != member.size:
        return False
    if member.crc is None:
        return True
    crc = 0
    with target.open("rb") as handle:
        while block := handle.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == member.crc


@contextmanager
def open_members(target: Target) -> Iterator[Iterator[Member]]:
    """The files of an archive, one after the other.

    Raises
    ------
    UsageError
        No such file, not an archive type that is known, or py7zr is missing.
    DataError
        An unsafe name, a link, encryption, too many bytes, or damage.
    """
    archive = target.archive
    if not archive.is_file():
        raise UsageError("no such file", where=str(archive))
    name = archive.name.lower()
    suffix = next((s for s in _OPENERS if name.endswith(s)), None)
    if suffix is None:
        raise UsageError(f"not a known archive; {' '.join(_OPENERS)} are", where=str(archive))
    try:
        with _OPENERS[suffix](target) as members:
            yield members
    except (*DAMAGE, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{error.strerror}: {error.filename or ''}", where=str(archive)) from None
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"can't be read: {detail}: an interrupted download?", where=str(archive),
                        fix="fetch it again") from None  # fmt: skip


@contextmanager
def _zip(target: Target) -> Iterator[Iterator[Member]]:
    with zipfile.ZipFile(target.archive) as zipped:
        yield _zip_members(zipped, target)


def _zip_members(zipped: zipfile.ZipFile, target: Target) -> Iterator[Member]:
    archive, infos = target.archive, zipped.infolist()
    # all names are known before anything is written, so a bad one stops everything
    for info in infos:
        safe_member(info.filename, archive)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"'{info.filename}' is a link or a device: not unpacked", where=str(archive))
        if info.flag_bits & 0x1:
            raise DataError(f"'{info.filename}' is encrypted", where=str(archive))
    target.require_room([(i.filename, i.file_size) for i in infos])
    for info in infos:
        if not info.is_dir():
            yield Member(info.filename, info.file_size, info.CRC, partial(_open_zipped, zipped, info))


def _open_zipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    return zipped.open(info)


@contextmanager
def _tar(opener: Callable[..., Any], target: Target) -> Iterator[Iterator[Member]]:
    # no index is kept of a compressed tar: reading one first would decompress all of it twice
    with opener(target.archive, "rb") as raw:
        reader: Any = _Reader(raw, target.archive)
        with tarfile.open(fileobj=reader, mode="r:") as tarred:
            yield _tar_members(tarred, target)


class _Reader:
    """A file whose single reads are limited: tarfile reads a header as large as it says into memory."""

    def __init__(self, raw: IO[bytes], archive: Path) -> None:
        self._raw, self._archive = raw, archive
        self.seek, self.tell = raw.seek, raw.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MAX_HEADER:
            raise DataError(f"has a header of {count} bytes: not a dataset's archive", where=str(self._archive))
        return self._raw.read(count)


def _tar_members(tarred: tarfile.TarFile, target: Target) -> Iterator[Member]:
    total = 0
    for info in tarred:
        if info.isdir():
            continue
        if not info.isreg():
            raise DataError(f"'{info.name}' is a link or a device: not unpacked", where=str(target.archive))
        total += info.size
        target.require_limit(total)

        def content(info: tarfile.TarInfo = info) -> IO[bytes]:
            handle = tarred.extractfile(info)
            assert handle is not None
            return handle

        yield Member(info.name, info.size, None, content)


@contextmanager
def _seven(target: Target) -> Iterator[Iterator[Member]]:
    """Decompress the missing files into a folder beside their place, and give them one by one.

    A solid .7z can't be read from the middle, so the missing files are decompressed in one go; the folder is
    deleted at the end, and at an interruption.

    Raises
    ------
    UsageError
        py7zr is not installed; names both ways out.
    DataError
        An unsafe name, a link, encryption, too little room, or damage.
    """
    archive, root = target.archive, target.root
    try:
        py7zr: Any = import_module("py7zr")
    except ImportError:
        raise UsageError("a .7z archive needs py7zr, which is not installed", where=str(archive),
                         fix=f"python -m pip install py7zr   or   7z x {archive} -o{root}") from None  # fmt: skip
    stage = root / f".{archive.name}.part"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        with py7zr.SevenZipFile(archive, "r") as handle:
            if handle.needs_password():
                raise DataError("it is encrypted", where=str(archive))
            members = [_seven_member(info, stage, archive) for info in handle.list() if not info.is_directory]
            target.require_room([(m.name, m.size) for m in members])
            targets = [m.name for m in members if not is_complete(root / safe_member(m.name, archive), m)]
            if targets:
                handle.extract(path=stage, targets=targets)
        yield _drained(members, stage)
    except py7zr.exceptions.ArchiveError as error:
        raise DataError(f"can't be read: {error}: an interrupted download?", where=str(archive),
                        fix="fetch it again") from None  # fmt: skip
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _seven_member(info: Any, stage: Path, archive: Path) -> Member:
    relative = safe_member(info.filename, archive)
    if info.is_symlink or not info.is_file:
        raise DataError(f"'{info.filename}' is a link or a device: not unpacked", where=str(archive))
    return Member(info.filename, int(info.uncompressed), info.crc32, partial(_open, stage / relative))


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _drained(members: list[Member], stage: Path) -> Iterator[Member]:
    for member in members:
        yield member
        # its copy in place is complete now
        (stage / member.name).unlink(missing_ok=True)


_OPENERS: dict[str, Callable[[Target], AbstractContextManager[Iterator[Member]]]] = {
    ".zip": _zip, ".tar": partial(_tar, open), ".tar.gz": partial(_tar, gzip.open), ".tgz": partial(_tar, gzip.open),
    ".tar.bz2": partial(_tar, bz2.open), ".tar.xz": partial(_tar, lzma.open), ".7z": _seven,
}  # fmt: skip
