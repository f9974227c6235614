"""The files beside an .onnx file that its tensors lie in ("external data"), read from the graph alone.

Only the few fields of onnx.proto that lead to them are followed; weights are skipped unread, so that a network of
gigabytes takes milliseconds and no memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from reasonx_eval.errors import DataError

_Span = tuple[int, int]

#: message of onnx.proto -> number of a field -> message that it holds, on the ways from the model to a tensor
_FIELDS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_FIXED: Final = {1: 8, 5: 4}


def external_files(path: Path) -> tuple[Path, ...]:
    """The files that the tensors of a network name, sorted, each once.

    Raises
    ------
    DataError
        The file is no protobuf message, or a named file is missing or lies outside the network's folder.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            names = {data[a:b].decode() for a, b in _locations(data)}
        except (IndexError, ValueError) as error:
            raise DataError(f"not a readable ONNX network ({error}): damaged?", where=str(path)) from None
    for name in sorted(names):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"names weights outside its folder: {name}", where=str(path))
        if not (path.parent / name).is_file():
            raise DataError(f"its weights are in {name}, which is missing", where=str(path),
                            fix="copy it beside the network")  # fmt: skip
    return tuple(path.parent / name for name in sorted(names))


def _locations(data: mmap.mmap) -> Iterator[_Span]:
    """Where the values of all ``location`` entries of external data are."""
    waiting: list[tuple[str, _Span]] = [("model", (0, len(data)))]
    while waiting:
        message, span = waiting.pop()
        if message == "entry":
            entry = dict(_fields(data, span))
            if 1 in entry and 2 in entry and data[slice(*entry[1])] == b"location":
                yield entry[2]
            continue
        held = _FIELDS[message]
        waiting += [(held[number], value) for number, value in _fields(data, span) if number in held]


def _fields(data: mmap.mmap, span: _Span) -> Iterator[tuple[int, _Span]]:
    """Number and place of each field of a message that holds bytes."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field ends behind its message")
            yield tag >> 3, (at, at + length)
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
