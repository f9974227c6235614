"""NYU Depth v2: the 1449 labelled images, from the official .mat or either of two widely used unpacked trees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.formats.nyuv2_layouts import BtsLayout, ExtractedLayout, Layout, MatLayout
from reasonx_eval.datasets.formats.nyuv2_mat import IMAGES, check_splits
from reasonx_eval.datasets.formats.reading import choice, find_folder, pinhole, require_id, wanted
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError, UsageError
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
        options={
            "layout": "auto (default): the first that is there of mat: nyu_depth_v2_labeled.mat; extracted: "
            "test/SCENE/rgb_0001.png, depth_0001.png, filled_0001.png; bts: ROOM/rgb_00045.jpg, sync_depth_00045.png",
            "depth": "raw (default): what the Kinect measured, 0 = missing; filled: in-painted, no pixel missing "
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
            targets["depth"] = DepthTarget(depth, np.isfinite(depth) & (depth > 0), pinhole(*INTRINSICS))
        return Sample(
            id=sample_id,
            source=partial(self._layout.photo, number),
            targets=targets,
            group=self._layout.scene(number) or scenes_of_test().get(number),
            meta={"layout": self._layout.name, "depth": self._depth},
            intrinsics=pinhole(*INTRINSICS),
        )


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
