"""Several processes, and processes that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reasonx_ft.grpo import advantages
from reasonx_ft.train import tune
from reasonx_ft.training_files import load_state
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.processes import Processes
from tests.ft.tune_data import oracle_store, short, small_policy, sources

ROOT = Path(__file__).parents[2]

TUNE = """
import json, sys
from pathlib import Path
from reasonx_ft.tuning import prepare
from reasonx_ft.train import tune
from tests.ft.tune_data import short, small_policy, sources
prepare.make_policy = small_policy
tune(sources(Path(sys.argv[1])), short(**json.loads(sys.argv[3])), Path(sys.argv[2]))
"""


def command(store: Path, out: Path, changes: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", TUNE, str(store), str(out), json.dumps(changes)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def together(code: list[str], world: int = 2) -> list[str]:
    """Run a command in several processes that know of each other; what each printed."""
    port = free_port()
    running = []
    for rank in range(world):
        env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
               "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
               "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
        running.append(subprocess.Popen(code, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [p.communicate(timeout=500) for p in running]
    assert all(p.returncode == 0 for p in running), b"\n".join(err for _, err in said).decode()
    return [out.decode() for out, _ in said]


GATHER = """
import torch
from reasonx_ft.tuning.processes import Processes
from reasonx_ft.grpo import advantages
p = Processes(cpu=True)
torch.manual_seed(0)
rewards = torch.rand(6, 4)
rewards[1] = torch.nan
mine = rewards[p.rank * 3 : p.rank * 3 + 3]
found = {s: advantages(p.gather(mine), scale=s)[p.rows(3)].tolist() for s in ("group", "floored", "batch")}
w = torch.nn.Parameter(torch.ones(3)); u = torch.nn.Parameter(torch.ones(2))
(w.sum() * (p.rank + 1)).backward()
p.add_gradients([w, u])
import json
print(json.dumps({"a": found, "g": w.grad.tolist(), "u": u.grad.tolist(), "n": p.total(p.rank + 5),
                  "any": p.any(p.rank == 1)}))
"""


@pytest.mark.slow
def test_oracle_22_advantages_of_two_processes_are_those_of_one() -> None:
    torch.manual_seed(0)
    rewards = torch.rand(6, 4)
    rewards[1] = torch.nan
    parts = [json.loads(out) for out in together([sys.executable, "-c", GATHER])]
    for scale in ("group", "floored", "batch"):
        both = torch.tensor(parts[0]["a"][scale] + parts[1]["a"][scale])
        assert torch.equal(both, advantages(rewards, scale=scale))  # type: ignore[arg-type]
    for part in parts:
        assert part["g"] == [3.0, 3.0, 3.0]  # summed, not averaged
        assert part["u"] == [0.0, 0.0]  # no gradient anywhere
        assert (part["n"], part["any"]) == (11, True)


def test_one_process_needs_no_others() -> None:
    alone = Processes(cpu=True)
    value = torch.rand(3, 2)
    assert (alone.rank, alone.world, alone.first, alone.total(4), alone.any(False)) == (0, 1, True, 4, False)
    assert alone.gather(value) is value
    assert value[alone.rows(3)].shape == value.shape


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle_store(tmp_path_factory.mktemp("store"))


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"data.images": 4, "objective.credit": "image", "objective.scale": "batch", "objective.ranking": 0.5,
               "objective.distance": 0.1, "objective.inner": 2, "machine.device": "cpu", "optimiser.ema": 0.5,
               "objective.rehearsal": 0.5, "objective.rehearsal_scenes": 4, "objective.rehearsal_images": 2}
    monkeypatch.setattr("reasonx_ft.tuning.prepare.make_policy", small_policy)
    tune(sources(store), short(**changes), tmp_path / "one")
    together(command(store, tmp_path / "two", changes))
    one, two = (load_state(checkpoint.path_of(tmp_path / n, 4)) for n in ("one", "two"))
    for name, weight in one["weights"].items():
        # sums of other order: bits differ, and Adam makes a step of any small gradient
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=2e-5)
        torch.testing.assert_close(two["average"]["mean"][name], one["average"]["mean"][name], rtol=0, atol=2e-5)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
            for name in ("one", "two")]  # fmt: skip
    for a, b in zip(*logs, strict=True):
        for m, reward in a.get("reward", {}).items():
            assert b["reward"][m] == pytest.approx(reward, abs=1e-4)
        for name, loss in a.get("loss", {}).items():
            assert b["loss"][name] == pytest.approx(loss, abs=1e-4)
        if "gradient" in a:
            assert b["gradient"] == pytest.approx(a["gradient"], rel=1e-3)
    assert (tmp_path / "two/model/reasonx.json").is_file()


KILL = """
import os, signal, sys, time, torch
from pathlib import Path
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.config import TuneConfig
out, config, whole = Path(sys.argv[1]), TuneConfig(), torch.arange(1 << 20, dtype=torch.float32)
last = unfinished = 0
for k in range(20):
    child = os.fork()  # one start of torch for all of them
    if child == 0:
        for step in range(last + 1, last + 10000):
            checkpoint.save(out, config, {"photos": "x"}, {"weights": {"w": whole}}, step)
    while max(checkpoint.steps_kept(out), default=0) <= last:
        time.sleep(0.0005)
    time.sleep(0.001 * k)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    unfinished += len(list((out / "checkpoints").glob(".*.part")))
    state, warnings = checkpoint.load(out, config, {"photos": "x"})
    assert state is not None and not warnings, warnings
    assert state["step"] > last and torch.equal(state["weights"]["w"], whole)
    assert not list((out / "checkpoints").glob(".*.part"))
    last = state["step"]
print(last, unfinished)
"""


@pytest.mark.slow
def test_killed_during_a_checkpoint_a_readable_one_is_left(tmp_path: Path) -> None:
    """kill -9 at twenty moments: what is there is whole, and what was half written is cleared away."""
    done = subprocess.run([sys.executable, "-c", KILL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    last, unfinished = map(int, done.stdout.split())
    assert last >= 20
    assert unfinished > 0, "no kill came in the middle of writing"


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"optimiser.steps": 12, "watch.save_every": 1, "watch.check_every": 4}
    monkeypatch.setattr("reasonx_ft.tuning.prepare.make_policy", small_policy)
    tune(sources(store), short(**changes), tmp_path / "whole")
    out = tmp_path / "killed"
    for kept in (2, 5):
        with subprocess.Popen(command(store, out, changes), cwd=ROOT) as process:
            while process.poll() is None and max(checkpoint.steps_kept(out), default=0) < kept:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
    assert not (out / "model").exists()
    tune(sources(store), short(**changes), out)
    for name in ("tiny.safetensors", "reasonx.json"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "whole/model" / name).read_bytes()
