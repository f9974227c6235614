"""Decode image and array files; damage becomes one clear SampleError that names the file."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.limits import check_limit
from reasonx_eval.io.walk import near_names

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_T = TypeVar("_T")
#: number of the EXIF tag
_ORIENTATION = 0x0112
_PNG_KIND: Final = slice(24, 29)
#: 8 bits, RGB, deflate, adaptive filters, not interlaced
_PLAIN_RGB: Final = bytes((8, 2, 0, 0, 0))
_SCAN: Final = 0xDA
_END: Final = 0xD9


def decode_file(path: Path | str, data: bytes | None, decode: Callable[[bytes], _T]) -> _T:
    """Read (unless `data` is given) and decode; every failure is a SampleError with the file's name."""
    where = str(path)
    try:
        raw = _read_regular(Path(path)) if data is None else data
    except FileNotFoundError:
        raise missing(Path(path)) from None
    except OSError as error:
        raise SampleError(f"can't be read: {error.strerror or error}", where=where) from None
    if not raw:
        raise SampleError("file is empty (0 bytes): an interrupted copy or download?", where=where)
    try:
        return decode(raw)
    except SampleError as error:
        raise SampleError(error.what, where=error.where or where, fix=error.fix) from None
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise SampleError(f"can't be decoded ({detail}): truncated, or not the format its name says?",
                          where=where) from None  # fmt: skip


def missing(path: Path) -> SampleError:
    """The error of a file that is not there; names those that nearly are."""
    near = near_names(path)
    hint = f"; there is {', '.join(near[:3])}: rename it, or correct the pattern of names" if near else ""
    return SampleError(f"file is missing{hint}", where=str(path))


def _read_regular(path: Path) -> bytes:
    if not path.is_file() and (path.is_fifo() or path.is_socket() or path.is_char_device()):
        raise SampleError("is a pipe or a device, not a file", where=str(path))  # reading it may never end
    return path.read_bytes()


def read_rgb(path: Path | str, data: bytes | None = None, *, upright: bool = False) -> NDArray[np.uint8]:
    """A photo as uint8 [H, W, 3], sRGB.

    Grey is repeated, alpha dropped, CMYK converted without a profile; of 16 bits the high byte is kept.

    Parameters
    ----------
    path : file to read, or the name to show in errors when `data` is given
    data : the file's bytes, for members of archives
    upright : turn the photo as its EXIF orientation says; not where ground truth lies on the stored pixels
    """
    from PIL import Image

    def decode(raw: bytes) -> NDArray[np.uint8]:
        Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and can be raised
        with Image.open(io.BytesIO(raw)) as image:
            check_pixels(image.size)
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if image.mode in ("I", "F"):
                raise ValueError(f"mode {image.mode}: a map of 32-bit values, not a photo")
            pixels = quick_rgb(image, raw)
            if pixels is None:
                pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            return _turned(pixels, _orientation(image, raw)) if upright else pixels

    return decode_file(path, data, decode)


# The quick way to decode the two kinds of photo that data sets are made of; its pixels are Pillow's to the last bit.
# libjpeg-turbo and libspng, called without Pillow's detour over its own storage, take less than half the time at 24
# megapixels. They are used only for files of which it is known beforehand that both ways agree; anything else, and
# anything that looks damaged, gives None, and the caller lets Pillow decide.

def quick_rgb(image: Picture, raw: bytes) -> NDArray[np.uint8] | None:
    """The pixels of an opened, not yet decoded picture, uint8 [H, W, 3], or None where Pillow has to decode.

    Parameters
    ----------
    image : as Pillow opened it, with the kind of the file
    raw : the file's bytes
    """
    if image.mode != "RGB":
        return None
    try:
        import imagecodecs

        if image.format in ("JPEG", "MPO"):
            end = None if "progressive" in image.info else single_scan_end(raw)
            found = None if end is None else imagecodecs.jpeg8_decode(raw[:end])
        elif image.format == "PNG" and raw[_PNG_KIND] == _PLAIN_RGB and b"IEND" in raw[-64:]:
            found = imagecodecs.spng_decode(raw)
        else:
            return None
    except Exception:  # damaged, or a build without this codec: Pillow has the last word, and the better message
        return None
    return _checked(found, image)


def _checked(found: Any, image: Picture) -> NDArray[np.uint8] | None:
    fits = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == (image.height, image.width, 3)
    return found if fits else None


def single_scan_end(raw: bytes) -> int | None:
    """Where the only scan of a sequential JPEG ends, its end mark included; None if there is no such scan.

    A decoder that has all bytes at hand makes up the end that a cut file lacks, where one that is fed piece by piece
    reports it. The two can differ only when a marker other than the end follows the scan, so that is not taken.
    """
    start = _scan_start(raw)
    if start is None:
        return None
    codes = np.frombuffer(raw, dtype=np.uint8)
    marks = np.flatnonzero(codes[start:-1] == 0xFF) + (start + 1)
    following = codes[marks]
    # 0 is a stuffed byte, D0-D7 are restarts, FF is fill before a marker
    real = (following != 0) & ((following & 0xF8) != 0xD0) & (following != 0xFF)
    if not real.any():
        return None
    first = int(marks[np.argmax(real)])
    return first + 1 if codes[first] == _END else None


def _scan_start(raw: bytes) -> int | None:
    """The first byte after the header of the first scan."""
    place = 2
    while place + 4 <= len(raw) and raw[place] == 0xFF:
        mark, length = raw[place + 1], int.from_bytes(raw[place + 2 : place + 4])
        if mark == 0xFF:
            place += 1
            continue
        if mark == _END or length < 2:
            return None
        place += 2 + length
        if mark == _SCAN:
            return place
    return None


def check_pixels(size: Iterable[int]) -> None:
    """Refuse a picture whose header states more pixels than the limit.

    Raises
    ------
    SampleError
        It does; says how to raise the limit.
    """
    sides = tuple(size)
    check_limit("PIXELS", math.prod(sides), f"{' x '.join(map(str, sides))} pixels")


def _orientation(image: Any, raw: bytes) -> int:
    """EXIF's orientation of an opened picture, 1 (as stored) to 8; 1 where there is none, or none that can be read."""
    if image.format == "PNG" and b"eXIf" not in raw:
        return 1  # asking would decode all of it
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged block of EXIF is no damage of the photo
        return 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels [H, W, 3] as they are meant to be seen."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_png(path: Path | str, data: bytes | None = None) -> NDArray[Any]:
    """A PNG as stored: uint8 or uint16, [H, W] or [H, W, C]; no scaling, no colour conversion."""
    import imagecodecs

    def decode(raw: bytes) -> NDArray[Any]:
        if not raw.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("not a PNG")
        if b"IEND" not in raw[-64:]:
            # libpng-type decoders may fill the rest with zeros, which would pass for depth 0
            raise ValueError("no end chunk")
        check_pixels(struct.unpack(">II", raw[16:24]))
        return np.asarray(imagecodecs.png_decode(raw))

    return decode_file(path, data, decode)


def read_npy(path: Path | str, data: bytes | None = None) -> NDArray[Any]:
    """A .npy array; never unpickles."""

    def decode(raw: bytes) -> NDArray[Any]:
        # numpy takes anything without this mark for a pickle, and advises to trust it
        if not raw.startswith(b"\x93NUMPY"):
            raise ValueError("an archive, not one array" if raw.startswith(b"PK") else "not a .npy file")
        file = io.BytesIO(raw)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > len(raw):
            raise ValueError(f"{len(raw):,} bytes, and a header that says {list(shape)} {dtype}")
        return np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)

    return decode_file(path, data, decode)


def read_exr(path: Path | str) -> NDArray[np.float32]:
    """An OpenEXR image: float32 [H, W, 3] (R, G, B) or [H, W] for one channel."""
    import OpenEXR

    def decode(raw: bytes) -> NDArray[np.float32]:
        check_pixels(_exr_size(raw))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: c.pixels for name, c in file.channels().items()}
        if set("RGB") <= set(channels):
            return np.stack([channels[c] for c in "RGB"], axis=-1).astype(np.float32)
        if len(channels) == 1:
            return np.asarray(next(iter(channels.values())), dtype=np.float32)
        raise ValueError(f"channels {sorted(channels)}: expected R, G, B or a single one")

    return decode_file(path, None, decode)


def _exr_size(raw: bytes) -> tuple[int, int]:
    """Width and height of the data window in an OpenEXR header."""
    at = raw.find(b"dataWindow\0box2i\0")
    if at < 0 or len(raw) < at + 38:
        raise ValueError("no data window in its header")
    left, top, right, bottom = struct.unpack_from("<4i", raw, at + 21)
    return right - left + 1, bottom - top + 1


def read_pfm(path: Path | str, data: bytes | None = None) -> NDArray[np.float32]:
    """A portable float map (Debevec's .pfm, as MiDaS writes it): float32 [H, W] or [H, W, 3], the top row first.

    The file holds the bottom row first. The sign of its scale is the byte order; its size is not applied, as no
    reader of depth does.
    """

    def decode(raw: bytes) -> NDArray[np.float32]:
        head = re.match(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+([-+.eE\d]+)\s", raw)
        if head is None:
            raise ValueError("no PFM header")
        width, height, channels = int(head[2]), int(head[3]), 3 if head[1] == b"PF" else 1
        kind = np.dtype("<f4" if float(head[4]) < 0 else ">f4")
        if len(raw) - head.end() != width * height * channels * kind.itemsize:
            raise ValueError(f"{len(raw) - head.end()} bytes for {height} x {width} x {channels} values")
        values = np.frombuffer(raw, kind, offset=head.end()).reshape(height, width, channels)[::-1]
        return np.ascontiguousarray(values[..., 0] if channels == 1 else values, dtype=np.float32)

    return decode_file(path, data, decode)


def read_tiff(path: Path | str, data: bytes | None = None) -> NDArray[Any]:
    """A TIFF as stored: integers or floats, [H, W] or [H, W, C]."""
    import imagecodecs

    def decode(raw: bytes) -> NDArray[Any]:
        check_pixels(_tiff_size(raw))
        return np.asarray(imagecodecs.tiff_decode(raw))

    return decode_file(path, data, decode)


def _tiff_size(raw: bytes) -> tuple[int, int]:
    """Width and height in the first directory of a TIFF."""
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, ImageFileDirectory_v2

    big = 43 in raw[2:4]
    directory = ImageFileDirectory_v2(raw[: 16 if big else 8])
    file = io.BytesIO(raw)
    file.seek(directory.next)
    directory.load(file)
    return int(directory[IMAGEWIDTH]), int(directory[IMAGELENGTH])


def without_batch(array: NDArray[Any], ndim: int) -> NDArray[Any]:
    """The array without leading axes of length 1, as networks give them, as long as it has more than `ndim` axes.

    Examples
    --------
    >>> without_batch(np.zeros((1, 1, 4, 5)), 2).shape, without_batch(np.zeros((1, 4, 5, 3)), 3).shape
    ((4, 5), (4, 5, 3))
    """
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array


def write_png(path: Path, array: NDArray[Any]) -> None:
    """Write uint8 or uint16 [H, W] or [H, W, 3] as PNG, atomically."""
    import imagecodecs

    from reasonx_eval.io.files import write_bytes

    write_bytes(path, bytes(imagecodecs.png_encode(np.ascontiguousarray(array))))


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy, atomically."""
    from reasonx_eval.io.files import write_bytes

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
