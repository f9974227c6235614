"""The official files of NYUv2: ``nyu_depth_v2_labeled.mat`` (MATLAB 7.3, an HDF5 file) and ``splits.mat``."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.formats.hdf5_rows import Rows
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError, SampleError

IMAGES = 1449
HEIGHT, WIDTH = 480, 640
_PREPARE = "reasonx-eval doctor nyuv2 --prepare"


class LabelledMat:
    """Random access to the labelled .mat, one image at a time.

    HDF5 has MATLAB's axes reversed: ``images`` is (1449, 3, 640, 480), depth is (1449, 640, 480).
    The file opens on first use, once per process: the handle isn't pickled and a forked child opens its own.

    Parameters
    ----------
    path : the file
    depth : ``rawDepths`` (0 = missing) or ``depths`` (in-painted), float32 metres

    Raises
    ------
    DataError
        Not HDF5, truncated, or an array is missing or of another shape; found at construction.
    """

    def __init__(self, path: Path, depth: str) -> None:
        self.path = path
        self._depth = depth
        self._reset()
        self._check()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._file: Any = None
        self._rows: dict[str, Rows] = {}
        self._scenes: tuple[Any, ...] | None = None
        _READERS.add(self)

    def __getstate__(self) -> Mapping[str, Any]:
        return {"path": self.path, "_depth": self._depth}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _open(self) -> Any:
        import h5py

        with self._lock:
            if self._file is None:
                try:
                    self._file = h5py.File(self.path, "r")
                except OSError as error:
                    detail = " ".join(str(error).split())
                    cause = ("the download or copy stopped early" if "truncated" in detail
                             else "damaged, or not the HDF5 file of the official release")  # fmt: skip
                    raise DataError(f"can't be opened ({detail[:160]}): {cause}", where=str(self.path),
                                    fix=_PREPARE) from None  # fmt: skip
            return self._file

    def _check(self) -> None:
        file = self._open()
        arrays = {"images": ((IMAGES, 3, WIDTH, HEIGHT), np.uint8),
                  self._depth: ((IMAGES, WIDTH, HEIGHT), np.float32)}  # fmt: skip
        for key, (shape, dtype) in arrays.items():
            if key not in file:
                raise DataError(f"has no array '{key}'; it holds {', '.join(sorted(file)) or 'nothing'}",
                                where=str(self.path), fix=_PREPARE)  # fmt: skip
            try:
                array = file[key]
            except (KeyError, RuntimeError) as error:  # a link that leads nowhere
                raise DataError(f"array '{key}' can't be opened ({' '.join(str(error).split())})",
                                where=str(self.path), fix=_PREPARE) from None  # fmt: skip
            found = (getattr(array, "shape", None), getattr(array, "dtype", None))
            if found != (shape, np.dtype(dtype)):
                raise DataError(f"array '{key}' is {found[1]} {found[0]}, expected {np.dtype(dtype)} {shape}",
                                where=str(self.path))  # fmt: skip
        file.close()
        self._file = None

    def _row(self, key: str, number: int) -> NDArray[Any]:
        """Image `number` of an array, [H, W] or [H, W, C]."""
        file = self._open()
        try:
            rows = self._rows.get(key)
            if rows is None:
                rows = self._rows[key] = Rows(file, key)
            return rows.transposed(number - 1)
        except (OSError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:160]
            raise SampleError(f"image {number} of '{key}' can't be read ({detail}): a damaged download?",
                              where=str(self.path), fix=_PREPARE) from None  # fmt: skip

    def photo(self, number: int) -> NDArray[np.uint8]:
        """Image `number` (1 to 1449), uint8 [480, 640, 3]."""
        return self._row("images", number)

    def depth(self, number: int) -> NDArray[np.float32]:
        """Its depth, float32 [480, 640], metres, as stored."""
        return self._row(self._depth, number)

    def scene(self, number: int) -> str | None:
        """Its scene, such as kitchen_0004; None where the file doesn't say."""
        import h5py

        file = self._open()
        try:
            if self._scenes is None:
                cells = file.get("scenes")
                missing = cells is None or h5py.check_ref_dtype(cells.dtype) is None or cells.size != IMAGES
                self._scenes = () if missing else tuple(cells[()].ravel())
            if not self._scenes:
                return None
            name = np.asarray(file[self._scenes[number - 1]][()])
            return "".join(map(chr, name.ravel()))
        except Exception as error:  # h5py raises of all kinds, by what is damaged
            detail = " ".join(str(error).split())[:160]
            raise SampleError(f"the scene of image {number} can't be read ({detail}): a damaged download?",
                              where=str(self.path), fix=_PREPARE) from None  # fmt: skip


_READERS: weakref.WeakSet[LabelledMat] = weakref.WeakSet()
_INHERITED: list[Any] = []


def _after_fork() -> None:
    for reader in tuple(_READERS):
        # the parent's handle is kept, not closed: closing it would call into HDF5 inside the fork
        _INHERITED.append(reader._file)
        reader._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check_splits(path: Path) -> None:
    """Compare the official ``splits.mat`` with the lists of the package.

    Raises
    ------
    DataError
        The file is damaged or says something else: no split is ever made up from it.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["trainNdxs", "testNdxs"])
    except Exception as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"not a readable MATLAB 5 file ({detail}): damaged?", where=str(path),
                        fix="remove it: the package knows the official split") from None  # fmt: skip
    for key, name in (("trainNdxs", "nyuv2_train"), ("testNdxs", "nyuv2_test")):
        official = split_lines(name)
        if key not in content:
            raise DataError(f"has no '{key}'", where=str(path), fix="remove it: the package knows the official split")
        # MATLAB saves whole numbers as float64 unless told otherwise
        found = tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in np.asarray(content[key]).ravel())
        if found != official:
            raise DataError(f"'{key}' has {len(found)} numbers that are not the {len(official)} official ones, "
                            "1-based, in order: a split of somebody else?", where=str(path),
                            fix="replace it by the official file, or remove it")  # fmt: skip
