"""NYUv2's labelled .mat, photos with their depth, in the layouts that HDF5 files of its kind have."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from benchmarks.speed.conftest import Measure, Role
from benchmarks.speed.files import nyu_mat
from reasonx_eval.datasets.formats.nyuv2_layouts import MatLayout

GROUP = "NYUv2 .mat, 8 images with their depth, {}"
LAYOUTS: dict[str, tuple[int, int, int] | None] = {
    "a chunk an image": (1, 1, 1), "chunks across 8 images": (8, 4, 4), "contiguous": None,
}  # fmt: skip
#: images that are stored, read in order and again from the first; those of one call lie in chunks of their own
STORED = 48
CALL = 8
WHOSE = ("ours", "theirs")
COPIED = "h5py's own read, and a copy in order"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(Layout, ours or theirs) -> file. HDF5 opens a file once a process: the first to come sets its cache."""
    folder = tmp_path_factory.mktemp("nyu")
    paths = {(name, whose): folder / f"{k}_{whose}.mat" for k, name in enumerate(LAYOUTS) for whose in WHOSE}
    for (name, _), path in paths.items():
        nyu_mat(path, STORED, LAYOUTS[name])
    return paths


def ours(path: Path) -> Callable[[], Any]:
    mat = MatLayout(path, "raw")
    numbers = itertools.cycle(range(1, STORED + 1))

    def read() -> Any:
        return [(mat.photo(n), mat.depth(n)) for n in itertools.islice(numbers, CALL)]

    return read


def by_h5py(path: Path, *, turned: bool) -> Callable[[], Any]:
    """Rows as h5py gives them (axes as MATLAB stores them), or turned to [H, W, 3] and [H, W]."""
    file = h5py.File(path)
    images, depths = file["images"], file["rawDepths"]
    rows = itertools.cycle(range(STORED))

    def read() -> Any:
        found = [(images[row], depths[row]) for row in itertools.islice(rows, CALL)]
        if turned:
            return [(np.ascontiguousarray(p.transpose(2, 1, 0)), np.ascontiguousarray(d.T)) for p, d in found]
        return found

    return read


def copied(path: Path) -> Callable[[], Any]:
    """A second pass over the rows, in order: the least that turning costs after a read, which leaves axes as stored."""
    read = by_h5py(path, turned=False)
    return lambda: [(p.copy(), d.copy()) for p, d in read()]


def _cases() -> list[Any]:
    forms = [("ours", "h5py slices, a cache of chunks, transposed"), ("peer", "h5py, turned by numpy"),
             ("bound", "h5py's own read"), ("bound", COPIED)]  # fmt: skip
    return [
        pytest.param(role, form, layout, marks=pytest.mark.benchmark(group=GROUP.format(layout)))
        for layout in LAYOUTS for role, form in forms
    ]  # fmt: skip


@pytest.mark.parametrize(("role", "form", "layout"), _cases())
def test_images(measure: Measure, files: dict[tuple[str, str], Path], role: Role, form: str, layout: str) -> None:
    path = files[layout, "theirs"]
    if role == "peer":
        measure(role, by_h5py(path, turned=True), form=form)
    elif form == COPIED:
        measure(role, copied(path), form=form)
    elif role == "bound":
        measure(role, by_h5py(path, turned=False), form=form)
    else:
        read, bare = ours(files[layout, "ours"]), by_h5py(path, turned=False)
        for found, expected in zip(read(), by_h5py(path, turned=True)(), strict=True):
            assert np.array_equal(found[0], expected[0])
            assert np.array_equal(found[1], expected[1])
        measure(role, read, form=form, against=bare, against_form="h5py's own read")
