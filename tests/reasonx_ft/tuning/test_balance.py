"""Terms that drown each other and a clip that always bites are said, once, and measured as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasonx_ft.tuning.monitor import Balance
from reasonx_ft.tuning.state import prepare
from reasonx_ft.tuning.train import Run, tune
from tests.reasonx_ft.tuning.tune_data import lines, short, sources

pytestmark = pytest.mark.usefixtures("small_networks")


def looks(norms: dict[str, float], steps: int = 5, grad_norm: float = 0.5, clip: float = 1.0) -> list[str]:
    balance = Balance()
    return [w for _ in range(steps) for w in balance.look({"grad_norm": grad_norm, "gradients": norms}, clip)]


def test_a_term_that_is_ten_times_another_is_said_once() -> None:
    [said] = looks({"policy": 0.05, "rehearsal": 0.6})
    assert said == ("the gradient of objective.rehearsal is 12 times that of objective.grpo, which has no say then: "
                    "choose other weights")  # fmt: skip
    assert looks({"policy": 0.05, "rehearsal": 0.45}) == []
    assert len(looks({"policy": 0.6, "rehearsal": 0.05})) == 1
    assert looks({"policy": 0.05, "rehearsal": 0.6}, steps=2) == [], "two measurements are too few"


def test_a_restraint_that_is_small_says_nothing_and_one_that_is_large_does() -> None:
    assert looks({"policy": 0.5, "kl": 0.0, "distance": 1e-9}) == []
    assert len(looks({"policy": 0.5, "kl": 6.0})) == 1


def test_a_clip_that_bites_nearly_always_is_said() -> None:
    [said] = looks({}, steps=30, grad_norm=2.0)
    assert "optimiser.max_grad_norm 1 shortens the gradient in 100% of the steps" in said
    assert looks({}, steps=19, grad_norm=2.0) == [], "a few steps say nothing"
    balance = Balance()
    found = [balance.look({"grad_norm": 2.0 if k % 4 else 0.5}, 1.0) for k in range(60)]
    assert not any(found), "three of four"


def test_the_gradients_of_terms_are_logged_and_add_up_to_the_step(store: Path, tmp_path: Path) -> None:
    """Measured beside the way back, of which nothing changes; the terms' gradients sum to the one that is taken."""
    terms: dict[str, Any] = {"objective.ranking": 0.5, "objective.distance": 0.2, "objective.kl": 0.0}
    for every, out in ((1, tmp_path / "measured"), (0, tmp_path / "not")):
        tune(sources(store), short(**terms, watch__gradients_every=every), out)
    first, second = ((tmp_path / n / "model/tiny.safetensors").read_bytes() for n in ("measured", "not"))
    assert first == second
    measured = [line for line in lines(tmp_path / "measured") if "loss" in line]
    assert all(set(line["gradients"]) == {"policy", "ranking", "distance"} for line in measured)
    assert not any("gradients" in line for line in lines(tmp_path / "not"))

    state = prepare(sources(store), short(objective__grpo=0, objective__ranking=1, objective__kl=0))
    run = Run(state, tmp_path / "one", state.facts(None))
    line = run.step(0)
    state.close()
    assert line["gradients"]["ranking"] == pytest.approx(line["grad_norm"], rel=1e-5), "a single term is all of it"


def test_warnings_reach_the_result(store: Path, tmp_path: Path) -> None:
    config = short(objective__ranking=1e-6, objective__kl=0.0, watch__gradients_every=1)
    result = tune(sources(store), config, tmp_path)
    [said] = result.warnings
    assert "objective.grpo is" in said
    assert "times that of objective.ranking" in said
    assert any(line.get("warning") == said for line in lines(tmp_path))
