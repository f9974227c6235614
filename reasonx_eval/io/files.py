"""Files that are never half written."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

#: letters of a file's name in its temporary name: with the rest it stays below the 255 bytes of file systems
_NAME_KEPT: Final = 40


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write: under a temporary name beside `path`, synced and renamed at the end, removed on an exception.

    A reader sees the old file or the whole new one. The temporary name is random: processes in two containers can have
    the same number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:_NAME_KEPT]}.{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        # a full disk is noticed at a write, which knows no name
        error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole, or leave it as it was."""
    with replacing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, for digests. NaN is refused: it has no JSON form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, encode_json(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"))


def encode_json(text: str) -> bytes:
    r"""JSON text in UTF-8; half of a surrogate pair, from a file name in another encoding, as JSON's ``\udcff``."""
    return text.encode("utf-8", "backslashreplace")


def safe_name(sample_id: str) -> str:
    """A sample id as a relative file path without suffix; refuses ids that would leave the folder."""
    parts = sample_id.split("/")
    if any(p in ("", ".", "..") for p in parts) or "\\" in sample_id or "\0" in sample_id:
        raise ValueError(f"sample id {sample_id!r} is not a safe relative path")
    return "/".join(parts)
