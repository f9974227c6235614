"""One row of a large HDF5 array at a time, transposed to numpy's order: MATLAB stores axes the other way round.

Rows that lie in chunks of their own are inflated here, outside HDF5's global lock and by libdeflate: threads don't
wait for each other, and each needs less than half the time. Chunks that hold parts of several rows stay in HDF5's
chunk cache, made as large as they need, so that reading in order inflates each of them once.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: bytes of inflated chunks that one array keeps; arrays whose rows need more inflate chunks again and again
CACHE_LIMIT: Final = 128 << 20
#: slots of the table of cached chunks: a prime, many times the number of chunks that fit
_SLOTS: Final = 100_003
#: columns that are transposed at a time, so that the lines written to stay in the cache
_STRIP: Final = 128


class Rows:
    """Rows of one array of an open file; safe to call from several threads.

    Parameters
    ----------
    file : an open h5py.File
    key : name of an array with two or three axes after the first

    Raises
    ------
    OSError, RuntimeError, KeyError
        As h5py raises them.
    """

    def __init__(self, file: Any, key: str) -> None:
        import h5py

        plain = h5py.h5d.open(file.id, key.encode())
        access = plain.get_access_plist()
        shape, kind = plain.shape, h5py.Dataset(plain).dtype
        layout = plain.get_create_plist()
        chunk = layout.get_chunk() if layout.get_layout() == h5py.h5d.CHUNKED else None
        self._chunk: tuple[int, ...] | None = None
        if chunk is not None and chunk[0] == 1 and _only_deflate(layout):
            self._chunk = chunk
        elif chunk is not None:
            around = math.prod((chunk[0], *(_whole(n, c) for n, c in zip(shape[1:], chunk[1:], strict=True))))
            if around * kind.itemsize <= CACHE_LIMIT:
                access.set_chunk_cache(_SLOTS, around * kind.itemsize, 0.0)
        self._file, self._offset = file.filename, plain.get_offset() if chunk is None else None
        del plain  # the size of its cache is fixed while an array is open
        self._array = h5py.Dataset(h5py.h5d.open(file.id, key.encode(), access))
        self._shape: tuple[int, ...] = shape[1:]
        self._dtype: np.dtype[Any] = kind

    def transposed(self, index: int) -> NDArray[Any]:
        """Row `index` with its axes reversed, contiguous.

        Raises
        ------
        OSError, RuntimeError
            Damaged, as h5py reports it.
        """
        out = np.empty(self._shape[::-1], dtype=self._dtype)
        if self._chunk is not None:
            with suppress(Exception):  # a chunk that isn't there or is damaged: HDF5 has the last word
                for place, block in self._chunks(index, self._chunk):
                    _transpose(block, out, place)
                return out
        if self._offset is not None and os.path.getsize(self._file) < self._offset + (index + 1) * out.nbytes:
            raise OSError("the file became shorter")  # HDF5 would give zeros
        _transpose(self._array[index], out, (0,) * len(self._shape))
        return out

    def _chunks(self, index: int, chunk: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        """Where each chunk of a row begins, and what of it lies inside the array."""
        import imagecodecs

        size = math.prod(chunk) * self._dtype.itemsize
        steps = [range(0, n, c) for n, c in zip(self._shape, chunk[1:], strict=True)]
        for place in itertools.product(*steps):
            skipped, raw = self._array.id.read_direct_chunk((index, *place))
            data = raw if skipped else imagecodecs.deflate_decode(raw, out=size)
            block = np.frombuffer(data, dtype=self._dtype).reshape(chunk[1:])
            yield place, block[tuple(slice(n - p) for n, p in zip(self._shape, place, strict=True))]


def _only_deflate(layout: Any) -> bool:
    import h5py

    return bool(layout.get_nfilters() == 1 and layout.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE)


def _whole(length: int, chunk: int) -> int:
    """The least multiple of `chunk` that covers `length`."""
    return -(-length // chunk) * chunk


def _transpose(block: NDArray[Any], out: NDArray[Any], place: tuple[int, ...]) -> None:
    """Write a block, [X, Y] or [C, X, Y], to its place in an array with the axes reversed."""
    into = out[tuple(slice(p, p + n) for p, n in zip(place[::-1], block.shape[::-1], strict=True))]
    if block.ndim == 3:
        for k, plane in enumerate(block):
            _transpose(plane, into[..., k], (0, 0))
        return
    for start in range(0, block.shape[0], _STRIP):
        strip = block[start : start + _STRIP]
        into[:, start : start + strip.shape[0]] = strip.T
