"""This repository's own leaderboard: what is committed is what its reviewed results give."""

from __future__ import annotations

from pathlib import Path

from reasonx_eval.leaderboard.generate import check, generate

LEADERBOARDS = Path(__file__).parents[3] / "leaderboards"


def test_the_committed_page_is_fresh_and_nothing_in_it_names_a_machine() -> None:
    made = generate(LEADERBOARDS / "results", LEADERBOARDS)
    check(made)
    assert made.board.models > 5
    for path in LEADERBOARDS.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text, path
        assert "/tmp/" not in text, path
