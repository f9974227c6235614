"""The quick way to decode the two kinds of photo that data sets are made of; its pixels are Pillow's to the last bit.

libjpeg-turbo and libspng, called without Pillow's detour over its own storage, take less than half the time at 24
megapixels. They are used only for files of which it is known beforehand that both ways agree; anything else, and
anything that looks damaged, gives None, and the caller lets Pillow decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG_KIND: Final = slice(24, 29)
#: 8 bits, RGB, deflate, adaptive filters, not interlaced
_PLAIN_RGB: Final = bytes((8, 2, 0, 0, 0))
_SCAN: Final = 0xDA
_END: Final = 0xD9


def quick_rgb(image: Image, raw: bytes) -> NDArray[np.uint8] | None:
    """The pixels of an opened, not yet decoded picture, uint8 [H, W, 3], or None where Pillow has to decode.

    Parameters
    ----------
    image : as Pillow opened it; says what the file is
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


def _checked(found: Any, image: Image) -> NDArray[np.uint8] | None:
    fits = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == (image.height, image.width, 3)
    return found if fits else None


def single_scan_end(raw: bytes) -> int | None:
    """Where the only scan of a sequential JPEG ends, its end mark included; None if there is no such scan.

    A decoder that has all bytes at hand makes up what a cut file lacks, where one that is fed piece by piece
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
