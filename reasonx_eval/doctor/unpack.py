"""Unpack an archive without trusting it: names, links, sizes; whole files only; goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from reasonx_eval.doctor.archives import BLOCK, DAMAGE, RESERVE, Member, Target, is_complete, open_members, safe_member
from reasonx_eval.errors import DataError

MAX_MEMBERS = 5_000_000
#: called with the bytes of a member that were done, and the member's name
Progress: TypeAlias = Callable[[int, str], None]


@dataclass(frozen=True)
class Unpacked:
    """How many files were written, and how many lay there complete already."""

    written: int
    kept: int
    bytes: int


def unpack(
    archive: Path, root: Path, *, force: bool = False, max_bytes: int | None = None, progress: Progress | None = None
) -> Unpacked:
    """Unpack a .zip, .tar (also .gz, .bz2, .xz) or, with py7zr installed, a .7z into `root`.

    Every file is written under a temporary name and renamed when complete, so an interrupted run leaves only whole
    files; the next one keeps those whose size (and, for .zip, checksum) is right and goes on.

    Parameters
    ----------
    force : replace files that lie there with another content
    max_bytes : the most bytes that it may unpack to; None: 100 times its size, 256 MiB at least
    progress : called as the bytes of each member are done

    Raises
    ------
    DataError
        An absolute or upward name, a link or device, a name twice, encryption, more bytes than its limit or
        than the disk has free, damage, or a file in the way; nothing is ever written outside `root`.
    UsageError
        Not an archive type that is known, or py7zr is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open_members(Target(archive, root, max_bytes)) as members:
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


def _write_one(target: Path, member: Member, archive: Path, progress: Progress | None) -> None:
    free = shutil.disk_usage(target.parent).free - RESERVE
    if member.size > free:
        raise DataError(f"'{member.name}' takes {member.size} bytes, the disk has {max(free, 0)} left",
                        where=str(archive))  # fmt: skip
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    done = 0
    try:
        # mode x never follows a link; no fsync: after a power cut the size tells, and the file is written again
        with part.open("xb") as out, member.open() as source:
            while block := source.read(BLOCK):
                done += len(block)
                if done > member.size:
                    raise DataError(f"'{member.name}' is longer than it declares", where=str(archive))
                out.write(block)
                if progress is not None:
                    progress(len(block), member.name)
        if done != member.size:
            raise DataError(f"'{member.name}' ends after {done} of {member.size} bytes: truncated", where=str(archive))
        part.replace(target)
    except DAMAGE as error:
        raise DataError(f"'{member.name}' is damaged: {error}", where=str(archive), fix="fetch it again") from None
    finally:
        part.unlink(missing_ok=True)
