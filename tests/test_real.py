"""Real networks on real photos: their known accuracy, and the README's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from .readme_table import README
from .real_pairs import SHARED, build, evaluate, table

pytestmark = pytest.mark.skipif(
    not (SHARED / "nyuv2" / "pairs").is_dir(), reason=f"no real samples at {SHARED}: set REASONX_SHARED"
)


def test_two_real_networks_on_seven_real_pairs(tmp_path: Path) -> None:
    metric, relative = evaluate(build(tmp_path / "pairs"), tmp_path)
    assert metric.n_scored == relative.n_scored == 7
    # published accuracy on these frames: .09-.17 in metres with no alignment; about .14 fitted in disparity
    assert metric.aggregate["abs_rel"].value == pytest.approx(0.11, abs=0.02)
    assert relative.aggregate["abs_rel"].value == pytest.approx(0.14, abs=0.02)
    assert "|acc:depth_metric|align:none|" in metric.signature
    assert "|acc:disparity_affine|align:affine.disparity|" in relative.signature
    assert table([metric, relative]) in README.read_text(encoding="utf-8"), "run: python -m tests.real_pairs OUT"
