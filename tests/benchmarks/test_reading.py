"""The forms that reading, whole evaluations and rendering are timed against give what the package gives. No timing."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import bench_endtoend, bench_files, bench_scenes, bench_tar, files
from reasonx_eval.datasets.formats.tarindex import TarIndex
from reasonx_eval.datasets.nyuv2 import NYUv2


def test_a_serial_script_gives_the_metrics_of_a_run(tmp_path: Path) -> None:
    ids = files.nyu_folder(tmp_path, 3)
    work = bench_endtoend.Work(NYUv2(tmp_path, "test"), ids, "depth/nyuv2-metric", tmp_path / "run",
                               bench_endtoend.read_nyu)  # fmt: skip
    bench_endtoend.assert_forms_agree(work)
    bench_endtoend.decoded(work)
    bench_endtoend.needed(work)


@pytest.mark.parametrize("domain", ["synthetic", "wild"])
def test_the_least_arithmetic_of_rays_finds_the_boxes_that_a_picture_shows(domain: str) -> None:
    every = bench_scenes.worlds(domain, (24, 32), 3)
    bench_scenes.assert_tests_are_right(every)


def test_tar_members_three_ways(tmp_path: Path) -> None:
    names = files.small_members_tar(tmp_path / "x.tar", 65)
    index = TarIndex(tmp_path / "x.tar")
    found = bench_tar.with_index(index, names)
    assert len(set(found)) == 65
    with tarfile.open(tmp_path / "x.tar") as opened:
        assert bench_tar.with_tarfile(opened, names) == found
    handle = os.open(tmp_path / "x.tar", os.O_RDONLY)
    assert bench_tar.bare(handle, [index.members[name] for name in names]) == found
    os.close(handle)


def test_a_png_stream_is_the_filtered_pixels() -> None:
    """What the bound of PNG decoding inflates is the picture, with one filter byte a row."""
    raw = bench_files.encoded("PNG")
    assert len(zlib.decompress(bench_files._deflated(raw))) == 480 * (640 * 3 + 1)
    assert np.array_equal(bench_files.with_pillow(raw), bench_files.photo(480, 640))
