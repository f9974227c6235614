"""Annotating with the small judge: the store's bytes depend on neither batches nor threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.annotate import Plan, annotate
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges.tiny import TinyJudge


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(5):
        Image.fromarray(rng(k, "photo").integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


def _shards(photos: Path, out: Path, *, batch_size: int, threads: int, workers: int) -> dict[str, bytes]:
    judge = TinyJudge(threads=threads)
    judge.batch_size = batch_size
    annotate(open_photos(str(photos)), judge, out, read_questions(), Plan(pairs=9, workers=workers))
    return {p.name: p.read_bytes() for p in out.glob("*.parquet")}


def test_the_same_bytes_whatever_the_batches_and_threads(photos: Path, tmp_path: Path) -> None:
    expected = _shards(photos, tmp_path / "0", batch_size=4096, threads=2, workers=2)
    assert len(expected) == 1
    # 72 questions a photo: batches of parts of photos, of one and a half, of one question
    for k, (batch_size, threads, workers) in enumerate([(20, 1, 1), (100, 2, 3), (1, 3, 2)], start=1):
        assert _shards(photos, tmp_path / str(k), batch_size=batch_size, threads=threads, workers=workers) == expected
