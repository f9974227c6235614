"""Flat folders of scenes: NAME_rgb.png beside NAME_depth.png, NAME_normal.png, NAME_albedo.png, NAME_irradiance.png."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.formats.maps import (
    ENCODINGS,
    MAP_SUFFIXES,
    NORMAL_FRAMES,
    PHOTO_SUFFIXES,
    as_plane,
    as_rgb,
    decode_colour,
    decode_normals,
    image_size,
    read_map,
)
from reasonx_eval.datasets.formats.reading import choice, require_id, wanted
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import read_rgb
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample, Target

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
    metres, min-max normalised for instance, has no scale and no zero, so that no depth error is defined
    for it. `relative_depth` gives such a file as it is, for ordinal use.
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
            "larger_is": "farther (default) or nearer: what a larger value in a depth file without metres means",
            "normals_frame": "opencv (default: x right, y down, z forward), opengl (x right, y up, z to the camera) "
                             "or dsine (right, down, forward, pointing away from the camera)",
            "albedo_encoding": "srgb (default), linear or gamma2.2",
            "irradiance_encoding": "srgb (default), linear or gamma2.2",
        },
    )  # fmt: skip

    layout: ClassVar[str] = LAYOUT

    def __init__(self, root: Path | None, split: str = "all", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self.depth_scale = self._scale()
        self.larger_is = choice(self, "larger_is", ("farther", "nearer"))
        self.normals_frame = choice(self, "normals_frame", tuple(NORMAL_FRAMES))
        self.albedo_encoding = choice(self, "albedo_encoding", ENCODINGS)
        self.irradiance_encoding = choice(self, "irradiance_encoding", ENCODINGS)
        if self.depth_scale is not None and self.larger_is == "nearer":
            raise UsageError("depth_scale and larger_is=nearer exclude each other: a file whose larger values are "
                             "nearer is not depth in metres", where="flat",
                             fix="a dataset.toml with [depth] kind = \"disparity\"")  # fmt: skip
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

    def _scan(self) -> dict[str, dict[str, Path]]:
        assert self.root is not None
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(self.root.iterdir()):
            match = _NAME.match(path.stem)
            if match is None:
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

    def relative_depth(self, sample_id: str) -> NDArray[np.float32]:
        """The depth file in arbitrary units, float32 [H, W], oriented so that larger is farther.

        Only the order of its values means something.
        """
        path = self._path(sample_id, "depth")
        plane = as_plane(read_map(path), image_size(self._path(sample_id, "rgb")), path)
        value = plane.astype(np.float64)
        if self.larger_is == "nearer":
            top = float(np.iinfo(plane.dtype).max) if plane.dtype.kind == "u" else float(np.nanmax(value))
            value = top - value
        return value.astype(np.float32)
