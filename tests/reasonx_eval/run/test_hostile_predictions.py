"""Folders of saved predictions as they come: the wrong file, the wrong way round, or nothing at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.images import write_png
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import DepthTarget

IDS = ("synthetic/test/00000", "synthetic/test/00001")


@pytest.fixture(scope="module")
def depths() -> dict[str, NDArray[np.float32]]:
    dataset = load_dataset("scenes-synthetic")
    found = {}
    for sample_id in IDS:
        target = dataset.load(sample_id, {"depth"}).targets["depth"]
        assert isinstance(target, DepthTarget)
        found[sample_id] = target.depth
    return found


@pytest.fixture
def folder(tmp_path: Path, depths: dict[str, NDArray[np.float32]]) -> Path:
    for sample_id, depth in depths.items():
        path = tmp_path / "preds" / f"{sample_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, depth)
    return tmp_path / "preds"


def score(folder: Path) -> int:
    return run_cli(cli, ["score", str(folder), "--kind", "depth_affine", "--dataset", "scenes-synthetic", "--samples",
                         ",".join(IDS), "--out", str(folder.parent / "out"), "--json"])  # fmt: skip


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>404 Not Found</html>", encoding="utf-8")


def _pickle(path: Path) -> None:
    np.save(path, np.array([1, None], dtype=object), allow_pickle=True)


def _transposed(path: Path) -> None:
    np.save(path, np.load(path).T)


def _dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/file.npy")


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(_html, "not a .npy file"), (_pickle, "can't be decoded"), (_transposed, "transposed?"), (_dead_link, "no file"),
     (_link_to_itself, "no file")],
)  # fmt: skip
def test_one_bad_prediction_is_one_failed_sample(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], words: str
) -> None:
    damage(folder / f"{IDS[0]}.npy")
    assert score(folder) == 6
    result = json.loads(capsys.readouterr().out)
    assert list(result["failed"]) == [IDS[0]]
    assert words in result["failed"][IDS[0]]
    assert "unsafely" not in result["failed"][IDS[0]], "numpy's advice to trust a pickle"
    assert result["n_scored"] == 1


@pytest.mark.parametrize("content", [None, "readme.txt", "map.jpg"])
def test_a_folder_without_predictions_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    (tmp_path / "preds").mkdir()
    if content is not None:
        (tmp_path / "preds" / content).write_bytes(b"x")
    assert score(tmp_path / "preds") == 4
    printed = capsys.readouterr()
    assert "no prediction in this folder" in printed.err
    assert not printed.out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_among_the_files_of_a_data_set_does_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}_depth.npy", np.random.default_rng(0).uniform(1, 5, (20, 30)))
        write_png(tmp_path / f"{name}_rgb.png", np.arange(1800, dtype=np.uint8).reshape(20, 30, 3))
    (tmp_path / "a_depth.npy").unlink()
    os.mkfifo(tmp_path / "a_depth.npy")
    assert run_cli(cli, ["run", "--model", "plane-depth", "--dataset", "flat", "--dataset-option", "depth_scale=1",
                         "--root", str(tmp_path), "--out", str(tmp_path / "out"), "--json"]) == 6  # fmt: skip
    assert "pipe" in json.loads(capsys.readouterr().out)["failed"]["a"]
