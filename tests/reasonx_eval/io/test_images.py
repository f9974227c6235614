from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from reasonx_eval.errors import SampleError
from reasonx_eval.io import images

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_rgb_is_exact() -> None:
    np.testing.assert_array_equal(images.read_rgb("x.png", _encoded(Image.fromarray(RGB))), RGB)


def test_grey_is_repeated_and_alpha_dropped() -> None:
    grey = RGB[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(images.read_rgb("x.png", _encoded(Image.fromarray(grey))), expected)
    rgba = np.dstack([RGB, RNG.integers(0, 256, (7, 5), dtype=np.uint8)])
    np.testing.assert_array_equal(images.read_rgb("x.png", _encoded(Image.fromarray(rgba))), RGB)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_keeps_the_high_byte(channels: int) -> None:
    deep = RNG.integers(0, 65536, (7, 5, channels), dtype=np.uint16)
    raw = imagecodecs.png_encode(deep if channels == 3 else deep[..., 0])
    expected = np.broadcast_to((deep >> 8).astype(np.uint8), (7, 5, 3))
    np.testing.assert_array_equal(images.read_rgb("x.png", bytes(raw)), expected)


def test_cmyk_jpeg_and_palette_and_one_pixel() -> None:
    flat = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    cmyk = _encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(images.read_rgb("x.jpg", cmyk).astype(int) - flat).max() <= 3
    palette = _encoded(Image.fromarray(flat).convert("P", palette=Image.Palette.ADAPTIVE))
    assert np.abs(images.read_rgb("x.png", palette).astype(int) - flat).max() <= 3
    one = np.array([[[1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(images.read_rgb("x.png", _encoded(Image.fromarray(one))), one)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_at_any_place_is_one_error_that_names_the_file(kind: str) -> None:
    raw = _encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    for size in (0, 1, 4, 30, len(raw) // 2, len(raw) - 30):
        with pytest.raises(SampleError, match=r"photo\.bin: (file is empty|can't be decoded)"):
            images.read_rgb("photo.bin", raw[:size])


def test_png_depth_is_as_stored_and_truncation_is_an_error(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (40, 30), dtype=np.uint16)
    images.write_png(tmp_path / "d.png", deep)
    np.testing.assert_array_equal(images.read_png(tmp_path / "d.png"), deep)
    raw = (tmp_path / "d.png").read_bytes()
    for size in (0, 9, 40, len(raw) // 2, len(raw) - 12):
        (tmp_path / "cut.png").write_bytes(raw[:size])
        with pytest.raises(SampleError, match=r"cut\.png"):
            images.read_png(tmp_path / "cut.png")


def test_32_bit_maps_and_text_are_not_photos() -> None:
    with pytest.raises(SampleError, match="32-bit"):
        images.read_rgb("x.tif", _encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    with pytest.raises(SampleError, match="not the format"):
        images.read_rgb("x.png", b"<html>404 not found</html>")


def test_npy_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SampleError, match=r"x\.npy"):
        images.read_npy(tmp_path / "x.npy")
