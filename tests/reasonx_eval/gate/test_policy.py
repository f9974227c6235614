"""A policy's mistakes are told apart: keys, protocols, metrics, rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.gate.policy import Rule, load_policy
from reasonx_eval.protocols.protocol import all_protocols

GOOD = 'schema = 1\n[protocol."depth/nyuv2@1"]\nabs_rel = { margin = 0.002 }\n'
REPO = Path(__file__).parents[3]


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, GOOD))
    rules = policy.rules(all_protocols()["depth/nyuv2@1"])
    assert rules == {"abs_rel": Rule(margin=0.002)}
    assert rules["abs_rel"].allowed(0.05) == 0.002
    assert policy.confidence == 0.95
    assert policy.rules(all_protocols()["depth/scenes-wild@1"]) == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("abs_rel", "absrel", "unknown metric 'absrel'; did you mean 'abs_rel'"),
        ("abs_rel", "mean_deg", "unknown metric 'mean_deg'"),
        ("depth/nyuv2@1", "depth/nyuv2", "unknown protocol 'depth/nyuv2'; did you mean 'depth/nyuv2@1'"),
        ("margin = 0.002", "margni = 0.002", "margni"),
        ("margin = 0.002", "", "give one of"),
        ("margin = 0.002", "margin = 0.1, relative = 0.1", "give one of"),
        ("margin = 0.002", "margin = 0.1, tolerance = 0.1", "tolerance goes with exact"),
        ("margin = 0.002", "margin = -0.1", "greater than or equal to 0"),
        ("margin = 0.002", "margin = nan", "greater than or equal to 0|finite"),
        ("margin = 0.002", "margin = inf", "finite"),
        ("schema = 1", "schema = 2", "schema"),
        ("schema = 1", "schema = 1\nconfidence = 95", "confidence"),
        ("schema = 1", "schema = ", "not valid TOML"),
        (GOOD, "schema = 1", "protocol"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load_policy(write(tmp_path, GOOD.replace(old, new)))
    assert caught.value.exit_code == 2


def test_no_policy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such policy"):
        load_policy(tmp_path / "policy.toml")


def test_protocols_of_the_runs_are_known(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("depth/nyuv2@1", "depth/mine@3"))
    with pytest.raises(UsageError, match="depth/mine@3"):
        load_policy(path)
    assert "depth/mine@3" in load_policy(path, also=["depth/mine@3"]).protocol


def test_the_projects_own_policy_is_valid() -> None:
    assert load_policy(REPO / "leaderboards" / "policy.toml").protocol
