"""Unpack an archive without trusting it: names, links, sizes; whole files only; goes on where it stopped."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from reasonx_eval.errors import DataError, UsageError

_BLOCK = 1 << 20
#: left free on the disk, bytes
_RESERVE = 64 << 20
MAX_MEMBERS = 5_000_000
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
#: called with the bytes of a member that were done, and the member's name
Progress: TypeAlias = Callable[[int, str], None]


class Known(Protocol):
    """What is published about an archive (manifest.Archive)."""

    @property
    def bytes(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def md5(self) -> str | None: ...


@dataclass(frozen=True)
class Unpacked:
    """How many files were written, and how many lay there complete already."""

    written: int
    kept: int
    bytes: int


@dataclass(frozen=True)
class Member:
    """A regular file of an archive; `open` gives its content."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def archive_problems(path: Path, known: Known, *, hashes: bool = True) -> list[str]:
    """What differs between a file and what is published about it; empty if nothing does."""
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


def unpack(archive: Path, root: Path, *, force: bool = False, progress: Progress | None = None) -> Unpacked:
    """Unpack a .zip, .tar (also .gz, .bz2, .xz) or, with py7zr installed, a .7z into `root`.

    Every file is written under a temporary name and renamed when complete, so an interrupted run leaves only whole
    files; the next one keeps those whose size (and, for .zip, checksum) is right and goes on.

    Parameters
    ----------
    force : replace files that lie there with another content
    progress : called as the bytes of each member are done

    Raises
    ------
    DataError
        An absolute or upward name, a link or device, a name twice, encryption, more bytes than the disk has free,
        damage, or a file in the way; nothing is ever written outside `root`.
    UsageError
        Not an archive type that is known, or py7zr is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _members(archive, root) as members:
        return _write_all(members, archive, root.resolve(), force, progress)


def _write_all(
    members: Iterator[Member], archive: Path, root: Path, force: bool, progress: Progress | None
) -> Unpacked:
    written = kept = total = 0
    seen: set[Path] = set()
    for member in members:
        relative = safe_member(member.name, archive)
        if relative in seen:
            raise DataError(f"'{member.name}' is in it twice", where=str(archive))
        seen.add(relative)
        if len(seen) > MAX_MEMBERS:
            raise DataError(f"more than {MAX_MEMBERS} files: not a dataset", where=str(archive))
        target = _inside(root, relative, archive)
        if is_complete(target, member):
            kept += 1
            if progress is not None:
                progress(member.size, member.name)
        else:
            if target.exists() and not force:
                raise DataError("a file with another content lies there already", where=str(target),
                                fix="move it away, or --force to replace it")  # fmt: skip
            _write_one(target, member, archive, progress)
            written += 1
        total += member.size
    if not seen:
        raise DataError("holds no file: an interrupted download, or another archive?", where=str(archive))
    return Unpacked(written, kept, total)


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


def _inside(root: Path, relative: Path, archive: Path) -> Path:
    """The path below `root`, with its folder made; a link on the way would lead elsewhere and is refused."""
    here = root
    for part in relative.parts:
        here = here / part
        if here.is_symlink():
            raise DataError(f"'{relative.as_posix()}' would be written through the link {here}: not unpacked",
                            where=str(archive))  # fmt: skip
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"a file lies where the folder of '{relative.as_posix()}' should be", where=str(root)) from None
    if here.is_dir():
        raise DataError("a folder lies where a file should be", where=str(here))
    return here


def is_complete(target: Path, member: Member) -> bool:
    """Whether the file lies there already: the right size and, where the archive has one, the right checksum."""
    if not target.is_file() or target.stat().st_size != member.size:
        return False
    if member.crc is None:
        return True
    crc = 0
    with target.open("rb") as handle:
        while block := handle.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == member.crc


def require_room(root: Path, files: Iterable[tuple[str, int]], archive: Path) -> None:
    """Refuse an archive that declares more bytes than the disk has; files that lie there already take none.

    Raises
    ------
    DataError
        Too little room, or an archive made to fill the disk.
    """
    needed = sum(size for name, size in files if not (root / name).is_file())
    free = shutil.disk_usage(root).free - _RESERVE
    if needed > free:
        raise DataError(f"declares {needed} bytes to write, the disk has {max(free, 0)} left: "
                        "another disk, or an archive made to fill it?", where=str(archive))  # fmt: skip


def _write_one(target: Path, member: Member, archive: Path, progress: Progress | None) -> None:
    free = shutil.disk_usage(target.parent).free - _RESERVE
    if member.size > free:
        raise DataError(f"'{member.name}' takes {member.size} bytes, the disk has {max(free, 0)} left",
                        where=str(archive))  # fmt: skip
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    done = 0
    try:
        # mode x never follows a link; no fsync: after a power cut the size tells, and the file is written again
        with part.open("xb") as out, member.open() as source:
            while block := source.read(_BLOCK):
                done += len(block)
                if done > member.size:
                    raise DataError(f"'{member.name}' is longer than it declares", where=str(archive))
                out.write(block)
                if progress is not None:
                    progress(len(block), member.name)
        if done != member.size:
            raise DataError(f"'{member.name}' ends after {done} of {member.size} bytes: truncated", where=str(archive))
        part.replace(target)
    except _DAMAGE as error:
        raise DataError(f"'{member.name}' is damaged: {error}", where=str(archive), fix="fetch it again") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _members(archive: Path, root: Path) -> Iterator[Iterator[Member]]:
    if not archive.is_file():
        raise UsageError("no such file", where=str(archive))
    name = archive.name.lower()
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_members(zipped, archive, root)
        elif name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
            # no index is kept of a compressed tar: reading one first would decompress all of it twice
            with tarfile.open(archive, "r:*") as tarred:
                yield _tar_members(tarred, archive)
        elif name.endswith(".7z"):
            from reasonx_eval.doctor.sevenzip import seven_members

            with seven_members(archive, root) as found:
                yield found
        else:
            raise UsageError("not a known archive; .zip .tar .tar.gz .tgz .tar.bz2 .tar.xz .7z are", where=str(archive))
    except (*_DAMAGE, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{error.strerror}: {error.filename or ''}", where=str(archive)) from None
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"can't be read: {detail}: an interrupted download?", where=str(archive),
                        fix="fetch it again") from None  # fmt: skip


def _zip_members(zipped: zipfile.ZipFile, archive: Path, root: Path) -> Iterator[Member]:
    infos = zipped.infolist()
    # all names are known before anything is written, so a bad one stops everything
    for info in infos:
        safe_member(info.filename, archive)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"'{info.filename}' is a link or a device: not unpacked", where=str(archive))
        if info.flag_bits & 0x1:
            raise DataError(f"'{info.filename}' is encrypted", where=str(archive))
    require_room(root, [(i.filename, i.file_size) for i in infos], archive)
    for info in infos:
        if not info.is_dir():
            yield Member(info.filename, info.file_size, info.CRC, partial(_open_zipped, zipped, info))


def _open_zipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    return zipped.open(info)


def _tar_members(tarred: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    for info in tarred:
        if info.isdir():
            continue
        if not info.isreg():
            raise DataError(f"'{info.name}' is a link or a device: not unpacked", where=str(archive))

        def content(info: tarfile.TarInfo = info) -> IO[bytes]:
            handle = tarred.extractfile(info)
            assert handle is not None
            return handle

        yield Member(info.name, info.size, None, content)
