"""Flat folders of scenes: NAME_rgb.png beside NAME_depth.png, NAME_normal.png, NAME_albedo.png, NAME_irradiance.png."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import (
    MAPS,
    PNG,
    Example,
    Written,
    depth_target,
    everywhere,
    map_target,
    normal_target,
    smooth_truth,
)
from reasonx_eval.datasets.formats.maps import (
    ENCODINGS,
    MAP_SUFFIXES,
    PHOTO_SUFFIXES,
    as_plane,
    as_rgb,
    decode_colour,
    decode_normals,
    image_size,
    read_map,
)
from reasonx_eval.datasets.formats.naming import sentence
from reasonx_eval.datasets.formats.reading import choice, require_id, wanted
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import read_rgb, write_npy, write_png
from reasonx_eval.io.walk import PICTURES, from_system, walk_files
from reasonx_eval.types import NORMAL_FRAMES, DepthTarget, MapTarget, NormalTarget, Sample, Target

_NAME = re.compile(r"^(?P<name>.+)_(?P<what>rgb|depth|normal|albedo|irradiance)$")
_FILE_OF = {"depth": "depth", "normals": "normal", "albedo": "albedo", "irradiance": "irradiance"}

LAYOUT = """\
NAME_rgb.png (or .jpg)   the photo
NAME_depth.png           8 or 16 bit, or .npy/.exr
NAME_normal.png          (n + 1) / 2 in 8 or 16 bit, or float .npy/.exr
NAME_albedo.png          8 or 16 bit, sRGB unless said otherwise
NAME_irradiance.png
(any of the four maps may be absent, for all scenes alike)"""


class Flat(Dataset):
    """Scenes in one folder, one file a map.

    A map that some scene has is expected of every scene; a scene that lacks it is a damaged sample.

    Depth counts as a target only with the option ``depth_scale`` (metres per unit), because a depth without
    metres, min-max normalised for instance, has no scale and no zero, so that no depth error is defined for it.
    """

    info = DatasetInfo(
        name="flat",
        title="Flat folder of scenes (NAME_rgb.png, NAME_depth.png, ...)",
        targets=("depth", "normals", "albedo", "irradiance"),
        splits={"all": None},
        licence="that of your files",
        homepage="",
        size="your own files",
        options={
            "depth_scale": "metres per unit of the depth file, e.g. 0.001; without it there is no depth target",
            "normals_frame": "opencv (default: x right, y down, z forward), opengl (x right, y up, z to the camera) "
                             "or dsine (right, down, forward, pointing away from the camera)",
            "albedo_encoding": "srgb (default), linear or gamma2.2",
            "irradiance_encoding": "srgb (default), linear or gamma2.2",
        },
        layout=LAYOUT,
    )  # fmt: skip

    def __init__(self, root: Path | None, split: str = "all", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self.depth_scale = self._scale()
        self.normals_frame = choice(self, "normals_frame", tuple(NORMAL_FRAMES))
        self.albedo_encoding = choice(self, "albedo_encoding", ENCODINGS)
        self.irradiance_encoding = choice(self, "irradiance_encoding", ENCODINGS)
        self._files = self._scan()
        self._ids = tuple(sorted(self._files))

    def _scale(self) -> float | None:
        value = self.options.get("depth_scale")
        if value is None:
            return None
        try:
            scale = float(value)
        except (TypeError, ValueError):
            scale = float("nan")
        if not 0 < scale < float("inf"):
            raise UsageError(f"option depth_scale is {value!r}: expected metres per unit, a positive number "
                             "(0.001 for millimetres)", where="flat")  # fmt: skip
        return scale

    def overlooked(self) -> Sequence[str]:
        assert self.root is not None
        read = {path for files in self._files.values() for path in files.values()}
        other = [p.relative_to(self.root).as_posix() for p in walk_files(self.root)
                 if p not in read and p.suffix.lower() in PICTURES]  # fmt: skip
        said = [sentence("pictures or maps not read, as their names are not NAME_rgb, NAME_depth, NAME_normal, "
                         "NAME_albedo or NAME_irradiance with a known suffix",
                         [n for n in other if "/" not in n]),
                sentence("pictures or maps not read, as they lie in folders below",
                         [n for n in other if "/" in n])]  # fmt: skip
        if self.depth_scale is None:
            said.append(sentence("depth files not read, as nothing says how many metres a unit is (dataset option "
                                 "depth_scale, 0.001 for millimetres)",
                                 [f["depth"].name for f in self._files.values() if "depth" in f]))  # fmt: skip
        return [s for s in said if s]

    def _scan(self) -> dict[str, dict[str, Path]]:
        assert self.root is not None
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(self.root.iterdir()):
            match = _NAME.match(path.stem)
            if match is None or from_system(path.name):
                continue
            known = PHOTO_SUFFIXES if match["what"] == "rgb" else MAP_SUFFIXES
            if path.suffix.lower() not in known:
                continue
            mine = found.setdefault(match["name"], {})
            if match["what"] in mine:
                raise DataError(f"{mine[match['what']].name} and {path.name} are two files of one map", where="flat",
                                fix="keep one of them in the folder")  # fmt: skip
            mine[match["what"]] = path
        if not found:
            raise DataError(f"no scene in {self.root}: expected, for every scene,\n{LAYOUT}", where="flat")
        return found

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets this folder offers with these options."""
        have = {what for files in self._files.values() for what in files}
        return tuple(t for t in self.info.targets
                     if _FILE_OF[t] in have and (t != "depth" or self.depth_scale is not None))  # fmt: skip

    def files(self, sample_id: str) -> Sequence[Path]:
        return tuple(sorted(self._scene(sample_id).values()))

    def _scene(self, sample_id: str) -> dict[str, Path]:
        require_id(self, sample_id)
        return self._files[sample_id]

    def _path(self, sample_id: str, what: str) -> Path:
        assert self.root is not None
        files = self._scene(sample_id)
        if what not in files:
            missing = self.root / f"{sample_id}_{what}.png"
            raise SampleError(f"file is missing, although {sample_id} has {', '.join(sorted(files))}",
                              where=str(missing))  # fmt: skip
        return files[what]

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        photo = self._path(sample_id, "rgb")
        size = image_size(photo)
        names = self.targets if want is None else [t for t in self.info.targets if wanted(want, t)]
        targets = {name: self._target(sample_id, name, size) for name in names}
        return Sample(sample_id, partial(read_rgb, photo), targets)

    def _target(self, sample_id: str, name: str, size: tuple[int, int]) -> Target:
        if name == "depth" and self.depth_scale is None:
            raise SampleError("the depth files have no unit, so there is no depth in metres", where="flat",
                              fix="--option depth_scale=0.001 (metres per unit) if they are metric")  # fmt: skip
        path = self._path(sample_id, _FILE_OF[name])
        stored = read_map(path)
        if name == "depth":
            plane = as_plane(stored, size, path).astype(np.float64)
            depth = (plane * (self.depth_scale or np.nan)).astype(np.float32)
            return DepthTarget(depth, np.isfinite(depth) & (depth > 0))
        if name == "normals":
            rgb = as_rgb(stored, size, path)
            return NormalTarget(*decode_normals(rgb, self.normals_frame, rgb.dtype.kind == "u", path))
        encoding = self.albedo_encoding if name == "albedo" else self.irradiance_encoding
        value = decode_colour(as_rgb(stored, size, path, grey=name == "irradiance"), encoding)
        return MapTarget(value, np.asarray(np.isfinite(value).all(axis=2)))


def write_examples(root: Path) -> Mapping[str, Written]:
    """One folder of scenes: centimetres in OpenEXR, outward float normals, 16-bit linear albedo and irradiance."""
    found = {}
    for number, name in enumerate(("a", "b")):
        truth = smooth_truth(96, 128, number)
        write_png(root / f"{name}_rgb.png", truth.photo)
        _write_exr(root / f"{name}_depth.exr", np.where(truth.seen, truth.depth * 100, 0).astype(np.float32))
        stored = np.where(truth.seen[..., None], -truth.normal, 0).astype(np.float32)
        write_npy(root / f"{name}_normal.npy", stored)
        for what, value in (("albedo", truth.albedo), ("irradiance", truth.light)):
            write_png(root / f"{name}_{what}.png", np.rint(value * 65535).astype(np.uint16))
        found[name] = Written({
            "depth": depth_target(truth.depth, truth.seen), "normals": normal_target(truth, truth.seen),
            "albedo": map_target(truth.albedo, everywhere(truth)),
            "irradiance": map_target(truth.light, everywhere(truth)),
        }, truth.photo)  # fmt: skip
    return found


def _write_exr(path: Path, plane: NDArray[np.float32]) -> None:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": plane}) as file:
        file.write(str(path))


DATASET = Flat
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("flat", "flat", write_examples,
            {**PNG, "depth": 1e-6, "normals": 1e-3, "albedo": 1e-5, "irradiance": 1e-5},
           {"depth_scale": 0.01, "normals_frame": "dsine", "albedo_encoding": "linear",
            "irradiance_encoding": "linear"}, offers=MAPS),
)  # fmt: skip
