"""Training of the small judge: views, pairs, optimiser, calibration, the same bytes twice, interrupts, the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.cli.main import run_cli
from reasonx_eval.datasets.scenes.pairs import BANDS
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME
from reasonx_ft.cli.main import cli
from reasonx_ft.judges.tiny_files import read_card
from reasonx_ft.judges.tiny_net import JUDGED
from reasonx_ft.judges.training.augmentation import PARTS, mirrored, vary
from reasonx_ft.judges.training.calibration import fit
from reasonx_ft.judges.training.config import JudgeConfig, Source, read_config
from reasonx_ft.judges.training.pairs import draw_pairs
from reasonx_ft.judges.training.tiny import answer_losses, batch_at, pace, train_tiny
from reasonx_ft.training.muon import Muon, orthogonal
from reasonx_ft.training.scene_batches import Scenes, load_scenes


def small(**changes: object) -> JudgeConfig:
    few = {"sources": [Source(dataset="scenes-broad", scenes=4)], "steps": 3, "images": 2, "threads": 2, "pairs": 4,
           "calibrate": Source(dataset="scenes-broad", split="val", scenes=2), "base": None, "test": None}
    return JudgeConfig.model_validate({**few, **changes})


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    dataset = load_dataset("scenes-broad", split="train")
    return load_scenes(dataset, list(dataset.ids)[:4], 1)


@pytest.fixture(scope="module")
def photos_and_maps(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor]:
    maps = np.concatenate([scenes.maps[m] for m in PARTS], axis=1).astype(np.float32)
    return torch.from_numpy(scenes.images).float() / 255, torch.from_numpy(maps)


def test_views_are_photos_and_unchanged_depth_where_nothing_is_made_anew(photos_and_maps):
    photos, maps = photos_and_maps
    views = vary(photos, maps, seed=1, relit=0.0)
    assert torch.equal(views.maps, maps)  # only tones change
    assert views.photos.min() >= 0
    assert views.photos.max() <= 1
    assert torch.equal((views.photos * 255).round(), views.photos * 255)


def test_views_made_anew_follow_their_maps(photos_and_maps):
    photos, maps = photos_and_maps
    views = vary(photos, maps, seed=2, relit=1.0)
    assert not torch.equal(views.maps[:, 4:7], maps[:, 4:7])
    normals = views.maps[:, 1:4]
    assert torch.allclose(normals.norm(dim=1), torch.ones(()), atol=2e-3)
    assert torch.isfinite(views.maps).all()
    assert (views.maps[:, 4:] > 0).all()
    # brighter where albedo times irradiance is brighter, whatever the camera did
    linear = (views.maps[:, 4:7] * views.maps[:, 7:10]).mean(dim=1).flatten(1)
    seen = views.photos.mean(dim=1).flatten(1)
    for made, shown in zip(linear, seen, strict=True):
        ranks = torch.stack([made.argsort().argsort().float(), shown.argsort().argsort().float()])
        assert torch.corrcoef(ranks)[0, 1] > 0.8


def test_a_turn_turns_the_normals_with_the_picture():
    """A tilted plane: its normal's direction in the picture is the direction in which depth falls, turned or not."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    slope = torch.tensor([0.8, 0.35])
    depth = 60 + slope[0] * x * 0.1 + slope[1] * y * 0.1
    normal = torch.tensor([slope[0], slope[1], -1.0]) / torch.tensor([slope[0], slope[1], -1.0]).norm()
    maps = torch.cat([depth[None], normal.view(3, 1, 1).expand(3, 96, 128), torch.full((6, 96, 128), 0.5)])[None]
    turned = 0
    for seed in range(6):
        out = vary(torch.full((1, 3, 96, 128), 0.5), maps, seed=seed, relit=1.0).maps[0]
        down, right = out[0, 80, 64] - out[0, 16, 64], out[0, 48, 112] - out[0, 48, 16]
        seen = torch.atan2(down / 64, right / 96)
        assert torch.atan2(out[2, 48, 64], out[1, 48, 64]) == pytest.approx(float(seen), abs=0.03)
        assert out[3, 48, 64] == pytest.approx(float(normal[2]), abs=1e-6)
        turned += abs(float(seen) - float(torch.atan2(slope[1], slope[0]))) > 0.03
    assert turned >= 2


def test_views_depend_on_the_seed_alone(photos_and_maps):
    photos, maps = photos_and_maps
    torch.manual_seed(5)
    one = vary(photos, maps, seed=7, relit=0.5)
    torch.manual_seed(6)
    two, three = vary(photos, maps, seed=7, relit=0.5), vary(photos, maps, seed=8, relit=0.5)
    assert torch.equal(one.photos, two.photos)
    assert not torch.equal(one.photos, three.photos)


def test_mirroring_twice_is_nothing(photos_and_maps):
    photos, maps = photos_and_maps
    all_, none = torch.ones(4, 1, 1, 1, dtype=torch.bool), torch.zeros(4, 1, 1, 1, dtype=torch.bool)
    once = mirrored(photos, maps, all_)
    assert torch.equal(once[1][:, 1], -maps[:, 1].flip(-1))
    assert all(torch.equal(a, b) for a, b in zip(mirrored(*once, all_), (photos, maps), strict=True))
    assert torch.equal(mirrored(photos, maps, none)[0], photos)


def test_drawn_pairs_have_the_relations_of_the_metric(photos_and_maps):
    _, maps = photos_and_maps
    pairs = draw_pairs(maps, 12, torch.Generator().manual_seed(0))
    assert pairs.points.shape == (4, 60, 2, 2)
    for b in range(4):
        at = pairs.points[b].reshape(-1, 2).numpy()
        where = (at + 0.5) / np.array([128, 96])
        rows = np.arange(len(at)).reshape(-1, 2)
        for k, modality in enumerate(JUDGED):
            first, last = PARTS[modality]
            value = maps[b, first:last].permute(1, 2, 0).numpy()
            found = relation(value=value[..., 0] if modality == "depth" else value, points=where, pairs=rows,
                             modality=modality)
            decided, true = pairs.decided[b, :, k].numpy(), pairs.truth[b, :, k].numpy()
            assert (decided == (found != LEFT_OUT)).all()
            assert (true[decided] == np.isin(found, (FIRST, SAME))[decided]).all()
            assert modality != "albedo" or set(found) <= {SAME, DIFFERENT}


def test_drawn_pairs_keep_to_the_bands(photos_and_maps):
    _, maps = photos_and_maps
    pairs = draw_pairs(maps, 30, torch.Generator().manual_seed(1)).points.float()
    distance = (pairs[:, :, 0] - pairs[:, :, 1]).norm(dim=-1) * 4  # at 512
    for k, (_, top) in enumerate(BANDS):
        assert distance[:, 30 * k : 30 * k + 30].max() <= top + 6
    assert distance[:, :30].median() > 18
    edge = 30 / 4 - 1
    assert pairs.min() >= edge
    assert pairs[..., 0].max() <= 128 - edge
    assert pairs[..., 1].max() <= 96 - edge


def test_both_answers_about_albedo_weigh_the_same(photos_and_maps):
    _, maps = photos_and_maps
    pairs = draw_pairs(maps, 12, torch.Generator().manual_seed(0))
    constant = torch.zeros(*pairs.truth.shape)
    constant[..., 3] = 1.0
    said = answer_losses(constant, pairs)
    p = 1 / (1 + np.exp(-1.0))
    assert float(said[3]) == pytest.approx(-(np.log(p) + np.log(1 - p)) / 2, abs=1e-5)
    assert float(said[0]) == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (8, 8)])
def test_orthogonal_steps_keep_directions_and_even_out_sizes(shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(*shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(1, 20, len(s))) @ v
    found = orthogonal(matrix)
    sizes = torch.linalg.svdvals(found)
    assert sizes.max() < 1.3
    assert sizes.min() > 0.45
    projected = u.T @ found @ v.T
    assert (projected - torch.diag(projected.diagonal())).abs().max() < 0.1


def test_muon_fits_a_linear_map_and_moves_the_rest_as_adam_does():
    torch.manual_seed(0)
    truth, x = torch.randn(6, 10), torch.randn(200, 10)
    weight, bias = torch.nn.Parameter(torch.zeros(6, 10)), torch.nn.Parameter(torch.zeros(6))
    twin = torch.nn.Parameter(torch.zeros(6))
    muon = Muon([weight], [bias], learning_rate=0.1, adam_rate=0.02, weight_decay=0.0)
    adam = torch.optim.Adam([twin], lr=0.02, betas=(0.9, 0.99))
    for step in range(150):
        loss = (x @ weight.T + bias - x @ truth.T - 1).square().mean()
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        twin.grad = bias.grad.clone()
        if step < 5:
            before = twin.detach().clone()
            adam.step()
            moved = bias.detach().clone()
        muon.set_pace(1 - step / 150)
        muon.step()
        if step == 0:
            assert torch.allclose(bias.detach() - moved, twin.detach() - before, atol=1e-7)
    assert float(loss.detach()) < 1e-2


def test_a_calibration_is_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-(0.4 * logits - 0.7)))).astype(float)
    assert fit(logits, truth, shifted=True) == pytest.approx((0.4, -0.7), abs=0.05)
    plain = (rng.random(20_000) < 1 / (1 + np.exp(-2.5 * logits))).astype(float)
    factor, shift = fit(logits, plain, shifted=False)
    assert factor == pytest.approx(2.5, abs=0.15)
    assert shift == 0.0
    # separable: finite all the same
    assert 1 < fit(np.array([-1.0, 1.0]), np.array([0.0, 1.0]), shifted=False)[0] < 100


def test_batches_go_through_all_scenes_and_depend_on_step_and_part(scenes):
    config = small(images=4)
    one, again = batch_at(config, [scenes], 3, 1), batch_at(config, [scenes], 3, 1)
    assert torch.equal(one[0].photos, again[0].photos)
    assert torch.equal(one[1].points, again[1].points)
    other = batch_at(config, [scenes], 3, 0)
    assert not torch.equal(one[0].photos, other[0].photos)
    untouched = small(images=4, relit=0.0)
    depths = torch.cat([batch_at(untouched, [scenes], 0, part)[0].maps[:, 0] for part in (0, 1)])
    ours = {round(float(d.mean()), 3) for d in depths}
    assert ours == {round(float(d.astype(np.float32).mean()), 3) for d in scenes.maps["depth"][:, 0]}


def test_the_same_configuration_gives_the_same_bytes_and_an_interrupt_changes_nothing(tmp_path: Path):
    config = small()
    first = train_tiny(config, tmp_path / "a", workers=1)

    def stop(what: str, done: int, _total: int) -> None:
        if what == "train" and done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_tiny(config, tmp_path / "b", workers=1, progress=stop)
    assert (tmp_path / "b" / "checkpoint.pt").is_file()
    second = train_tiny(config, tmp_path / "b", workers=1)
    assert first.read_bytes() == second.read_bytes()
    assert not (tmp_path / "b" / "checkpoint.pt").exists()
    card = read_card(second)
    assert [(d.dataset, d.split, d.n) for d in card.data] == [("scenes-broad", "train", 4)]
    assert set(card.calibration) == set(JUDGED)
    assert card.parameters == 1_102_238
    [score] = [s for s in card.scores if s.modality == "albedo"]
    assert (score.dataset, score.split) == ("scenes-broad", "val")
    assert 0 <= score.accuracy <= 1


def test_killed_while_scoring_the_same_command_ends_with_all_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No handler sees a kill: whatever lies in the folder at that moment is what the next command finds."""
    whole = train_tiny(small(), tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    # TOML has no word for "none"
    monkeypatch.setattr("reasonx_ft.judges.training.config.read_config", lambda _file, _flags: small())
    arguments = ["judge-train", "--judge", "tiny", "--out", str(out), "--workers", "1", "-q"]

    def killed(weights: Path, *_: object) -> None:
        assert weights.is_file()
        shutil.copytree(out, tmp_path / "killed")
        raise SystemExit(137)

    with monkeypatch.context() as patched:
        patched.setattr("reasonx_ft.judges.evaluation.scores.scores", killed)
        assert run_cli(cli, arguments) == 137
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "killed", out)
    assert not (out / "tiny-judge.json").exists()
    assert run_cli(cli, arguments) == 0, capsys.readouterr().err
    assert (out / whole.name).read_bytes() == whole.read_bytes()
    assert (out / "tiny-judge.json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert read_card(out / whole.name).scores
    assert sorted(p.name for p in out.iterdir()) == ["log.jsonl", "tiny-judge.json", "tiny-judge.safetensors"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train_tiny(small(), tmp_path, workers=1,
                   progress=lambda what, _d, _t: os.kill(os.getpid(), signal.SIGINT) if what == "train" else None)
    with pytest.raises(UsageError, match=r"seed 0 \(now 1\)"):
        train_tiny(small(seed=1), tmp_path, workers=1)


def test_another_size_of_photos_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    larger = load_dataset("scenes-broad", split="train", options={"size": "104x128"})
    monkeypatch.setattr("reasonx_ft.judges.training.tiny.load_dataset", lambda _name, split: larger)
    with pytest.raises(DataError, match="pixels, not"):
        train_tiny(small(), tmp_path, workers=1)


def test_nothing_of_the_wild_scenes_is_trained_on_or_calibrated_on():
    config = JudgeConfig()
    assert {s.dataset for s in config.sources} == {"scenes-broad", "scenes-synthetic"}
    assert {s.split for s in config.sources} == {"train"}
    assert (config.calibrate.dataset, config.calibrate.split) == ("scenes-broad", "val")


def test_the_pace_rises_and_falls():
    config = small(steps=100, warmup=10)
    assert pace(config, 0) == pytest.approx(1 / 11)
    assert max(pace(config, s) for s in range(100)) <= 1
    assert pace(config, 99) < 1e-3


def test_configurations(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('steps = 5\nsources = [{dataset = "scenes-broad", scenes = 3}]\n')
    assert read_config(file, {"steps": 7, "seed": None}).steps == 7
    assert read_config(None, {"scenes": 500}).sources == (Source(dataset="scenes-broad", scenes=500),)
    file.write_text("stepz = 5\n")
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        read_config(file, {})
    with pytest.raises(UsageError, match="can't be shared out"):
        read_config(None, {"images": 7, "threads": 2})
    with pytest.raises(UsageError, match="no such file"):
        read_config(tmp_path / "none.toml", {})


def test_the_command(tmp_path: Path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('pairs = 2\nsources = [{dataset = "scenes-broad", scenes = 2}]\n'
                    'calibrate = {dataset = "scenes-broad", split = "val", scenes = 2}\n'
                    'test = {dataset = "scenes-wild", split = "val", scenes = 2}\n')
    line = ["judge-train", "--judge", "tiny", "--out", str(tmp_path / "out"), "--config", str(file), "--steps", "1",
            "--images", "2", "--workers", "1", "-q", "--json"]
    assert run_cli(cli, line) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["training"]["steps"] == 1
    assert {s["dataset"] for s in card["scores"]} == {"scenes-broad", "scenes-wild"}
    assert all(s["base"] == "tiny" for s in card["scores"])
    assert run_cli(cli, line) == 2
    assert "there already" in capsys.readouterr().err
    for wrong in (["--judge", "oracle"], ["--judge", "tiny", "--data", "x"], ["--judge", "mllm:x"],
                  ["--judge", "mllm:x", "--scenes", "3"]):
        assert run_cli(cli, ["judge-train", *wrong, "--out", str(tmp_path / "x"), "-q"]) == 2


def test_damaged_weights_are_named(tmp_path: Path):
    weights = train_tiny(small(steps=1), tmp_path, workers=1)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(DataError, match="not the weights that its card describes"):
        read_card(weights)
    weights.with_suffix(".json").write_text("{}")
    with pytest.raises(UsageError, match="not a card of a small judge"):
        read_card(weights)
    weights.with_suffix(".json").unlink()
    with pytest.raises(UsageError, match="no card"):
        read_card(weights)
