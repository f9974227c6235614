from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import NotComparable, UsageError
from reasonx_eval.io.results import load_result
from reasonx_eval.models.embedded.card import WEIGHTS
from reasonx_eval.models.loading.load import load_model

CARD: dict[str, Any] = {
    "schema": 1, "name": "tiny-x", "architecture": "tiny", "path": "tiny.safetensors", "base": "tiny",
    "method": "grpo", "reward": "agreement of albedo with judgements", "rewarded": ["whdr10"],
    "data": ["scenes-wild/train"], "judge": "oracle", "seed": 3, "steps": 20,
}  # fmt: skip


def export(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = {**CARD, **changes}["architecture"]
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"{name}{suffix}", folder)
    (folder / "reasonx.json").write_text(json.dumps({**CARD, **changes}))
    return folder


def test_runs_by_its_path_and_the_result_says_what_it_is(tmp_path: Path) -> None:
    folder = export(tmp_path / "ckpt")
    command = ["run", "--model", str(folder), "--protocol", "albedo/scenes-wild-whdr", "--limit", "2",
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert run_cli(cli, command) == 0
    model = load_result(tmp_path / "out/albedo/scenes-wild-whdr@1/tiny-x").model
    assert (model.name, model.base, model.reward) == ("tiny-x", "tiny", CARD["reward"])
    assert "scenes-wild/train" in model.trained_on
    assert any(t.startswith("scenes-synthetic/train") for t in model.trained_on)
    assert model.options["tuning"]["rewarded"] == ["whdr10"]
    assert model.weights_sha256 is not None
    base = ["run", "--model", "tiny", *command[3:]]
    assert run_cli(cli, base) == 0
    records = [(tmp_path / f"out/albedo/scenes-wild-whdr@1/{n}/records.jsonl").read_bytes() for n in ("tiny-x", "tiny")]
    assert records[0] == records[1], "same weights, other numbers"


def test_flow(tmp_path: Path) -> None:
    model = load_model(str(export(tmp_path, architecture="tiny-flow", path="tiny-flow.safetensors", base="tiny-flow")))
    assert model.info.base == "tiny-flow"
    assert set(model.kinds) == {"depth", "normals", "albedo", "irradiance"}


def test_identity_is_of_all_files(tmp_path: Path) -> None:
    first = load_model(str(export(tmp_path / "a"))).info.weights_sha256
    assert load_model(str(export(tmp_path / "b"))).info.weights_sha256 == first
    assert load_model(str(export(tmp_path / "c", seed=4))).info.weights_sha256 != first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": 1}, "rewards: unknown key"),
        ({"steps": -1}, "steps: "),
        ({"path": "../tiny.safetensors"}, "not a file or folder in the checkpoint"),
        ({"path": "other.safetensors"}, "not a file or folder in the checkpoint"),
        ({"architecture": "pipeline", "path": "."}, "not a file or folder"),
    ],
)
def test_bad_cards_are_one_error(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    export(tmp_path)
    (tmp_path / "reasonx.json").write_text(json.dumps({**CARD, **changes}))
    with pytest.raises(UsageError, match=words):
        load_model(str(tmp_path))


def test_a_newer_card_is_refused(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "reasonx.json").write_text(json.dumps({**CARD, "schema": 2}))
    with pytest.raises(NotComparable, match="newer"):
        load_model(str(tmp_path))


def test_weights_of_the_other_network_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path, architecture="tiny-flow", path="tiny-flow.safetensors")
    (folder / "reasonx.json").write_text(json.dumps({**CARD, "path": "tiny-flow.safetensors"}))
    with pytest.raises(UsageError, match="weights of tiny-flow"):
        _ = load_model(str(folder)).info
