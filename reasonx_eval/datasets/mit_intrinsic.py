"""MIT intrinsic images (Grosse, Johnson, Adelson, Freeman, ICCV 2009): 20 painted objects with measured layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import Example, Written, map_target, smooth_truth
from reasonx_eval.datasets.formats.maps import as_plane, as_rgb
from reasonx_eval.datasets.formats.naming import sentence
from reasonx_eval.datasets.formats.reading import find_folder, require_id, wanted
from reasonx_eval.errors import SampleError
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.images import read_png, write_png
from reasonx_eval.types import MapTarget, Sample, Target

OBJECTS = (
    "apple", "box", "cup1", "cup2", "deer", "dinosaur", "frog1", "frog2", "panther", "paper1",
    "paper2", "pear", "phone", "potato", "raccoon", "squirrel", "sun", "teabag1", "teabag2", "turtle",
)  # fmt: skip

#: share of the object's pixels that may saturate in the 8-bit photo, percent
_WHITE_PERCENTILE = 99.9


class MITIntrinsic(Dataset):
    """Object folders with mask, original, shading and reflectance in 16-bit linear PNG.

    Layers are divided by 65535. The photo is `original` exposed so that the 99.9th percentile of the object's
    largest channel becomes white, then encoded with the sRGB curve to 8 bit; the layers keep their own scale,
    so compare them up to one scale. Split "all" is the 20 objects of the set, "present" those found in the root.
    """

    info = DatasetInfo(
        name="mit-intrinsic",
        title="MIT intrinsic images (Grosse et al. 2009)",
        targets=("albedo", "irradiance"),
        splits={"all": len(OBJECTS), "present": None},
        licence="research use (the terms are not stated)",
        homepage="https://www.cs.toronto.edu/~rgrosse/intrinsic/",
        size="20 objects",
    )

    def __init__(self, root: Path | None, split: str = "all", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self.base = find_folder(self, (".", "data", "MIT-intrinsic/data"),
                                lambda folder: any((folder / o).is_dir() for o in OBJECTS),
                                f"object folder ({OBJECTS[0]}, {OBJECTS[1]}, ...)")  # fmt: skip
        here = [o for o in OBJECTS if (self.base / o).is_dir()]
        self._ids = OBJECTS if split == "all" else tuple(here)

    def overlooked(self) -> Sequence[str]:
        if self.split == "all":
            return ()
        known = {o.casefold(): o for o in OBJECTS}
        names = sorted(p.name for p in self.base.iterdir() if p.is_dir() and p.name not in OBJECTS)
        near = [n for n in names if n.casefold() in known]
        said = sentence("folders not read, as letter case is not that of an object's name", near)
        return [said] if said else []

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def files(self, sample_id: str) -> Sequence[Path]:
        names = ("mask", "original", "reflectance", "shading")
        return tuple(self.base / sample_id / f"{n}.png" for n in names)

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        folder = self.base / sample_id
        if not folder.is_dir():
            raise SampleError("the object's folder is missing", where=str(folder),
                              fix="the whole set, or split 'present' for the objects you have")  # fmt: skip
        targets: dict[str, Target] = {}
        names = [t for t in self.info.targets if wanted(want, t)]
        if names:
            mask = _mask(folder)
            for name in names:
                layer = "reflectance" if name == "albedo" else "shading"
                value = _layer(folder / f"{layer}.png", mask.shape, grey=layer == "shading")
                targets[name] = MapTarget(value.astype(np.float32), mask)
        return Sample(sample_id, partial(_photo, folder), targets)


def _mask(folder: Path) -> NDArray[np.bool_]:
    stored = read_png(folder / "mask.png")
    return np.asarray(as_plane(stored, (stored.shape[0], stored.shape[1]), folder / "mask.png") > 0)


def _layer(path: Path, size: tuple[int, ...], *, grey: bool) -> NDArray[np.float64]:
    stored = read_png(path)
    if stored.dtype != np.uint16:
        # an 8-bit copy has another transfer curve as well, so rescaling it would be a guess
        raise SampleError(f"holds {stored.dtype}, expected 16-bit linear values: a converted copy?", where=str(path))
    return as_rgb(stored, (size[0], size[1]), path, grey=grey).astype(np.float64) / 65535.0


def _photo(folder: Path) -> NDArray[np.uint8]:
    mask = _mask(folder)
    linear = _layer(folder / "original.png", mask.shape, grey=False)
    if not mask.any():
        raise SampleError("the mask is empty, so nothing says how bright the photo is", where=str(folder / "mask.png"))
    white = float(np.percentile(linear.max(axis=2)[mask], _WHITE_PERCENTILE))
    if white <= 0:
        raise SampleError("the object is black", where=str(folder / "original.png"))
    encoded = linear_to_srgb(np.clip(linear / white, 0.0, 1.0))
    return np.rint(encoded * 255.0).astype(np.uint8)


def write_mit(folder: Path, layers: Mapping[str, NDArray[np.uint16]]) -> None:
    """``mask.png, original.png, reflectance.png, shading.png`` of one object, 16 bit and linear."""
    for name, layer in layers.items():
        write_png(folder / f"{name}.png", layer)


def write_examples(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, name in enumerate(("apple", "turtle")):
        truth = smooth_truth(120, 160, number)
        code = {k: np.rint(v * 65535).astype(np.uint16) for k, v in
                (("reflectance", truth.albedo), ("shading", truth.light))}  # fmt: skip
        original = np.rint(truth.albedo * truth.light[..., None] * 65535).astype(np.uint16)
        write_mit(root / name, {"mask": truth.seen.astype(np.uint16) * 65535, "original": original, **code})
        found[name] = Written({"albedo": map_target(truth.albedo, truth.seen),
                               "irradiance": map_target(truth.light, truth.seen)})  # fmt: skip
    return found


DATASET = MITIntrinsic
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("mit-intrinsic", "mit-intrinsic", write_examples,
            {"albedo": 1e-5, "irradiance": 1e-5}),
)  # fmt: skip
