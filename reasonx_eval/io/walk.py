"""Files below a folder as a user put them there, and names that are nearly the one that is looked for."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reasonx_eval.errors import DataError

#: suffixes of pictures and maps, whether or not a reader takes them
PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".heic", ".heif", ".avif", ".gif",
    ".npy", ".npz", ".exr", ".hdr", ".pfm", ".pgm", ".ppm", ".h5", ".hdf5", ".mat", ".dng", ".raw",
)  # fmt: skip
#: names that systems, browsers and synchronising programs put beside a user's files; those that begin with "." too
_SYSTEM = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "@recycle", "#recycle",
                     "#snapshot", "$recycle.bin", "lost+found", "system volume information",
                     "__pycache__"))  # fmt: skip
_UNFINISHED = (".part", ".crdownload", ".download", ".tmp", ".partial", "~")


def from_system(name: str) -> bool:
    """Whether no user made a file or folder of this name: ``._0001.png``, ``.DS_Store``, ``__MACOSX``, ``Thumbs.db``.

    Examples
    --------
    >>> [from_system(n) for n in ("._0001.png", "Thumbs.db", "0001.png")]
    [True, True, False]
    """
    return name.startswith(".") or name.casefold() in _SYSTEM or name.endswith(_UNFINISHED)


def walk_files(base: Path) -> Iterator[Path]:
    """The files in `base` and below, sorted; links to folders are followed, each folder once.

    Files and folders that a system put there are left out; links that lead nowhere are given, since a user put them
    there.

    Raises
    ------
    DataError
        A folder can't be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"can't be listed: {error.strerror or error}", where=str(error.filename or base)) from None

    seen: set[str] = set()
    for root, folders, names in os.walk(base, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not from_system(f))
        yield from (Path(root, name) for name in sorted(names) if not from_system(name))


def near_names(path: Path) -> list[str]:
    """Names beside a missing file that `same_stem` calls the same, sorted.

    A file that a cloud drive left as a placeholder (``.0001.png.icloud``) is named, too.
    """
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    placeholder = f".{path.name}.icloud".casefold()
    return sorted(n for n in names if n != path.name and not n.startswith("._")
                  and (same_stem(n, path.name) or n.casefold() == placeholder))  # fmt: skip


def same_stem(name: str, other: str) -> bool:
    """Whether two file names differ in letter case, in the form of their accents or in the suffix of a picture only.

    Examples
    --------
    >>> same_stem("0002.JPG", "0002.jpg"), same_stem("a.jpeg", "a.jpg"), same_stem("a.txt", "a.jpg")
    (True, True, False)
    """
    one, two = (PurePosixPath(unicodedata.normalize("NFC", n).casefold()) for n in (name, other))
    return one == two or (one.stem == two.stem and {one.suffix, two.suffix} <= set(PICTURES))
