"""Files that are never half written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

#: codes of a file that finds no room: a full disk, a quota, a limit of its size
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: letters of a file's name in its temporary name: with the rest it stays below the 255 bytes of file systems
_NAME_KEPT: Final = 40
#: bytes of a name without its suffix, of which file systems take 255; and the part that is kept of a longer one
_LONGEST_NAME: Final = 250
_LONGEST_KEPT: Final = 200


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write: under a temporary name beside `path`, synced and renamed at the end, removed on an exception.

    A reader sees the old file or the whole new one. The temporary name is random: processes in two containers can have
    the same number.
    """
    with needing_space(path) as failed:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name[:_NAME_KEPT]}.{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as handle:
                _watch(handle, failed)
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def needing_space(path: Path) -> Iterator[list[OSError]]:
    """Inside, a full disk is an `OSError` with a code of `NO_SPACE` and a path, whatever a library makes of it.

    Yields a list for errors of writing that a library may hide in one of its own.
    """
    failed: list[OSError] = []
    try:
        yield failed
    except Exception as error:
        code = next(filter(None, map(_no_space, (error, *failed))), None)
        if code is not None:
            name = getattr(error, "filename", None) or str(path)
            raise OSError(code, os.strerror(code), name) from None
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def _no_space(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno if error.errno in NO_SPACE else None
    # libraries in other languages have the words alone
    return next((code for code in NO_SPACE if os.strerror(code) in str(error)), None)


def _watch(handle: BinaryIO, failed: list[OSError]) -> None:
    """Put the errors of a file's `write` into a list."""
    write = handle.write

    def watched(data: Any) -> int:
        try:
            return write(data)
        except OSError as error:
            failed.append(error)
            raise

    handle.write = watched  # type: ignore[method-assign]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole, or leave it as it was."""
    with replacing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, encode_json(text))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, for digests. NaN is refused: it has no JSON form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, encode_json(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"))


def encode_json(text: str) -> bytes:
    r"""Text in UTF-8; half of a surrogate pair, from a file name in another encoding, as JSON's ``\udcff``."""
    return text.encode("utf-8", "backslashreplace")


def safe_name(sample_id: str) -> str:
    """A sample id as a relative file path without suffix; a part too long for a file's name ends in its digest.

    Raises
    ------
    ValueError
        The id would leave the folder, or has characters that no file's name has.
    """
    parts = sample_id.split("/")
    if any(p in ("", ".", "..") for p in parts) or "\\" in sample_id or "\0" in sample_id:
        raise ValueError(f"sample id {sample_id!r} is not a safe relative path")
    try:
        return "/".join(p if len(os.fsencode(p)) <= _LONGEST_NAME else _shortened(p) for p in parts)
    except UnicodeEncodeError:
        raise ValueError(f"sample id {sample_id!r} has characters that no file's name has") from None


def _shortened(part: str) -> str:
    kept = os.fsencode(part)[:_LONGEST_KEPT].decode("utf-8", "ignore")
    return f"{kept}-{hashlib.sha256(os.fsencode(part)).hexdigest()[:16]}"
