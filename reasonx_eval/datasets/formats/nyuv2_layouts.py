"""The layouts NYUv2 comes in, behind one interface: photo, depth and scene of image 1 to 1449."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.formats.reading import expect, sized_rgb
from reasonx_eval.errors import DataError, SampleError
from reasonx_eval.io.images import read_png

IMAGES = 1449
SHAPE = HEIGHT, WIDTH = (480, 640)
_PREPARE = "reasonx-eval doctor nyuv2 --prepare"


class Layout(ABC):
    """One way the labelled images lie on disk; `number` is 1-based, as in splits.mat."""

    name: ClassVar[str]

    @abstractmethod
    def photo(self, number: int) -> NDArray[np.uint8]:
        """uint8 [480, 640, 3]."""

    @abstractmethod
    def depth(self, number: int) -> NDArray[np.float32]:
        """float32 [480, 640], metres; 0 where raw depth is missing."""

    @abstractmethod
    def scene(self, number: int) -> str | None:
        """Scene, such as kitchen_0004, if this layout says."""

    @abstractmethod
    def files(self, number: int) -> Sequence[Path]:
        """The files that `photo` and `depth` read."""


class MatLayout(Layout):
    """``nyu_depth_v2_labeled.mat`` of the official release: MATLAB 7.3, which is HDF5.

    HDF5 has MATLAB's axes reversed: ``images`` is (1449, 3, 640, 480), depth is (1449, 640, 480). The file opens on
    first use, once per process: the handle isn't pickled, and a forked child opens its own.

    Parameters
    ----------
    path : the file
    depth : raw (``rawDepths``, 0 = missing) or filled (``depths``, in-painted), float32 metres

    Raises
    ------
    DataError
        Not HDF5, truncated, or an array is missing or of another shape; found at construction.
    """

    name = "mat"
    file_name = "nyu_depth_v2_labeled.mat"

    def __init__(self, path: Path, depth: str) -> None:
        self.path = path
        self._depth = "rawDepths" if depth == "raw" else "depths"
        self._opened: _Opened | None = None
        file = self._open().file
        for key, wanted in (("images", ((IMAGES, 3, WIDTH, HEIGHT), np.uint8)),
                            (self._depth, ((IMAGES, WIDTH, HEIGHT), np.float32))):  # fmt: skip
            self._check(file, key, *wanted)
        file.close()
        self._opened = None

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _open(self) -> _Opened:
        import h5py

        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            return opened
        _INHERITED.append(opened)
        try:
            # chunks may hold parts of many images: the cache keeps those around the last image
            file = h5py.File(self.path, "r", rdcc_nbytes=32 << 20, rdcc_nslots=100_003, rdcc_w0=0.0)
            size = self.path.stat().st_size
        except OSError as error:
            detail = " ".join(str(error).split())
            cause = ("the download or copy stopped early" if "truncated" in detail
                     else "damaged, or not the HDF5 file of the official release")  # fmt: skip
            raise DataError(f"can't be opened ({detail[:160]}): {cause}", where=str(self.path),
                            fix=_PREPARE) from None  # fmt: skip
        self._opened = _Opened(os.getpid(), file, size, {})
        return self._opened

    def _check(self, file: Any, key: str, shape: tuple[int, ...], dtype: type) -> None:
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

    def _read(self, key: str, number: int) -> NDArray[Any]:
        """Image `number` of an array, [H, W] or [H, W, C]."""
        opened = self._open()
        try:
            if self.path.stat().st_size < opened.size:
                raise OSError("the file became shorter")  # HDF5 would give zeros
            # an array keeps its cache of chunks as long as it is open
            if key not in opened.arrays:
                opened.arrays[key] = opened.file[key]
            return _transposed(opened.arrays[key][number - 1])
        except (OSError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:160]
            raise SampleError(f"image {number} of '{key}' can't be read ({detail}): a damaged download?",
                              where=str(self.path), fix=_PREPARE) from None  # fmt: skip

    def photo(self, number: int) -> NDArray[np.uint8]:
        return self._read("images", number)

    def depth(self, number: int) -> NDArray[np.float32]:
        return self._read(self._depth, number)

    def scene(self, number: int) -> str | None:
        import h5py

        file = self._open().file
        try:
            cells = file.get("scenes")
            if cells is None or h5py.check_ref_dtype(cells.dtype) is None or cells.size != IMAGES:
                return None
            place = cells[0, number - 1] if cells.shape[0] == 1 else cells[number - 1, 0]
            return "".join(map(chr, np.asarray(file[place][()]).ravel()))
        except Exception as error:  # h5py raises errors of all kinds, by the place of the damage
            detail = " ".join(str(error).split())[:160]
            raise SampleError(f"the scene of image {number} can't be read ({detail}): a damaged download?",
                              where=str(self.path), fix=_PREPARE) from None  # fmt: skip

    def files(self, number: int) -> Sequence[Path]:
        return (self.path,)


def _transposed(block: NDArray[Any]) -> NDArray[Any]:
    """[X, Y] or [C, X, Y] with its axes reversed, contiguous; channel by channel, which takes a fifth of the time."""
    out = np.empty(block.shape[::-1], dtype=block.dtype)
    for plane, into in zip(np.atleast_3d(block.T).T, np.moveaxis(np.atleast_3d(out), -1, 0), strict=True):
        into[...] = plane.T
    return out


@dataclass(frozen=True)
class _Opened:
    """An open file of one process, its size in bytes, and the arrays that were read."""

    pid: int
    file: Any
    size: int
    arrays: dict[str, Any]


#: handles of the parent process are kept: closing one would call into HDF5 inside the fork
_INHERITED: list[_Opened | None] = []


class _Tree(Layout):
    """Photos and 16-bit millimetre PNGs in one folder per scene or kind of room."""

    photo_pattern: ClassVar[re.Pattern[str]]
    base: ClassVar[int]  # number of the first image in file names

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def found(cls, folder: Path) -> bool:
        """Whether a folder has at least one photo of this layout."""
        return next(_photos(folder, cls.photo_pattern), None) is not None

    @cached_property
    def _folders(self) -> Mapping[int, str]:
        """Number of each image on disk -> the folder it is in."""
        folders: dict[int, str] = {}
        for folder, index in _photos(self.folder, self.photo_pattern):
            number = index + 1 - self.base
            if number in folders:
                raise DataError(f"image {number} is in both {folders[number]}/ and {folder}/: which is it?",
                                where=str(self.folder))  # fmt: skip
            folders[number] = folder
        return folders

    @abstractmethod
    def _names(self, number: int) -> tuple[str, str]:
        """File names of photo and depth."""

    def files(self, number: int) -> Sequence[Path]:
        photo, depth = self._names(number)
        folder = self._folders.get(number)
        if folder is None:
            raise SampleError(f"no folder has {photo}: an unfinished copy?", where=str(self.folder))
        return (self.folder / folder / photo, self.folder / folder / depth)

    def photo(self, number: int) -> NDArray[np.uint8]:
        return sized_rgb(self.files(number)[0], SHAPE)

    def depth(self, number: int) -> NDArray[np.float32]:
        path = self.files(number)[1]
        millimetres = expect(read_png(path), path, shape=SHAPE, dtype="uint16")
        return millimetres.astype(np.float32) / np.float32(1000.0)


class ExtractedLayout(_Tree):
    """``test/kitchen_0004/rgb_0001.png, depth_0001.png (raw), filled_0001.png (in-painted)``; numbers from 1."""

    name = "extracted"
    photo_pattern = re.compile(r"rgb_(\d{4})\.png")
    base = 1

    def __init__(self, folder: Path, depth: str) -> None:
        super().__init__(folder)
        self._prefix = "depth" if depth == "raw" else "filled"

    def _names(self, number: int) -> tuple[str, str]:
        return f"rgb_{number:04d}.png", f"{self._prefix}_{number:04d}.png"

    def scene(self, number: int) -> str | None:
        return self._folders.get(number)


class BtsLayout(_Tree):
    """``bathroom/rgb_00045.jpg, sync_depth_00045.png``; numbers from 0; raw depth only.

    The script that writes this layout takes ``rawDepths`` and blackens the photo's outer 6 to 8 pixels.
    """

    name = "bts"
    photo_pattern = re.compile(r"rgb_(\d{5})\.jpg")
    base = 0

    def _names(self, number: int) -> tuple[str, str]:
        return f"rgb_{number - 1:05d}.jpg", f"sync_depth_{number - 1:05d}.png"

    def scene(self, number: int) -> str | None:
        return None  # the folder is a kind of room, which many scenes share


def _photos(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    """(Scene folder, number in the file name) of each photo one level down."""
    with os.scandir(folder) as scenes:
        for scene in scenes:
            if os.path.isdir(scene.path):  # unlike scene.is_dir(), false for a link that leads to itself
                with os.scandir(scene) as entries:
                    for entry in entries:
                        match = pattern.fullmatch(entry.name)
                        if match:
                            yield scene.name, int(match[1])
