"""NYU Depth v2: the 1449 labelled images, from the official .mat or either of two widely used unpacked trees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import (
    EXACT,
    JPEG,
    PNG,
    Example,
    Written,
    depth_target,
    everywhere,
    millimetres,
    smooth_truth,
    write_jpeg,
)
from reasonx_eval.datasets.formats.nyuv2_layouts import IMAGES, SHAPE, BtsLayout, ExtractedLayout, Layout, MatLayout
from reasonx_eval.datasets.formats.reading import choice, find_folder, pinhole, require_id, wanted
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import write_png
from reasonx_eval.types import DepthTarget, Sample, Target

#: focal lengths and centre of the photo's camera, from the official toolbox, pixels of 640 x 480
INTRINSICS: Final = (518.8579, 519.4696, 325.5824, 253.7362)


class NYUv2(Dataset):
    """Photos with Kinect depth, raw or in-painted.

    Sample ids are the official numbers from 1, as "0001", whatever the layout: in files numbered from 0 the
    image 00045 is sample "0046". ``splits.mat`` is compared with the package's lists where the root has it.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="nyuv2",
        title="NYU Depth v2, labelled images (Silberman et al. 2012)",
        targets=("depth",),
        splits={"test": 654, "train": 795, "all": IMAGES},
        licence="research use",
        homepage="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        size="2.8 GB (nyu_depth_v2_labeled.mat)",
        farthest_m=10.0,
        usual_m=2.7,
        options={
            "layout": "auto (default): the first that is there of mat: nyu_depth_v2_labeled.mat; extracted: "
            "test/SCENE/rgb_0001.png, depth_0001.png, filled_0001.png; bts: ROOM/rgb_00045.jpg, sync_depth_00045.png",
            "depth": "raw (default): the Kinect's measurements, 0 = missing; filled: in-painted, no pixel missing "
            "(not in layout bts)",
        },
    )

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self._depth = choice(self, "depth", ("raw", "filled"))
        self._layout = _open_layout(self, choice(self, "layout", ("auto", "mat", "extracted", "bts")), self._depth)
        if self.root is not None and (self.root / "splits.mat").is_file():
            check_splits(self.root / "splits.mat")

    @property
    def ids(self) -> Sequence[str]:
        return numbered_ids(self.split)

    def files(self, sample_id: str) -> Sequence[Path]:
        return self._layout.files(int(sample_id))

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        number = int(sample_id)
        targets: dict[str, Target] = {}
        if wanted(want, "depth"):
            depth = self._layout.depth(number)
            if self._depth == "filled" and not (np.isfinite(depth) & (depth > 0)).all():
                share = 100 * float(np.mean(~(depth > 0)))
                raise SampleError(f"in-painted depth has no holes, and {share:.1f} % of this one is missing: raw depth "
                                  "under the name of in-painted depth?", where=str(self._layout.files(number)[-1]),
                                  fix=f"in-painted depth of {MatLayout.file_name} ('depths')")  # fmt: skip
            targets["depth"] = DepthTarget(depth, np.isfinite(depth) & (depth > 0), pinhole(*INTRINSICS))
        return Sample(
            id=sample_id,
            source=partial(self._layout.photo, number),
            targets=targets,
            group=self._layout.scene(number) or scenes_of_test().get(number),
            meta={"layout": self._layout.name, "depth": self._depth},
            intrinsics=pinhole(*INTRINSICS),
        )


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


@cache
def numbered_ids(split: str) -> tuple[str, ...]:
    """Ids of test, train or all: official numbers from 1 with four digits."""
    numbers = range(1, IMAGES + 1) if split == "all" else map(int, split_lines(f"nyuv2_{split}"))
    return tuple(f"{n:04d}" for n in numbers)


@cache
def scenes_of_test() -> Mapping[int, str]:
    """Scene of each test image by its number, for layouts that don't say."""
    rows = (line.split() for line in split_lines("nyuv2_test_scenes"))
    return {int(number): scene for number, scene in rows}


def _open_layout(dataset: NYUv2, wish: str, depth: str) -> Layout:
    """The layout that was asked for, or the first that is there."""
    openers: dict[str, Callable[[NYUv2, str], Layout]] = {"mat": _open_mat, "extracted": _open_extracted,
                                                          "bts": _open_bts}  # fmt: skip
    if wish != "auto":
        return openers[wish](dataset, depth)
    misses = []
    for opener in openers.values():
        try:
            return opener(dataset, depth)
        except _NotHere as miss:
            misses.append(miss.what)
    raise DataError("; ".join(misses), where=dataset.name, fix="reasonx-eval doctor nyuv2 --prepare")


class _NotHere(DataError):
    """A layout whose files are not below the root."""


def _open_mat(dataset: NYUv2, depth: str) -> Layout:
    assert dataset.root is not None
    path = dataset.root / MatLayout.file_name
    if not path.is_file():
        raise _NotHere(f"no {path.name} in {dataset.root}", where=dataset.name,
                       fix="reasonx-eval doctor nyuv2 --prepare")  # fmt: skip
    return MatLayout(path, depth)


def _tree(dataset: NYUv2, places: Sequence[str], layout: type[ExtractedLayout] | type[BtsLayout]) -> Path:
    if dataset.split == "all":
        raise _NotHere(f"split 'all' needs the official .mat: layout {layout.name} has one folder a split",
                       where=dataset.name, fix=f"put {MatLayout.file_name} into {dataset.root}")  # fmt: skip
    pattern = layout.photo_pattern.pattern.replace(r"(\d{4})", "NNNN").replace(r"(\d{5})", "NNNNN").replace("\\", "")
    try:
        return find_folder(dataset, places, layout.found, f"SCENE/{pattern} of split {dataset.split}")
    except DataError as miss:
        raise _NotHere(miss.what, where=miss.where, fix=miss.fix) from None


def _open_extracted(dataset: NYUv2, depth: str) -> Layout:
    split = dataset.split
    return ExtractedLayout(_tree(dataset, (split, f"nyu_labeled_extracted/{split}", "."), ExtractedLayout), depth)


def _open_bts(dataset: NYUv2, depth: str) -> Layout:
    split = dataset.split
    places = (f"official_splits/{split}", split, f"nyu_depth_v2/official_splits/{split}", ".")
    folder = _tree(dataset, places, BtsLayout)
    if depth == "filled":
        raise UsageError("layout bts holds raw depth only: the script that writes it takes rawDepths",
                         where=dataset.name, fix=f"put {MatLayout.file_name} into {dataset.root}")  # fmt: skip
    return BtsLayout(folder)


@dataclass(frozen=True)
class NyuImage:
    """One labelled image: photo uint8 [480, 640, 3]; raw (0 = missing) and filled depth, float32 metres."""

    photo: NDArray[np.uint8]
    raw: NDArray[np.float32]
    filled: NDArray[np.float32]


def write_nyuv2_mat(path: Path, images: Mapping[int, NyuImage], scenes: Mapping[int, str] | None = None,
                    leave_out: Sequence[str] = ()) -> None:  # fmt: skip
    """The labelled .mat with all 1449 rows, of which only the given ones (1-based) are stored."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        shapes = {"images": ((1449, 3, 640, 480), "u1"), "depths": ((1449, 640, 480), "f4"),
                  "rawDepths": ((1449, 640, 480), "f4"), "labels": ((1449, 640, 480), "u2")}  # fmt: skip
        for key, (shape, dtype) in shapes.items():
            if key not in leave_out:
                file.create_dataset(key, shape, dtype, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1)
        for number, image in images.items():
            rows = {"images": image.photo.transpose(2, 1, 0), "depths": image.filled.T, "rawDepths": image.raw.T}
            for key, row in rows.items():
                if key not in leave_out:
                    file[key][number - 1] = row
        if scenes is not None:
            cells = file.create_dataset("scenes", (1, 1449), h5py.ref_dtype)
            for number, scene in scenes.items():
                text = file.create_dataset(f"#refs#/{number}", data=np.array([[ord(c)] for c in scene], dtype="u2"))
                cells[0, number - 1] = text.ref


def write_nyuv2_extracted(folder: Path, number: int, scene: str, image: NyuImage) -> None:
    """``SCENE/rgb_0001.png, depth_0001.png, filled_0001.png``."""
    write_png(folder / scene / f"rgb_{number:04d}.png", image.photo)
    write_png(folder / scene / f"depth_{number:04d}.png", millimetres(image.raw))
    write_png(folder / scene / f"filled_{number:04d}.png", millimetres(image.filled))


def write_nyuv2_bts(folder: Path, number: int, room: str, image: NyuImage, *, filled: bool = False) -> None:
    """``ROOM/rgb_00000.jpg, sync_depth_00000.png``, numbered from 0."""
    write_jpeg(folder / room / f"rgb_{number - 1:05d}.jpg", image.photo)
    write_png(folder / room / f"sync_depth_{number - 1:05d}.png", millimetres(image.filled if filled else image.raw))


#: images of the example -> their scenes
EXAMPLE_SCENES: Final = {1: "kitchen_0004", 9: "office_0005"}


def _nyu(number: int) -> tuple[NyuImage, Written]:
    truth = smooth_truth(*SHAPE, number)
    filled = np.rint(truth.depth * 1000) / 1000
    raw = np.where(truth.seen, filled, 0)
    targets = {"depth.raw": depth_target(raw, truth.seen), "depth.filled": depth_target(filled, everywhere(truth))}
    image = NyuImage(truth.photo, raw.astype(np.float32), filled.astype(np.float32))
    return image, Written(targets, truth.photo)


def write_nyu_mat(root: Path) -> Mapping[str, Written]:
    made = {number: _nyu(number) for number in EXAMPLE_SCENES}
    write_nyuv2_mat(root / "nyu_depth_v2_labeled.mat", {n: image for n, (image, _) in made.items()}, EXAMPLE_SCENES)
    return {f"{n:04d}": written for n, (_, written) in made.items()}


def write_nyu_extracted(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, scene in EXAMPLE_SCENES.items():
        image, found[f"{number:04d}"] = _nyu(number)
        write_nyuv2_extracted(root / "test", number, scene, image)
    return found


def write_nyu_bts(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, scene in EXAMPLE_SCENES.items():
        image, found[f"{number:04d}"] = _nyu(number)
        write_nyuv2_bts(root / "official_splits" / "test", number, scene[:-5], image)
    return found


DATASET = NYUv2
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("nyuv2, mat", "nyuv2", write_nyu_mat, {**PNG, **EXACT}),
    Example("nyuv2, extracted", "nyuv2", write_nyu_extracted, {**PNG, **EXACT}),
    Example("nyuv2, bts", "nyuv2", write_nyu_bts, {**JPEG, **EXACT}, refused={"depth": "filled"}),
)  # fmt: skip
