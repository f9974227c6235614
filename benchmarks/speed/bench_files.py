"""Reading single files: raw depth and 24-megapixel photos of ETH3D, PNGs of NYUv2's size."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.speed.arrays import photo
from benchmarks.speed.conftest import Measure
from benchmarks.speed.files import ETH3D_SHAPE, eth3d_folder, large_photo
from reasonx_eval.datasets.eth3d import ETH3D
from reasonx_eval.io.images import read_rgb
from reasonx_eval.models.loading.runtime import to_tensor
from reasonx_eval.selftest.writers import eth3d_names
from reasonx_eval.types import DepthTarget

RAW = "ETH3D: raw depth and mask, 4032x6048"
JPEG = "JPEG photo, 24 megapixels"
TENSOR = "24 megapixels of uint8 to a float tensor"
PNG = "PNG photo, 480x640"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def eth3d(tmp_path_factory: pytest.TempPathFactory) -> tuple[ETH3D, Path]:
    """The data set with one sample on disk, and the file of its depth."""
    root = tmp_path_factory.mktemp("eth3d")
    (sample_id,) = eth3d_folder(root, 1)
    return ETH3D(root, "train-dslr"), root / eth3d_names(sample_id)[1]


def depth_ours(dataset: ETH3D) -> DepthTarget:
    target = dataset.load(dataset.ids[0], {"depth"}).targets["depth"]
    assert isinstance(target, DepthTarget)
    return target


def depth_peer(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All bytes as one object, a copy, unmeasured pixels set to 0, tensors, and a mask from two comparisons."""
    raw = np.frombuffer(path.read_bytes(), dtype=np.float32).copy()
    raw[raw == np.inf] = 0.0
    depth = torch.from_numpy(raw.reshape(ETH3D_SHAPE)).unsqueeze(0).float()
    return depth, torch.logical_and(depth > 1e-5, depth < np.inf).bool()


def depth_bare(path: Path) -> NDArray[np.float32]:
    return np.fromfile(path, dtype=np.float32)


@pytest.mark.benchmark(group=RAW)
def test_depth_ours(measure: Measure, eth3d: tuple[ETH3D, Path]) -> None:
    dataset, path = eth3d
    target, (depth, mask) = depth_ours(dataset), depth_peer(path)
    assert np.array_equal(target.valid, mask[0].numpy())
    assert np.array_equal(target.depth[target.valid], depth[mask].numpy())
    del target, depth, mask
    measure("ours", lambda: depth_ours(dataset), form="read in blocks, each masked in the cache", rounds=15,
            against=lambda: depth_bare(path), against_form="one bare read of the bytes")  # fmt: skip


@pytest.mark.benchmark(group=RAW)
def test_depth_peer(measure: Measure, eth3d: tuple[ETH3D, Path]) -> None:
    measure("peer", lambda: depth_peer(eth3d[1]), form="bytes, copy, inf to 0, tensors")


@pytest.mark.benchmark(group=RAW)
def test_depth_bound(measure: Measure, eth3d: tuple[ETH3D, Path]) -> None:
    measure("bound", lambda: depth_bare(eth3d[1]), form="one bare read of the bytes")


@cache
def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    image = large_photo() if kind == "JPEG" else photo(480, 640)
    Image.fromarray(image).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def with_pillow(raw: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


@pytest.mark.benchmark(group=JPEG)
@pytest.mark.parametrize("role", ["ours", "peer", "bound"])
def test_jpeg(measure: Measure, role: str) -> None:
    _decode(measure, role, "JPEG")


@pytest.mark.benchmark(group=PNG)
@pytest.mark.parametrize("role", ["ours", "peer", "bound"])
def test_png(measure: Measure, role: str) -> None:
    _decode(measure, role, "PNG")


def _decode(measure: Measure, role: str, kind: str) -> None:
    import imagecodecs

    raw = encoded(kind)
    if role == "ours":
        assert np.array_equal(read_rgb("photo", raw), with_pillow(raw))
        measure("ours", lambda: read_rgb("photo", raw), form="libjpeg-turbo" if kind == "JPEG" else "libspng",
                memory="resident")  # fmt: skip
    elif role == "peer":
        measure("peer", lambda: with_pillow(raw), form="Pillow", memory="resident")
    elif kind == "JPEG":
        measure("bound", lambda: imagecodecs.jpeg8_decode(raw), form="the codec alone", memory="resident")
    else:
        data = _deflated(raw)
        size = 480 * (640 * 3 + 1)
        measure("bound", lambda: imagecodecs.deflate_decode(data, out=size), form="inflating alone, by libdeflate")


def _deflated(png: bytes) -> bytes:
    """The compressed stream of a PNG: the data of its IDAT chunks."""
    parts, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            parts.append(png[place + 8 : place + 8 + length])
        place += 12 + length
    return b"".join(parts)


def tensor_peer(image: NDArray[np.uint8]) -> torch.Tensor:
    """Transposed to int64 by way of a whole array, then to float and scaled by whole-tensor operations."""
    planes = np.transpose(image, (2, 0, 1)).astype(int)
    return torch.from_numpy(planes / 255.0).float()


@pytest.mark.benchmark(group=TENSOR)
def test_tensor_ours(measure: Measure) -> None:
    image = large_photo()
    part = image[:64]
    torch.testing.assert_close(to_tensor(part, CPU), tensor_peer(part), rtol=1e-6, atol=0)
    measure("ours", lambda: to_tensor(image, CPU), form="uint8 shared, one step to float32", memory="resident")


@pytest.mark.benchmark(group=TENSOR)
def test_tensor_peer(measure: Measure) -> None:
    image = large_photo()
    measure("peer", lambda: tensor_peer(image), form="int64 and float64 arrays on the way", memory="resident")


@pytest.mark.benchmark(group=TENSOR)
def test_tensor_bound(measure: Measure) -> None:
    """What must be written: 290 MB of float32, into fresh memory."""
    measure("bound", lambda: torch.full((3, *ETH3D_SHAPE), 0.5), form="writing the tensor", memory="resident")
