"""Functions that the readers of official data sets share: folders, options, and checks of decoded arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, SampleError, UsageError, unknown
from reasonx_eval.io.images import read_rgb

_A = TypeVar("_A", bound=NDArray[Any])
_KINDS = {"float": "f", "number": "buif"}

#: factors that take normals from x right, y up, z towards the viewer to x right, y down, z forward
Y_UP: Final = np.array([1.0, -1.0, -1.0], dtype=np.float32)


def choice(dataset: Dataset, key: str, allowed: Sequence[str]) -> str:
    """The value of a dataset option that names one of `allowed`; the first is the default.

    Raises
    ------
    UsageError
        Any other value; lists the valid ones.
    """
    value = dataset.options.get(key, allowed[0])
    if value not in allowed:
        raise unknown(f"value of option {key}:", str(value), allowed, where=dataset.name)
    return str(value)


def wanted(want: Collection[str] | None, target: str) -> bool:
    """Whether a caller asked for a target; None asks for all there is."""
    return want is None or target in want


def require_id(dataset: Dataset, sample_id: str) -> None:
    """Refuse an id that is not in the split.

    Raises
    ------
    UsageError
        Names the nearest id.
    """
    if sample_id not in dataset.ids:
        near = get_close_matches(sample_id, dataset.ids, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"no sample {sample_id} among the {len(dataset.ids)} of split '{dataset.split}'{hint}",
                         where=dataset.name)  # fmt: skip


def find_folder(dataset: Dataset, inside: Iterable[str], holds: Callable[[Path], bool], what: str) -> Path:
    """The first of several usual places below the root that holds the dataset's files.

    Parameters
    ----------
    inside : places relative to the root, "." for the root itself, the likeliest first
    holds : whether a folder has the files that are looked for
    what : their description, for the message

    Raises
    ------
    DataError
        None of the places has it.
    """
    places = list(inside)
    if dataset.root is None:
        raise UsageError("this dataset is read from files: give its folder", where=dataset.name, fix="--root DIR")
    for place in places:
        folder = dataset.root / place
        try:
            if folder.is_dir() and holds(folder):
                return folder
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}", where=str(error.filename or folder)) from None
    shown = ", ".join("the folder itself" if p == "." else f"{p}/" for p in places)
    raise DataError(f"no {what} in {dataset.root} (looked in {shown}): another folder, or not unpacked yet?",
                    where=dataset.name, fix=f"reasonx-eval doctor {dataset.info.name} --prepare")  # fmt: skip


def expect(array: _A, where: Path | str, *, shape: tuple[int, ...], dtype: str) -> _A:
    """The array, if it has this shape and type.

    Parameters
    ----------
    dtype : a numpy name, "float" (of any size) or "number" (bool, integer or float)

    Raises
    ------
    SampleError
        States the expected shape and type, and those of the file.
    """
    fits = array.dtype.kind in _KINDS[dtype] if dtype in _KINDS else array.dtype.name == dtype
    if array.shape != shape or not fits:
        raise SampleError(f"expected {dtype} {shape}, the file holds {array.dtype} {array.shape}: "
                          "resized, converted, or a file of another dataset?", where=str(where))  # fmt: skip
    return array


def sized_rgb(path: Path | str, shape: tuple[int, int], data: bytes | None = None) -> NDArray[np.uint8]:
    """An 8-bit photo of a known size (height, width), uint8 [H, W, 3].

    Raises
    ------
    SampleError
        Missing, damaged, or of another size.
    """
    image = read_rgb(path, data)
    if image.shape[:2] != shape:
        raise SampleError(f"expected a photo of {shape[1]} x {shape[0]}, got {image.shape[1]} x {image.shape[0]}",
                          where=str(path))  # fmt: skip
    return image


def nonzero_vectors(normal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a vector is finite and not (0, 0, 0), the mark of a pixel without a normal; bool [H, W]."""
    found: NDArray[np.bool_] = np.all(np.isfinite(normal), axis=-1) & np.any(normal, axis=-1)
    return found


def pinhole(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    """The camera matrix, float64 [3, 3], pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
