"""Training of a head on a frozen backbone: cached tokens are the backbone's own, the backbone stays, losses fall."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.cli.main import run_cli
from reasonx_eval.models.embedded.card import read_card
from reasonx_eval.models.embedded.dino import Dino, load_backbone
from reasonx_eval.models.loading.runtime import to_tensor
from reasonx_eval.registry import load_dataset
from reasonx_ft.cli.main import cli
from reasonx_ft.pretraining.tokens import tokens_of
from tests.reasonx_eval.models.test_dino import save_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone"))


def test_cached_tokens_are_what_the_backbone_gives_at_its_own_size(backbone: Path) -> None:
    network, dataset = load_backbone(str(backbone)), load_dataset("scenes-synthetic", split="train")
    ids = list(dataset.ids)[:9]
    found = tokens_of(dataset, ids, network, 16, lambda _done, _total: None)
    large = load_dataset("scenes-synthetic", split="train", options={"size": "168x224"})
    alone = network(to_tensor(large.load(ids[8]).image, torch.device("cpu"))[None])[0]
    assert found.shape == (9, 3, 1 + 12 * 16, network.channels)
    np.testing.assert_allclose(found[8], alone.numpy(), rtol=2e-3, atol=2e-3)


def test_the_command_trains_a_head_that_runs(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("test_scenes = 1\ncheck_every = 0\nthreads = 1\nwarmup = 1\n")
    line = ["pretrain", "--model", "dino-small", "--backbone", str(backbone), "--out", str(tmp_path / "out"), "--json",
            "--steps", "40", "--images", "2", "--scenes", "4", "--workers", "1", "--config", str(config), "-q"]
    assert run_cli(cli, line) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["base"] == str(backbone)
    assert len(card["scores"]) == 10
    logged = [json.loads(text) for text in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    for name in ("depth", "normals", "albedo", "irradiance"):
        assert logged[-1][name] < logged[0][name]
    weights = tmp_path / "out/dino-small.safetensors"
    assert read_card(weights).model == "dino-small"
    sample = load_dataset("scenes-wild").load("wild/test/00000")
    [prediction] = Dino(weights=weights).predict([sample], "normal", 0)
    assert np.isfinite(prediction.value).all()
    assert run_cli(cli, line) == 2  # finished weights are there


def test_a_backbone_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none")
    assert run_cli(cli, ["pretrain", "--model", "dino-small", "--backbone", missing, "--out", str(tmp_path / "o")]) == 2
    assert "none" in capsys.readouterr().err
