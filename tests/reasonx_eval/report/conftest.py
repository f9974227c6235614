"""Finished runs on procedural scenes, with their predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reasonx_eval.cli.main import cli, run_cli

N = 6
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A run's folder by model and protocol; made once."""
    root = tmp_path_factory.mktemp("runs")

    def make(model: str, protocol: str, *more: str) -> Path:
        out = root / "-".join([model, *more]).replace("/", "-").replace("=", "-")
        folder = out / f"{protocol}@1" / model
        if not folder.is_dir():
            code = run_cli(cli, ["run", "--model", model, "--protocol", protocol, "--limit", str(N), "--quiet",
                                 "--save-predictions", "--out", str(out), *more])  # fmt: skip
            assert code == 0
        return folder

    return make
