"""Limits on the size that a small file may grow to when it is read. Each can be raised by an environment variable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from reasonx_eval.errors import ReasonXError, SampleError, UsageError

#: limit -> its value; ``REASONX_MAX_<LIMIT>`` replaces it
LIMITS: Final[Mapping[str, int]] = {
    "PIXELS": 200_000_000,  # of one picture; the largest of a supported data set has 24 million
    "ARRAY_BYTES": 2_400_000_000,  # of one decoded array of a compressed file (.npz, .h5)
    "JSON_BYTES": 2 << 30,  # of one JSON file
    "JSON_DEPTH": 100,  # arrays and objects inside each other
    "TOML_BYTES": 4 << 20,  # of one TOML file
    "PARQUET_ROWS": 50_000_000,  # of one shard of a judgement store; 50,000 are written at a time
}


def limit(name: str) -> int:
    """A limit, or the number that the environment gives instead.

    Raises
    ------
    UsageError
        The environment variable is no number.

    Examples
    --------
    >>> limit("JSON_DEPTH")
    100
    """
    variable = f"REASONX_MAX_{name}"
    given = os.environ.get(variable)
    if not given:
        return LIMITS[name]
    try:
        return int(float(given))
    except (ValueError, OverflowError):
        raise UsageError(f"'{given}' is not a number", where=variable) from None


def check_limit(
    name: str, size: int, what: str, *, where: str | None = None, error: type[ReasonXError] = SampleError
) -> None:
    """Refuse something larger than a limit, with the setting that raises it.

    Parameters
    ----------
    name : one of LIMITS
    size : found, in the unit of the limit
    what : its name in the message, for example "8000 x 9000 pixels"

    Raises
    ------
    ReasonXError
        `error`, if `size` is above the limit.
    """
    most = limit(name)
    if size > most:
        raise error(f"{what}: more than the limit of {most:,}", where=where,
                    fix=f"if the file is meant to be so large: REASONX_MAX_{name}={size}")  # fmt: skip
