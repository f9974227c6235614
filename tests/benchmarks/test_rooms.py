"""The parts of the rooms' renderer that run without Blender: splits of the furniture, and the coding of the maps."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rooms.furniture import models, split_of, unpack
from benchmarks.rooms.maps import encode, write
from reasonx_eval.datasets.rooms import Rooms
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget

ENTRY = """name#{k}={name}
category#{k}=Office
model#{k}=/models/{k}.obj
width#{k}=60
depth#{k}=50.5
height#{k}=100
movable#{k}={movable}
doorOrWindow#{k}=false
"""


def _archive(folder: Path, name: str, entries: str, n: int) -> None:
    with zipfile.ZipFile(folder / f"{name}.sh3f", "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", entries)
        for k in range(n):
            file.writestr(f"models/{k}.obj", "v 0 0 0\n")


def test_every_model_belongs_to_one_split(tmp_path: Path) -> None:
    entries = "".join(ENTRY.format(k=k, name=f"Desk {k}", movable="true") for k in range(60))
    _archive(tmp_path, "A", entries, 60)
    unpack(tmp_path, tmp_path / "unpacked")
    found = {s: models(tmp_path / "unpacked", s) for s in ("train", "val", "test")}
    names = [m.name for of in found.values() for m in of]
    assert len(names) == len(set(names)) == 60
    assert min(len(of) for of in found.values()) > 0
    assert found["train"][0].depth == 0.505
    assert {split_of(Path("A/models") / f"{k}.obj") for k in range(60)} == set(found)


def test_furniture_that_cannot_stand_is_left_out(tmp_path: Path) -> None:
    entries = ENTRY.format(k=0, name="Desk", movable="false") + ENTRY.format(k=1, name="Mower", movable="true")
    _archive(tmp_path, "A", entries, 2)
    unpack(tmp_path, tmp_path / "unpacked")
    assert not [m for s in ("train", "val", "test") for m in models(tmp_path / "unpacked", s)]


def test_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"apt-get install sweethome3d-furniture"):
        unpack(tmp_path, tmp_path / "unpacked")


def test_maps_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 24, 32
    depth = rng.uniform(1, 5, size).astype(np.float32)
    depth[:4, :6] = 1e10
    albedo, light = (rng.uniform(0.1, 0.9, (*size, 3)).astype(np.float32) for _ in range(2))
    normal = np.broadcast_to(np.float32([0, 0, 1]), (*size, 3)).copy()
    normal[:4, :6] = 0
    # a camera that looks straight down: its backward axis is the world's z
    maps = encode({"Combined": albedo * light, "DiffCol": albedo, "irradiance": light, "Depth": depth,
                   "Normal": normal}, np.eye(3))  # fmt: skip
    assert maps is not None
    write(maps, tmp_path / "test" / "r0000")
    sample = Rooms(tmp_path, "test").load("r0000")
    back, shading, paint, facing = (sample.targets[n] for n in ("depth", "irradiance", "albedo", "normals"))
    assert isinstance(back, DepthTarget)
    assert isinstance(shading, MapTarget)
    assert isinstance(paint, MapTarget)
    assert isinstance(facing, NormalTarget)
    np.testing.assert_array_equal(back.valid, depth < 100)
    np.testing.assert_allclose(back.depth[back.valid], depth[back.valid], atol=6e-4)
    np.testing.assert_allclose(paint.value, albedo, atol=0.005)
    ratio = shading.value[back.valid] / light[back.valid]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.02)
    # the floor faces the camera: along -z where z points forward
    np.testing.assert_allclose(facing.normal[back.valid], np.broadcast_to([0, 0, -1], (int(back.valid.sum()), 3)),
                               atol=2e-3)  # fmt: skip


def test_mostly_sky_is_left_out() -> None:
    sky = np.full((4, 4), 1e10, np.float32)
    ones = np.ones((4, 4, 3), np.float32)
    assert encode({"Combined": ones, "DiffCol": ones, "irradiance": ones, "Depth": sky, "Normal": ones},
                  np.eye(3)) is None  # fmt: skip
