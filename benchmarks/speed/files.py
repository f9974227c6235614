"""Synthetic files in the official formats and at their true sizes, written into a temporary folder."""

from __future__ import annotations

import io
import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.arrays import photo
from reasonx_eval.datasets.nyuv2 import numbered_ids
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.io import seeding
from reasonx_eval.selftest.writers import (
    NYU_SHAPE,
    NyuImage,
    eth3d_names,
    write_eth3d,
    write_nyuv2_extracted,
)

ETH3D_SHAPE = (4032, 6048)
#: labelled images of which the rows of a .mat are made; more would only take longer to write
_DIFFERENT = 6


@cache
def large_photo() -> NDArray[np.uint8]:
    """24 megapixels of mirrored tiles, so that no edge of a tile costs bits that a photo would not have."""
    tile = photo(ETH3D_SHAPE[0] // 4, ETH3D_SHAPE[1] // 4)
    row = np.concatenate([tile, tile[:, ::-1]] * 2, axis=1)
    return np.concatenate([row, row[::-1]] * 2, axis=0)


@cache
def laser_depth() -> NDArray[np.float32]:
    """Metres [4032, 6048], +inf where the laser measured nothing: whole regions, and single pixels elsewhere."""
    height, width = ETH3D_SHAPE
    stream = seeding.rng(0, "laser depth")
    y, x = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)[None, :]
    depth = 4 + 9 * x + 3 * y + np.sin(11 * x + 5 * y)
    depth[(np.sin(7 * x) * np.cos(5 * y) > 0.45) | (stream.random(ETH3D_SHAPE, dtype=np.float32) < 0.1)] = np.inf
    return depth.astype(np.float32)


def eth3d_folder(root: Path, count: int) -> tuple[str, ...]:
    """The first `count` samples of the split, as unpacked; all of one content. Returns their ids."""
    ids = tuple(split_lines("eth3d_dslr")[:count])
    write_eth3d(root, ids[0], laser_depth(), large_photo())
    for sample_id in ids[1:]:
        for first, other in zip(eth3d_names(ids[0]), eth3d_names(sample_id), strict=True):
            (root / other).parent.mkdir(parents=True, exist_ok=True)
            os.link(root / first, root / other)
    return ids


@cache
def nyu_images() -> tuple[NyuImage, ...]:
    """A few photos with depth in whole millimetres, 0 where it is missing, as the sensor gives it."""
    found = []
    for seed in range(_DIFFERENT):
        stream = seeding.rng(seed, "kinect depth")
        y, x = np.mgrid[0 : NYU_SHAPE[0], 0 : NYU_SHAPE[1]] / NYU_SHAPE[0]
        metres = 2 + 1.5 * x + y + 0.8 * np.sin(3 * x + seed) + 0.003 * stream.standard_normal(NYU_SHAPE)
        filled = (np.rint(metres * 1000) / 1000).astype(np.float32)
        holes = (stream.random(NYU_SHAPE) < 0.02) | (np.sin(9 * x + seed) * np.sin(8 * y) > 0.7)
        found.append(NyuImage(photo(*NYU_SHAPE, seed=seed), np.where(holes, np.float32(0), filled), filled))
    return tuple(found)


def nyu_folder(root: Path, count: int) -> tuple[str, ...]:
    """The first `count` images of the test split, as unpacked PNGs. Returns their ids."""
    ids = numbered_ids("test")[:count]
    for k, sample_id in enumerate(ids):
        write_nyuv2_extracted(root / "test", int(sample_id), "room_0001", nyu_images()[k % _DIFFERENT])
    return ids


def nyu_mat(path: Path, count: int, chunks: tuple[int, int, int] | None) -> None:
    """A labelled .mat whose first `count` rows are stored.

    Parameters
    ----------
    chunks : images, and parts along x and y, that a chunk spans; None: contiguous, not compressed
    """
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for key, shape, dtype in (("images", (1449, 3, 640, 480), "u1"), ("rawDepths", (1449, 640, 480), "f4")):
            storage = {} if chunks is None else {
                "chunks": (chunks[0], *(1,) * (len(shape) - 3), shape[-2] // chunks[1], shape[-1] // chunks[2]),
                "compression": "gzip", "compression_opts": 3,
            }  # fmt: skip
            stored = file.create_dataset(key, shape, dtype, **storage)
            rows = [i.photo.transpose(2, 1, 0) if key == "images" else i.raw.T for i in nyu_images()]
            stored[:count] = np.stack([rows[k % _DIFFERENT] for k in range(count)])


def small_members_tar(path: Path, count: int) -> tuple[str, ...]:
    """An archive of `count` small files in folders of thirty. Returns their names."""
    stream = seeding.rng(0, "members")
    names = tuple(f"scene_{k // 30:04d}/view_{k:05d}.png" for k in range(count))
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 6000
            archive.addfile(info, io.BytesIO(stream.bytes(info.size)))
    return names
