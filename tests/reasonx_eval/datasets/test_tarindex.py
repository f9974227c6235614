"""Reading members of a tar in place: against tarfile, damaged archives, the index kept on disk."""

from __future__ import annotations

import gzip
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets.formats.tarindex import TarIndex
from reasonx_eval.errors import DataError, SampleError
from reasonx_eval.selftest.writers import write_tar

LONG = "deep/" * 40 + "name.bin"  # more than the 100 characters of a plain header


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    sizes = {"a/one.bin": 1, "a/none.bin": 0, "b/block.bin": 512, "b/large.bin": 70_001, LONG: 1500}
    return {name: rng.bytes(size) for name, size in sizes.items()}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_members_and_bytes(tmp_path: Path, prefix: str) -> None:
    expected = contents()
    write_tar(tmp_path / "x.tar", expected, prefix)
    index = TarIndex(tmp_path / "x.tar")
    assert set(index.members) == set(expected)  # files only, no folders
    for name, data in expected.items():
        assert index.size(name) == len(data)
        assert index.read(name) == data
        assert index.read(name, limit=3) == data[:3]
    floats = np.empty(128, "<f4")
    index.read_into("b/block.bin", floats.view(np.uint8).data)
    assert floats.tobytes() == expected["b/block.bin"]
    part = bytearray(300)
    index.read_into("b/large.bin", memoryview(part), start=5000)
    assert part == expected["b/large.bin"][5000:5300]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_other_tar_formats(tmp_path: Path, kind: int) -> None:
    (tmp_path / "f.txt").write_bytes(b"hello")
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
        archive.add(tmp_path / "f.txt", "é/f.txt")
        archive.add(tmp_path / "f.txt", "g.txt")
    index = TarIndex(tmp_path / "x.tar")
    assert {name: index.read(name) for name in index.members} == {"é/f.txt": b"hello", "g.txt": b"hello"}


def test_threads_and_pickles(tmp_path: Path) -> None:
    expected = contents()
    write_tar(tmp_path / "x.tar", expected)
    index = TarIndex(tmp_path / "x.tar")
    names = list(expected) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(index.read, names)) == [expected[n] for n in names]
    assert pickle.loads(pickle.dumps(index)).read("b/large.bin") == expected["b/large.bin"]


def test_wrong_names_and_counts(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", contents())
    index = TarIndex(tmp_path / "x.tar")
    with pytest.raises(SampleError, match=r"c/no\.bin is not in the archive"):
        index.read("c/no.bin")
    with pytest.raises(SampleError, match="has 512 bytes, 516 are needed"):
        index.read_into("b/block.bin", memoryview(bytearray(512)), start=4)
    with pytest.raises(DataError, match="can't be read"):
        TarIndex(tmp_path / "y.tar")


@pytest.mark.parametrize(("keep", "message"), [
    (-20_000, "cut off inside"),  # within the data of a file
    (300, "not an uncompressed tar"),
    (0, "not an uncompressed tar"),
])  # fmt: skip
def test_truncated(tmp_path: Path, keep: int, message: str) -> None:
    write_tar(tmp_path / "x.tar", {"a.bin": bytes(1000), "b.bin": b"\1" * 70_000})
    path = tmp_path / "x.tar"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=message):
        _ = TarIndex(path).members


def test_cut_between_two_files(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, {"a.bin": b"\1" * 512, "b.bin": b"\2" * 512})
    with tarfile.open(path) as archive:
        end = archive.getmember("./b.bin").offset
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match="no end mark after 1 files"):
        _ = TarIndex(path).members


def test_damaged_header_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, {"a.bin": b"\1" * 512, "b.bin": b"\2" * 512})
    with tarfile.open(path) as archive:
        start = archive.getmember("./b.bin").offset
    data = bytearray(path.read_bytes())
    data[start : start + 512] = b"\xaa" * 512
    path.write_bytes(data)
    with pytest.raises(DataError, match="no end mark after 1 files"):
        _ = TarIndex(path).members


def test_compressed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", contents())
    (tmp_path / "z.tar").write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(DataError, match="compressed, or damaged"):
        _ = TarIndex(tmp_path / "z.tar").members


def test_an_archive_that_changes_is_noticed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.bin": b"\1" * 512})
    index = TarIndex(tmp_path / "x.tar")
    assert index.read("a.bin") == b"\1" * 512
    write_tar(tmp_path / "x.tar", {"0.bin": bytes(9), "a.bin": b"\2" * 51_200})
    with pytest.raises(DataError, match="changed since it was indexed"):
        index.read("a.bin")
