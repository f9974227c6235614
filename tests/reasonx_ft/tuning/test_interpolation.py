"""Weights between the base's and the tuned ones are what is checked and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import PartialRun
from reasonx_ft.cli.main import cli
from reasonx_ft.training.files import load_state
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.train import tune
from reasonx_ft.tuning.weights import Average, between
from tests.reasonx_ft.tuning.tune_data import short, small_policy, sources

pytestmark = pytest.mark.usefixtures("small_networks")


def test_hand_worked_way() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    average = Average(network, 0.0, 0.25)
    nn.init.constant_(network.weight, 10.0)
    average.update()
    with average.applied():
        assert network.weight.item() == 4.0
    assert network.weight.item() == 10.0


def test_with_an_average_it_is_the_way_to_the_average() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = Average(network, 0.9, 0.5)
    nn.init.constant_(network.weight, 1.0)
    average.update()  # the first decay is 1 / 10
    with average.applied():
        assert network.weight.item() == pytest.approx(0.45)


def test_a_low_rank_update_is_shortened_as_a_whole() -> None:
    base = {"lora_A.w": torch.ones(2, 3), "lora_B.w": torch.zeros(4, 2)}
    tuned = {"lora_A.w": torch.randn(2, 3), "lora_B.w": torch.randn(4, 2)}
    found = between(base, tuned, 0.3)
    torch.testing.assert_close(found["lora_B.w"] @ found["lora_A.w"], 0.3 * tuned["lora_B.w"] @ tuned["lora_A.w"])


@pytest.fixture(scope="module")
def halfway(small_networks: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("halfway")
    tune(sources(store), short(optimiser__interpolate=0.5, watch__export="best", watch__check_every=4), out)
    return out


def test_the_exported_weights_lie_on_the_way(halfway: Path, store: Path, tmp_path: Path) -> None:
    base = small_policy("tiny").network.state_dict()
    tuned = load_state(checkpoint.path_of(halfway, 4))["weights"]
    for weights in ("last", "4"):
        out = tmp_path / weights
        assert run_cli(cli, ["export", str(halfway), "--weights", weights, "--out", str(out)]) == 0
        for name, value in load_file(out / "tiny.safetensors").items():
            assert torch.equal(value, (base[name] + 0.5 * (tuned[name] - base[name])).half()), name
    # training itself does not see it
    whole = tmp_path / "whole"
    tune(sources(store), short(), whole)
    assert all(torch.equal(v, tuned[k]) for k, v in load_state(checkpoint.path_of(whole, 4))["weights"].items())


def test_another_share_of_the_best_weights(halfway: Path, tmp_path: Path) -> None:
    state = load_state(halfway / "checkpoints/best.pt")
    base = small_policy("tiny").network.state_dict()
    for share in ("0.25", "1"):
        out = tmp_path / share
        assert run_cli(cli, ["export", str(halfway), "--interpolate", share, "--out", str(out)]) == 0
        for name, value in load_file(out / "tiny.safetensors").items():
            expected = base[name] + float(share) / 0.5 * (state["weights"][name] - base[name])
            torch.testing.assert_close(value.float(), expected, rtol=2e-3, atol=1e-4)
        # a check of other weights is none of these
        assert json.loads((out / "reasonx.json").read_text())["metrics"] == {}
    assert run_cli(cli, ["export", str(halfway), "--interpolate", "0", "--out", str(tmp_path / "none")]) == 2


def test_going_on_from_a_checkpoint_ends_in_the_same_weights(store: Path, tmp_path: Path) -> None:
    config = short(optimiser__interpolate=0.5, optimiser__ema=0.5)
    tune(sources(store), config, tmp_path / "whole")
    with pytest.raises(PartialRun):
        tune(sources(store), config, tmp_path / "parts", stop_after=2)
    tune(sources(store), config, tmp_path / "parts")
    a, b = ((tmp_path / p / "model/tiny.safetensors").read_bytes() for p in ("whole", "parts"))
    assert a == b
