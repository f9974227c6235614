"""LoRA fine-tuning on a tiny random model: it learns, only the adapter changes, it goes on, the judge reads it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.registry import load_dataset
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.cli.main import cli
from reasonx_ft.judges.mllm_files import find_model, load_model, load_processor
from reasonx_ft.judges.training.data import read_data, write_data
from reasonx_ft.judges.training.lora import (
    Conversations,
    LoraConfig,
    answer_loss,
    rate,
    read_lora_config,
    steps_of,
    train_lora,
)
from tests.reasonx_ft.judges.tiny_vlm import save_vlm

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_vlm(tmp_path_factory.mktemp("vlm"), "internvl")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pairs")
    scenes = Recent(load_dataset("scenes-broad", split="val"), ("depth", "albedo"))
    write_data(scenes, out, read_questions(), modalities=("depth", "albedo"), pairs=3, selection=Selection(limit=1))
    return out


def config(base: Path, **changes: object) -> LoraConfig:
    return LoraConfig.model_validate({"base": str(base), "batch": 2, "steps": 3, "rank": 4, "tiles": 1,
                                      "device": "cpu", **changes})  # fmt: skip


def test_the_preset_is_the_published_one():
    preset = LoraConfig(base="x")
    assert (preset.rank, preset.learning_rate, preset.epochs, preset.batch, preset.tiles) == (16, 4e-5, 1, 16, 6)
    assert steps_of(preset, 1600) == 100
    assert steps_of(preset, 1601) == 101
    rates = [rate(preset, s, 100) for s in range(100)]
    assert max(rates) <= 4e-5
    assert rates[0] < rates[3] > rates[50] > rates[99]
    assert rates[50] == pytest.approx(2e-5, rel=0.05)


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl", "smolvlm", "llava"])
def test_the_loss_is_of_the_answers_tokens_alone(tmp_path: Path, data: Path, family: str):
    folder = save_vlm(tmp_path, family)
    runtime = Runtime("cpu", "float32", 1)
    checkpoint = find_model(str(folder))
    processor = load_processor(checkpoint, runtime)
    _, rows = read_data(data)
    inputs, before = Conversations(processor, data, rows, where=family).inputs(0)
    ids = inputs["input_ids"][0]
    said = processor.tokenizer.decode(ids[before:])
    assert said.startswith(rows[0]["conversations"][1]["value"])
    assert rows[0]["conversations"][1]["value"] not in processor.tokenizer.decode(ids[:before])
    assert "pixel_values" in inputs
    network = load_model(checkpoint, None, runtime)
    with torch.inference_mode():
        logits = torch.log_softmax(network(**inputs).logits[0].double(), dim=-1)
        by_hand = -sum(logits[k - 1, ids[k]] for k in range(before, len(ids))) / (len(ids) - before)
        assert float(answer_loss(network, inputs, before)) == pytest.approx(float(by_hand), rel=1e-5)


def test_an_adapter_learns_and_the_base_stays(base: Path, data: Path, tmp_path: Path):
    before = {p.name: sha256_file(p) for p in base.iterdir()}
    card = train_lora(config(base, steps=25, batch=3, learning_rate=2e-2, dropout=0.0), data, tmp_path / "a")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.6 * losses[0]
    assert card.final_loss == pytest.approx(losses[-1])
    assert {p.name: sha256_file(p) for p in base.iterdir()} == before
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "judge.json", "log.jsonl"
    }  # fmt: skip
    with pytest.raises(UsageError, match="there already"):
        train_lora(config(base), data, tmp_path / "a")
    # the judge reads it
    assert run_cli(cli, ["judge-eval", "--judge", f"mllm:{base}", "-O", f"adapter={tmp_path / 'a'}", "--dataset",
                         "scenes-broad", "--limit", "1", "--modalities", "depth", "--orders", "red-first", "-q",
                         "--device", "cpu", "--out", str(tmp_path / "out")]) == 0  # fmt: skip


def test_an_interrupt_changes_nothing(base: Path, data: Path, tmp_path: Path):
    train_lora(config(base), data, tmp_path / "a")

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_lora(config(base), data, tmp_path / "b", progress=stop)
    with pytest.raises(UsageError, match=r"seed 0 \(now 1\)"):
        train_lora(config(base, seed=1), data, tmp_path / "b")
    train_lora(config(base), data, tmp_path / "b")
    name = "adapter_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "b" / "checkpoint.pt").exists()


def test_the_command(base: Path, data: Path, tmp_path: Path, capsys):
    line = ["judge-train", "--judge", f"mllm:{base}", "--data", str(data), "--steps", "1", "--device", "cpu", "-q"]
    assert run_cli(cli, [*line, "--out", str(tmp_path / "a"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["training"]["rank"] == 16
    assert card["steps"] == 1
    assert card["data"]["dataset"]["name"] == "scenes-broad"
    file = tmp_path / "c.toml"
    file.write_text("rnak = 3\n")
    assert run_cli(cli, [*line, "--out", str(tmp_path / "b"), "--config", str(file)]) == 2
    assert "did you mean 'rank'" in capsys.readouterr().err
    assert run_cli(cli, [*line[:3], "--data", str(tmp_path), "--out", str(tmp_path / "b"), "-q"]) == 2


def test_rows_without_an_answer_are_named(base: Path, data: Path):
    processor = load_processor(find_model(str(base)), Runtime("cpu", "float32", 1))
    with pytest.raises(DataError, match="row 1"):
        Conversations(processor, data, [{"image": "x"}], where="x").inputs(0)


def test_the_file_of_a_configuration(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text("rank = 8\n")
    assert read_lora_config(file, {"base": "x", "seed": None}).rank == 8
    file.write_text("rank = 0\n")
    with pytest.raises(UsageError, match="rank"):
        read_lora_config(file, {"base": "x"})
