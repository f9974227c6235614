"""The official lists of sample ids, shipped with the package so that a split never depends on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from reasonx_eval.errors import DataError
from reasonx_eval.io.digests import sha256_lines

#: list name -> sha256 of its lines joined by newlines. Sources:
#: iiw_test: every fifth of the 5230 ids in the order of their strings (Narihira et al. 2015);
#: nyuv2_*: splits.mat of the official release, 1-based; nyuv2_test_scenes: number and scene of each test image;
#: eth3d_dslr, diode_val_*: all evaluated images, in the order of the lists that published evaluations use.
DIGESTS: Final[Mapping[str, str]] = MappingProxyType({
    "iiw_all": "950ab030abfe5c733ced62bdf55b98375061a5615901c11d307d9480f9b4b931",
    "iiw_test": "22965c79f0d77b7e96ea0ad4659bc65f5889a6f66f726aaed649f0b803ae39d9",
    "nyuv2_train": "db52ab51ffc3cef530591b4e49847271756e7968592b367c0ab04b1263d08982",
    "nyuv2_test": "d29392361b1bd7f626fa67fdc1d0ca34c944a07cb58dda863cd217f46fd1c698",
    "nyuv2_test_scenes": "57923225be32d52d0b5ed8486059519eb135717ca51e55658e6dc0283509616b",
    "eth3d_dslr": "0b552db3511150b04e79e0000eb73459ef7281a52f075ac89cba032276e171d3",
    "diode_val_indoor": "cf62c07a1e55cdd7ead7702ce4e9697a8bcee761ad7ee72558d53c41f971cf70",
    "diode_val_outdoor": "cdd19fd9d8a99ece72758ed4559df74286759959a4b3a703460e037c8658e463",
})  # fmt: skip


@cache
def split_lines(name: str) -> tuple[str, ...]:
    """The lines of a shipped list.

    Raises
    ------
    DataError
        The file is missing or isn't the one this version of the package was released with.
    """
    path = resources.files("reasonx_eval") / "protocols" / "data" / "splits" / f"{name}.txt"
    fix = "python -m pip install --force-reinstall --no-deps reasonx"
    try:
        lines = tuple(path.read_text(encoding="ascii").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", where=str(path), fix=fix) from None
    if sha256_lines(lines) != DIGESTS[name]:
        raise DataError("its ids are not the official ones: the file was edited or is damaged",
                        where=str(path), fix=fix)  # fmt: skip
    return lines
