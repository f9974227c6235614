"""The layouts NYUv2 comes in, behind one interface: photo, depth and scene of image 1 to 1449."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.formats.nyuv2_mat import HEIGHT, WIDTH, LabelledMat
from reasonx_eval.datasets.formats.reading import expect, sized_rgb
from reasonx_eval.errors import DataError, SampleError
from reasonx_eval.io.images import read_png

SHAPE = (HEIGHT, WIDTH)


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
        """What `photo` and `depth` read."""


class MatLayout(Layout):
    """``nyu_depth_v2_labeled.mat`` of the official release."""

    name = "mat"
    file_name = "nyu_depth_v2_labeled.mat"

    def __init__(self, path: Path, depth: str) -> None:
        self._mat = LabelledMat(path, "rawDepths" if depth == "raw" else "depths")

    def photo(self, number: int) -> NDArray[np.uint8]:
        return self._mat.photo(number)

    def depth(self, number: int) -> NDArray[np.float32]:
        return self._mat.depth(number)

    def scene(self, number: int) -> str | None:
        return self._mat.scene(number)

    def files(self, number: int) -> Sequence[Path]:
        return (self._mat.path,)


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
