"""What a tuning step costs as a function of photos, samples a photo, and pairs a photo."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.conftest import Measure
from benchmarks.speed.tuning_data import tuning

_ROUNDS = 3


@pytest.mark.benchmark(group="GRPO step of tiny-flow over photos")
@pytest.mark.parametrize("images", [1, 2, 4])
def test_photos(measure: Measure, tmp_path: Path, images: int) -> None:
    with tuning(tmp_path, "tiny-flow", images=images, group=4, modalities=("depth",)) as found:
        measure("ours", found.step, form="4 samples of each photo, 40 pairs", size=images, unit="photos",
                memory="resident", rounds=_ROUNDS)  # fmt: skip


@pytest.mark.benchmark(group="GRPO step of tiny-flow over samples of a photo")
@pytest.mark.parametrize("group", [4, 8, 16])
def test_samples(measure: Measure, tmp_path: Path, group: int) -> None:
    with tuning(tmp_path, "tiny-flow", images=1, group=group, modalities=("depth",)) as found:
        measure("ours", found.step, form="1 photo, 40 pairs", size=group, unit="samples", memory="resident",
                rounds=_ROUNDS)  # fmt: skip


@pytest.mark.benchmark(group="GRPO step of tiny over pairs of a photo")
@pytest.mark.parametrize("pairs", [100, 400, 1600])
def test_pairs(measure: Measure, tmp_path: Path, pairs: int) -> None:
    with tuning(tmp_path, "tiny", images=2, group=8, pairs=pairs) as found:
        measure("ours", found.step, form="2 photos, 8 samples of each", size=pairs, unit="pairs", memory="resident",
                rounds=_ROUNDS)  # fmt: skip


@pytest.mark.benchmark(group="GRPO step of tiny over photos")
@pytest.mark.parametrize("images", [2, 4, 8])
def test_photos_at_once(measure: Measure, tmp_path: Path, images: int) -> None:
    with tuning(tmp_path, "tiny", images=images, group=8) as found:
        measure("ours", found.step, form="8 samples of each photo, 40 pairs", size=images, unit="photos",
                memory="resident", rounds=_ROUNDS)  # fmt: skip
