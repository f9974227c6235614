"""What several files about tuning start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reasonx_ft.tuning.tune_data import oracle_store, small_policy


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faultless answers about a few scenes."""
    return oracle_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    """Tuning and export start from a network of 10,000 weights instead of `tiny`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("state", "export"):
            patch.setattr(f"reasonx_ft.tuning.{module}.make_policy", small_policy)
        yield
