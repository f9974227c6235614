"""Costs of a step at full size: what is counted, what is measured, what the plan says of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from benchmarks.full_size import full_size
from benchmarks.full_size import plan as full_size_plan
from benchmarks.full_size.__main__ import command as cli
from benchmarks.full_size.full_size import NETWORK, SHAPES, Measured, Phase, Setting, Stopwatch, build_policy, measure
from benchmarks.full_size.plan import Operations, count, hours, plan, work
from reasonx_eval.errors import UsageError

SMALL = Setting(size="small", group=2, pairs=5, steps=3, lora=2, pixels=32, device="cpu", dtype="float32")
EACH = Operations(unet=2.0, encode=3.0, decode=5.0, parameters=10**9)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(SMALL, warm=False)


def test_a_phase_inside_another_stops_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 7.0, 10.0, 11.0])
    monkeypatch.setattr(full_size.time, "process_time", lambda: next(now))
    watch = Stopwatch(torch.device("cpu"))
    with watch.phase("outer"):
        with watch.phase("inner"):
            pass
        with watch.phase("inner"):
            pass
    assert watch.seconds == {"outer": 1 + 4 + 1, "inner": 2 + 3}


def test_operations_against_an_independent_count() -> None:
    """Convolutions, matrices and attention of a real pass, added up layer by layer."""
    shape, pixels = SHAPES["small"], 32
    unet = full_size.make_unet(shape)
    total = 0

    def add(layer: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, nn.Linear):
            total += 2 * output.numel() * layer.in_features

    for name, layer in unet.named_modules():
        layer.register_forward_hook(add)
        if name.endswith(("attn1", "attn2")):

            def attend(layer: Any, inputs: Any, keywords: Any, output: Any) -> None:
                nonlocal total
                other = keywords.get("encoder_hidden_states")
                keys = output.shape[1] if other is None else other.shape[1]
                total += 2 * 2 * output.shape[1] * keys * output.shape[2]

            layer.register_forward_hook(attend, with_kwargs=True)
    with torch.no_grad():
        unet(torch.randn(1, 8, 4, 4), torch.zeros(1), encoder_hidden_states=torch.randn(1, 2, shape.text))
    found = count(shape, pixels)
    assert found.unet * 1e12 == pytest.approx(total, rel=1e-6)
    assert found.parameters == sum(w.numel() for w in unet.parameters())
    assert found.decode > found.encode > 0


def test_work_of_the_published_recipe() -> None:
    recipe = Setting(lora=None, gradient_checkpointing=False)
    found = work(recipe, EACH)
    assert found.phases == {"rollout": 8 * 15 * 2, "base": 8 * 14 * 2, "replay": 8 * 14 * 2, "backward": 2 * 8 * 14 * 2,
                            "autoencoder": 3 + 8 * 5}  # fmt: skip
    assert found.total == sum(found.phases.values())
    assert work(replace(recipe, gradient_checkpointing=True), EACH).phases["backward"] == 3 * 8 * 14 * 2
    assert work(replace(recipe, lora=4), EACH).phases["backward"] == 8 * 14 * 2
    assert work(replace(recipe, kl=False), EACH).phases["base"] == 0
    assert work(replace(recipe, window=4), EACH).phases["replay"] == 8 * 4 * 2


def test_hours() -> None:
    adapters = Setting(lora=4)
    batch = work(adapters, EACH)
    alone = hours(batch, adapters, EACH, 1, 0.4)
    assert alone == pytest.approx(30_000 * batch.total / (989 * 0.4) / 3600)
    assert hours(batch, adapters, EACH, 64, 0.4) == pytest.approx(alone / 64)
    assert hours(batch, adapters, EACH, 8, 0.2) == pytest.approx(alone / 4)
    whole = Setting(lora=None)
    batch = work(whole, EACH)
    exchange = 30_000 / 64 * (2 * 63 / 64 * 4e9 / 25e9) / 3600
    assert hours(batch, whole, EACH, 64, 0.4) == pytest.approx(hours(batch, whole, EACH, 1, 0.4) / 64 + exchange)


def test_phases_of_a_measured_step(measured: Measured) -> None:
    names = [p.name for p in measured.phases]
    assert set(NETWORK) < set(names)
    assert {"encode photo", "decode", "reward", "rollout", "loss", "optimiser"} < set(names)
    assert len(names) == len(set(names))
    assert measured.seconds == pytest.approx(sum(p.seconds for p in measured.phases))
    inside = sum(p.seconds for p in measured.phases if p.name in NETWORK)
    assert measured.outside == pytest.approx(1 - inside / measured.seconds)
    assert 0 < measured.trained < measured.parameters / 10
    assert all(p.peak_gib is None for p in measured.phases)
    assert measured.peak_gib > 0
    json.dumps(measured.to_dict())


def test_networks_are_told_apart(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes counted by phase: 3 of the rollout, 2 of the base, 2 of the replay; the whole network has a copy."""
    less = replace(SMALL, pixels=16)
    for setting, base in ((less, 2), (replace(less, lora=None), 2), (replace(less, kl=False), 0)):
        policy = build_policy(setting)
        passes: list[str] = []
        watch = Stopwatch(torch.device("cpu"))
        monkeypatch.setattr(watch, "enter", passes.append)
        monkeypatch.setattr(watch, "leave", lambda: None)
        undo = full_size._instrument(policy, watch)
        weights = [w for w in policy.network.parameters() if w.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=1e-5)
        batch = full_size.make_batch(setting, torch.device("cpu"))
        full_size._one_step(policy, batch, setting, weights, optimiser, watch)
        assert [passes.count(n) for n in NETWORK] == [3, base, 2, 2]
        assert passes.count("decode") == passes.count("encode photo") == 1
        seen = len(passes)
        for each in undo:
            each()
        policy.rollout(batch, 2, 0, reference=False)
        assert len(passes) == seen


def test_unknown_sizes() -> None:
    with pytest.raises(UsageError, match="unknown size 'sd3'"):
        build_policy(replace(SMALL, size="sd3"))  # type: ignore[arg-type]


def test_plan_says_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size_plan, "count", lambda shape, pixels: EACH)
    text = plan()
    assert "**Not measured: no hour in the first table is a GPU's.**" in text
    assert "**Measured**" not in text
    rows = [line for line in text.splitlines() if line.startswith("| as published, whole network")]
    total = work(Setting(lora=None), EACH).total
    assert f"| {total:.0f} |" in rows[0]
    found = Measured(SMALL, "cpu", 1, (Phase("backward", 3.0, None), Phase("decode", 1.0, 2.5)), 4.0, 0.25, 1.5, 10**6,
                     10**4)  # fmt: skip
    text = plan([found])
    assert "4 CPU seconds, 25.0% of it outside the U-Net's passes (0.0% outside the autoencoder's too)" in text
    assert "| decode | 1 | 25.0% | 2.5 |" in text


def test_command() -> None:
    arguments = ["--size", "small", "--group", "2", "--steps", "2", "--pixels", "16", "--device", "cpu",
                 "--dtype", "float32", "--lora", "2", "--cold"]  # fmt: skip
    found = CliRunner().invoke(cli, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["setting"]["lora"] == 2
    shown = CliRunner().invoke(cli, arguments)
    assert "of the time is outside the network's passes" in shown.stdout
    assert "backward" in shown.stdout


@pytest.mark.slow
def test_the_written_plan_is_what_the_program_writes() -> None:
    root = Path(__file__).parents[2] / "benchmarks" / "full_size"
    kept = [Measured.from_dict(d) for d in json.loads((root / "full_size.json").read_text())]
    assert (root / "README.md").read_text() == plan(kept)
    assert count(SHAPES["sd2"], 512).parameters == 865_922_244
