"""ETH3D high-resolution multi-view training set: DSLR photos with laser-scanned depth."""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import EXACT, JPEG, Example, Written, depth_target, smooth_truth, write_jpeg
from reasonx_eval.datasets.formats.reading import choice, require_id, wanted
from reasonx_eval.datasets.formats.tarindex import TarIndex
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError, SampleError
from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.io.images import missing, read_rgb
from reasonx_eval.types import DepthTarget, Sample, Target

_FLOAT: Final = np.dtype("<f4")
_HEAD: Final = 1 << 20  # bytes of a photo that nearly always hold its header, embedded preview and all
_ABOVE: Final = ("", "training/", "eth3d/")
_PHOTO: Final = ("{0}/images/dslr_images/{1}.JPG", "{0}_dslr_jpg/{0}/images/dslr_images/{1}.JPG",
                 "rgb/{0}/images/dslr_images/{1}.JPG")  # fmt: skip
_DEPTH: Final = tuple(above + "{0}/ground_truth_depth/dslr_images/{1}.JPG"
                      for above in ("", "{0}_dslr_depth/", "depth/{0}_dslr_depth/", "depth/"))  # fmt: skip


class ETH3D(Dataset):
    """13 scenes, 454 photos of 24 megapixels; ids such as ``courtyard/DSC_0286``.

    The depth file has the photo's name, JPG and all, and is a bare array: float32, little-endian, row by row, of
    the photo's height and width, metres, +inf where nothing was measured. NaN and values <= 0 are not part of the
    format; they count as not measured, and a sample that has NaN says how many in ``meta["nan_pixels"]``.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="eth3d",
        title="ETH3D high-res multi-view, training DSLR images (Schoeps et al. 2017)",
        targets=("depth",),
        splits={"train-dslr": 454},
        licence="CC BY-NC-SA 4.0",
        homepage="https://www.eth3d.net/datasets",
        farthest_m=330.0,
        size="454 photos of 6048 x 4032, 98 MB of depth each (44 GB)",
        options={
            "layout": "auto (default): folders if there are any, else tar; folders: SCENE/images/dslr_images and "
            "SCENE/ground_truth_depth/dslr_images; tar: eth3d.tar with rgb/ and depth/, read without unpacking",
        },
    )

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        assert self.root is not None
        self._store = _open_store(self.root, choice(self, "layout", ("auto", "folders", "tar")))

    @property
    def ids(self) -> Sequence[str]:
        return split_lines("eth3d_dslr")

    def files(self, sample_id: str) -> Sequence[Path]:
        return self._store.files(sample_id)

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        targets: dict[str, Target] = {}
        meta: dict[str, Any] = {}
        if wanted(want, "depth"):
            targets["depth"], not_a_number = read_depth(self._store, sample_id)
            if not_a_number:
                meta["nan_pixels"] = not_a_number
        return Sample(id=sample_id, source=partial(self._store.photo, sample_id), targets=targets,
                      group=sample_id.split("/")[0], meta=meta)  # fmt: skip


class _Store(ABC):
    """Where photos and depth lie: folders or an archive."""

    @abstractmethod
    def photo(self, sample_id: str) -> NDArray[np.uint8]: ...

    @abstractmethod
    def photo_size(self, sample_id: str) -> tuple[int, int]:
        """Height and width from the photo's header."""

    @abstractmethod
    def depth_size(self, sample_id: str) -> tuple[str, int]:
        """Name for messages, and bytes, of the depth file."""

    @abstractmethod
    def depth_reader(self, sample_id: str) -> AbstractContextManager[Callable[[memoryview, int], None]]:
        """A function that fills a view with the bytes of the depth file from an offset on."""

    @abstractmethod
    def files(self, sample_id: str) -> Sequence[Path]: ...


class _Folders(_Store):
    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, sample_id: str) -> Sequence[Path]:
        return (self._find(_PHOTO, sample_id, "_dslr_jpg.7z"), self._find(_DEPTH, sample_id, "_dslr_depth.7z"))

    def _find(self, patterns: Sequence[str], sample_id: str, archive: str) -> Path:
        places = [self._root / name for name in _names(patterns, sample_id)]
        for path in places:
            if path.is_file():
                return path
        scene = sample_id.split("/")[0]
        raise SampleError(missing(places[0]).what, where=str(places[0]),
                          fix=f"unpack {scene}{archive} from https://www.eth3d.net into {self._root}")  # fmt: skip

    def photo(self, sample_id: str) -> NDArray[np.uint8]:
        return read_rgb(self._find(_PHOTO, sample_id, "_dslr_jpg.7z"))

    def photo_size(self, sample_id: str) -> tuple[int, int]:
        path = self._find(_PHOTO, sample_id, "_dslr_jpg.7z")
        return _header_size(path, str(path))

    def depth_size(self, sample_id: str) -> tuple[str, int]:
        path = self._find(_DEPTH, sample_id, "_dslr_depth.7z")
        return str(path), path.stat().st_size

    @contextmanager
    def depth_reader(self, sample_id: str) -> Iterator[Callable[[memoryview, int], None]]:
        path = self._find(_DEPTH, sample_id, "_dslr_depth.7z")

        def fill(view: memoryview, start: int) -> None:
            handle.seek(start)
            while view:
                got = handle.readinto(view)
                if not got:
                    raise SampleError("became shorter while it was read", where=str(path))
                view = view[got:]

        try:
            with path.open("rb", buffering=0) as handle:
                yield fill
        except OSError as error:
            raise SampleError(f"can't be read: {error.strerror or error}", where=str(path)) from None


class _Tar(_Store):
    def __init__(self, path: Path) -> None:
        self._tar = TarIndex(path)

    def files(self, sample_id: str) -> Sequence[Path]:
        return (self._tar.path,)

    def _find(self, patterns: Sequence[str], sample_id: str) -> str:
        names = list(_names(patterns, sample_id))
        found = next((name for name in names if name in self._tar.members), None)
        if found is None:
            raise SampleError(f"has no member {', '.join(names[-3:])} for {sample_id}", where=str(self._tar.path))
        return found

    def photo(self, sample_id: str) -> NDArray[np.uint8]:
        name = self._find(_PHOTO, sample_id)
        return read_rgb(f"{self._tar.path}:{name}", self._tar.read(name))

    def photo_size(self, sample_id: str) -> tuple[int, int]:
        name = self._find(_PHOTO, sample_id)
        where = f"{self._tar.path}:{name}"
        try:
            return _header_size(io.BytesIO(self._tar.read(name, _HEAD)), where)
        except SampleError:
            return _header_size(io.BytesIO(self._tar.read(name)), where)

    def depth_size(self, sample_id: str) -> tuple[str, int]:
        name = self._find(_DEPTH, sample_id)
        return f"{self._tar.path}:{name}", self._tar.size(name)

    @contextmanager
    def depth_reader(self, sample_id: str) -> Iterator[Callable[[memoryview, int], None]]:
        yield partial(self._tar.read_into, self._find(_DEPTH, sample_id))


def read_depth(store: _Store, sample_id: str) -> tuple[DepthTarget, int]:
    """Depth of the photo's size, metres, as stored, with its mask, and how many values are NaN.

    Raises
    ------
    SampleError
        A missing file, or a byte count that isn't height x width x 4.
    """
    height, width = store.photo_size(sample_id)
    where, size = store.depth_size(sample_id)
    expected = height * width * _FLOAT.itemsize
    if size != expected:
        raise SampleError(f"expected {expected} bytes ({height} x {width} float32, the photo's size), got {size}: "
                          f"{_size_cause(size, expected)}", where=where)  # fmt: skip
    depth = np.empty((height, width), dtype=_FLOAT)
    valid = np.empty((height, width), dtype=bool)
    not_a_number = 0
    with store.depth_reader(sample_id) as fill:
        # each block is tested while it is in the cache: the mask costs half a read, not a read and a half
        for rows in row_blocks(height, width):
            block = depth[rows]
            fill(block.reshape(-1).view(np.uint8).data, rows.start * width * _FLOAT.itemsize)
            # NaN fails both comparisons
            np.logical_and(block > 0, block < np.inf, out=valid[rows])
            not_a_number += int(np.count_nonzero(np.isnan(block)))
    return DepthTarget(depth, valid), not_a_number


def _size_cause(size: int, expected: int) -> str:
    if size == 0:
        return "an empty file"
    return "cut off, or depth of another photo size?" if size < expected else "depth of another photo size?"


def _header_size(source: Path | io.BytesIO, where: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(source) as image:
            return image.height, image.width
    except Exception as error:
        detail = " ".join(str(error).split())[:160]
        raise SampleError(f"not a readable photo ({detail}): truncated, or the depth file in its place?",
                          where=where) from None  # fmt: skip


def _names(patterns: Sequence[str], sample_id: str) -> Iterator[str]:
    scene, name = sample_id.split("/")
    for above in _ABOVE:
        for pattern in patterns:
            yield above + pattern.format(scene, name)


def _open_store(root: Path, wish: str) -> _Store:
    archive = root / "eth3d.tar"
    openers: dict[str, tuple[bool, Callable[[], _Store]]] = {
        "folders": (_has_folders(root) if wish != "tar" else False, lambda: _Folders(root)),
        "tar": (archive.is_file(), lambda: _Tar(archive)),
    }
    for name, (here, opener) in openers.items():
        if here and wish in ("auto", name):
            return opener()
    looked = {"folders": "SCENE/ground_truth_depth/dslr_images", "tar": "eth3d.tar"}
    what = " or ".join(v for k, v in looked.items() if wish in ("auto", k))
    raise DataError(f"no {what} in {root}: another folder, or not unpacked yet?", where="eth3d",
                    fix="reasonx-eval doctor eth3d --prepare")  # fmt: skip


def _has_folders(root: Path) -> bool:
    scenes = dict.fromkeys(i.split("/")[0] for i in split_lines("eth3d_dslr"))
    return any(
        (root / name).parent.is_dir() for scene in scenes for name in _names((*_PHOTO, *_DEPTH), f"{scene}/any")
    )


def eth3d_names(sample_id: str, *, tar: bool = False) -> tuple[str, str]:
    """Relative names of photo and depth: unpacked official archives, or the members of the combined tar."""
    scene, name = sample_id.split("/")
    image, depth = f"{scene}/images/dslr_images/{name}.JPG", f"{scene}/ground_truth_depth/dslr_images/{name}.JPG"
    return (f"rgb/{image}", f"depth/{scene}_dslr_depth/{depth}") if tar else (image, depth)


def write_eth3d(root: Path, sample_id: str, depth: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
    """Photo and bare float32 depth, as unpacked from the official archives."""
    photo_name, depth_name = eth3d_names(sample_id)
    write_jpeg(root / photo_name, image)
    (root / depth_name).parent.mkdir(parents=True, exist_ok=True)
    (root / depth_name).write_bytes(depth.astype("<f4").tobytes())


def write_tar(path: Path, members: Mapping[str, bytes], prefix: str = "./") -> None:
    """An uncompressed tar with a folder entry before each file, as GNU tar makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            folder = tarfile.TarInfo(prefix + str(Path(name).parent))
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


_ETH3D = (split_lines("eth3d_dslr")[0], split_lines("eth3d_dslr")[-1])


def _eth3d(number: int, size: tuple[int, int] = (720, 1080)) -> tuple[NDArray[np.float32], Written]:
    """Smaller than the photos of the release, yet larger than 1024, where fits are subsampled."""
    truth = smooth_truth(*size, number)
    depth = np.where(truth.seen, truth.depth, np.inf).astype(np.float32)
    return depth, Written({"depth": depth_target(depth, truth.seen)}, truth.photo)


def write_eth3d_folders(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, sample_id in enumerate(_ETH3D):
        depth, found[sample_id] = _eth3d(number)
        write_eth3d(root, sample_id, depth, _photo(found[sample_id]))
    return found


def write_eth3d_full(root: Path) -> Mapping[str, Written]:
    """One photo of the release's 24 megapixels, from a smaller map whose pixels become blocks."""
    depth, small = _eth3d(0, (504, 756))
    large = depth.repeat(8, axis=0).repeat(8, axis=1)
    photo = _photo(small).repeat(8, axis=0).repeat(8, axis=1)
    write_eth3d(root, _ETH3D[0], large, photo)
    return {_ETH3D[0]: Written({"depth": depth_target(large, np.isfinite(large))}, photo)}


def _photo(written: Written) -> NDArray[np.uint8]:
    assert written.photo is not None
    return written.photo


def write_eth3d_tar(root: Path) -> Mapping[str, Written]:
    members, found = {}, {}
    for number, sample_id in enumerate(_ETH3D):
        depth, found[sample_id] = _eth3d(number)
        photo_name, depth_name = eth3d_names(sample_id, tar=True)
        members[photo_name] = write_jpeg(root / "photo.jpg", _photo(found[sample_id]))
        members[depth_name] = depth.astype("<f4").tobytes()
    write_tar(root / "eth3d.tar", members)
    return found


DATASET = ETH3D
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("eth3d, folders", "eth3d", write_eth3d_folders, {**JPEG, **EXACT}),
    Example("eth3d, tar", "eth3d", write_eth3d_tar, {**JPEG, **EXACT}),
    Example("eth3d, 24 megapixels", "eth3d", write_eth3d_full, {**JPEG, **EXACT}, only=("depth/eth3d",)),
)  # fmt: skip
