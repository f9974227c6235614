"""Rows of the judgement store: as columns in memory, and as Parquet.

One row is one answer. Key: photo, the two points, order of colours, modality, digest of the question's template,
revision of the judge. Value: probability (NaN where there is none), flag, seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from reasonx_ft.types import CANONICAL, FLAGS, ORDERS

T = TypeVar("T")

#: raise it when a column changes its meaning, and keep reading every older number
SCHEMA: Final = 1

MODALITIES: Final = ("depth", "normals", "irradiance", "albedo")
_POINTS: Final = ("x1", "y1", "x2", "y2")

#: bits of a point's coordinate in a packed key
_BITS: Final = 9
assert CANONICAL == 1 << _BITS

#: half of a surrogate pair, or its escape, with the backslashes before it
_HALF: Final = re.compile("(\\\\*)(?:([\ud800-\udfff])|u(d[89a-f][0-9a-f]{2}))")


@dataclass(frozen=True)
class Columns:
    """Answers as columns, N rows.

    photos : bytes [P] of 16, digests of the photos; names : str [P], what they were called
    streams : (modality, order, template, judge) [S], everything of the key but photo and points
    photo : int32 [N], row of `photos`
    stream : int32 [N], row of `streams`
    points : int16 [N, 4], (x1, y1, x2, y2) in canonical pixels
    probability : float32 [N], NaN where there is none
    flag : int8 [N], row of FLAGS
    seconds : float32 [N]
    """

    photos: tuple[bytes, ...]
    names: tuple[str, ...]
    streams: tuple[tuple[str, str, str, str], ...]
    photo: NDArray[np.int32]
    stream: NDArray[np.int32]
    points: NDArray[np.int16]
    probability: NDArray[np.float32]
    flag: NDArray[np.int8]
    seconds: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.photo)

    @cached_property
    def place(self) -> NDArray[np.uint64]:
        """Points and stream in one number, uint64 [N]; with `photo` it is the whole key, without loss."""
        return pack(self.points, self.stream)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has a value a row, by name."""
        return {"photo": self.photo, "stream": self.stream, "points": self.points, "probability": self.probability,
                "flag": self.flag, "seconds": self.seconds}  # fmt: skip

    def take(self, rows: NDArray[Any]) -> Columns:
        """Some rows, by index or mask."""
        return replace(self, **{name: values[rows] for name, values in self.arrays().items()})

    def compact(self) -> Columns:
        """The same rows without photos and streams that no row uses, the others in order of first use."""
        photos, photo = _in_use(self.photo, self.photos)
        names, _ = _in_use(self.photo, self.names)
        streams, stream = _in_use(self.stream, self.streams)
        return replace(self, photos=photos, names=names, streams=streams, photo=photo, stream=stream)

    def of_streams(
        self, *, judge: str | None = None, modality: str | None = None, template: str | None = None
    ) -> NDArray[np.bool_]:
        """Which rows are of a judge's revision, a modality and a wording, bool [N]; None is any."""
        wanted = np.array([(judge is None or s[3] == judge) and (modality is None or s[0] == modality)
                           and (template is None or s[2] == template) for s in self.streams],
                          dtype=np.bool_)  # fmt: skip
        return wanted[self.stream] if len(self.streams) else np.zeros(len(self), dtype=np.bool_)


def _in_use(rows: NDArray[np.int32], values: tuple[T, ...]) -> tuple[tuple[T, ...], NDArray[np.int32]]:
    used, first = np.unique(rows, return_index=True)
    used = used[np.argsort(first)]
    number = np.zeros(len(values), dtype=np.int32)
    number[used] = np.arange(len(used))
    return tuple(values[k] for k in used), number[rows]


def pack(points: NDArray[np.integer], stream: NDArray[np.integer]) -> NDArray[np.uint64]:
    """(x1, y1, x2, y2) and a stream's number as one number: 4 x 9 bits and 28 bits."""
    packed = stream.astype(np.uint64)
    for k in range(4):
        packed = (packed << np.uint64(_BITS)) | points[:, k].astype(np.uint64)
    return packed


class Joiner:
    """Rows of several parts, in the order they are added; photos and streams are joined by their value.

    Rows are copied to their place at once, so a part can be forgotten when it was added, and none is held twice.

    Parameters
    ----------
    rows : how many are to be expected; more are allowed, and cost another copy
    """

    def __init__(self, rows: int = 0) -> None:
        self._photos: dict[bytes, int] = {}
        self._names: list[str] = []
        self._streams: dict[tuple[str, str, str, str], int] = {}
        self._arrays = allocate(rows)
        self._n = 0

    @property
    def texts(self) -> tuple[tuple[bytes, ...], tuple[str, ...], tuple[tuple[str, str, str, str], ...]]:
        """Photos, their names and streams of all parts, as `Columns` has them."""
        return tuple(self._photos), tuple(self._names), tuple(self._streams)

    def number(self, part: Columns) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The joined numbers of a part's photos, int32 [P], and streams, int32 [S]; a photo's first name stays."""
        for digest, name in zip(part.photos, part.names, strict=True):
            if digest not in self._photos:
                self._photos[digest] = len(self._photos)
                self._names.append(name)
        for s in part.streams:
            self._streams.setdefault(s, len(self._streams))
        return (np.array([self._photos[p] for p in part.photos], dtype=np.int32),
                np.array([self._streams[s] for s in part.streams], dtype=np.int32))  # fmt: skip

    def add(self, part: Columns) -> None:
        """Add the rows of a part."""
        photo, stream = self.number(part)
        start, self._n = self._n, self._n + len(part)
        if self._n > len(self._arrays["photo"]):
            larger = allocate(2 * self._n)
            for name, values in self._arrays.items():
                larger[name][:start] = values[:start]
            self._arrays = larger
        for name, values in replace(part, photo=photo[part.photo], stream=stream[part.stream]).arrays().items():
            self._arrays[name][start : self._n] = values

    def columns(self) -> Columns:
        """All rows so far."""
        arrays: dict[str, Any] = {name: values[: self._n] for name, values in self._arrays.items()}
        return Columns(*self.texts, **arrays)


def concatenate(parts: Sequence[Columns]) -> Columns:
    """All rows of several, in order; photos and streams are joined by their value."""
    joiner = Joiner(sum(map(len, parts)))
    for part in parts:
        joiner.add(part)
    return joiner.columns()


def allocate(rows: int) -> dict[str, NDArray[Any]]:
    """Arrays of `Columns` for so many rows, whose values are still to be set."""
    types: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "photo": (np.int32, ()), "stream": (np.int32, ()), "points": (np.int16, (4,)),
        "probability": (np.float32, ()), "flag": (np.int8, ()), "seconds": (np.float32, ()),
    }  # fmt: skip
    return {name: np.empty((rows, *shape), kind) for name, (kind, shape) in types.items()}


def stored_text(text: str) -> str:
    r"""A name as valid Unicode: half of a surrogate pair, which a file name in another encoding has, as ``\udcff``.

    Backslashes before such an escape are doubled, so `original_text` gives the name back; usual names stay as they are.
    """
    return _HALF.sub(lambda m: 2 * m[1] + (f"\\u{ord(m[2]):04x}" if m[2] else f"u{m[3]}"), text)


def original_text(stored: str) -> str:
    """The name that `stored_text` wrote."""

    def restore(match: re.Match[str]) -> str:
        whole, odd = divmod(len(match[1]), 2)
        return "\\" * whole + (match[2] or (chr(int(match[3], 16)) if odd else f"u{match[3]}"))

    return _HALF.sub(restore, stored) if "\\u" in stored else stored


def to_arrow(columns: Columns, metadata: Mapping[str, bytes]) -> Any:
    """A pyarrow table. Digests are fixed-size binary, text is dictionary-coded."""
    import pyarrow as pa

    def coded(rows: NDArray[np.integer], values: Sequence[str]) -> Any:
        values = [stored_text(v) for v in values]
        unique = list(dict.fromkeys(values))
        index = np.array([unique.index(v) for v in values] or [0], dtype=np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(index[rows], pa.int32()), pa.array(unique, pa.string()))

    raw = np.frombuffer(b"".join(columns.photos), dtype=np.uint64).reshape(-1, 2)[columns.photo]
    digests = pa.Array.from_buffers(pa.binary(16), len(columns), [None, pa.py_buffer(raw)])
    # names are unique a photo, and looking each up in a list would take the square of their number
    called = pa.array(map(stored_text, columns.names), pa.string())
    names = pa.DictionaryArray.from_arrays(pa.array(columns.photo, pa.int32()), called)
    arrays = {"photo": digests, "photo_id": names}
    arrays |= {name: pa.array(np.ascontiguousarray(columns.points[:, k])) for k, name in enumerate(_POINTS)}
    for k, name in enumerate(("modality", "order", "template", "judge")):
        arrays[name] = coded(columns.stream, [s[k] for s in columns.streams])
    arrays["probability"] = pa.array(columns.probability, pa.float32())
    arrays["flag"] = coded(columns.flag, FLAGS)
    arrays["seconds"] = pa.array(columns.seconds, pa.float32())
    return pa.table(arrays).replace_schema_metadata(dict(metadata))


def from_arrow(table: Any) -> Columns:
    """The columns of a pyarrow table.

    Raises
    ------
    ValueError
        A column missing, of another type, or with a value out of range.
    """
    missing = {*_POINTS, "photo", "photo_id", "modality", "order", "template", "judge", "probability", "flag",
               "seconds"} - set(table.column_names)  # fmt: skip
    if missing:
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    if any(table.column(name).null_count for name in table.column_names):
        raise ValueError("a value is missing (null)")
    digests, photo = _digests(table)
    names = _names(table, photo, len(digests))
    parts = [_codes(table, name) for name in ("modality", "order", "template", "judge")]
    streams, stream = _join(parts, len(table))
    points = np.stack([table.column(name).to_numpy() for name in _POINTS], axis=-1)
    if points.size and (points.min() < 0 or points.max() >= CANONICAL):
        raise ValueError(f"a point outside 0..{CANONICAL - 1}")
    flags, flag = _codes(table, "flag")
    allowed = ((FLAGS, flags, "flag"), (MODALITIES, parts[0][0], "modality"), (ORDERS, parts[1][0], "order"))
    for known, found, what in allowed:
        if not set(found) <= set(known):
            raise ValueError(f"unknown {what} {', '.join(sorted(set(found) - set(known)))}")
    flagged = np.array([FLAGS.index(f) for f in flags] or [0], dtype=np.int8)[flag]
    probability = table.column("probability").to_numpy().astype(np.float32)
    if (np.isnan(probability) == (flagged == 0)).any() or ((probability < 0) | (probability > 1)).any():
        raise ValueError("a probability outside 0..1, or one that its flag contradicts")
    return Columns(digests, names, streams, photo, stream, points.astype(np.int16), probability, flagged,
                   table.column("seconds").to_numpy().astype(np.float32))  # fmt: skip


def _digests(table: Any) -> tuple[tuple[bytes, ...], NDArray[np.int32]]:
    import pyarrow as pa

    column = table.column("photo")
    if column.type != pa.binary(16):
        raise ValueError(f"column photo has type {column.type}, expected digests of 16 bytes")
    whole = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return tuple(whole.dictionary.to_pylist()), whole.indices.to_numpy().astype(np.int32)


def _codes(table: Any, name: str) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Distinct texts of a column, and their numbers by row."""
    import pyarrow as pa

    column = table.column(name)
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return tuple(map(original_text, whole.dictionary.to_pylist())), whole.indices.to_numpy().astype(np.int32)


def _names(table: Any, photo: NDArray[np.int32], n: int) -> tuple[str, ...]:
    texts, code = _codes(table, "photo_id")
    first = np.zeros(n, dtype=np.int64)
    first[photo[::-1]] = np.arange(len(photo))[::-1]  # of several rows of a photo, the first names it
    return tuple(texts[code[row]] for row in first)


def _join(
    parts: Sequence[tuple[tuple[str, ...], NDArray[np.int32]]], n: int
) -> tuple[tuple[tuple[str, str, str, str], ...], NDArray[np.int32]]:  # fmt: skip
    """Distinct combinations of several coded columns, and their numbers by row."""
    shape = tuple(max(len(texts), 1) for texts, _ in parts)
    flat = np.ravel_multi_index([code for _, code in parts], shape) if n else np.zeros(0, np.int64)
    distinct, number = np.unique(flat, return_inverse=True)
    digits = np.stack(np.unravel_index(distinct, shape), axis=-1)
    texts = [texts for texts, _ in parts]
    found = tuple((texts[0][a], texts[1][b], texts[2][c], texts[3][d]) for a, b, c, d in digits)
    return found, number.astype(np.int32)
