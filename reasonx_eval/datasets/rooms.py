"""Furnished rooms, path-traced with exact maps: a photo-like set that anybody can render again (benchmarks/rooms)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import (
    MAPS,
    PNG,
    Example,
    Written,
    depth_target,
    map_target,
    millimetres,
    normal_target,
    smooth_truth,
)
from reasonx_eval.datasets.flat import Flat
from reasonx_eval.datasets.formats.reading import require_id, wanted
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.pairs import judgements
from reasonx_eval.errors import DataError
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.images import write_png
from reasonx_eval.types import JudgementTarget, MapTarget, NormalTarget, Sample, Target

#: of the points of the judgements; part of what the WHDR protocols mean
_SEED: Final = 0
#: linear albedo below it is a few codes of 8 bits, whose ratios say nothing
_DARKEST: Final = 0.01
_CODING: Final = {"depth_scale": 0.001, "irradiance_encoding": "linear"}


class Rooms(Dataset):
    """``ROOT/SPLIT/NAME_rgb.png`` and four maps beside it; no furniture model stands in rooms of two splits.

    What is seen through the window has no depth, and counts in no map. WHDR is judged on pairs of neighbours of a
    jittered grid, keyed by the sample id, whose lightness follows from the exact albedo, as in the rendered scenes.
    """

    info = DatasetInfo(
        name="rooms",
        title="Furnished rooms, path-traced, with exact maps",
        targets=("depth", "normals", "albedo", "irradiance", "judgements"),
        splits={"test": None, "val": None, "train": None},
        licence="free with attribution of the furniture's makers (CC BY 3.0): see benchmarks/rooms/README.md",
        homepage="rendered by `python -m benchmarks.rooms` of this package's repository",
        size="340 rooms of 224x168 pixels: 60 MB",
        layout="""\
train/, val/, test/      each with
r0000_rgb.png            8 bit, sRGB
r0000_depth.png          16 bit, millimetres; 0 is the window
r0000_normal.png         16 bit, (n + 1) / 2; x right, y down, z forward
r0000_albedo.png         8 bit, sRGB
r0000_irradiance.png     16 bit, linear, one scale a room""",
    )

    def __init__(self, root: Path | None, split: str = "test", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        assert self.root is not None
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"no folder {split}/ in {self.root}", where="rooms",
                            fix="--root FOLDER, the one that holds train/, val/ and test/")  # fmt: skip
        self._flat = Flat(folder, "all", _CODING)

    @property
    def ids(self) -> Sequence[str]:
        return self._flat.ids

    def files(self, sample_id: str) -> Sequence[Path]:
        return self._flat.files(sample_id)

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        names = [t for t in self.info.targets if wanted(want, t)]
        maps = {"albedo" if t == "judgements" else t for t in names}
        # depth alone says where the window is
        sample = self._flat.load(sample_id, {*maps, "depth"} if names else ())
        if not names:
            return sample
        inside = getattr(sample.targets["depth"], "valid")  # noqa: B009 - a Target of several types
        found = {t: self._target(sample, t, inside) for t in names}
        return replace(sample, targets=found)

    def _target(self, sample: Sample, name: str, inside: NDArray[np.bool_]) -> Target:
        target = sample.targets["albedo" if name == "judgements" else name]
        if name == "judgements":
            assert isinstance(target, MapTarget)
            return self._judgements(sample.id, target.value, inside)
        if isinstance(target, (MapTarget, NormalTarget)):
            return replace(target, valid=target.valid & inside)
        return target

    def _judgements(self, sample_id: str, albedo: NDArray[np.float32], inside: NDArray[np.bool_]) -> JudgementTarget:
        known = inside & (albedo.mean(axis=-1) >= _DARKEST)
        # a ratio with NaN is neither equal nor darker, so nobody is asked about it
        return judgements(np.where(known[..., None], albedo.astype(np.float64), np.nan),
                          Draw(_SEED, "rooms", self.split, sample_id, "judgements"))  # fmt: skip


def write_examples(root: Path) -> Mapping[str, Written]:
    """Two rooms of the test split: maps as the renderer codes them."""
    found = {}
    for number, name in enumerate(("r0000", "r0001")):
        truth = smooth_truth(96, 128, number)
        stem = root / "test" / name
        write_png(stem.with_name(f"{name}_rgb.png"), truth.photo)
        write_png(stem.with_name(f"{name}_depth.png"), np.where(truth.seen, millimetres(truth.depth), 0))
        coded = {"normal": np.where(truth.seen[..., None], (truth.normal + 1) / 2, 0.5), "irradiance": truth.light}
        for what, value in coded.items():
            write_png(stem.with_name(f"{name}_{what}.png"), np.rint(value * 65535).astype(np.uint16))
        write_png(stem.with_name(f"{name}_albedo.png"),
                  np.rint(linear_to_srgb(truth.albedo) * 255).astype(np.uint8))  # fmt: skip
        found[name] = Written({
            "depth": depth_target(truth.depth, truth.seen), "normals": normal_target(truth, truth.seen),
            "albedo": map_target(truth.albedo, truth.seen), "irradiance": map_target(truth.light, truth.seen),
        }, truth.photo)  # fmt: skip
    return found


DATASET = Rooms
EXAMPLES = (
    Example("rooms", "rooms", write_examples,
            {**PNG, "depth": 1e-3, "normals": 0.01, "albedo": 5e-3, "irradiance": 1e-5}, split="test", offers=MAPS),
)  # fmt: skip
