"""Members of a .7z archive, for unpack.py; needs py7zr, which is not a dependency."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from reasonx_eval.doctor.unpack import Member, is_complete, require_room, safe_member
from reasonx_eval.errors import DataError, UsageError


@contextmanager
def seven_members(archive: Path, root: Path) -> Iterator[Iterator[Member]]:
    """Decompress what is not there yet into a folder beside its place, and give it member by member.

    A solid .7z can't be read from the middle, so the missing files are decompressed in one go; the folder is
    deleted at the end, and at an interruption.

    Raises
    ------
    UsageError
        py7zr is not installed; names both ways out.
    DataError
        An unsafe name, a link, encryption, too little room, or damage.
    """
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
            members = [_member(info, stage, archive) for info in handle.list() if not info.is_directory]
            require_room(root, [(m.name, m.size) for m in members], archive)
            targets = [m.name for m in members if not is_complete(root / safe_member(m.name, archive), m)]
            if targets:
                handle.extract(path=stage, targets=targets)
        yield _drained(members, stage)
    except py7zr.exceptions.ArchiveError as error:
        raise DataError(f"can't be read: {error}: an interrupted download?", where=str(archive),
                        fix="fetch it again") from None  # fmt: skip
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _member(info: Any, stage: Path, archive: Path) -> Member:
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
