"""The trainer: the same weights however often it is stopped, a ratio of 1, portions that add up, guardrails."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, PartialRun, ReasonXError, UsageError
from reasonx_eval.models.loading.load import load_model
from reasonx_ft.cli.main import cli
from reasonx_ft.grpo.batch import Batch
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.training.files import load_state
from reasonx_ft.tuning import checkpoint, train
from reasonx_ft.tuning.checks import Guardrails
from reasonx_ft.tuning.config import Guard
from reasonx_ft.tuning.export import Check
from reasonx_ft.tuning.objective import StepLoss, compare, draw, reward
from reasonx_ft.tuning.state import TrainState, prepare
from reasonx_ft.tuning.train import tune
from reasonx_ft.tuning.weights import Average, relative_change
from tests.reasonx_ft.tuning.tune_data import PHOTOS, SHORT, lines, oracle_store, short, sources

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture(scope="module")
def finished(small_networks: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuning of four steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished")
    tune(sources(store), short(), out)
    return out


def steps(out: Path) -> list[dict[str, Any]]:
    return [line for line in lines(out) if "loss" in line]


def model_files(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((out / "model").iterdir())}


# what is logged


def test_the_update_is_logged_as_a_share_of_the_weights(store: Path, tmp_path: Path) -> None:
    """Adam's first step changes every weight with a gradient by the learning rate."""
    config = short(optimiser__steps=1, optimiser__warmup_steps=0, watch__check_every=0)
    state = prepare(sources(store), config)
    before = torch.cat([p.detach().flatten() for p in state.policy.network.parameters()])
    train.tune_prepared(state, tmp_path)
    now = torch.cat([p.detach().flatten() for p in state.policy.network.parameters()])
    state.close()
    [line] = steps(tmp_path)
    assert line["update"] == pytest.approx(float((now - before).norm() / before.norm()), rel=1e-4)
    moved = int((now != before).sum())
    assert line["update"] == pytest.approx(5e-4 * moved**0.5 / float(before.norm()), rel=0.02)


def test_weights_of_length_0_have_no_relative_change() -> None:
    assert np.isnan(relative_change([torch.zeros(3)], [torch.ones(3)]))
    assert relative_change([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.5])]) == pytest.approx(0.1)


# resume


def test_the_same_bytes_twice(finished: Path, store: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever the caller drew
    tune(sources(store), short(), tmp_path)
    assert model_files(tmp_path) == model_files(finished)


def test_another_seed_gives_other_weights(finished: Path, store: Path, tmp_path: Path) -> None:
    tune(sources(store), short(seed=1), tmp_path)
    assert model_files(tmp_path)["tiny.safetensors"] != model_files(finished)["tiny.safetensors"]


#: with every kind of state: averages, several updates a step, momentum
STATEFUL: dict[str, Any] = {
    "objective.num_iterations": 2, "objective.scale_rewards": "floored", "objective.credit": "image",
    "objective.ranking": 0.3, "objective.distance": 0.1, "data.modalities_per_step": "one", "optimiser.ema": 0.9,
}  # fmt: skip


def test_oracle_34_two_and_two_steps_are_four(store: Path, tmp_path: Path) -> None:
    config = short(**STATEFUL)
    tune(sources(store), config, tmp_path / "whole")
    with pytest.raises(PartialRun, match="stopped after step 2 of 4"):
        tune(sources(store), config, tmp_path / "parts", stop_after=2)
    assert checkpoint.steps_kept(tmp_path / "parts") == [2]
    tune(sources(store), config, tmp_path / "parts")
    a, b = (load_state(checkpoint.path_of(tmp_path / n, 4)) for n in ("whole", "parts"))
    assert_same(a, b)
    assert model_files(tmp_path / "whole") == model_files(tmp_path / "parts")
    timeless = [[{k: v for k, v in line.items() if k not in ("seconds", "memory_mib")} for line in lines(tmp_path / n)]
                for n in ("whole", "parts")]  # fmt: skip
    assert timeless[0] == timeless[1]


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            assert_same(a[k], b[k])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_ctrl_c_saves_and_says_how_to_go_on(finished: Path, store: Path, tmp_path: Path) -> None:
    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("tune", 1):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(PartialRun, match="stopped after step 2 of 4: it is saved") as caught:
        tune(sources(store), short(), tmp_path, progress=progress)
    assert "the same command goes on from there" in str(caught.value)
    assert signal.getsignal(signal.SIGINT) == before
    assert not (tmp_path / "model").exists()
    done: list[int] = []
    tune(sources(store), short(), tmp_path, progress=lambda what, k, _n: done.append(k) if what == "tune" else None)
    assert done == [2, 3, 4]
    assert model_files(tmp_path) == model_files(finished)


@pytest.fixture
def half(store: Path, tmp_path: Path) -> Path:
    """A tuning that was stopped after two of four steps."""
    with pytest.raises(PartialRun):
        tune(sources(store), short(), tmp_path, stop_after=2)
    return tmp_path


def test_what_changes_weights_must_not_change_in_between(half: Path, store: Path) -> None:
    with pytest.raises(UsageError, match=r"another configuration: objective.kl 0.02 \(now 0.5\)"):
        tune(sources(store), short(objective__kl=0.5), half)
    with pytest.raises(UsageError, match="another configuration: seed 0"):
        tune(sources(store), short(seed=3), half)


def test_other_judgements_or_another_base_are_refused(half: Path, store: Path, tmp_path: Path) -> None:
    other = oracle_store(tmp_path / "other", pairs=20)
    with pytest.raises(UsageError, match="an unfinished run with other judgements"):
        tune(sources(other), short(), half)
    with pytest.raises(UsageError, match="unfinished run with other base weights"):
        tune(sources(store, base=tuned_a_bit(store, tmp_path)), short(), half)


def tuned_a_bit(store: Path, folder: Path) -> str:
    tune(sources(store), short(optimiser__steps=1), folder / "first")
    return str(folder / "first/model")


def test_watching_may_change_in_between(half: Path, store: Path, finished: Path) -> None:
    tune(sources(store), short(watch__grid_every=4, watch__keep=1, machine__cache_gib=0.0), half)
    assert (half / "grids/step-00000004.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoint.steps_kept(half) == [4]
    assert model_files(half)["tiny.safetensors"] == model_files(finished)["tiny.safetensors"]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(store: Path, finished: Path, tmp_path: Path) -> None:
    config = short(watch__save_every=1)
    with pytest.raises(PartialRun):
        tune(sources(store), config, tmp_path, stop_after=3)
    assert checkpoint.steps_kept(tmp_path) == [3, 2]
    path = checkpoint.path_of(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:1000])
    (tmp_path / "checkpoints/.step-00000004.pt.77.part").write_bytes(b"killed")
    tune(sources(store), config, tmp_path)
    assert any("not a checkpoint" in line.get("warning", "") for line in lines(tmp_path))
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert model_files(tmp_path)["tiny.safetensors"] == model_files(finished)["tiny.safetensors"]
    for k in checkpoint.steps_kept(tmp_path):
        checkpoint.path_of(tmp_path, k).write_bytes(b"")
    with pytest.raises(DataError, match="not a checkpoint"):
        tune(sources(store), config, tmp_path)


def test_checkpoints_hold_all_that_later_steps_depend_on(finished: Path) -> None:
    state = load_state(checkpoint.path_of(finished, 4))
    assert {"weights", "optimiser", "average", "guardrails", "identity", "config", "step"} <= state.keys()
    assert set(state["identity"]) == {"base weights", "judgements", "photos"}


# steps


def test_oracle_11_the_ratio_is_one_before_the_first_update(finished: Path, store: Path, tmp_path: Path) -> None:
    for line in steps(finished):
        for modality in line["ratio"].values():
            assert modality["0"] == {"mean": 1.0, "min": 1.0, "max": 1.0, "std": 0.0}
    tune(sources(store), short(objective__num_iterations=2), tmp_path)
    later = [m["0"] for line in steps(tmp_path) for m in line["ratio"].values()]
    assert all(r["std"] > 0 for r in later), "the second update sees other weights"


def test_oracle_11_a_replay_that_differs_is_caught(store: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    means = FeedForward.means_of
    monkeypatch.setattr(FeedForward, "means_of", lambda *a: means(*a) + 1e-4)
    with pytest.raises(ReasonXError, match="the replay of depth, step 0, does not repeat the rollout"):
        tune(sources(store), short(), tmp_path)


@pytest.mark.parametrize("changes", [
    {},
    {"objective.credit": "image", "objective.scale_rewards": "floored"},
    {"objective.credit": "image", "objective.scale_rewards": "group", "policy.noise": "lowrank",
     "objective.num_iterations": 2},
    {"objective.grpo": 0, "objective.kl": 0, "objective.ranking": 1, "objective.distance": 0.5},
    {"objective.ranking": 0.5, "objective.expected": 0.5, "objective.distance": "{ depth = 0.2 }"},
    {"objective.grpo": "{ normals = 2.0 }", "objective.ranking": "{ depth = 1.0 }", "objective.rehearsal": 0.5,
     "objective.rehearsal_scenes": 4, "objective.rehearsal_batch_size": 3},
])  # fmt: skip
def test_oracle_30_microbatches_add_up_to_one_batch(store: Path, changes: dict[str, Any]) -> None:
    gradients = []
    for size in (None, 1, 2):
        config = short(**{**changes, "data.batch_size": 4, **({"machine.microbatch": size} if size else {})})
        state = prepare(sources(store), config)
        shift(state.policy.network)  # away from the base, so that KL and distance count
        gradients.append(gradient(state, state.batches.at(0)))
        state.close()
    scale = float(gradients[0].abs().max())
    assert scale > 0
    for found in gradients[1:]:
        assert float((found - gradients[0]).abs().max()) < 1e-4 * scale


def gradient(state: TrainState, batch: Batch) -> torch.Tensor:
    """Of all terms of one update, as one vector."""
    network, rules, size = state.policy.network, state.config.objective, state.config.machine.microbatch
    network.zero_grad()
    scenes = state.rehearsal.at(0) if state.rehearsal is not None else None
    rollouts = draw(state.policy, batch, scenes, rules, 0, microbatch=size)
    advantages = compare(reward(batch, rollouts, rules), rules, state.processes)
    loss = StepLoss(state.policy, batch, scenes, rules, rollouts, advantages, state.processes)
    for microbatch in loss.microbatches(size):
        loss.of(microbatch).total.backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.reshape(-1) for p in network.parameters() if p.grad is not None])


def shift(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p += 1e-3 * torch.randn(p.shape, generator=generator)


def test_one_and_all_modalities(store: Path, tmp_path: Path) -> None:
    tune(sources(store), short(data__modalities="['depth', 'albedo']"), tmp_path)
    assert all(set(line["reward"]) == {"depth", "albedo"} for line in steps(tmp_path))
    with pytest.raises(UsageError, match="tiny does not predict roughness"):
        tune(sources(store), short(data__modalities="['roughness']"), tmp_path / "b")


@pytest.mark.parametrize("method", ["ranking", "expected"])
def test_other_methods(store: Path, tmp_path: Path, method: str) -> None:
    from reasonx_ft.tuning.settings import read_settings

    flags = {k: v for k, v in SHORT.items() if k not in ("objective.grpo", "objective.ranking", "objective.expected",
                                                         "objective.kl")}  # fmt: skip
    config = read_settings(base="tiny", method=method, flags={**flags, "objective.distance": 0.1})
    outcome = tune(sources(store), config, tmp_path)
    assert outcome.card.method == method
    assert all(set(line["loss"]) == {method, "distance"} and "reward" not in line for line in steps(tmp_path))


def test_the_log_shows_what_catches_faults(finished: Path) -> None:
    line = steps(finished)[-1]
    for key in ("reward", "reward_std", "zero_variance_groups", "advantage_max", "sample_std", "ratio", "kl", "kl_old",
                "clipped_high", "clipped_low", "grad_norm", "learning_rate", "average_distance", "memory_mib",
                "loss"):  # fmt: skip
        assert key in line, key
    assert {"batch", "rollout", "reward", "forward", "backward", "optimiser", "all"} <= line["seconds"].keys()
    checks = [c for c in lines(finished) if "check" in c]
    assert [c["step"] for c in checks] == [0, 2, 4]
    assert set(checks[0]["check"]["agreement"]) == {"depth", "normals", "albedo", "irradiance"}
    assert "|judge:oracle@" in checks[0]["check"]["signatures"]["depth"]


def test_trackers(store: Path, tmp_path: Path) -> None:
    tune(sources(store), short(watch__report_to="tensorboard"), tmp_path)
    assert any(p.stat().st_size > 1000 for p in (tmp_path / "trackers").rglob("events*"))
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'"):
        tune(sources(store), short(watch__report_to="tensorbord"), tmp_path / "b")
    with pytest.raises(UsageError, match="comet_ml is not installed"):
        tune(sources(store), short(watch__report_to="['comet_ml']"), tmp_path / "c")


def test_out_of_memory_says_what_to_lower(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_a: Any, **_k: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(FeedForward, "means_of", full)
    with pytest.raises(ReasonXError, match="out of memory") as caught:
        tune(sources(store), short(), tmp_path)
    assert "--set machine.microbatch=4" in str(caught.value)
    assert "objective.num_generations (4)" in str(caught.value)


def test_a_gradient_that_is_not_finite_ends_the_run(store: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(train, "_backward", lambda term: (term * torch.nan).backward())
    with pytest.raises(ReasonXError, match="the gradient is nan at step 1"):
        tune(sources(store), short(), tmp_path)


def test_averaged_weights() -> None:
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    average = Average(network, 0.5)
    expected = 0.0
    for n in range(1, 21):
        with torch.no_grad():
            network.weight.fill_(float(n))
        average.update()
        decay = min(0.5, n / (n + 9))
        expected = decay * expected + (1 - decay) * n
    with average.applied():
        assert float(network.weight.detach()) == pytest.approx(expected)
    assert float(network.weight.detach()) == 20.0
    assert average.distance() == pytest.approx((20 - expected) / 20)


# guardrails


def check(step: int, agreement: float = 0.7, spread: float = 1.0, edges: float = 1.0, **metrics: float) -> Check:
    return Check(step, {"depth": agreement}, {"depth": 9}, {"depth": spread}, {"depth": edges}, metrics,
                 {k: "signature" for k in metrics})  # fmt: skip


def test_agreement_that_falls_for_long_stops_the_run() -> None:
    guard = Guardrails(Guard(agreement_drop=0.02, patience=2))
    assert guard.look(check(0, 0.70)) == (None, True)
    assert guard.look(check(1, 0.75)) == (None, True)
    assert guard.look(check(2, 0.74)) == (None, False)  # within the limit
    assert guard.look(check(3, 0.72)) == (None, False)
    assert guard.look(check(4, 0.76)) == (None, True)  # forgiven
    assert guard.look(check(5, 0.70)) == (None, False)
    stopped, _ = guard.look(check(6, 0.70))
    assert stopped is not None
    assert "held-out agreement fell to 0.7000, more than 0.02 below 0.7600 at 2 checks in a row" in stopped
    assert guard.best == (4, 0.76)


@pytest.mark.parametrize(("spread", "edges", "said"), [
    (0.3, 1.0, "maps of depth became flat: spread"), (1.0, 0.3, "maps of depth became flat: edges"),
    (3.0, 1.0, "maps of depth became overdrawn: spread"), (1.0, 3.0, "overdrawn: edges"),
    (float("nan"), 1.0, None),
])  # fmt: skip
def test_flat_and_overdrawn_maps_stop_the_run(spread: float, edges: float, said: str | None) -> None:
    guard = Guardrails(Guard(flatness=(0.4, 2.5)))
    guard.look(check(0))
    stopped, best = guard.look(check(1, 0.9, spread, edges))
    assert (stopped is None) == (said is None)
    if said is not None:
        assert stopped is not None
        assert said in stopped
        assert not best, "what is hacked is never the best"


@pytest.mark.parametrize(("base", "now", "stops"), [
    (0.01, 0.055, False), (0.01, 0.10, True), (0.3, 0.34, False), (float("nan"), float("nan"), False),
])  # fmt: skip
def test_normals_that_turn_away_stop_the_run(base: float, now: float, stops: bool) -> None:
    guard = Guardrails(Guard(normals_away=0.05))
    guard.look(replace(check(0), normals_away=base))
    stopped, best = guard.look(replace(check(1, 0.9), normals_away=now))
    assert best != stops, "what is hacked is never the best"
    assert (stopped is not None) == stops
    if stopped is not None:
        assert "10.0% of the normals point away from the camera, 1.0% at an earlier check, allowed 6.0%" in stopped


def test_normals_that_got_better_must_not_turn_over_again() -> None:
    """A tenth of them is less than the base had, and far more than the run had."""
    guard = Guardrails(Guard(normals_away=0.05))
    guard.look(replace(check(0), normals_away=0.18))
    assert guard.look(replace(check(1, 0.8), normals_away=0.02)) == (None, True)
    resumed = Guardrails(Guard(normals_away=0.05))
    resumed.load_state_dict(guard.state_dict())
    for watching in (guard, resumed):
        stopped, _ = watching.look(replace(check(2, 0.9), normals_away=0.10))
        assert stopped is not None
        assert "10.0% of the normals point away from the camera, 2.0% at an earlier check, allowed 7.0%" in stopped


def test_the_share_of_normals_that_point_away_is_measured(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second column turned round: half of the pixels, whatever the network says of the rest."""
    state = prepare(sources(store), short())
    inner = FeedForward.answer

    def turned(self: FeedForward, images: torch.Tensor, modalities: list[str]) -> dict[str, torch.Tensor]:
        codes = inner(self, images, modalities)
        flat = torch.zeros_like(codes["normals"])
        flat[:, 2] = -1.0
        flat[:, 2, :, ::2] = 1.0
        return {**codes, "normals": flat}

    monkeypatch.setattr(FeedForward, "answer", turned)
    checker = train.Checker(state.policy, state.batches, state.config, state.facts(None))
    found = checker.check(0)
    assert found.normals_away == 0.5
    assert found.saturated == {}, "codes of the embedded networks have no range"
    monkeypatch.setattr(state.policy, "code_range", (-0.5, 2.0), raising=False)
    assert checker.check(0).saturated["normals"] == pytest.approx(1 / 6), "z of every second column, of three channels"
    state.close()


def test_an_unrewarded_metric_that_gets_worse_stops_the_run() -> None:
    from reasonx_ft.tuning.config import UnrewardedMetric

    error = UnrewardedMetric(dataset="rooms", protocol="depth/generic@1", metric="abs_rel", most=1.5)
    share = UnrewardedMetric(dataset="rooms", protocol="depth/generic", metric="delta1", most=1.2)
    guard = Guardrails(Guard(unrewarded_metrics=(error, share)))
    guard.look(check(0, **{error.label: 0.10, share.label: 0.9}))
    assert guard.look(check(1, 0.8, **{error.label: 0.149, share.label: 0.76}))[0] is None
    stopped, best = guard.look(check(2, 0.9, **{error.label: 0.16, share.label: 0.9}))
    assert stopped is not None
    assert "abs_rel on rooms, which is not rewarded, went from 0.1000 to 0.1600" in stopped
    assert not best
    assert guard.look(check(3, 0.9, **{error.label: 0.1, share.label: 0.7}))[0] is not None
    assert guard.look(check(4, 0.9, **{error.label: float("nan"), share.label: 0.9}))[0] is not None


def test_guardrails_go_on_where_they_were() -> None:
    a = Guardrails(Guard(patience=3))
    for k, v in enumerate((0.7, 0.8, 0.6, 0.6)):
        a.look(check(k, v))
    b = Guardrails(Guard(patience=3))
    b.load_state_dict(a.state_dict())
    assert b.look(check(4, 0.6)) == a.look(check(4, 0.6))
    assert b.best == a.best


def test_a_run_that_is_nowhere_better_than_its_base_exports_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {k: v for k, v in SHORT.items() if k != "optimiser.steps"}
    settings |= {"optimiser.learning_rate": 0.3, "guard.flatness": [0.9, 1.1], "watch.export": "best"}
    arguments = ["tune", "tiny", "--photos", PHOTOS, "--judgements", str(store), "--out", str(tmp_path), "-q",
                 *(f"--set={k}={v}" for k, v in settings.items()), "--steps", "6"]
    assert run_cli(cli, arguments) == 3
    said = capsys.readouterr().err
    assert "a guardrail stopped the run" in said
    assert "no check was better than the base: nothing is exported" in said
    assert not (tmp_path / "model").exists()
    out = tmp_path / "exported"
    assert run_cli(cli, ["export", str(tmp_path), "--out", str(out)]) == 3
    assert "no check was better than the base" in capsys.readouterr().err
    assert run_cli(cli, ["export", str(tmp_path), "--weights", "last", "--out", str(out)]) == 0
    assert json.loads((out / "reasonx.json").read_text())["steps"] > 0


def test_a_stopped_run_exports_its_best_weights_and_exits_3(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guardrail that bites at the second check, after one that was better than the base."""
    looks = iter([(None, True), (None, True), ("the reward was hacked", False)])
    monkeypatch.setattr(Guardrails, "look", lambda self, found: (setattr(self, "base", self.base or found),
                                                                 next(looks))[1])  # fmt: skip
    assert run_cli(cli, arguments(store, tmp_path)) == 3
    card = json.loads((tmp_path / "model/reasonx.json").read_text())
    assert card["steps"] == 2
    assert "stopped after step 4: the reward was hacked" in card["notes"]
    assert (tmp_path / "model/tiny.safetensors").is_file()


class Full:
    """A disk that takes some writes and no more."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def __call__(self, handle: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.fsync_real(handle)  # type: ignore[attr-defined]


@pytest.mark.parametrize("writes", [0, 3, 6])
def test_a_full_disk_is_one_line_with_the_path_and_the_same_command_goes_on(
    finished: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    writes: int,
) -> None:  # fmt: skip
    """What `run.json`, checkpoints and the model are synced by fails after some files."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        full = Full(writes)
        patch.setattr(os, "fsync_real", os.fsync, raising=False)
        patch.setattr(os, "fsync", full)
        assert run_cli(cli, arguments(store, out)) == 6
    said = capsys.readouterr().err
    assert said.count("\n") <= 2, said
    assert "No space left on device" in said
    assert str(out) in said
    assert "the same command goes on" in said
    assert not list(out.rglob("*.part"))
    assert run_cli(cli, arguments(store, out)) == 0
    assert model_files(out)["tiny.safetensors"] == model_files(finished)["tiny.safetensors"]


def test_unrewarded_metrics_are_measured_by_the_evaluation(store: Path, tmp_path: Path) -> None:
    watched = '{ dataset = "scenes-synthetic/val", protocol = "depth/generic", metric = "abs_rel", samples = 2 }'
    outcome = tune(sources(store), short(guard__unrewarded_metrics=f"[{watched}]"), tmp_path)
    label = "depth/generic abs_rel on scenes-synthetic/val"
    metric = outcome.card.metrics[label]
    assert 0.01 < metric["base"] < 0.2
    assert metric["signature"].startswith("depth/generic@1|data:scenes-synthetic/val|n:2/")
    wrong = watched.replace("abs_rel", "absrel")
    with pytest.raises(UsageError, match="has no metric 'absrel'"):
        tune(sources(store), short(guard__unrewarded_metrics=f"[{wrong}]"), tmp_path / "b")


# exports


def test_oracle_36_the_deterministic_answer_of_averaged_weights_is_exported(store: Path, tmp_path: Path) -> None:
    # a rate this high turns normals about: the guard is not what is tested
    config = short(optimiser__ema=0.9, optimiser__learning_rate=3e-3, guard__normals_away=1.0,
                   guard__flatness=(0.0, 1e9))  # fmt: skip
    outcome = tune(sources(store), config, tmp_path)
    state = load_state(checkpoint.path_of(tmp_path, 4))
    from reasonx_eval.models.embedded.tiny import Tiny

    model = load_model(str(tmp_path / "model"))
    inner = model._model  # type: ignore[attr-defined]
    assert isinstance(inner, Tiny)
    for name, value in inner.network.state_dict().items():
        assert torch.equal(value, state["average"]["mean"][name].half().float())
        if name == "head.bias":
            assert not torch.equal(state["average"]["mean"][name], state["weights"][name])
    from reasonx_eval.registry import load_dataset

    sample = load_dataset("scenes-wild").load("wild/test/00000")
    a, b = (model.predict([sample], "depth_metric", seed)[0].value for seed in (0, 1))
    np.testing.assert_array_equal(a, b)  # no noise
    assert outcome.step == 4


def test_the_card_says_where_it_comes_from(finished: Path) -> None:
    card = json.loads((finished / "model/reasonx.json").read_text())
    assert (card["name"], card["base"], card["method"], card["seed"]) == ("tiny-grpo", "tiny", "grpo", 0)
    assert card["judge"].startswith("oracle@")
    assert card["rewarded"] == ["agreement"]
    assert card["data"] == [f"{PHOTOS.removeprefix('dataset:')} ({photos_trained(finished)} photos, no labels)"]
    for label, metric in card["metrics"].items():
        assert metric["signature"].startswith("held-out-agreement/"), label
        assert "n:2" in metric["signature"]
    readme = (finished / "model/README.md").read_text()
    assert readme.startswith("---\nlicense: apache-2.0\n")
    for metric in card["metrics"].values():
        assert metric["signature"] in readme


def photos_trained(out: Path) -> int:
    from reasonx_ft.annotation.photos import open_photos
    from reasonx_ft.tuning.data import held_out

    photos = open_photos(PHOTOS, limit=SHORT["data.limit"])
    return held_out([photos.load(name).digest for name in photos.ids], SHORT["data.held_out"]).count(False)


def test_exported_models_are_evaluated_and_compared_by_name(finished: Path, tmp_path: Path) -> None:
    from reasonx_eval.cli.main import cli as evaluate

    command = ["run", "--model", str(finished / "model"), "--protocol", "depth/scenes-wild", "--limit", "2", "-q",
               "--out", str(tmp_path)]  # fmt: skip
    assert run_cli(evaluate, command) == 0
    result = json.loads((tmp_path / "depth/scenes-wild@1/tiny-grpo/result.json").read_text())
    assert result["model"]["base"] == "tiny"
    assert "scenes-wild/train" in " ".join(result["model"]["trained_on"])


def test_the_best_check_is_exported(store: Path, tmp_path: Path) -> None:
    outcome = tune(sources(store), short(watch__export="best", watch__check_every=1), tmp_path)
    agreement = {c["step"]: np.mean(list(c["check"]["agreement"].values())) for c in lines(tmp_path) if "check" in c}
    best = max(agreement.values())
    assert outcome.step == min(k for k, v in agreement.items() if v == best)
    assert outcome.last.mean_agreement == pytest.approx(best)
    assert load_state(tmp_path / "checkpoints/best.pt")["step"] == outcome.step


def test_export_of_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    assert run_cli(cli, ["export", str(finished), "--weights", "last", "--out", str(tmp_path / "best")]) == 0
    best, exported = (json.loads((p / "reasonx.json").read_text()) for p in (tmp_path / "best", finished / "model"))
    assert {k: v for k, v in best.items() if k != "metrics"} == {k: v for k, v in exported.items() if k != "metrics"}
    assert (tmp_path / "best/tiny.safetensors").read_bytes() == (finished / "model/tiny.safetensors").read_bytes()
    assert run_cli(cli, ["export", str(finished), "--weights", "2", "--name", "early", "--out",
                         str(tmp_path / "two")]) == 0  # fmt: skip
    card = json.loads((tmp_path / "two/reasonx.json").read_text())
    assert (card["name"], card["steps"]) == ("early", 2)
    assert run_cli(cli, ["export", str(finished), "--out", str(tmp_path / "two")]) == 2
    assert run_cli(cli, ["export", str(finished), "--weights", "3", "--out", str(tmp_path / "three")]) == 2
    assert run_cli(cli, ["export", str(tmp_path), "--out", str(tmp_path / "three")]) == 2


def test_a_tuned_model_can_be_tuned_again(store: Path, tmp_path: Path) -> None:
    base = tuned_a_bit(store, tmp_path)
    outcome = tune(sources(store, base), short(base="tiny"), tmp_path / "second", name="twice")
    assert outcome.card.name == "twice"
    assert outcome.card.base == "tiny-grpo"


# the command


def arguments(store: Path, out: Path, *more: str) -> list[str]:
    return ["tune", "tiny", "--photos", PHOTOS, "--judgements", str(store), "--out", str(out), "-q",
            *(f"--set={k}={v}" for k, v in SHORT.items()), *more]  # fmt: skip


def test_the_command_prints_numbers_with_signatures(finished: Path, store: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert run_cli(cli, arguments(store, tmp_path / "r")) == 0
    out = capsys.readouterr().out
    assert out.count("held-out-agreement/") == 4
    assert "reasonx-eval run --model" in out
    assert model_files(tmp_path / "r") == model_files(finished)
    assert run_cli(cli, arguments(store, tmp_path / "r")) == 2
    assert "a finished tuning is there already" in capsys.readouterr().err
    assert run_cli(cli, arguments(store, tmp_path / "r", "--force", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["card"]["name"] == "tiny-grpo"


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(store: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert run_cli(cli, arguments(store, tmp_path / "r", "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "r").exists()
    assert plan["steps"] == 4
    assert plan["samples"] == 4 * 2 * 4 * 4  # steps, photos, samples, modalities
    assert plan["clip range"]["depth"] == {"sum over elements": 1.0, "elements": 2, "mean": 0.5}
    assert plan["cost"]["seconds a step"] > 0
    assert sum(plan["photos"][k] for k in ("training", "held out")) == SHORT["data.limit"]
    assert run_cli(cli, arguments(store, tmp_path / "r", "--dry-run", "--preset", "paper")) == 0
    assert "whether the last step is scored" in capsys.readouterr().out


def test_usage_errors_of_the_command(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[list[str], str]] = [
        (["--set", "objective.kll=1"], "did you mean 'objective.kl'?"),
        (["--preset", "papper"], "did you mean 'paper'?"),
        (["--set", "policy.sigmma=1"], "sigmma"),
        (["--set", "data.judge=mllm"], "unknown judge 'mllm'"),
    ]
    for more, said in cases:
        assert run_cli(cli, arguments(store, tmp_path / "r", *more)) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run_cli(cli, arguments(tmp_path / "empty", tmp_path / "r")) == 2
    assert "not a judgement store" in capsys.readouterr().err


# learning


@pytest.mark.slow
def test_oracle_37_agreement_rises(tmp_path: Path) -> None:
    store = oracle_store(tmp_path / "store", pairs=40, limit=24)
    config = short(optimiser__steps=60, data__limit=24, data__held_out=0.0, data__batch_size=4, data__pairs=40,
                   optimiser__learning_rate=2e-3, objective__kl=0.0, watch__check_every=0)  # fmt: skip
    tune(sources(store), config, tmp_path / "run")
    reward = np.array([np.mean(list(line["reward"].values())) for line in steps(tmp_path / "run")])
    assert reward[-15:].mean() > reward[:15].mean() + 0.02


def count_calls(monkeypatch: pytest.MonkeyPatch, cls: type, name: str) -> list[int]:
    calls: list[int] = []
    inner: Callable[..., Any] = getattr(cls, name)

    def counted(*a: Any, **k: Any) -> Any:
        calls.append(1)
        return inner(*a, **k)

    monkeypatch.setattr(cls, name, counted)
    return calls


def test_supervised_methods_sample_nothing(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, FeedForward, "rollout_around")
    tune(sources(store), short(objective__grpo=0, objective__kl=0, objective__ranking=1), tmp_path)
    assert not calls


def test_a_photo_without_answers_changes_nothing_for_the_others(store: Path) -> None:
    """Its group has no reward: no gradient from it, and the mean is over the others."""
    config = short(data__batch_size=4)
    state = prepare(sources(store), config)
    batch = state.batches.at(0)
    gradients = []
    for empty in (False, True):
        judged = dict(batch.judged)
        chosen = slice(0, 4 if empty else 3)
        if empty:
            judged = {m: replace(j, weight=torch.cat([j.weight[:3], torch.zeros_like(j.weight[3:])]))
                      for m, j in judged.items()}  # fmt: skip
        part = replace(batch, images=batch.images[chosen], seeds=batch.seeds[chosen],
                       judged={m: j.of(chosen) for m, j in judged.items()})  # fmt: skip
        gradients.append(gradient(state, part))
    state.close()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
