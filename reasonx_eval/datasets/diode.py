"""DIODE, validation set: indoor and outdoor photos with laser-scanned depth and surface normals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import EXACT, PNG, Example, Written, depth_target, normal_target, smooth_truth
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
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import SampleError
from reasonx_eval.io.images import read_npy, write_npy, write_png
from reasonx_eval.types import DepthTarget, NormalTarget, Sample, Target

SHAPE: Final = (768, 1024)
#: of the crops' virtual camera, from the official intrinsics.txt, pixels of 1024 x 768
INTRINSICS: Final = (886.81, 927.06, 512.0, 384.0)
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "val": ("indoor", "outdoor"), "val-indoor": ("indoor",), "val-outdoor": ("outdoor",),
}  # fmt: skip


class DIODE(Dataset):
    """``val/{indoors,outdoor}/scene_*/scan_*/NAME.png, NAME_depth.npy, NAME_depth_mask.npy, NAME_normal.npy``.

    With ``mask=file`` the mask alone decides, as in the published affine-aligned evaluations: a pixel inside it
    whose depth isn't a positive number stays valid, and ``meta["unusable_in_mask"]`` counts them.

    The release doesn't state the axes of its normals. ``normals_frame=y-up`` (x right, y up, z towards the viewer) is
    how public evaluations read them and makes surfaces face the camera; ``meta["normals_frame"]`` records the choice.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="diode",
        title="DIODE, validation set (Vasiljevic et al. 2019)",
        targets=("depth", "normals"),
        splits={"val": 771, "val-indoor": 325, "val-outdoor": 446},
        licence="see the homepage (the devkit is MIT)",
        homepage="https://diode-dataset.org",
        size="2.6 GB (val.tar.gz: photos and depth), 4.6 GB (val_normals.tar.gz)",
        farthest_m=350.0,
        options={
            "mask": "file (default): NAME_depth_mask.npy says which pixels are valid; positive: depth > 0 does, as in "
            "the official devkit",
            "normals_frame": "y-up (default): files hold x right, y up, z towards the viewer; y-down: x right, y down, "
            "z forward",
        },
    )

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self._mask = choice(self, "mask", ("file", "positive"))
        self._frame = choice(self, "normals_frame", ("y-up", "y-down"))
        self._folder = find_folder(self, ("val", ".", "diode_val", "diode/val"), _has_scenes,
                                   "indoors/scene_00019 to 21 or outdoor/scene_00022 to 24")  # fmt: skip

    @property
    def ids(self) -> Sequence[str]:
        return tuple(i for part in _PARTS[self.split] for i in split_lines(f"diode_val_{part}"))

    def files(self, sample_id: str) -> Sequence[Path]:
        names = ["", "_depth", *(["_depth_mask"] if self._mask == "file" else []), "_normal"]
        paths = [self._folder / f"{sample_id}{n}.{'npy' if n else 'png'}" for n in names]
        return tuple(p for p in paths if not p.name.endswith("_normal.npy") or p.is_file())

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        stem = self._folder / sample_id
        targets: dict[str, Target] = {}
        meta: dict[str, Any] = {}
        if wanted(want, "depth"):
            targets["depth"] = depth = self._read_depth(stem)
            meta["mask"] = self._mask
            usable = np.isfinite(depth.depth) & (depth.depth > 0)
            if unusable := int(np.count_nonzero(depth.valid & ~usable)):
                meta["unusable_in_mask"] = unusable
        normals = _beside(stem, "_normal.npy")
        # an evaluation of depth alone often has only the archive with depth
        if wanted(want, "normals") and (want is not None or normals.exists()):
            targets["normals"] = self._read_normals(normals)
            meta["normals_frame"] = self._frame
        return Sample(id=sample_id, source=partial(sized_rgb, _beside(stem, ".png"), SHAPE), targets=targets,
                      group=sample_id.split("/")[1], meta=meta, intrinsics=pinhole(*INTRINSICS))  # fmt: skip

    def _read_depth(self, stem: Path) -> DepthTarget:
        path = _beside(stem, "_depth.npy")
        depth = expect(_flat(read_npy(path)), path, shape=SHAPE, dtype="float32")
        if self._mask == "file":
            valid = _read_mask(_beside(stem, "_depth_mask.npy"))
        else:
            valid = np.isfinite(depth) & (depth > 0)
        return DepthTarget(depth, valid, pinhole(*INTRINSICS))

    def _read_normals(self, path: Path) -> NormalTarget:
        if not path.exists():
            raise SampleError("normals are missing: they come in an archive of their own", where=str(path),
                              fix=f"unpack val_normals.tar.gz (diode-dataset.org) over {self._folder}")  # fmt: skip
        stored = expect(read_npy(path), path, shape=(*SHAPE, 3), dtype="float").astype(np.float32, copy=False)
        return NormalTarget(normal=stored * Y_UP if self._frame == "y-up" else stored, valid=nonzero_vectors(stored))


def _has_scenes(folder: Path) -> bool:
    scenes = {"/".join(i.split("/")[:2]) for part in _PARTS["val"] for i in split_lines(f"diode_val_{part}")}
    return any((folder / scene).is_dir() for scene in sorted(scenes))


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """The official (768, 1024, 1) without its last axis."""
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array


def _read_mask(path: Path) -> NDArray[np.bool_]:
    stored = expect(_flat(read_npy(path)), path, shape=SHAPE, dtype="number")
    mask = stored.astype(np.bool_)
    if not np.array_equal(mask, stored):
        raise SampleError("a mask holds 0 and 1 only, this file holds other values", where=str(path))
    return mask


@dataclass(frozen=True)
class DiodeFiles:
    """depth float32 [768, 1024, 1], mask float [768, 1024], normal float [768, 1024, 3] or None."""

    photo: NDArray[np.uint8]
    depth: NDArray[np.float32]
    mask: NDArray[Any]
    normal: NDArray[Any] | None


def write_diode(folder: Path, sample_id: str, files: DiodeFiles) -> None:
    """``NAME.png, NAME_depth.npy, NAME_depth_mask.npy`` and, if there are normals, ``NAME_normal.npy``."""
    stem = folder / sample_id
    write_png(stem.with_name(stem.name + ".png"), files.photo)
    write_npy(stem.with_name(stem.name + "_depth.npy"), files.depth)
    write_npy(stem.with_name(stem.name + "_depth_mask.npy"), files.mask)
    if files.normal is not None:
        write_npy(stem.with_name(stem.name + "_normal.npy"), files.normal)


def write_examples(root: Path) -> Mapping[str, Written]:
    """Two samples; the upper half of the pixels outside the mask holds a depth that must not count by the mask."""
    found = {}
    for number, sample_id in enumerate((split_lines("diode_val_indoor")[0], split_lines("diode_val_outdoor")[0])):
        truth = smooth_truth(*SHAPE, number)
        stored = np.where(truth.seen, truth.depth, 0)
        upper = np.arange(len(stored)) < len(stored) // 2
        stored[upper] = np.where(truth.seen, stored, 8.0)[upper]
        normal = np.where(truth.seen[..., None], truth.normal * (1, -1, -1), 0).astype(np.float32)
        write_diode(root / "val", sample_id, DiodeFiles(
            truth.photo, stored.astype(np.float32)[..., None], truth.seen.astype(np.float32), normal))  # fmt: skip
        targets: dict[str, Target] = {"depth.file": depth_target(stored, truth.seen),
                                      "depth.positive": depth_target(stored, stored > 0)}  # fmt: skip
        found[sample_id] = Written({**targets, "normals": normal_target(truth, truth.seen)}, truth.photo)
    return found


DATASET = DIODE
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("diode", "diode", write_examples, {**PNG, **EXACT}),
)  # fmt: skip
