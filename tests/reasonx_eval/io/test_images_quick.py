"""The quick decoders against Pillow's: equal pixels, and the same verdict on damaged files."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reasonx_eval.errors import SampleError
from reasonx_eval.io import images
from reasonx_eval.io.images import quick_rgb, single_scan_end
from tests.helpers.shared import SHARED

JPEGS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0},
    "4:1:1": {"subsampling": "4:1:1"}, "coarse": {"quality": 5}, "fine": {"quality": 98},
    "restarts": {"restart_marker_blocks": 4}, "optimised": {"optimize": True},
}  # fmt: skip


def picture(seed: int = 0, height: int = 61, width: int = 83) -> NDArray[np.uint8]:
    """Ramps and noise: every coefficient is used, and no side is a multiple of a block."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(array: NDArray[np.uint8], kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def plain(raw: bytes) -> NDArray[np.uint8] | None:
    """What Pillow alone makes of a file; None where it refuses."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def quick(raw: bytes) -> NDArray[np.uint8] | None:
    with Image.open(io.BytesIO(raw)) as image:
        return quick_rgb(image, raw)


def product(raw: bytes) -> NDArray[np.uint8] | None:
    try:
        return images.read_rgb("photo", raw)
    except SampleError:
        return None


def same(raw: bytes) -> None:
    expected, found = plain(raw), product(raw)
    assert (expected is None) == (found is None)
    if expected is not None and found is not None:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", JPEGS)
def test_a_sound_jpeg_is_decoded_the_quick_way_with_the_same_pixels(name: str) -> None:
    raw = encoded(picture(), "JPEG", **JPEGS[name])
    found = quick(raw)
    assert found is not None
    np.testing.assert_array_equal(found, plain(raw))


def test_bytes_after_the_end_and_fill_before_a_marker_change_nothing() -> None:
    raw = encoded(picture(), "JPEG")
    assert single_scan_end(raw) == len(raw)
    assert single_scan_end(raw + b"maker's notes \xff\xe1") == len(raw)
    np.testing.assert_array_equal(quick(raw + b"\xff\xd8 preview \xff\xd9"), plain(raw))
    filled = raw[:2] + b"\xff" + raw[2:-2] + b"\xff\xff" + raw[-2:]
    np.testing.assert_array_equal(quick(filled), plain(raw))


@pytest.mark.parametrize("raw", [
    encoded(picture(), "JPEG", progressive=True), encoded(picture(), "JPEG", mode="CMYK"),
    encoded(picture(), "JPEG", mode="L"), encoded(picture(), "JPEG")[:-2], encoded(picture(), "PNG", mode="RGBA"),
    encoded(picture(), "PNG", mode="P"), encoded(picture(), "PNG")[:-12], encoded(picture(), "WEBP"),
    bytes(imagecodecs.png_encode(picture().astype(np.uint16) * 257)),
], ids=["progressive", "cmyk", "grey", "cut", "alpha", "palette", "png without end", "webp", "16 bit"])  # fmt: skip
def test_whatever_might_differ_is_left_to_pillow(raw: bytes) -> None:
    assert quick(raw) is None
    same(raw)


def test_a_png_is_decoded_the_quick_way_with_the_same_pixels() -> None:
    raw = encoded(picture(), "PNG")
    np.testing.assert_array_equal(quick(raw), picture())
    same(encoded(picture(), "PNG", transparency=(1, 2, 3)))
    same(encoded(picture(), "PNG", icc_profile=b"not a profile"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damage_gets_the_verdict_that_pillow_gives(kind: str) -> None:
    """A flipped byte or a lost stretch: refused by both ways, or the same pixels."""
    rng = np.random.default_rng(4)
    for options in JPEGS.values() if kind == "JPEG" else ({}, {"compress_level": 1}):
        raw = encoded(picture(), kind, **options)
        for _ in range(40):
            flipped = bytearray(raw)
            for place in rng.integers(33, len(raw), rng.integers(1, 4)):
                flipped[place] = rng.integers(0, 256)
            same(bytes(flipped))
            start, stop = np.sort(rng.integers(33, len(raw), 2))
            same(raw[:start] + raw[stop:])
            same(raw[:start])


def test_a_scan_followed_by_another_marker_is_left_to_pillow() -> None:
    """Where a decoder that has the whole file makes up the rest, one that is fed piece by piece reports a cut file."""
    raw = encoded(picture(), "JPEG")
    middle = len(raw) - 600
    broken = raw[:middle] + b"\xff\xe5\xff\x00" + raw[middle + 4 :]
    assert single_scan_end(broken) is None
    assert quick(broken) is None
    same(broken)


def test_real_photos() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no real samples at {SHARED}: set REASONX_SHARED")
    files = [*sorted(SHARED.glob("nyuv2/pairs/*.rgb.*")), *sorted(SHARED.glob("iiw/images/*.png"))]
    files += sorted(SHARED.glob("multi_illumination/*.jpg"))
    assert files
    for path in files:
        same(path.read_bytes())
