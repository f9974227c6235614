"""The demo, in a minute instead of minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonx_eval.errors import UsageError
from reasonx_ft.demo import Size, run_demo

SMALL = Size(photos=8, pairs=12, steps=2, scenes=2, settings=(
    ("data.pairs", 8), ("data.batch_size", 2), ("data.held_out", 0.3), ("objective.rehearsal_scenes", 4),
    ("objective.rehearsal_batch_size", 2), ("watch.check_photos", 2), ("watch.export", "last"), ("machine.threads", 1),
))  # fmt: skip


@pytest.mark.slow
def test_from_photos_without_labels_to_a_comparison(tmp_path: Path) -> None:
    found = run_demo(tmp_path, SMALL)
    card = json.loads((found.model / "reasonx.json").read_text())
    assert (card["base"], card["steps"]) == ("tiny", 2)
    assert card["judge"].startswith("tiny")
    assert "scenes-wild/train (" in " ".join(card["data"])
    refs = {c.joined.protocol.ref for c in found.comparisons}
    assert {f"depth/scenes-{d}@1" for d in ("wild", "synthetic")} <= refs
    for comparison in found.comparisons:
        assert comparison.base.name == "tiny"
        assert [r.name for r in comparison.others] == [card["name"]]
    page = found.page.read_text(encoding="utf-8")
    assert card["name"] in page
    log = (tmp_path / "tuning/log.jsonl").read_bytes()
    again = run_demo(tmp_path, SMALL)
    assert again.model == found.model
    assert (tmp_path / "tuning/log.jsonl").read_bytes() == log, "what is there is not done again"
    with pytest.raises(UsageError, match="a demo of another size or seed"):
        run_demo(tmp_path, SMALL, seed=1)
