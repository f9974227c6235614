"""Files of several arrays by name, .npz and .h5: the size they unpack to has a limit, and they read no other file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.io.limits import check_limit

#: names of the arrays, and a function that reads one
Opened: TypeAlias = tuple[list[str], Callable[[str], NDArray[Any]]]


def open_npz(raw: bytes) -> Opened:
    """The arrays of a .npz file; never unpickles.

    Raises
    ------
    ValueError, OSError
        Not such a file, or a damaged one.
    SampleError
        On reading: an array that unpacks to more than the limit.
    """
    archive = np.load(io.BytesIO(raw), allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("a .npy array under the name .npz")

    def read(name: str) -> NDArray[Any]:
        members = {i.filename: i.file_size for i in archive.zip.infolist()}
        _check_bytes(name, members.get(f"{name}.npy", members.get(name, 0)))
        return np.asarray(archive[name])

    return list(archive.files), read


def open_h5(raw: bytes) -> Opened:
    """The arrays of an HDF5 file.

    Raises
    ------
    OSError
        Not such a file, or a damaged one.
    UsageError
        On reading: an array whose values lie in other files.
    SampleError
        On reading: an array that unpacks to more than the limit.
    """
    import h5py

    file = h5py.File(io.BytesIO(raw), "r")
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)

    def read(name: str) -> NDArray[Any]:
        found = file[name]
        if found.external or found.is_virtual:
            raise UsageError(f"array '{name}' lies in other files, which are not read")
        _check_bytes(name, math.prod(found.shape) * found.dtype.itemsize)
        return np.asarray(found[()])

    return names, read


def _check_bytes(name: str, size: int) -> None:
    check_limit("ARRAY_BYTES", size, f"array '{name}' unpacks to {size:,} bytes")
