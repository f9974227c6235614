"""Pretraining: batches, losses, the same bytes twice, interrupts, configurations, the command."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.models.embedded.card import read_card
from reasonx_eval.models.embedded.tiny_net import CODES
from reasonx_eval.registry import load_dataset
from reasonx_ft.cli.main import cli
from reasonx_ft.pretraining.pretrain import pretrain, rate
from reasonx_ft.training.config import PretrainConfig, read_config
from reasonx_ft.training.losses import code_loss, normals_loss
from reasonx_ft.training.scene_batches import Scenes, batch_at, load_scenes

SMALL = {"steps": 4, "images": 2, "scenes": 6, "threads": 1, "check_every": 0, "test_scenes": 0}


def small(model: str, **changes: object) -> PretrainConfig:
    return read_config(model, None, {**SMALL, **changes})


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    dataset = load_dataset("scenes-synthetic", split="train")
    return load_scenes(dataset, list(dataset.ids)[:5], workers=1)


# batches


def test_scenes_are_the_samples(scenes: Scenes) -> None:
    sample = load_dataset("scenes-synthetic", split="train").load("synthetic/train/00003")
    np.testing.assert_array_equal(scenes.images[3], sample.image.transpose(2, 0, 1))
    np.testing.assert_allclose(scenes.maps["depth"][3, 0], sample.targets["depth"].depth, rtol=1e-3)
    np.testing.assert_allclose(scenes.maps["normals"][3, 1], sample.targets["normals"].normal[..., 1], atol=1e-3)
    np.testing.assert_allclose(scenes.maps["albedo"][3, 2], sample.targets["albedo"].value[..., 2], rtol=1e-3)


@pytest.mark.slow
def test_processes_change_nothing(scenes: Scenes) -> None:
    dataset = load_dataset("scenes-synthetic", split="train")
    other = load_scenes(dataset, list(dataset.ids)[:5], workers=2)
    np.testing.assert_array_equal(scenes.images, other.images)
    assert all(np.array_equal(scenes.maps[m], other.maps[m]) for m in CODES)


def test_every_scene_once_a_pass_in_changing_order(scenes: Scenes) -> None:
    numbered = replace(scenes, images=np.broadcast_to(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), (5, 3, 8, 8)),
                       maps={m: v[..., :8, :8] for m, v in scenes.maps.items()})  # fmt: skip
    seen = [round(float(x) * 255) for step in range(10)
            for x in batch_at(numbered, seed=0, step=step, images=2, flip=True).images[:, 0, 0, 0]]  # fmt: skip
    passes = [tuple(seen[k : k + 5]) for k in range(0, 20, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes)
    assert len(set(passes)) > 1


def test_a_batch_depends_on_seed_and_step_alone(scenes: Scenes) -> None:
    late = batch_at(scenes, seed=3, step=7, images=3, flip=True)
    for step in range(8):
        again = batch_at(scenes, seed=3, step=step, images=3, flip=True)
    assert torch.equal(late.images, again.images)
    assert all(torch.equal(late.codes[m], again.codes[m]) for m in CODES)
    assert not torch.equal(late.images, batch_at(scenes, seed=4, step=7, images=3, flip=True).images)


def test_mirror_images_have_mirrored_normals(scenes: Scenes) -> None:
    plain = [batch_at(scenes, seed=0, step=k, images=5, flip=False) for k in range(4)]
    turned = [batch_at(scenes, seed=0, step=k, images=5, flip=True) for k in range(4)]
    n_mirrored = 0
    for before, after in zip(plain, turned, strict=True):
        for k in range(5):
            if torch.equal(before.images[k], after.images[k]):
                assert all(torch.equal(before.codes[m][k], after.codes[m][k]) for m in CODES)
                continue
            n_mirrored += 1
            assert torch.equal(before.images[k].flip(-1), after.images[k])
            for m in ("depth", "albedo", "irradiance"):
                assert torch.equal(before.codes[m][k].flip(-1), after.codes[m][k])
            x, y, z = before.codes["normals"][k].flip(-1)
            assert torch.equal(torch.stack([-x, y, z]), after.codes["normals"][k])
    assert 4 <= n_mirrored <= 16


def test_black_has_a_code(scenes: Scenes) -> None:
    black = replace(scenes, maps={**scenes.maps, "albedo": np.zeros_like(scenes.maps["albedo"])})
    assert bool(torch.isfinite(batch_at(black, seed=0, step=0, images=2, flip=False).codes["albedo"]).all())


def test_data_without_all_maps_are_refused() -> None:
    dataset = load_dataset("scenes-synthetic", split="train")
    dataset.__class__ = type("Half", (dataset.__class__,), {"targets": ("depth", "normals")})
    with pytest.raises(UsageError, match="no ground truth of albedo, irradiance"):
        load_scenes(dataset, ["synthetic/train/00000"], workers=1)


def test_sizes_that_do_not_fit_are_refused() -> None:
    dataset = load_dataset("scenes-synthetic", split="train", options={"size": "20x36"})
    with pytest.raises(DataError, match="20x36 pixels: both sides must be multiples of 8"):
        load_scenes(dataset, ["synthetic/train/00000"], workers=1)


# losses


def test_a_constant_error_costs_itself_and_has_no_steps() -> None:
    true = torch.rand(2, 3, 8, 8)
    assert float(code_loss(true + 0.5, true, differences=(1, 4), weight=7.0)) == pytest.approx(0.5, abs=1e-6)


def test_steps_by_hand() -> None:
    # error 0 1 in the one row pair: |error| mean 1/2; right: 2 of 2 steps are 1; down: 0
    predicted = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    loss = code_loss(predicted, torch.zeros(1, 1, 2, 2), differences=(1, 5), weight=2.0)
    assert float(loss) == pytest.approx(0.5 + 2.0 * 1.0)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 180.0])
def test_normals_cost_the_chord_of_their_angle(degrees: float) -> None:
    true = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
    a = math.radians(degrees)
    predicted = 3.0 * torch.tensor([math.sin(a), 0.0, -math.cos(a)]).view(1, 3, 1, 1)
    found = float(normals_loss(predicted, true, of_unit_length=True))
    assert found == pytest.approx(2 * math.sin(a / 2), abs=2e-3)
    assert float(normals_loss(predicted / 3, true, of_unit_length=False)) == pytest.approx(found, abs=2e-3)


def test_the_rate_rises_and_falls() -> None:
    config = small("tiny", steps=1000, warmup=9, learning_rate=0.1)
    assert rate(config, 0) == pytest.approx(0.01)
    assert rate(config, 9) == pytest.approx(0.1, rel=1e-3)
    assert rate(config, 500) == pytest.approx(0.05)
    assert 0 < rate(config, 999) < 1e-6


# training


def digest(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(scope="module", params=["tiny", "tiny-flow"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A training of four steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished")
    assert pretrain(small(request.param), out, workers=1) == out / f"{request.param}.safetensors"
    return request.param, out


def same_files(model: str, a: Path, b: Path) -> bool:
    return all(digest(a / name) == digest(b / name) for name in (f"{model}.safetensors", f"{model}.json"))


def test_the_same_bytes_twice(finished: tuple[str, Path], tmp_path: Path) -> None:
    model, out = finished
    torch.manual_seed(12345)  # whatever the caller drew
    pretrain(small(model), tmp_path, workers=1)
    assert same_files(model, out, tmp_path)


def test_another_seed_gives_other_weights(finished: tuple[str, Path], tmp_path: Path) -> None:
    model, out = finished
    pretrain(small(model, seed=1), tmp_path, workers=1)
    assert digest(out / f"{model}.safetensors") != digest(tmp_path / f"{model}.safetensors")


def interrupt_at(step: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("train", step):
            signal.raise_signal(signal.SIGINT)

    return progress


def test_interrupted_and_resumed_equals_uninterrupted(finished: tuple[str, Path], tmp_path: Path) -> None:
    model, out = finished
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pretrain(small(model), tmp_path, workers=1, progress=interrupt_at(1))
    assert signal.getsignal(signal.SIGINT) == before
    assert (tmp_path / "checkpoint.pt").is_file()
    assert not (tmp_path / f"{model}.safetensors").exists()
    steps: list[int] = []

    def count(what: str, done: int, total: int) -> None:
        if what == "train":
            steps.append(done)

    pretrain(small(model), tmp_path, workers=1, progress=count)
    assert steps == [2, 3, 4]  # steps 0 and 1 were done: the interrupt let the second one end
    assert same_files(model, out, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_killed_after_a_checkpoint_equals_uninterrupted(finished: tuple[str, Path], tmp_path: Path) -> None:
    model, out = finished
    config = small(model, check_every=2, check_scenes=1)

    def killed(what: str, done: int, total: int) -> None:
        if (what, done) == ("train", 3):
            raise MemoryError

    with pytest.raises(MemoryError):
        pretrain(config, tmp_path, workers=1, progress=killed)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "depth"')  # cut off
    pretrain(config, tmp_path, workers=1)
    assert digest(out / f"{model}.safetensors") == digest(tmp_path / f"{model}.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]["check"]) == {"depth.abs_rel", "normals.mean_deg", "albedo.whdr10", "irradiance.si_mse"}


def test_killed_while_scoring_the_same_command_ends_with_all_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No handler sees a kill: whatever lies in the folder at that moment is what the next command finds."""
    file = tmp_path / "small.toml"
    file.write_text("steps = 2\nimages = 2\nscenes = 4\nthreads = 1\ncheck_every = 0\ntest_scenes = 1\n")
    out = tmp_path / "out"
    arguments = ["pretrain", "--model", "tiny", "--out", str(out), "--config", str(file), "--workers", "1", "-q"]

    def killed(_model: str, weights: Path, *_: object) -> None:
        assert weights.is_file()
        shutil.copytree(out, tmp_path / "killed")
        raise SystemExit(137)

    with monkeypatch.context() as patched:
        patched.setattr("reasonx_ft.pretraining.pretrain.scores", killed)
        assert run(*arguments) == 137
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "killed", out)
    assert not (out / "tiny.json").exists()
    assert run(*arguments) == 0, capsys.readouterr().err
    assert len(read_card(out / "tiny.safetensors").scores) == 10
    assert sorted(p.name for p in out.iterdir()) == ["log.jsonl", "tiny.json", "tiny.safetensors"]
    assert len((out / "log.jsonl").read_text().splitlines()) == 1, "trained once"


def test_settings_of_torch_are_put_back(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    state = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        pretrain(small("tiny", threads=2), tmp_path, workers=1, progress=interrupt_at(0))
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(small("tiny"), tmp_path, workers=1, progress=interrupt_at(0))
    with pytest.raises(UsageError, match=r"seed 0 \(now 5\), steps 4 \(now 9\)"):
        pretrain(small("tiny", seed=5, steps=9), tmp_path, workers=1)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(os.environ["EVIL"]),))


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_checkpoint_that_is_none(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("EVIL", str(trap))
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(_Evil()) if content is None else content)
    with pytest.raises(DataError, match="not a checkpoint"):
        pretrain(small("tiny"), tmp_path, workers=1)
    assert not trap.exists()


@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
def test_training_lowers_every_loss(model: str, tmp_path: Path) -> None:
    config = small(model, steps=40, scenes=1, images=1, warmup=5, flip=False)
    pretrain(config, tmp_path, workers=1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    most = {"depth": 0.25, "normals": 0.5, "albedo": 0.45, "irradiance": 0.45}  # fresh weights lose 0.6 to 1.4
    assert [m for m in CODES if lines[-1][m] > most[m]] == []


def test_card_states_what_was_done(finished: tuple[str, Path]) -> None:
    model, out = finished
    card = read_card(out / f"{model}.safetensors")
    ids = list(load_dataset("scenes-synthetic", split="train").ids)[:6]
    assert [d.model_dump() for d in card.data] == [
        {"dataset": "scenes-synthetic", "split": "train", "n": 6, "ids_sha256": sha256_lines(ids)}
    ]
    assert card.training == small(model).model_dump(mode="json")
    assert card.training["seed"] == 0
    assert card.training["steps"] == 4
    assert card.licence == "Apache-2.0"
    assert set(card.versions) == {"reasonx", "python", "torch", "numpy"}
    assert card.augmentation == ["half of the images mirrored, normals with them"]
    assert card.scores == []  # none were asked for


def test_card_has_scores_of_both_domains_with_signatures(tmp_path: Path) -> None:
    weights = pretrain(small("tiny", test_scenes=2), tmp_path, workers=1)
    scores = read_card(weights).scores
    assert [s.protocol for s in scores] == [
        f"{task}/{name}{tail}@1"
        for name in ("scenes-synthetic", "scenes-wild")
        for task, tail in (("depth", ""), ("normals", ""), ("albedo", ""), ("albedo", "-whdr"), ("irradiance", ""))
    ]
    assert all(s.n == 2 and s.signature.startswith(s.protocol) and f"|n:2/{n}|" in s.signature
               for s, n in zip(scores, [100] * 5 + [200] * 5, strict=True))  # fmt: skip


# configurations and the command


def test_flags_win_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('steps = 7\nseed = 2\ndifferences = [1, 2]\n')
    config = read_config("tiny", file, {"steps": 9, "images": None})
    assert (config.steps, config.seed, config.differences) == (9, 2, (1, 2))
    assert config.images == read_config("tiny", None, {}).images


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "unknown key 'stepz'; did you mean 'steps'"),
        ("steps = 'many'", "steps: Input should be a valid integer"),
        ("steps = 0", "steps: Input should be greater than or equal to 1"),
        ("learning_rate = -1", "learning_rate: Input should be greater than 0"),
        ('model = "tiny-flow"', "the file is for tiny-flow, not tiny"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config("tiny", file, {})


def run(*arguments: str) -> int:
    return run_cli(cli, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "tinny", "--out", "x"), "unknown model 'tinny'; did you mean 'tiny'"),
        (("--model", "tiny", "--out", "x", "--steps", "0"), "steps: Input should be greater"),
        (("--model", "tiny", "--out", "x", "--config", "none.toml"), "none.toml: no such file"),
        (("--model", "tiny"), "Missing option '--out'"),
    ],
)
def test_wrong_commands(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str],
                        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run("pretrain", *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_weights_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "quick.toml"
    file.write_text("check_every = 0\ntest_scenes = 2\n")
    out = tmp_path / "w"
    command = ("pretrain", "--model", "tiny", "--out", str(out), "--config", str(file), "--steps", "2", "--images", "2",
               "--scenes", "2", "--threads", "1", "--workers", "1")  # fmt: skip
    assert run(*command) == 0
    assert f"weights  {out / 'tiny.safetensors'}" in (printed := capsys.readouterr().out)
    assert "normals/scenes-wild@1|n:2/200|" in printed
    assert run(*command) == 2
    assert "tiny.safetensors is there already" in capsys.readouterr().err
    assert run(*command, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == 2


def test_an_interrupt_is_exit_6_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    from reasonx_ft.pretraining import pretrain as module

    update, asked = module._update, []

    def once(*arguments: object) -> object:
        if not asked:
            asked.append(True)
            signal.raise_signal(signal.SIGINT)
        return update(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_update", once)
    file = tmp_path / "quick.toml"
    file.write_text("check_every = 0\ntest_scenes = 0\n")
    command = ("pretrain", "--model", "tiny", "--out", str(tmp_path / "w"), "--config", str(file), "--steps", "2",
               "--images", "1", "--scenes", "2", "--threads", "1", "--workers", "1")  # fmt: skip
    assert run(*command) == 6
    assert "the same command goes on from there" in capsys.readouterr().err
    assert run(*command) == 0


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from reasonx_ft.cli.main import cli\n"
        "from reasonx_eval.cli.main import run_cli\n"
        "assert run_cli(cli, ['--help']) == 0 and run_cli(cli, ['pretrain', '--help']) == 0\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'rich', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout
    assert run("pretrian") == 2


# going on from weights


@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
def test_supervision_begins_with_the_shipped_weights(model: str, tmp_path: Path) -> None:
    from reasonx_eval.models.embedded.card import WEIGHTS, load_network

    # a rate so small that half precision keeps the weights
    config = small(model, start="shipped", dataset="scenes-wild", steps=1, learning_rate=1e-12, weight_decay=0.0)
    weights = pretrain(config, tmp_path, workers=1)
    card, before = read_card(weights), read_card(WEIGHTS / f"{model}.safetensors")
    ours, shipped = load_network(weights, card), load_network(WEIGHTS / f"{model}.safetensors", before)
    for name, value in shipped.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9)
    assert card.base == f"{model} {before.weights_sha256[:12]}"
    assert [d.dataset for d in card.data] == ["scenes-synthetic", "scenes-wild"]


def test_start_must_be_weights_of_the_model(tmp_path: Path) -> None:
    from reasonx_eval.models.embedded.card import WEIGHTS

    with pytest.raises(UsageError, match="weights of tiny-flow, not tiny"):
        pretrain(small("tiny", start=str(WEIGHTS / "tiny-flow.safetensors")), tmp_path, workers=1)
    with pytest.raises(UsageError):
        pretrain(small("tiny", start=str(tmp_path / "nowhere.safetensors")), tmp_path, workers=1)


@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
def test_half_the_bits_is_nearly_the_same_step(model: str, tmp_path: Path) -> None:
    lines = []
    for half in (False, True):
        out = tmp_path / str(half)
        pretrain(small(model, start="shipped", steps=1, bfloat16=half), out, workers=1)
        lines.append(json.loads((out / "log.jsonl").read_text().splitlines()[-1]))
    for name in ("depth", "albedo", "gradient"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=0.1)
        assert lines[1][name] != lines[0][name]
