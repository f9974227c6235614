"""Surface normals of the 654 NYUv2 test images, in the two packages that published evaluations use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import EXACT, PNG, Example, Written, normal_codes, normal_target, smooth_truth
from reasonx_eval.datasets.formats.nyuv2_layouts import SHAPE
from reasonx_eval.datasets.formats.reading import (
    Y_UP,
    choice,
    expect,
    find_folder,
    nonzero_vectors,
    pinhole,
    require_id,
    sized_rgb,
    wanted,
)
from reasonx_eval.datasets.nyuv2 import EXAMPLE_SCENES, INTRINSICS, numbered_ids, scenes_of_test
from reasonx_eval.errors import UsageError
from reasonx_eval.io.images import read_npy, read_png, write_npy, write_png
from reasonx_eval.types import NormalTarget, Sample, Target

#: -(n * 2 - 1) of each 8-bit code: those files hold outward normals, x right, y down, z forward, so that
#: a wall facing the camera is (0, 0, 1); the camera-facing normal is the opposite vector
_OUTWARD_CODES: Final = -(np.arange(256) / 255.0 * 2.0 - 1.0).astype(np.float32)

_SUFFIX: Final[Mapping[str, str]] = {"dsine": "png", "marigold": "npy"}


class NYUv2Normals(Dataset):
    """Normals with their photos; sample ids are those of `NYUv2`: the files of 000000 are sample "0001"."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="nyuv2-normals",
        title="NYU Depth v2 test images with surface normals",
        targets=("normals",),
        splits={"test": 654},
        licence="research use",
        homepage="https://github.com/baegwangbin/DSINE (dsine_eval.zip), https://github.com/prs-eth/Marigold",
        size="654 photos, 480 x 640",
        options={
            "layout": "auto (default): the one that is there; dsine: test/000000_img.png, 000000_normal.png (8 bit; "
            "the normals of GeoNet); marigold: test/000000_img.png, 000000_normal.npy",
        },
    )

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self._layout = choice(self, "layout", ("auto", "dsine", "marigold"))
        layouts = _SUFFIX if self._layout == "auto" else {self._layout: _SUFFIX[self._layout]}
        first = "000000_img.png and 000000_normal." + " or .".join(layouts.values())
        self._folder = find_folder(self, ("test", "nyuv2/test", "dsine_eval/nyuv2/test", "nyuv2", "."),
                                   partial(_has_any, layouts=tuple(layouts)), first)  # fmt: skip
        if self._layout == "auto":
            here = [name for name in layouts if _has_any(self._folder, (name,))]
            if len(here) > 1:
                raise UsageError(f"{self._folder} holds both kinds of normals, which give different numbers",
                                 where=self.name, fix="dataset option layout=dsine or layout=marigold")  # fmt: skip
            self._layout = here[0]

    @property
    def ids(self) -> Sequence[str]:
        return numbered_ids("test")

    def files(self, sample_id: str) -> Sequence[Path]:
        stem = f"{int(sample_id) - 1:06d}"
        return (self._folder / f"{stem}_img.png", self._folder / f"{stem}_normal.{_SUFFIX[self._layout]}")

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        photo, normals = self.files(sample_id)
        targets: dict[str, Target] = {}
        if wanted(want, "normals"):
            targets["normals"] = _READERS[self._layout](normals)
        return Sample(
            id=sample_id,
            source=partial(sized_rgb, photo, SHAPE),
            targets=targets,
            group=scenes_of_test().get(int(sample_id)),
            meta={"layout": self._layout},
            intrinsics=pinhole(*INTRINSICS),
        )


def _has_any(folder: Path, layouts: Sequence[str]) -> bool:
    stems = [f"{int(i) - 1:06d}_normal" for i in numbered_ids("test")]
    return any((folder / f"{stem}.{_SUFFIX[layout]}").is_file() for stem in stems for layout in layouts)


def _read_dsine(path: Path) -> NormalTarget:
    codes = expect(read_png(path), path, shape=(*SHAPE, 3), dtype="uint8")
    return NormalTarget(normal=_OUTWARD_CODES[codes], valid=np.any(codes, axis=-1))


def _read_marigold(path: Path) -> NormalTarget:
    stored = expect(read_npy(path), path, shape=(*SHAPE, 3), dtype="float").astype(np.float32)
    return NormalTarget(normal=stored * Y_UP, valid=nonzero_vectors(stored))


_READERS: Final[Mapping[str, Callable[[Path], NormalTarget]]] = {"dsine": _read_dsine, "marigold": _read_marigold}


def write_nyuv2_normals(folder: Path, number: int, stored: NDArray[Any], image: NDArray[np.uint8]) -> None:
    """``000000_img.png`` and ``_normal.png`` (uint8 codes) or ``_normal.npy`` (float vectors)."""
    stem = f"{number - 1:06d}"
    write_png(folder / f"{stem}_img.png", image)
    write_npy(folder / f"{stem}_intrins.npy", np.eye(3))
    if stored.dtype == np.uint8:
        write_png(folder / f"{stem}_normal.png", stored)
    else:
        write_npy(folder / f"{stem}_normal.npy", stored)


def write_nyu_dsine(root: Path) -> Mapping[str, Written]:
    """8-bit codes of outward normals: the opposite of ours."""
    found = {}
    for number in EXAMPLE_SCENES:
        truth = smooth_truth(*SHAPE, number)
        write_nyuv2_normals(root / "test", number, normal_codes(-truth.normal, truth.seen), truth.photo)
        found[f"{number:04d}"] = Written({"normals": normal_target(truth, truth.seen)}, truth.photo)
    return found


def write_nyu_marigold(root: Path) -> Mapping[str, Written]:
    """Floats, y up and z towards the camera."""
    found = {}
    for number in EXAMPLE_SCENES:
        truth = smooth_truth(*SHAPE, number)
        stored = np.where(truth.seen[..., None], truth.normal * (1, -1, -1), 0).astype(np.float32)
        write_nyuv2_normals(root / "test", number, stored, truth.photo)
        found[f"{number:04d}"] = Written({"normals": normal_target(truth, truth.seen)}, truth.photo)
    return found


DATASET = NYUv2Normals
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("nyuv2-normals, dsine", "nyuv2-normals", write_nyu_dsine, {**PNG, "normals": 0.5}),
    Example("nyuv2-normals, marigold", "nyuv2-normals", write_nyu_marigold, {**PNG, **EXACT}),
)  # fmt: skip
