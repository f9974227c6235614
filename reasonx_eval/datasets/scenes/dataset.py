"""The procedural scenes as data sets: rendered on demand, identical bytes everywhere, nothing to download.

The wild test split is twice as long as the others: it is where a model before and after tuning is compared, and
differences of a few hundredths of WHDR are to be told apart from chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import Example
from reasonx_eval.datasets.scenes.pairs import judgements, ordinal_pairs
from reasonx_eval.datasets.scenes.render import SEED, Scene, render_scene, stream
from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample, Target

DEFAULT_SIZE = (96, 128)
SIZE_LIMITS = (16, 2048)
_TARGETS = ("depth", "normals", "judgements", "albedo", "irradiance", "pairs")


def parse_size(value: Any, where: str) -> tuple[int, int]:
    """Height and width from the option text "HxW".

    Raises
    ------
    UsageError
        Not of that form, or out of limits.
    """
    parts = str(value).lower().split("x")
    if len(parts) == 2 and all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        height, width = int(parts[0]), int(parts[1])
        if all(SIZE_LIMITS[0] <= n <= SIZE_LIMITS[1] for n in (height, width)) and height <= width:
            return height, width
    raise UsageError(f"size '{value}' is not HEIGHTxWIDTH with {SIZE_LIMITS[0]} <= HEIGHT <= WIDTH <= {SIZE_LIMITS[1]}",
                     where=where, fix="size=96x128")  # fmt: skip


def _info(name: str, title: str, test: int, val: int, train: int) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        targets=_TARGETS,
        splits={"test": test, "val": val, "train": train},
        licence="Apache-2.0 (rendered by this package)",
        homepage="rendered on demand; nothing to download",
        size="0 bytes",
        needs_root=False,
        options={"size": "HEIGHTxWIDTH in pixels, default 96x128; the same scene at any size"},
    )


class _Scenes(Dataset):
    """A split of one domain. Option `size`: "HxW".

    Scenes are independent of each other, so samples have no group. `meta` holds the domain, the seed, the number
    of rejected draws before this one, and the camera: pose [degrees], and response (see camera.Response).
    """

    domain: ClassVar[str]

    def __init__(self, root: Path | None = None, split: str = "test", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self.size = parse_size(self.options["size"], self.name) if "size" in self.options else DEFAULT_SIZE

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        n = self.info.splits[self.split]
        assert n is not None  # all splits are of fixed length
        return tuple(f"{self.domain}/{self.split}/{k:05d}" for k in range(n))

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def _index(self, sample_id: str) -> int:
        head, _, tail = sample_id.rpartition("/")
        index = int(tail) if tail.isascii() and tail.isdigit() and len(tail) == 5 else -1
        if head != f"{self.domain}/{self.split}" or not 0 <= index < len(self._ids):
            raise SampleError(f"no sample '{sample_id}' in split '{self.split}' "
                              f"({self._ids[0]} to {self._ids[-1]})", where=self.name)  # fmt: skip
        return index

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        """Render one sample; targets that are not wanted are left out and change nothing else.

        Raises
        ------
        SampleError
            The id is not in this split.
        UsageError
            A target that there is not.
        """
        for target in want or ():
            if target not in _TARGETS:
                raise unknown("target", target, _TARGETS, where=self.name)
        scene = render_scene(self.domain, self.split, self._index(sample_id), self.size)
        wanted = _TARGETS if want is None else tuple(t for t in _TARGETS if t in want)
        return Sample(sample_id, scene.image(), _targets(scene, wanted), None, _meta(scene), scene.intrinsics)


def _targets(scene: Scene, wanted: Sequence[str]) -> dict[str, Target]:
    everywhere = np.ones(scene.size, dtype=np.bool_)
    depth, normal = scene.depth.astype(np.float32), scene.normal.astype(np.float32)
    albedo, light = scene.albedo.astype(np.float32), scene.irradiance.astype(np.float32)
    targets: dict[str, Target] = {}
    for name in wanted:
        if name == "depth":
            targets[name] = DepthTarget(depth, everywhere, scene.intrinsics)
        elif name == "normals":
            targets[name] = NormalTarget(normal, everywhere)
        elif name == "albedo":
            targets[name] = MapTarget(albedo, everywhere)
        elif name == "irradiance":
            targets[name] = MapTarget(light, everywhere)
        elif name == "judgements":
            targets[name] = judgements(scene.albedo, stream(scene, "judgements"))
        else:
            targets[name] = ordinal_pairs(
                depth=depth, normal=normal, irradiance=light, albedo=albedo, draw=stream(scene, "pairs")
            )
    return targets


def _meta(scene: Scene) -> dict[str, Any]:
    response = scene.world.camera.response
    return {
        "domain": scene.domain,
        "seed": SEED,
        "attempt": scene.attempt,
        "camera": {**scene.world.pose, **vars(response), "balance": list(response.balance)},
    }


class ScenesSynthetic(_Scenes):
    """Clean rooms in one style: pastel colours, neutral light, one kind of camera."""

    domain = "synthetic"
    info = _info("scenes-synthetic", "Procedural rooms, clean style", 100, 100, 4000)


class ScenesWild(_Scenes):
    """Rooms as photos show them: other cameras, surfaces, lights and responses; train is for unlabelled use."""

    domain = "wild"
    info = _info("scenes-wild", "Procedural rooms, photo-like style", 200, 100, 4000)


class ScenesBroad(_Scenes):
    """Rooms with everything strongly randomised, from ranges of their own."""

    domain = "broad"
    info = _info("scenes-broad", "Procedural rooms, strongly randomised", 100, 100, 8000)


EXAMPLES = (
    Example("scenes-synthetic", "scenes-synthetic", None, split="test", offers=("pairs", "agreement")),
    Example("scenes-wild", "scenes-wild", None, split="test"),
    Example("scenes-broad", "scenes-broad", None, split="test"),
)
