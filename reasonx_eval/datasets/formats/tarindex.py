"""Members of an uncompressed tar by name, read in place: nothing is unpacked and nothing is searched twice."""

from __future__ import annotations

import os
import tarfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from reasonx_eval.errors import DataError, SampleError

_BLOCK = 512


class TarIndex:
    """Offset and size of each regular file in a tar.

    Headers are scanned once, on first use: one read of 512 bytes a member. The archive is opened once and read by
    offset, so that threads and forked workers, which share the handle, never share a position.

    Parameters
    ----------
    path : the archive
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._stat()

    def __getstate__(self) -> Mapping[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_handle"}

    @cached_property
    def _handle(self) -> int:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, handle)
        return handle

    def _stat(self) -> tuple[int, int]:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror}", where=str(self.path)) from None
        return stat.st_size, stat.st_mtime_ns

    @cached_property
    def members(self) -> Mapping[str, tuple[int, int]]:
        """Name without a leading "./" -> (offset of the data, size), bytes.

        Raises
        ------
        DataError
            Compressed, damaged, or cut off; says which.
        """
        where, size = str(self.path), self._stamp[0]
        members: dict[str, tuple[int, int]] = {}
        end = 0
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                    if member.isreg():
                        if member.offset_data + member.size > size:
                            raise DataError(f"is cut off inside {member.name}: an unfinished download?", where=where)
                        members[member.name.removeprefix("./")] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"not an uncompressed tar ({error}): compressed, or damaged?", where=where) from None
        if not members:
            raise DataError("holds no files: damaged, or another file under this name?", where=where)
        with self.path.open("rb") as handle:
            handle.seek(end)
            if handle.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(f"has no end mark after {len(members)} files: an unfinished download, or damaged?",
                                where=where)  # fmt: skip
        return members

    def size(self, name: str) -> int:
        """Bytes of a member.

        Raises
        ------
        SampleError
            No such member.
        """
        if name not in self.members:
            raise SampleError(f"{name} is not in the archive", where=str(self.path))
        return self.members[name][1]

    def read(self, name: str, limit: int | None = None) -> bytes:
        """A member's bytes, or its first `limit`.

        Raises
        ------
        SampleError
            No such member, or a failed read.
        DataError
            The archive changed since it was indexed.
        """
        size = self.size(name)
        count = size if limit is None else min(size, limit)
        with self._reading(name):
            found = os.pread(self._handle, count, self.members[name][0])
        if len(found) == count:
            return found
        # one call gives 2 GB at most
        buffer = bytearray(count)
        self.read_into(name, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, name: str, view: memoryview, start: int = 0) -> None:
        """Fill `view` with a member's bytes from `start` on.

        Raises
        ------
        SampleError
            No such member, a member with fewer bytes, or a failed read.
        DataError
            The archive changed since it was indexed.
        """
        have, needed = self.size(name), start + view.nbytes
        if have < needed:
            raise SampleError(f"{name} has {have} bytes, {needed} are needed", where=str(self.path))
        place = self.members[name][0] + start
        with self._reading(name):
            while view:
                got = os.preadv(self._handle, [view], place)
                if not got:
                    raise SampleError(f"ends inside {name}", where=str(self.path))
                view, place = view[got:], place + got

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        if self._stat() != self._stamp:
            raise DataError("changed since it was indexed", where=str(self.path), fix="run the command again")
        try:
            yield
        except OSError as error:
            raise SampleError(f"{name} can't be read: {error.strerror}", where=str(self.path)) from None
