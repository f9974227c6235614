"""The trainer on a diffusion pipeline: tuned, resumed, exported, and run by the evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.errors import PartialRun
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.types import Sample
from reasonx_ft.policies.load import make_policy
from reasonx_ft.tuning.train import tune
from tests.reasonx_eval.models import tiny_marigold
from tests.reasonx_ft.tuning.tune_data import oracle_store, pipeline_settings, sources


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle_store(tmp_path_factory.mktemp("store"), pairs=12, limit=8)


@pytest.fixture(scope="module")
def lighting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_marigold.intrinsics(tmp_path_factory.mktemp("base") / "lighting")


@pytest.mark.slow
@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
def test_a_pipeline_is_tuned_resumed_exported_and_run(
    lighting: Path, store: Path, tmp_path: Path, lora: int | None
) -> None:
    changes = {"policy__lora": lora} if lora else {}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    tune(sources(store, str(lighting)), pipeline_settings(**changes), whole)
    with pytest.raises(PartialRun):
        tune(sources(store, str(lighting)), pipeline_settings(**changes), halves, stop_after=2)
    tune(sources(store, str(lighting)), pipeline_settings(**changes), halves)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "ratio" in line]
    assert len(steps) == 4
    for line in steps:
        assert set(line["ratio"]) == {"albedo", "irradiance"}
        for modality in line["ratio"].values():
            assert all(r["min"] == r["max"] == 1.0 for r in modality.values()), "oracle 11, through the trainer"

    card = next(whole.rglob("reasonx.json"))
    folder = card.parent
    timestep = json.loads(card.read_text())
    assert timestep["architecture"] == "pipeline"
    again = next(halves.rglob("reasonx.json")).parent
    for path in sorted(p for p in folder.rglob("*.safetensors")):
        assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes(), "oracle 34"

    photo = (np.random.default_rng(0).random((24, 32, 3)) * 255).astype(np.uint8)
    found = {}
    for name, source in (("base", lighting), ("tuned", folder)):
        model = load_model(str(source), device="cpu")
        found[name] = model.predict([Sample("a", photo)], "albedo_linear", 0)[0].value
        model.close()
    assert found["base"].shape == found["tuned"].shape == (24, 32, 3)
    assert not np.array_equal(found["base"], found["tuned"])
    assert make_policy(folder, device="cpu", steps=3).modalities == ("albedo", "irradiance")


@pytest.mark.slow
def test_a_pipeline_that_explores_in_its_output(lighting: Path, store: Path, tmp_path: Path) -> None:
    """One pass of the network and of the decoder serves all samples; the ratio is 1, and what is exported runs."""
    config = pipeline_settings(policy__explore="output", objective__credit="pairs", objective__scale_rewards="none",
                               objective__distance=0.5, objective__num_generations=16, policy__lora=2,
                               machine__microbatch=None, watch__gradients_every=2)  # fmt: skip
    result = tune(sources(store, str(lighting)), config, tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if "ratio" in line]
    for line in steps:
        assert all(r["min"] == r["max"] == 1.0 for m in line["ratio"].values() for r in m.values())
        assert set(line["loss"]) == {"policy", "kl", "distance"}
        assert set(line["sample_std"]) == {"albedo", "irradiance"}
    assert set(steps[0]["gradients"]) == {"policy", "kl", "distance"}
    model = load_model(str(result.folder), device="cpu")
    photo = (np.random.default_rng(0).random((24, 32, 3)) * 255).astype(np.uint8)
    assert np.isfinite(model.predict([Sample("a", photo)], "albedo_linear", 0)[0].value).all()
    model.close()
