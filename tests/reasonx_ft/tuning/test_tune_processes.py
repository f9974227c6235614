"""Several processes, and processes that die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reasonx_eval.errors import UsageError
from reasonx_ft.grpo.loss import ScaleRewards, advantages
from reasonx_ft.policies.load import make_policy
from reasonx_ft.training.files import load_state
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.parallel import Processes, sharding_asked_for
from reasonx_ft.tuning.sharding import Shards, blocks
from reasonx_ft.tuning.train import tune
from tests.reasonx_eval.models import tiny_marigold
from tests.reasonx_ft.training import forked
from tests.reasonx_ft.training.forked import together
from tests.reasonx_ft.tuning.tune_data import lines, pipeline_settings, short, small_policy, sources

ROOT = Path(__file__).parents[3]
SCALES: tuple[ScaleRewards, ...] = ("group", "floored")

TUNE = """
import json, sys
from pathlib import Path
from tests.reasonx_ft.tuning.test_tune_processes import tune_small
tune_small(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
"""


def tune_small(store: Path, out: Path, changes: dict[str, Any]) -> None:
    """A tuning of the small network, in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reasonx_ft.tuning.state.make_policy", small_policy)
        tune(sources(store), short(**changes), out)


def tune_pipeline(store: Path, base: str, out: Path, changes: dict[str, Any]) -> None:
    """A tuning of a pipeline, in a process of its own."""
    tune(sources(store, base), pipeline_settings(**changes), out)


def gather(folder: Path) -> None:
    processes = Processes(cpu=True)
    torch.manual_seed(0)
    rewards = torch.rand(6, 4)
    rewards[1] = torch.nan
    mine = rewards[processes.rows(3)]
    found = {s: advantages(processes.gather(mine), scale_rewards=s)[processes.rows(3)].tolist() for s in SCALES}
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    (used.sum() * (processes.rank + 1)).backward()
    processes.add_gradients([used, unused])
    assert used.grad is not None
    assert unused.grad is not None
    document = {"advantages": found, "used": used.grad.tolist(), "unused": unused.grad.tolist(),
                "total": processes.total(processes.rank + 5), "any": processes.any(processes.rank == 1)}  # fmt: skip
    (folder / f"{processes.rank}.json").write_text(json.dumps(document))


@pytest.mark.slow
def test_oracle_22_advantages_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rewards = torch.rand(6, 4)
    rewards[1] = torch.nan
    together(tmp_path, gather, tmp_path)
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for scale in SCALES:
        both = torch.tensor(parts[0]["advantages"][scale] + parts[1]["advantages"][scale])
        assert torch.equal(both, advantages(rewards, scale_rewards=scale))
    for part in parts:
        assert part["used"] == [3.0, 3.0, 3.0]  # summed, not averaged
        assert part["unused"] == [0.0, 0.0]  # no gradient anywhere
        assert (part["total"], part["any"]) == (11, True)


def test_one_process_needs_no_others() -> None:
    alone = Processes(cpu=True)
    value = torch.rand(3, 2)
    assert (alone.rank, alone.world, alone.first, alone.total(4), alone.any(False)) == (0, 1, True, 4, False)
    assert alone.gather(value) is value
    assert value[alone.rows(3)].shape == value.shape


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"data.batch_size": 4, "objective.credit": "image", "objective.scale_rewards": "group",
               "objective.ranking": 0.5,
               "objective.distance": 0.1, "objective.num_iterations": 2, "machine.device": "cpu", "optimiser.ema": 0.5,
               "objective.rehearsal": 0.5, "objective.rehearsal_scenes": 4, "objective.rehearsal_batch_size": 2}
    monkeypatch.setattr("reasonx_ft.tuning.state.make_policy", small_policy)
    tune(sources(store), short(**changes), tmp_path / "one")
    code = [sys.executable, "-c", TUNE, str(store), str(tmp_path / "two"), json.dumps(changes)]
    port, running = forked.free_port(), []
    for rank in range(2):
        env = {**os.environ, **forked.launch_environment(rank, 2, port)}
        running.append(subprocess.Popen(code, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [p.communicate(timeout=500) for p in running]
    assert [p.returncode for p in running] == [0, 0], b"\n".join(err for _, err in said).decode()
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
        if "grad_norm" in a:
            assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
    assert (tmp_path / "two/model/reasonx.json").is_file()


@pytest.mark.slow
def test_a_sharded_update_is_that_of_one_process(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments and averages lie in two processes; what is written is whole, and goes on in one or in two."""
    changes = {"data.batch_size": 2, "objective.credit": "image", "objective.scale_rewards": "group",
               "objective.ranking": 0.5,
               "objective.distance": 0.1, "objective.num_iterations": 2, "machine.device": "cpu", "optimiser.ema": 0.5,
               "optimiser.interpolate": 0.5,
               "optimiser.max_grad_norm": 0.05, "machine.microbatch": 1}
    sharded = {**changes, "machine.shard": True}
    monkeypatch.setattr("reasonx_ft.tuning.state.make_policy", small_policy)
    tune(sources(store), short(**changes), tmp_path / "one")
    together(tmp_path, tune_small, store, tmp_path / "two", {**sharded, "watch.save_every": 1, "watch.keep": 4})
    state = load_state(checkpoint.path_of(tmp_path / "one", 4))
    # interrupted after two steps: half of the run sharded and half of it not, in both orders
    for name, rest in (("resumed", sharded), ("alone", changes)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        for path in (checkpoint.path_of(tmp_path / "two", 2), tmp_path / "two/checkpoints/best.pt"):
            (tmp_path / name / "checkpoints" / path.name).write_bytes(path.read_bytes())
        if rest is sharded:
            together(tmp_path, tune_small, store, tmp_path / name, rest)
        else:
            tune(sources(store), short(**rest), tmp_path / name)
    for name in ("two", "resumed", "alone"):
        other = load_state(checkpoint.path_of(tmp_path / name, 4))
        for key, weight in state["weights"].items():
            torch.testing.assert_close(other["weights"][key], weight, rtol=0, atol=2e-5)
            torch.testing.assert_close(other["average"]["mean"][key], state["average"]["mean"][key], rtol=0, atol=2e-5)
        assert (tmp_path / name / "model/tiny.safetensors").is_file()
    two, resumed = ((tmp_path / n / "model/tiny.safetensors").read_bytes() for n in ("two", "resumed"))
    assert two == resumed
    for a, b in zip(*(lines(tmp_path / n) for n in ("one", "two")), strict=True):
        for key in ("grad_norm", "update", "average_distance"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-3), key


@pytest.mark.slow
@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
def test_a_sharded_pipeline_is_updated_as_by_one_process(store: Path, tmp_path: Path, lora: int | None) -> None:
    """Many calls of the network for one way back, some of them the frozen base's; adapters merged for the export."""
    base = str(tiny_marigold.intrinsics(tmp_path / "base"))
    changes = {"data.batch_size": 2, "data.limit": 14, "optimiser.steps": 2, "policy.answer_steps": 2,
               "objective.ranking": 0.5, "objective.distance": 0.1, "optimiser.ema": 0.5,
               "optimiser.interpolate": 0.5, "machine.device": "cpu",
               **({} if lora is None else {"policy.lora": lora})}  # fmt: skip
    together(tmp_path, tune_pipeline, store, base, tmp_path / "one", changes, world=1)
    together(tmp_path, tune_pipeline, store, base, tmp_path / "two", {**changes, "machine.shard": True})
    one, two = (load_state(checkpoint.path_of(tmp_path / n, 2)) for n in ("one", "two"))
    assert one["weights"].keys() == two["weights"].keys()
    # Adam takes a whole step along a slope that is all rounding: a few weights may differ, by no more than such steps
    apart = torch.cat([(two["weights"][k] - w).abs().flatten() for k, w in one["weights"].items()])
    assert float((apart > 2e-5).double().mean()) < 1e-3
    assert float(apart.max()) < 1e-3
    names = {p.relative_to(tmp_path / "one/model").as_posix() for p in (tmp_path / "one/model").rglob("*")}
    assert names == {p.relative_to(tmp_path / "two/model").as_posix() for p in (tmp_path / "two/model").rglob("*")}


def test_what_cannot_be_sharded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert not sharding_asked_for()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert sharding_asked_for()
    with pytest.raises(UsageError, match="several processes"):
        Shards(make_policy("tiny"), 1)
    with pytest.raises(UsageError, match="tiny-flow is called by methods of its own"):
        Shards(make_policy("tiny-flow"), 2)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(UsageError, match="memory of the host"):
        Shards(make_policy("tiny"), 2)


def test_blocks_are_the_members_of_the_outermost_lists() -> None:
    inner = nn.ModuleDict({"deep": nn.ModuleList([nn.ModuleList([nn.Linear(1, 1)]), nn.Dropout()])})
    network = nn.Sequential(nn.Linear(2, 2), inner, nn.Linear(2, 2))
    assert blocks(network) == [inner["deep"][0]]  # type: ignore[index]


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
    monkeypatch.setattr("reasonx_ft.tuning.state.make_policy", small_policy)
    tune(sources(store), short(**changes), tmp_path / "whole")
    out = tmp_path / "killed"
    for kept in (2, 5):
        process = forked.start(tmp_path / "said.txt", tune_small, store, out, changes)
        while process.is_alive() and max(checkpoint.steps_kept(out), default=0) < kept:
            time.sleep(0.002)
        process.kill()
        process.join()
    assert not (out / "model").exists()
    tune(sources(store), short(**changes), out)
    for name in ("tiny.safetensors", "reasonx.json"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "whole/model" / name).read_bytes()
