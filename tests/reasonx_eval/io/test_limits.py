"""A small file that claims to be huge is refused by its header, before anything is allocated for it."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from reasonx_eval.datasets.formats.maps import read_map
from reasonx_eval.errors import SampleError
from reasonx_eval.io.images import read_exr, read_npy, read_png, read_rgb, read_tiff

SIDE = 40_000


def _png(side: int) -> bytes:
    """A valid grey PNG of side x side zeros: 1.6 MB for 1.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _tiff(side: int) -> bytes:
    entries = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 5), (262, 3, 1), (273, 4, 8), (278, 4, side),
               (279, 4, 8)]  # fmt: skip
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + table + b"\0\0\0\0"


def _exr(side: int, tmp_path: Path) -> bytes:
    import OpenEXR

    path = tmp_path / "small.exr"
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"RGB": np.zeros((4, 5, 3), np.float32)}).write(str(path))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"dataWindow\0box2i\0") + 21
    raw[at : at + 16] = struct.pack("<4i", 0, 0, side - 1, side - 1)
    return bytes(raw)


def _npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (3 << 30,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w", force_zip64=True) as f:
        f.write(header.getvalue())
        for _ in range(3 << 6):
            f.write(b"\0" * (1 << 24))


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", shape=(SIDE, SIDE), dtype="f8", chunks=(100, SIDE), compression="gzip")


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    """No more than 2 GB beside what is there: a decoder that believes the header fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("kind", ["png", "png as photo", "tiff", "exr", "npz", "h5"])
def test_a_bomb_is_refused_with_the_setting_that_raises_the_limit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{kind.split()[0]}"
    read: Callable[[Path], Any] = read_map
    if kind in ("npz", "h5"):
        (_npz if kind == "npz" else _h5)(path)
    else:
        path.write_bytes(_exr(SIDE, tmp_path) if kind == "exr" else _tiff(SIDE) if kind == "tiff" else _png(SIDE))
        read = {"png": read_png, "png as photo": read_rgb, "tiff": read_tiff, "exr": read_exr}[kind]
    with pytest.raises(SampleError, match=r"more than the limit of .*REASONX_MAX_|more than the limit") as caught:
        read(path)
    assert "bomb" in str(caught.value.where)
    assert "REASONX_MAX_" in str(caught.value.fix)


def test_an_array_that_is_shorter_than_its_header_says(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "x.npy").write_bytes(header.getvalue() + b"\0" * 100)
    with pytest.raises(SampleError, match=r"a header that says \[1000000, 1000000\]"):
        read_npy(tmp_path / "x.npy")


def test_the_limit_can_be_raised_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    monkeypatch.setenv("REASONX_MAX_PIXELS", "1999")
    for read in (read_png, read_rgb):
        with pytest.raises(SampleError, match="50 x 40 pixels"):
            read(path)
    monkeypatch.setenv("REASONX_MAX_PIXELS", "2000")
    for read in (read_png, read_rgb):
        assert read(path).shape == (40, 50, 3)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_sizes_are_read_from_real_headers(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "map.tif"
    Image.fromarray(np.arange(12, dtype=np.float32).reshape(3, 4)).save(path, compression=compression)
    assert read_tiff(path).shape == (3, 4)
