"""Members of a tar in random order: by offset, by name through tarfile."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.speed.conftest import Measure
from benchmarks.speed.files import small_members_tar
from reasonx_eval.datasets.formats.tarindex import TarIndex
from reasonx_eval.io import seeding

GROUP = "tar of 3,000 members: 500 of them by name"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str]]:
    """The archive and the names in the order they are asked for."""
    path = tmp_path_factory.mktemp("tar") / "members.tar"
    names = small_members_tar(path, 3000)
    return path, [names[k] for k in seeding.rng(0, "order").integers(0, len(names), 500)]


def with_index(index: TarIndex, names: Sequence[str]) -> list[bytes]:
    return [index.read(name) for name in names]


def with_tarfile(opened: tarfile.TarFile, names: Sequence[str]) -> list[bytes]:
    found = (opened.extractfile(opened.getmember(name)) for name in names)
    return [member.read() for member in found if member is not None]


def bare(handle: int, places: Sequence[tuple[int, int]]) -> list[bytes]:
    return [os.pread(handle, size, start) for start, size in places]


@pytest.mark.benchmark(group=GROUP)
def test_members_ours(measure: Measure, archive: tuple[Path, Sequence[str]]) -> None:
    path, names = archive
    index = TarIndex(path)
    with tarfile.open(path) as opened:
        assert with_index(index, names) == with_tarfile(opened, names)
    measure("ours", lambda: with_index(index, names), form="index of headers, reads by offset", memory="none")


@pytest.mark.benchmark(group=GROUP)
def test_members_peer(measure: Measure, archive: tuple[Path, Sequence[str]]) -> None:
    path, names = archive
    with tarfile.open(path) as opened:
        measure("peer", lambda: with_tarfile(opened, names), form="tarfile by name, opened once", memory="none")


@pytest.mark.benchmark(group=GROUP)
def test_members_bound(measure: Measure, archive: tuple[Path, Sequence[str]]) -> None:
    path, names = archive
    members = TarIndex(path).members
    places = [members[name] for name in names]
    handle = os.open(path, os.O_RDONLY)
    try:
        measure("bound", lambda: bare(handle, places), form="pread at known offsets", memory="none")
    finally:
        os.close(handle)
