"""Read ground-truth maps of any supported file type, and check them against the photo they belong to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.color import decode
from reasonx_eval.io.containers import open_h5, open_npz
from reasonx_eval.io.images import (
    decode_file,
    missing,
    read_exr,
    read_npy,
    read_pfm,
    read_png,
    read_tiff,
    without_batch,
)
from reasonx_eval.types import NORMAL_FRAMES

#: suffixes that `read_map` understands
MAP_SUFFIXES = (".png", ".npy", ".npz", ".exr", ".h5", ".hdf5", ".tif", ".tiff", ".pfm")
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")

ENCODINGS = ("srgb", "linear", "gamma2.2")


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from a photo's header, without decoding it.

    Raises
    ------
    SampleError
        The file is missing, empty, or no image.
    """
    from PIL import Image

    if not path.is_file():
        raise missing(path)
    if path.stat().st_size == 0:
        raise SampleError("file is empty (0 bytes): an interrupted copy or download?", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.height, image.width
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise SampleError(f"is not a readable image ({detail}): truncated, or not the format its name says?",
                          where=str(path)) from None  # fmt: skip


def read_map(path: Path, *, key: str | None = None) -> NDArray[Any]:
    """An array as stored: unsigned integer codes or floats, [H, W] or [H, W, C]; no scaling.

    Parameters
    ----------
    path : .png (8 or 16 bit), .npy, .npz, .exr, .h5, .tif, .pfm
    key : the array's name inside .npz and .h5; may be left out where the file holds exactly one

    Raises
    ------
    SampleError
        Missing, truncated, of an unknown type, or not numbers; names the file.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        array = read_png(path)
    elif suffix == ".npy":
        array = read_npy(path)
    elif suffix == ".npz":
        array = _read_npz(path, key)
    elif suffix == ".exr":
        array = read_exr(path)
    elif suffix in (".h5", ".hdf5"):
        array = _read_h5(path, key)
    elif suffix in (".tif", ".tiff"):
        array = read_tiff(path)
    elif suffix == ".pfm":
        array = read_pfm(path)
    else:
        raise SampleError(f"file type '{suffix}' is not supported; one of: {' '.join(MAP_SUFFIXES)}", where=str(path))
    if array.dtype.kind not in "uifb":
        raise SampleError(f"holds {array.dtype}, expected integers or floats", where=str(path))
    if array.size == 0:
        raise SampleError(f"holds no values (shape {array.shape})", where=str(path))
    return array


def _one_key(names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    asked = "no key is named" if key is None else f"no array '{key}'"
    raise ValueError(f"{asked}; the file holds: {', '.join(names) or 'nothing'}")


def _read_npz(path: Path, key: str | None) -> NDArray[Any]:
    def load(raw: bytes) -> NDArray[Any]:
        names, read = open_npz(raw)
        return read(_one_key(sorted(names), key))

    return decode_file(path, None, load)


def _read_h5(path: Path, key: str | None) -> NDArray[Any]:
    def load(raw: bytes) -> NDArray[Any]:
        names, read = open_h5(raw)
        return read(_one_key(sorted(names), key))

    return decode_file(path, None, load)


def unit_scale(array: NDArray[Any]) -> float:
    """1 / the largest code of an integer array (255 or 65535); 1 for floats."""
    return 1.0 / float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else 1.0


def as_plane(array: NDArray[Any], size: tuple[int, int], path: Path) -> NDArray[Any]:
    """[H, W] of the photo's size, from [H, W], [H, W, 1], [1, 1, H, W] or a grey picture with equal channels.

    Raises
    ------
    SampleError
        Another shape, or a coloured picture (a rendering of the values instead of the values).
    """
    array = without_batch(array, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and array.shape[2] in (3, 4):
        if not (np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2])):
            raise SampleError(f"shape {array.shape} with different channels: one plane of values is expected; "
                              "a colour-mapped picture?", where=str(path))  # fmt: skip
        array = array[..., 0]
    _check_size(array, size, path, 2)
    return array


def as_rgb(array: NDArray[Any], size: tuple[int, int], path: Path, *, grey: bool = False) -> NDArray[Any]:
    """[H, W, 3] of the photo's size; alpha is dropped; one plane is repeated if `grey` allows it.

    Raises
    ------
    SampleError
        Another shape.
    """
    array = without_batch(array, 2 if grey and array.ndim == 2 else 3)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if grey and array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    elif array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    _check_size(array, size, path, 3)
    return array


def _check_size(array: NDArray[Any], size: tuple[int, int], path: Path, ndim: int) -> None:
    want = size if ndim == 2 else (*size, 3)
    if array.shape == want:
        return
    cause = ""
    if array.shape[:2] == (size[1], size[0]) and size[0] != size[1]:
        cause = ": transposed?"
    elif array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[1:] == size:
        cause = ": channels first?"
    elif array.ndim == ndim and array.shape[:2] != size:
        cause = ": resized, or of another photo?"
    raise SampleError(f"shape {array.shape}, but the photo calls for {want}{cause}", where=str(path))


def read_mask(path: Path, size: tuple[int, int], *, key: str | None = None) -> NDArray[np.bool_]:
    """bool [H, W]: true where the file is not zero."""
    return np.asarray(as_plane(read_map(path, key=key), size, path) != 0)


def decode_colour(array: NDArray[Any], encoding: str) -> NDArray[np.float32]:
    """Codes or floats to linear values, float32 of the same shape.

    Parameters
    ----------
    array : unsigned integers (full range is 1) or floats (as they are)
    encoding : srgb (piecewise), linear or gamma2.2 (power)
    """
    value = array.astype(np.float64) * unit_scale(array)
    return np.asarray(value if encoding == "linear" else decode(value, encoding), dtype=np.float32)


def decode_normals(
    array: NDArray[Any], frame: str, encoded: bool, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Normals in the frame x right, y down, z forward, and where they are normals at all.

    Parameters
    ----------
    array : [H, W, 3], unsigned integer codes of (n + 1) / 2 if `encoded`, else the components themselves
    frame : a key of types.NORMAL_FRAMES

    Returns
    -------
    normal : float32 [H, W, 3], as stored (not renormalised)
    valid : bool [H, W]; false at non-finite vectors and where 0.05 < |n| < 1.5 does not hold: the zero vector
        and the black pixel (|n| = 1.73 when decoded) are the two usual marks of a missing normal

    Raises
    ------
    SampleError
        Integers that are not said to be encoded, or signed integers.
    """
    if array.dtype.kind in "ib" or (array.dtype.kind == "u") != encoded:
        said = "(n + 1) / 2 codes in 8 or 16 bit" if encoded else "float components"
        raise SampleError(f"holds {array.dtype}, expected {said}", where=str(path))
    value = array.astype(np.float64)
    if encoded:
        value = value * (2.0 * unit_scale(array)) - 1.0
    norm = np.linalg.norm(value, axis=2)  # [H, W]
    valid = np.isfinite(norm) & (norm > 0.05) & (norm < 1.5)
    return (value * np.array(NORMAL_FRAMES[frame], dtype=np.float64)).astype(np.float32), valid
