"""Pipelines through the real command: folders, the local hub cache, batches, shards, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from reasonx_eval.cli.main import cli, run_cli
from tests.reasonx_eval.models import tiny_marigold as tiny

SCENES = ["--dataset", "scenes-synthetic", "--device", "cpu", "-O", "steps=1", "-q"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lighting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.intrinsics(tmp_path_factory.mktemp("cli") / "lighting")


def run(model: Any, out: Path, *more: str) -> int:
    return run_cli(cli, ["run", "--model", str(model), *SCENES, "--out", str(out), *more])


def test_a_folder_gives_all_its_maps(lighting: Path, tmp_path: Path) -> None:
    assert run(lighting, tmp_path, "--limit", "2") == 0
    for task, kind in {"albedo": "albedo_linear", "irradiance": "irradiance"}.items():
        result = json.loads((tmp_path / task / "scenes-synthetic@1" / "lighting" / "result.json").read_text())
        assert (result["model"]["kind"], result["model"]["source"]) == (kind, str(lighting))
        assert result["model"]["options"]["steps"] == 1
        assert result["n_scored"] == 2
    assert not (tmp_path / "depth").exists()


def records(folder: Path) -> list[str]:
    return (folder / "records.jsonl").read_text().splitlines()


def test_batches_and_shards_give_the_same_records(lighting: Path, tmp_path: Path) -> None:
    task = ["--task", "irradiance", "--limit", "4"]
    assert run(lighting, tmp_path / "one", *task) == 0
    assert run(lighting, tmp_path / "four", *task, "--batch-size", "4") == 0
    assert run(lighting, tmp_path / "shards", *task, "--shard", "1/2") == 0
    assert run(lighting, tmp_path / "shards", *task, "--shard", "2/2") == 0
    place = Path("irradiance/scenes-synthetic@1")
    one = records(tmp_path / "one" / place / "lighting")
    assert len(one) == 4
    assert records(tmp_path / "four" / place / "lighting") == one
    shards = [records(tmp_path / "shards" / place / f"lighting.shard-{i}-of-2") for i in (1, 2)]
    assert shards == [one[0::2], one[1::2]]


def test_by_name_from_the_local_cache(
    lighting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny.in_cache(tmp_path / "hub", "prs-eth/marigold-iid-lighting-v1-1", lighting)
    for name in ("marigold", "marigold-iid-lighting-v1-1"):
        assert run(name, tmp_path / "out", "--limit", "1", "--task", "albedo") == 0
        path = tmp_path / "out" / "albedo" / "scenes-synthetic@1" / name / "result.json"
        model = json.loads(path.read_text())["model"]
        assert (model["source"], model["licence"]) == ("prs-eth/marigold-iid-lighting-v1-1", "OpenRAIL++-M")
        assert model["trained_on"] == ["hypersim"]
    capsys.readouterr()
    assert run("marigold", tmp_path / "out", "--limit", "1", "--task", "depth") == 2
    assert "error: prs-eth/marigold-depth-v1-1: not in the local cache" in capsys.readouterr().err


def test_refusals_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.depth(tmp_path / "depth")
    capsys.readouterr()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_text("no weights")
    assert run(folder, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "diffusion_pytorch_model.safetensors: not a safetensors file" in err
    assert "Traceback" not in err
    tiny.edit_index(folder, _class_name="FluxPipeline")
    assert run(folder, tmp_path / "out") == 2
    assert "names FluxPipeline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
