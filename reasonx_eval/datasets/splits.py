"""The official lists of sample ids, shipped with the package so that a split never depends on the disk.

Sources. iiw_test: every fifth of the 5230 ids in the order of their strings (Narihira et al. 2015); nyuv2_*:
splits.mat of the official release, 1-based; nyuv2_test_scenes: number and scene of each test image; eth3d_dslr and
diode_val_*: all evaluated images, in the order of the lists that published evaluations use.
"""

from __future__ import annotations

from functools import cache

from reasonx_eval.errors import DataError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.protocols.lock import SPLITS, locked


@cache
def split_lines(name: str) -> tuple[str, ...]:
    """The lines of a shipped list.

    Raises
    ------
    DataError
        The file is missing or isn't the one this version of the package was released with.
    """
    path = SPLITS / f"{name}.txt"
    fix = "python -m pip install --force-reinstall --no-deps reasonx"
    try:
        lines = tuple(path.read_text(encoding="ascii").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", where=str(path), fix=fix) from None
    if sha256_lines(lines) != locked().get(f"splits/{name}"):
        raise DataError("its ids are not the official ones: the file was edited or is damaged",
                        where=str(path), fix=fix)  # fmt: skip
    return lines
