"""Rooms: the window counts nowhere, judgements follow from the albedo, and the real set is what its page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets.rooms import Rooms, write_examples
from reasonx_eval.errors import DataError
from reasonx_eval.io.images import write_png
from reasonx_eval.types import FIRST, SAME, SECOND, DepthTarget, JudgementTarget, MapTarget, NormalTarget
from tests.helpers.shared import SHARED


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    write_examples(tmp_path)
    return Rooms(tmp_path, "test")


def test_the_window_counts_in_no_map(rooms: Rooms, tmp_path: Path) -> None:
    depth = np.full((96, 128), 2500, np.uint16)
    depth[10:20, 30:50] = 0
    write_png(tmp_path / "test/r0000_depth.png", depth)
    sample = rooms.load("r0000")
    for name in ("depth", "normals", "albedo", "irradiance"):
        target = sample.targets[name]
        assert isinstance(target, DepthTarget | NormalTarget | MapTarget)
        assert not target.valid[10:20, 30:50].any()
    judged = sample.targets["judgements"]
    assert isinstance(judged, JudgementTarget)
    x, y = (judged.points[judged.pairs.ravel()] * (128, 96)).T
    assert not ((x > 30) & (x < 50) & (y > 10) & (y < 20)).any()


def test_judgements_follow_from_the_albedo(rooms: Rooms) -> None:
    sample = rooms.load("r0001", ("judgements", "albedo"))
    albedo, judged = sample.targets["albedo"], sample.targets["judgements"]
    assert isinstance(albedo, MapTarget)
    assert isinstance(judged, JudgementTarget)
    assert len(judged.pairs) >= 20
    column, row = (judged.points * (128, 96)).astype(int).T
    lightness = albedo.value.mean(axis=-1)[row, column][judged.pairs]
    ratio = lightness[:, 0] / lightness[:, 1]
    assert (ratio[judged.darker == FIRST] < 1 / 1.2).all()
    assert (ratio[judged.darker == SECOND] > 1.2).all()
    assert (abs(np.log(ratio[judged.darker == SAME])) < np.log(1.05)).all()


def test_judgements_depend_on_the_sample_alone(rooms: Rooms, tmp_path: Path) -> None:
    first = rooms.load("r0001", ("judgements",)).targets["judgements"]
    (tmp_path / "test/r0000_rgb.png").rename(tmp_path / "test/r9999_rgb.png")
    again = Rooms(tmp_path, "test").load("r0001").targets["judgements"]
    assert isinstance(first, JudgementTarget)
    assert isinstance(again, JudgementTarget)
    np.testing.assert_array_equal(first.pairs, again.pairs)
    np.testing.assert_array_equal(first.points, again.points)


def test_a_root_without_the_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder test/.*\n?.*--root FOLDER"):
        Rooms(tmp_path, "test")


@pytest.mark.skipif(not (SHARED / "rooms").is_dir(), reason=f"no real samples at {SHARED}: set REASONX_SHARED")
def test_the_rooms_that_were_rendered() -> None:
    found = {split: Rooms(SHARED / "rooms", split) for split in ("train", "val", "test")}
    assert [len(found[s].ids) for s in ("train", "val", "test")] == [210, 30, 100]
    sample = found["test"].load("r0000")
    depth, light, albedo = (sample.targets[n] for n in ("depth", "irradiance", "albedo"))
    assert isinstance(depth, DepthTarget)
    assert isinstance(light, MapTarget)
    assert isinstance(albedo, MapTarget)
    assert 1 < np.median(depth.depth[depth.valid]) < 6
    # photo = albedo x irradiance (+ gloss), up to exposure, in linear light
    photo = (sample.image.astype(np.float64) / 255) ** 2.2
    model = albedo.value.astype(np.float64) * light.value
    inside = albedo.valid & (photo.max(axis=-1) < 0.9)
    assert np.corrcoef(photo[inside].ravel(), model[inside].ravel())[0, 1] > 0.9
