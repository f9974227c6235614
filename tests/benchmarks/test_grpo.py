"""The plain loop that steps of tuning are timed beside earns the same rewards and has the same gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.bench_grpo import check
from benchmarks.speed.grpo_loop import Found, gradient, loop_over_chains, loop_over_photos
from benchmarks.speed.tuning_data import Tuning, tuning


def test_maps(tmp_path: Path) -> None:
    with tuning(tmp_path, "tiny", images=1, group=3, pairs=10) as found:
        check(found, loop_over_photos)


def test_chains(tmp_path: Path) -> None:
    with tuning(tmp_path, "tiny-flow", images=1, group=3, pairs=60, modalities=("depth", "albedo")) as found:
        check(found, loop_over_chains)


def test_another_gradient_is_found_out(tmp_path: Path) -> None:
    def longer(of: Tuning) -> Found:
        found = loop_over_photos(of)
        return Found(found.rewards, [1.01 * g for g in found.gradient])

    with tuning(tmp_path, "tiny", images=1, group=3, pairs=10) as found:
        with pytest.raises(AssertionError):
            check(found, longer)
        assert any(g.any() for g in gradient(found.state.policy.network))
