"""Rows of HDF5 arrays in every layout against h5py's own read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.datasets.formats.hdf5_rows import CACHE_LIMIT, Rows

N = 11
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "a chunk a row": {"chunks": (1, 3, 37, 29), "compression": "gzip"},
    "several chunks a row": {"chunks": (1, 2, 16, 10), "compression": "gzip"},
    "chunks across rows": {"chunks": (4, 1, 16, 10), "compression": "gzip"},
    "all rows in a chunk": {"chunks": (N, 3, 5, 29), "compression": "gzip"},
    "shuffled": {"chunks": (1, 3, 37, 29), "compression": "gzip", "shuffle": True},
    "with checksums": {"chunks": (1, 3, 37, 29), "compression": "gzip", "fletcher32": True},
    "not compressed": {"chunks": (1, 3, 16, 29)},
    "another codec": {"chunks": (1, 3, 37, 29), "compression": "lzf"},
}  # fmt: skip


def values(dtype: str, shape: tuple[int, ...] = (N, 3, 37, 29)) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_is_what_h5py_reads_with_its_axes_reversed(tmp_path: Path, layout: str, dtype: str) -> None:
    expected = values(dtype)
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file.create_dataset("images", data=expected, **LAYOUTS[layout])
    with h5py.File(tmp_path / "x.mat") as file:
        rows = Rows(file, "images")
        for index in (0, N - 1, 3, 4, 3):
            found = rows.transposed(index)
            assert found.flags.c_contiguous
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected[index].transpose(2, 1, 0))
        with ThreadPoolExecutor(4) as pool:
            order = [*range(N)] * 4
            for index, found in zip(order, pool.map(rows.transposed, order), strict=True):
                np.testing.assert_array_equal(found, expected[index].transpose(2, 1, 0))


@pytest.mark.parametrize("chunks", [None, (1, 300, 29), (1, 128, 29), (2, 100, 10)])
def test_planes_wider_than_a_strip(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    expected = values("<f4", (4, 300, 29))
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("depth", data=expected, chunks=chunks, compression=chunks and "gzip")
    with h5py.File(tmp_path / "x.mat") as file:
        np.testing.assert_array_equal(Rows(file, "depth").transposed(2), expected[2].T)


def test_a_chunk_that_was_never_written_has_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        data = file.create_dataset("depth", (4, 8, 6), "f4", chunks=(1, 8, 6), compression="gzip", fillvalue=2.5)
        data[1] = 7
    with h5py.File(tmp_path / "x.mat") as file:
        rows = Rows(file, "depth")
        assert (np.unique(rows.transposed(0)), np.unique(rows.transposed(1))) == (2.5, 7)


def test_a_damaged_chunk_is_hdf5s_error(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("images", data=values("u1"), chunks=(1, 3, 37, 29), compression="gzip")
        place = data.id.get_chunk_info_by_coord((5, 0, 0, 0)).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place + 40 : place + 400] = bytes(360)
    path.write_bytes(raw)
    with h5py.File(path) as file:
        rows = Rows(file, "images")
        assert rows.transposed(4).shape == (29, 37, 3)
        with pytest.raises(OSError, match="filter returned failure"):
            rows.transposed(5)


def test_the_cache_holds_the_chunks_around_a_row_and_stays_within_its_limit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("near", (20, 100, 90), "f4", chunks=(5, 40, 40), compression="gzip")
        file.create_dataset("far", (4000, 1000, 900), "f4", chunks=(4000, 10, 10), compression="gzip")
    with h5py.File(tmp_path / "x.mat") as file:
        near, far = (Rows(file, key)._array.id.get_access_plist().get_chunk_cache()[1] for key in ("near", "far"))
        assert near == 5 * 120 * 120 * 4
        assert far < CACHE_LIMIT


@pytest.mark.parametrize("layout", ["a chunk a row", "several chunks a row"])
def test_rows_of_their_own_are_read_past_hdf5(tmp_path: Path, layout: str) -> None:
    expected = values("u1")
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("images", data=expected, **LAYOUTS[layout])

    class Shut:
        """An array that gives chunks and its shape, but no row."""

        def __init__(self, array: Any) -> None:
            self.id, self.shape = array.id, array.shape

    with h5py.File(tmp_path / "x.mat") as file:
        rows = Rows(file, "images")
        rows._array = Shut(rows._array)
        np.testing.assert_array_equal(rows.transposed(5), expected[5].transpose(2, 1, 0))


def test_contiguous_row_out_of_range_is_an_error_of_h5py(tmp_path: Path) -> None:
    """What follows the array in the file is not taken for a row."""
    with h5py.File(tmp_path / "x.mat", "w") as file:
        for key in ("images", "more"):
            file.create_dataset(key, data=values("u1"))
    with h5py.File(tmp_path / "x.mat") as file:
        rows = Rows(file, "images")
        with pytest.raises((IndexError, ValueError)):
            rows.transposed(N)


def test_contiguous_file_that_is_cut_off(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("images", data=values("u1"))
    with h5py.File(tmp_path / "x.mat") as file:
        rows = Rows(file, "images")
        os.truncate(tmp_path / "x.mat", (tmp_path / "x.mat").stat().st_size - 100)
        np.testing.assert_array_equal(rows.transposed(0), values("u1")[0].transpose(2, 1, 0))
        with pytest.raises(OSError, match="shorter"):
            rows.transposed(N - 1)


def test_array_that_was_never_written_is_filled(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("images", (N, 3, 37, 29), "u1", fillvalue=9)
    with h5py.File(tmp_path / "x.mat") as file:
        assert (Rows(file, "images").transposed(1) == 9).all()
