"""Digests of files, texts and arrays. A stored digest says its algorithm: ``blake3:...``; without a prefix, SHA-256.

Whatever decides a number is hashed whole, every time it is used: BLAKE3 reads memory faster than a file is decoded,
and a digest that was kept could speak for a file that changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.io.files import encode_json
from reasonx_eval.types import Prediction, Target

Algorithm = Literal["blake3", "sha256"]

_BLAKE3: Final = "blake3:"
#: hex digits kept of the digest of arrays
_ARRAY_DIGITS: Final = 16


def algorithm_of(stored: str | None) -> Algorithm:
    """The algorithm of a stored digest; today's where there is none.

    Examples
    --------
    >>> algorithm_of("blake3:71a3"), algorithm_of("71a3")
    ('blake3', 'sha256')
    """
    return "blake3" if stored is None or stored.startswith(_BLAKE3) else "sha256"


def comparable_digests(first: str | None, second: str | None) -> bool:
    """Whether two stored digests are of one algorithm, so that a difference says something."""
    return first is None or second is None or algorithm_of(first) == algorithm_of(second)


def file_digest(path: Path) -> str:
    """``blake3:`` and the 64 hex digits of a file's content, read on all threads."""
    digest = blake3(max_threads=blake3.AUTO)
    digest.update_mmap(path)
    return _BLAKE3 + digest.hexdigest()


def lines_digest(lines: Iterable[str]) -> str:
    """``blake3:`` and the 64 hex digits of lines joined by newlines."""
    return _BLAKE3 + blake3(encode_json("\n".join(lines))).hexdigest()


def sha256_file(path: Path, block: int = 1 << 20) -> str:
    """The 64 hex digits of a file's SHA-256: what hubs, cards and manifests publish."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(block):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8."""
    return hashlib.sha256(encode_json(text)).hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Digest of a list of ids: SHA-256 of the lines joined by newlines, no newline at the end."""
    return sha256_text("\n".join(lines))


def array_digest(value: Target | Prediction, algorithm: Algorithm = "blake3") -> str:
    """The digest of all arrays of a target or prediction, with their types and shapes.

    Parameters
    ----------
    value : Target or Prediction
    algorithm : "blake3", or "sha256" to compare with a record of an older version

    Returns
    -------
    str
        ``blake3:`` and 16 hex digits; of SHA-256 the 16 digits alone.

    Examples
    --------
    >>> array_digest(Prediction("depth_metric", np.zeros((2, 3), np.float32)))
    'blake3:3b6349c0edeb39a1'
    """
    if algorithm == "sha256":
        old = hashlib.sha256(type(value).__name__.encode())
        _feed(old.update, value)
        return old.hexdigest()[:_ARRAY_DIGITS]
    digest = blake3(type(value).__name__.encode(), max_threads=blake3.AUTO)
    _feed(digest.update, value)
    return _BLAKE3 + digest.hexdigest(_ARRAY_DIGITS // 2)


def image_digest(image: NDArray[np.uint8]) -> str:
    """The digest of a decoded photo: ``blake3:`` and 16 hex digits."""
    digest = blake3(max_threads=blake3.AUTO)
    _field(digest.update, "image", image)
    return _BLAKE3 + digest.hexdigest(_ARRAY_DIGITS // 2)


def _feed(update: Callable[[Any], object], value: Target | Prediction) -> None:
    for f in fields(value):
        _field(update, f.name, getattr(value, f.name))


def _field(update: Callable[[Any], object], name: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        update(f"|{name}:{value.dtype.str}{value.shape}|".encode())
        if value.flags.c_contiguous or value.ndim < 2 or value.size == 0:
            update(_bytes(value))
            return
        # a view of other memory is never copied whole: a constant's 24 megapixels are one row
        for rows in row_blocks(len(value), value[0].size):
            update(_bytes(value[rows]))
    elif isinstance(value, Prediction):
        for f in fields(value):
            _field(update, f"{name}.{f.name}", getattr(value, f.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            _field(update, f"{name}.{key}", value[key])


def _bytes(array: np.ndarray[Any, Any]) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
