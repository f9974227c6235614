"""The loop of all supervised trainings: kills, interrupts and resumes change neither weights nor log."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from reasonx_eval.errors import UsageError
from reasonx_ft.training.files import CHECKPOINT, LOG
from reasonx_ft.training.trainer import Trainer
from tests.reasonx_ft.training.forked import start

STEPS = 40


class Config(BaseModel):
    seed: int = 0


def training(out: Path, *, seed: int = 0, save_every: int = 3) -> tuple[Trainer, Callable[[int], Mapping[str, float]]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(4, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)

    def step(number: int) -> Mapping[str, float]:
        batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(1000 * seed + number))
        loss = (network(batch) - batch[:, :2]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": float(loss.detach())}

    return Trainer(Config(seed=seed), network, optimiser, out, STEPS, log_every=4, save_every=save_every), step


def lines(out: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in found]


def train_slowly(out: Path) -> None:
    torch.set_num_threads(1)
    trainer, step = training(out, save_every=1)

    def slow(number: int) -> Mapping[str, float]:
        time.sleep(0.01)
        return step(number)

    trainer.run(slow)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    out = tmp_path_factory.mktemp("whole")
    trainer, step = training(out)
    trainer.run(step)
    return trainer.network.state_dict(), lines(out)


def assert_same(trainer: Trainer, out: Path, whole: tuple[dict[str, torch.Tensor], list[dict[str, float]]]) -> None:
    weights, logged = whole
    assert all(torch.equal(v, weights[k]) for k, v in trainer.network.state_dict().items())
    assert lines(out) == logged


def test_the_log_has_means_of_all_steps(whole: tuple[dict[str, torch.Tensor], list[dict[str, float]]]) -> None:
    logged = whole[1]
    assert [line["step"] for line in logged] == list(range(4, STEPS + 1, 4))
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]


@pytest.mark.parametrize("at", [0, 5, 39])
def test_an_interrupt_ends_the_step_and_the_next_run_goes_on(
    at: int, tmp_path: Path, whole: tuple[dict[str, torch.Tensor], list[dict[str, float]]]
) -> None:
    trainer, step = training(tmp_path, save_every=0)

    def interrupted(number: int) -> Mapping[str, float]:
        if number == at:
            signal.raise_signal(signal.SIGINT)
        return step(number)

    if at == STEPS - 1:
        trainer.run(interrupted)  # the last step was made: nothing is left to go on with
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.run(interrupted)
    again, step = training(tmp_path, save_every=0)
    done: list[int] = []
    again.run(lambda number: done.append(number) or step(number))  # type: ignore[func-returns-value]
    assert done == list(range(at + 1, STEPS))
    assert_same(again, tmp_path, whole)


def test_a_failed_step_costs_the_steps_since_the_last_checkpoint(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], list[dict[str, float]]]
) -> None:
    trainer, step = training(tmp_path, save_every=5)

    def broken(number: int) -> Mapping[str, float]:
        if number == 13:
            raise RuntimeError("out of memory")
        return step(number)

    with pytest.raises(RuntimeError):
        trainer.run(broken)
    again, step = training(tmp_path, save_every=5)
    done: list[int] = []
    again.run(lambda number: done.append(number) or step(number))  # type: ignore[func-returns-value]
    assert done[0] == 10
    assert_same(again, tmp_path, whole)


def test_what_was_trained_stays_until_all_is_written(tmp_path: Path) -> None:
    trainer, step = training(tmp_path)
    trainer.run(step)
    assert (tmp_path / CHECKPOINT).is_file()
    again, _ = training(tmp_path)
    again.run(lambda _: pytest.fail("no step is left"))
    assert all(torch.equal(v, trainer.network.state_dict()[k]) for k, v in again.network.state_dict().items())
    assert again.last == trainer.last
    again.finish()
    assert not (tmp_path / CHECKPOINT).exists()


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    trainer, step = training(tmp_path)
    trainer.run(step)
    other, step = training(tmp_path, seed=1)
    with pytest.raises(UsageError, match=r"seed 0 \(now 1\)"):
        other.run(step)


@pytest.mark.slow
def test_killed_twenty_times_equals_uninterrupted(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], list[dict[str, float]]]
) -> None:
    draw = random.Random(0)
    for k in range(20):
        process = start(tmp_path / f"said-{k}.txt", train_slowly, tmp_path)
        deadline = time.monotonic() + 60
        while not (tmp_path / LOG).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.06))
        process.kill()
        process.join()
    trainer, step = training(tmp_path)
    trainer.run(step)
    assert_same(trainer, tmp_path, whole)


def test_a_full_disk_is_an_error_with_the_path_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, step = training(tmp_path, save_every=5)

    def full(number: int) -> Mapping[str, float]:
        if number == 8:
            monkeypatch.setattr("os.fsync", _no_space)
        return step(number)

    with pytest.raises(OSError, match="No space left") as caught:
        trainer.run(full)
    assert caught.value.filename == str(tmp_path / CHECKPOINT)
    monkeypatch.undo()
    again, step = training(tmp_path, save_every=5)
    done: list[int] = []
    again.run(lambda number: done.append(number) or step(number))  # type: ignore[func-returns-value]
    assert done[0] == 5


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
