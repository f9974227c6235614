"""Merged bytes against a plain form with dictionaries and sorted lists, and what a merge holds in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.judgements import Store, merge
from reasonx_ft.annotation.questions import MODALITIES
from reasonx_ft.annotation.store import shards, sorting
from reasonx_ft.annotation.store.schema import Columns, Joiner, allocate, concatenate
from reasonx_ft.annotation.store.shards import About, Shard, read_shard, shard_paths, write_shard
from reasonx_ft.types import FLAGS, ORDERS

_STREAMS = [(m, o, f"{m}-template", judge) for judge in ("rev1", "rev0") for m in MODALITIES for o in ORDERS]


def _columns(n: int, seed: int, *, photos: int = 12) -> Columns:
    """Random rows with few points, so that many keys repeat; some have no probability."""
    draw = rng(seed, "merge")
    digests = [rng(k, "photo").bytes(16) for k in range(photos)]
    order = draw.permutation(photos)
    streams = [_STREAMS[k] for k in draw.permutation(len(_STREAMS))]
    flag = draw.choice(len(FLAGS), n, p=[0.8, *[0.2 / (len(FLAGS) - 1)] * (len(FLAGS) - 1)]).astype(np.int8)
    probability = np.where(flag == 0, draw.random(n), np.nan).astype(np.float32)
    return Columns(
        tuple(digests[k] for k in order), tuple(f"photo {k}" for k in order), tuple(streams),
        draw.integers(0, photos, n).astype(np.int32), draw.integers(0, len(streams), n).astype(np.int32),
        draw.integers(0, 3, (n, 4)).astype(np.int16), probability, flag, draw.random(n).astype(np.float32),
    )  # fmt: skip


def _plain(folders: Sequence[Path], out: Path, rows: int) -> list[Path]:
    """Merged shards from single rows: a dictionary by key, in which the first answer with a probability counts."""
    best: dict[tuple[object, ...], tuple[float, int, float]] = {}
    names: dict[bytes, str] = {}
    for path in [p for folder in folders for p in shard_paths(folder)]:
        shard = read_shard(path)
        assert isinstance(shard, Shard)
        c = shard.columns
        for k in range(len(c)):
            names.setdefault(c.photos[c.photo[k]], c.names[c.photo[k]])
            key = (c.photos[c.photo[k]], c.streams[c.stream[k]], tuple(c.points[k].tolist()))
            value = (float(c.probability[k]), int(c.flag[k]), float(c.seconds[k]))
            if key not in best or (np.isnan(best[key][0]) and not np.isnan(value[0])):
                best[key] = value
    found = []
    keys = sorted(best)  # type: ignore[type-var]
    for start in range(0, len(keys), rows):
        part = keys[start : start + rows]
        photos = list(dict.fromkeys(key[0] for key in part))
        streams = list(dict.fromkeys(key[1] for key in part))
        probability, flag, seconds = zip(*(best[key] for key in part), strict=True)
        found.append(write_shard(out, Columns(
            tuple(photos), tuple(names[p] for p in photos), tuple(streams),  # type: ignore[index,arg-type]
            np.array([photos.index(key[0]) for key in part], np.int32),
            np.array([streams.index(key[1]) for key in part], np.int32),
            np.array([key[2] for key in part], np.int16), np.array(probability, np.float32),
            np.array(flag, np.int8), np.array(seconds, np.float32)), About()))  # fmt: skip
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stores", [1, 3])
@pytest.mark.parametrize("block", [1, 100, 1 << 16])
def test_merged_shards_have_the_bytes_of_the_plain_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, stores: int, block: int
) -> None:
    monkeypatch.setattr(sorting, "BLOCK", block)
    monkeypatch.setattr(shards, "_BATCH_ROWS", 90)  # a shard is decoded in several batches
    monkeypatch.setattr("reasonx_ft.annotation.judgements.MERGED_ROWS", 400)
    folders = [tmp_path / f"store-{k}" for k in range(stores)]
    for k, folder in enumerate(folders):
        folder.mkdir()
        for j in range(3):
            write_shard(folder, _columns(200, 100 * seed + 10 * k + j), About())
    (tmp_path / "plain").mkdir()
    expected = _plain(folders, tmp_path / "plain", 400)
    written = merge([Store.open(f) for f in folders], tmp_path / "merged")
    assert [p.name for p in written] == [p.name for p in expected]
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in expected]
    assert len(written) > 1
    again = merge([Store.open(tmp_path / "merged")], tmp_path / "again")
    assert [p.name for p in again] == [p.name for p in written], "merged shards are merged to themselves"


def test_a_store_counts_the_same_rows_as_the_plain_form(tmp_path: Path) -> None:
    for seed in range(3):
        write_shard(tmp_path, _columns(3_000, seed), About())
    (tmp_path / "plain").mkdir()
    [plain] = _plain([tmp_path], tmp_path / "plain", 1 << 20)
    shard = read_shard(plain)
    assert isinstance(shard, Shard)
    store = Store.open(tmp_path)
    assert len(store) == len(shard.columns) == len(store.columns)
    assert len(store) < 9_000
    np.testing.assert_array_equal(np.sort(store.columns.seconds), np.sort(shard.columns.seconds))


def test_joiner_takes_more_rows_than_were_expected() -> None:
    parts = [_columns(n, seed) for seed, n in enumerate((5, 0, 700, 31))]
    joiner = Joiner(10)
    for part in parts:
        joiner.add(part)
    joined, expected = joiner.columns(), concatenate(parts)
    assert joined.photos == expected.photos
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(joined.arrays()[name], values)
    np.testing.assert_array_equal(joined.seconds[5:705], parts[2].seconds)
    rows = [(c.photos[c.photo[k]], c.streams[c.stream[k]]) for c in parts for k in range(len(c))]
    assert rows == [(joined.photos[joined.photo[k]], joined.streams[joined.stream[k]]) for k in range(len(joined))]


def test_shards_that_state_too_many_or_no_rows_are_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = _columns(100, 0)
    path = write_shard(tmp_path, columns, About())
    for k, content in enumerate((b"", b"PAR1", path.read_bytes()[:-9])):
        (tmp_path / f"answers-{k:032x}.parquet").write_bytes(content)
    assert shards.count_rows([*shard_paths(tmp_path), tmp_path / "gone"]) == 100
    store = Store.open(tmp_path)
    assert (len(store.shards), len(store.damaged)) == (1, 3)
    monkeypatch.setenv("REASONX_MAX_PARQUET_ROWS", "99")
    assert shards.count_rows([path]) == 99
    assert len(Store.open(tmp_path).damaged) == 4


def test_merge_holds_its_answers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what is decoded, sorted or written at a time is small beside the whole
    monkeypatch.setattr("reasonx_ft.annotation.judgements.MERGED_ROWS", 10_000)
    monkeypatch.setattr(sorting, "BLOCK", 4_096)
    monkeypatch.setattr(shards, "_BATCH_ROWS", 4_096)
    n = 400_000
    for seed in range(8):
        rows = _columns(n // 8, seed, photos=400)
        points = rng(seed, "points").integers(0, 512, (n // 8, 4)).astype(np.int16)
        write_shard(tmp_path, replace(rows, points=points), About())
    size = sum(a.nbytes for a in allocate(n).values())
    tracemalloc.start()
    try:
        store = Store.open(tmp_path)
        opened = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        merge([store], tmp_path, remove=True)
        merged = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(Store.open(tmp_path)) == n
    assert opened < 1.75 * size
    assert merged < 2.2 * size
