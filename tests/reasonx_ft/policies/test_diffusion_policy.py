"""Marigold-type pipelines as policies, on random pipelines of a few thousand parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.marigold import Marigold
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.kernels import ODE, step, to_rf, to_vp
from reasonx_ft.grpo.loss import advantages, clipped_loss, kl_divergence, log_ratio
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.base import Source
from reasonx_ft.policies.chain import rectangles
from reasonx_ft.policies.diffusion import Diffusion, load_pipeline
from tests.reasonx_eval.models import tiny_marigold

pytestmark = pytest.mark.usefixtures("one_thread")

MAKERS: dict[str, Callable[..., Path]] = {
    "depth": tiny_marigold.depth,
    "normals": tiny_marigold.normals,
    "lighting": tiny_marigold.intrinsics,
    "appearance": lambda folder, **k: tiny_marigold.intrinsics(folder, tiny_marigold.APPEARANCE, **k),
}


@pytest.fixture(scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("pipelines")
    return {name: make(where / name) for name, make in MAKERS.items()}


def _policy(folder: Path, **options: Any) -> Diffusion:
    runtime = Runtime("cpu", options.pop("dtype", "float32"))
    source = Source(folder.name, runtime, options.pop("microbatch", None), checkpoint=Checkpoint(folder, str(folder)))
    return load_pipeline(source, **{"explore": "steps", "steps": 4, **options})


def _batch(policy: Diffusion, images: int = 2, pairs: int = 5, size: tuple[int, int] = (24, 32)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    judged = {}
    for modality in policy.modalities:
        rows, cols = (torch.randint(0, n, (images, pairs, 2), generator=generator) for n in size)
        probability = torch.rand(images, pairs, generator=generator)
        judged[modality] = Judged(modality, rows, cols, probability, torch.ones(images, pairs))
    photos = torch.rand(images, 3, *size, generator=generator)
    return Batch(photos, judged, tuple(range(10, 10 + images)))


def _perturb(network: nn.Module, by: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight.add_(by * torch.randn(weight.shape, generator=generator))


def _output(network: nn.Module, channels: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        found: Tensor = network(torch.randn(2, channels, 8, 8, generator=generator), torch.tensor([10.0, 500.0]),
                                encoder_hidden_states=torch.randn(2, 2, 16, generator=generator),
                                return_dict=False)[0]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("name", "lora", "size"),
    [("depth", 2, None), ("depth", None, 2), ("normals", 2, 5), ("lighting", 2, 2), ("lighting", None, None),
     ("appearance", None, 5)],
)  # fmt: skip
def test_oracle_11_replay_repeats_the_rollout_bit_by_bit(
    folders: dict[str, Path], name: str, lora: int | None, size: int | None
) -> None:
    policy = _policy(folders[name], lora=lora, microbatch=size)
    _perturb(policy.network)
    batch = _batch(policy)
    rollouts = policy.rollout(batch, 3, 0, reference=True)
    assert set(rollouts) == set(policy.modalities)
    seen = 0
    for part in policy.microbatches(rollouts, size):
        assert part.modalities == policy.modalities
        for modality, mean in policy.replay(batch, rollouts, part).items():
            transition = rollouts[modality].transitions[part.transition]
            ratio = log_ratio(part.of(transition.after), mean, part.of(transition.mean), transition.std)
            assert float(ratio.detach().abs().max()) == 0
            assert mean.requires_grad
            assert size is None or mean.shape[0] * mean.shape[1] <= size
            seen += mean.shape[0] * mean.shape[1]
    assert seen == 2 * 3 * 3 * len(policy.modalities)  # images, samples, scored steps


def test_oracle_11_also_in_bfloat16_with_checkpointing(folders: dict[str, Path]) -> None:
    policy = _policy(folders["lighting"], lora=2, dtype="bfloat16", gradient_checkpointing=True)
    _perturb(policy.network)
    batch = _batch(policy)
    rollouts = policy.rollout(batch, 2, 0, reference=True)
    for part in policy.microbatches(rollouts, None):
        transition = rollouts["albedo"].transitions[part.transition]
        for each in (transition.mean, transition.after, transition.state, transition.reference):
            assert each is not None
            assert each.dtype == torch.float32
        mean = policy.replay(batch, rollouts, part)["albedo"]
        assert torch.equal(mean, transition.mean)
        assert not torch.equal(mean, transition.reference)  # type: ignore[arg-type]
    assert all(w.dtype == torch.float32 for w in policy.network.parameters())


def test_oracle_15_samples_are_distinct_and_keyed_by_photo(folders: dict[str, Path]) -> None:
    policy = _policy(folders["depth"])
    batch = _batch(policy)
    both = policy.rollout(batch, 3, 0, reference=False)["depth"]
    finals = both.transitions[-1].after.flatten(0, 1)
    assert len({tuple(f.flatten().tolist()) for f in finals}) == 6
    # the second photo alone, in a larger group, draws the same noise
    alone = Batch(batch.images[1:], {"depth": batch.judged["depth"].of(slice(1, 2))}, batch.seeds[1:])
    again = policy.rollout(alone, 4, 0, reference=False)["depth"]
    first = again.transitions[0]
    assert first.state is not None
    assert torch.equal(first.state[0, :3], both.transitions[0].state[1])  # type: ignore[index]
    torch.testing.assert_close(again.transitions[-1].after[0, :3], both.transitions[-1].after[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.values[0, :3], both.values[1], rtol=1e-4, atol=1e-4)
    other = policy.rollout(replace(batch, seeds=(98, 99)), 3, 0, reference=False)["depth"]
    assert not torch.equal(other.transitions[0].after, both.transitions[0].after)


def test_oracle_16_batches_hardly_matter(folders: dict[str, Path]) -> None:
    policy = _policy(folders["normals"])
    batch = _batch(policy)
    rollouts = policy.rollout(batch, 4, 0, reference=False)
    whole = [policy.replay(batch, rollouts, p)["normals"] for p in policy.microbatches(rollouts, None)]
    parts = policy.microbatches(rollouts, 1)
    assert len(parts) == 2 * 4 * 3
    for part in parts:
        mean = policy.replay(batch, rollouts, part)["normals"]
        torch.testing.assert_close(mean, part.of(whole[part.transition]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
def test_oracle_17_no_divergence_before_the_first_update_and_some_after(
    folders: dict[str, Path], lora: int | None
) -> None:
    policy = _policy(folders["depth"], lora=lora)
    batch = _batch(policy)
    for transition in policy.rollout(batch, 2, 0, reference=True)["depth"].transitions:
        assert torch.equal(transition.mean, transition.reference)  # type: ignore[arg-type]
    assert policy.rollout(batch, 2, 0, reference=False)["depth"].transitions[0].reference is None
    _perturb(policy.network)
    for transition in policy.rollout(batch, 2, 0, reference=True)["depth"].transitions:
        assert transition.reference is not None
        assert float(kl_divergence(transition.mean, transition.reference, transition.std).min()) > 0


@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
def test_oracle_19_the_base_comes_back_bit_by_bit(folders: dict[str, Path], lora: int | None) -> None:
    base = Marigold(Checkpoint(folders["depth"], "base"), runtime=Runtime("cpu")).network.unet
    policy = _policy(folders["depth"], lora=lora)
    expected = _output(policy.network)
    # adapters start as no change; to rounding, because weights as the library maps them lie elsewhere in memory
    torch.testing.assert_close(expected, _output(base), rtol=1e-5, atol=1e-6)
    _perturb(policy.network)
    tuned = _output(policy.network)
    assert not torch.equal(tuned, expected)
    with policy.as_base():
        assert torch.equal(_output(policy.network), expected)
    assert torch.equal(_output(policy.network), tuned)
    with pytest.raises(RuntimeError, match="on purpose"), policy.as_base():
        raise RuntimeError("on purpose")
    assert torch.equal(_output(policy.network), tuned)
    assert any(w.requires_grad for w in policy.network.parameters())


def test_only_adapters_are_trained(folders: dict[str, Path]) -> None:
    policy = _policy(folders["depth"], lora=2)
    names = [n for n, w in policy.network.named_parameters() if w.requires_grad]
    assert names
    assert all(".lora_" in n for n in names)
    other = _policy(folders["depth"], lora=2)
    assert all(torch.equal(a, b) for a, b in zip(policy.network.parameters(), other.network.parameters(), strict=True))
    different = _policy(folders["depth"], lora=2, seed=1)
    pairs = zip(policy.network.parameters(), different.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    full = _policy(folders["depth"])
    assert all(w.requires_grad for w in full.network.parameters())
    with pytest.raises(UsageError, match="no layer for adapters"):
        _policy(folders["depth"], lora=2, lora_targets=("nothing",))


def _by_diffusers(folder: Path, image: Tensor, noise: Tensor, steps: int) -> np.ndarray[Any, Any]:
    """What diffusers' own pipeline makes of a photo [3, H, W] from given noise."""
    pipe = Marigold(Checkpoint(folder, "base"), runtime=Runtime("cpu")).network
    found = pipe(image, num_inference_steps=steps, processing_resolution=0, latents=noise)
    value: np.ndarray[Any, Any] = found.prediction
    return value


@pytest.mark.parametrize(
    ("name", "size"),
    [("depth", (24, 32)), ("depth", (21, 30)), ("normals", (21, 32)), ("lighting", (24, 31)), ("appearance", (24, 32))],
)
def test_oracle_36_the_deterministic_chain_is_the_pipeline(
    folders: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    """Four steps, where the library's stride hits the list: the same maps as diffusers' own run."""
    policy = _policy(folders[name])
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        condition = policy.latents.encode(image)
        shape = (1, policy.latents.channels, *condition.shape[-2:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        schedule = policy.chain.schedule
        estimate = policy.estimator(policy.modalities, policy.encoder(image), schedule)
        final = to_vp(policy.chain.answer(estimate, noise[:, None], schedule)[:, 0], schedule.times[-1])
        theirs = _by_diffusers(folders[name], image[0], noise, 4)
        for modality, target in policy.latents.targets.items():
            ours = policy.decode(policy.latents.decode(final, modality, size), modality)[0].permute(1, 2, 0).numpy()
            raw = theirs[target.place]
            if target.kind == "albedo_srgb":
                raw = np.where(raw <= 0.04045, raw / 12.92, ((raw + 0.055) / 1.055) ** 2.4)
            if target.kind == "normal":
                raw = raw * np.array([1, -1, -1])
            if modality in ("depth", "irradiance"):
                raw = np.maximum(raw, 1e-3)
            assert ours.shape[:2] == size
            np.testing.assert_allclose(ours, raw, atol=2e-4)


def test_conventions_of_maps(folders: dict[str, Path], tmp_path: Path) -> None:
    code = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5)
    depth = _policy(folders["depth"]).decode(code, "depth").flatten().tolist()
    assert depth == pytest.approx([1e-3, 1e-3, 0.5, 1, 1])
    disparity = _policy(tiny_marigold.depth(tmp_path / "disparity", prediction_type="disparity"))
    assert disparity.decode(code, "depth").flatten().tolist() == pytest.approx([1000, 1000, 2, 1, 1])
    towards = torch.tensor([0.0, 0.0, 0.5]).view(1, 3, 1, 1)  # Marigold's z is to the viewer, ours into the scene
    assert _policy(folders["normals"]).decode(towards, "normals").flatten().tolist() == pytest.approx([0, 0, -1])
    half = _policy(tiny_marigold.normals(tmp_path / "half", use_full_z_range=False))
    mixed = torch.tensor([0.6, 0.0, 0.6]).view(1, 3, 1, 1)
    assert half.decode(mixed, "normals").flatten().tolist() == pytest.approx([0.6, 0, -0.8])
    nothing = torch.zeros(1, 3, 1, 1, requires_grad=True)
    _policy(folders["normals"]).decode(nothing, "normals").sum().backward()
    assert bool(nothing.grad.isfinite().all())  # type: ignore[union-attr]
    grey = torch.zeros(1, 3, 1, 1)
    linear = _policy(folders["appearance"]).decode(grey, "albedo").flatten().tolist()
    assert linear == pytest.approx([((0.5 + 0.055) / 1.055) ** 2.4] * 3)
    assert _policy(folders["lighting"]).decode(grey, "albedo").flatten().tolist() == [0.5] * 3
    with pytest.raises(UsageError, match="unknown modality 'normals'"):
        _policy(folders["depth"]).decode(code, "normals")


def test_what_is_predicted(folders: dict[str, Path], tmp_path: Path) -> None:
    assert _policy(folders["lighting"]).modalities == ("albedo", "irradiance")
    assert _policy(folders["appearance"]).modalities == ("albedo",)
    policy = _policy(folders["depth"])
    assert policy.modalities == ("depth",)
    assert policy.working_size(480, 640) == (24, 32)
    assert policy.working_size(639, 640) == (31, 32)
    assert _policy(folders["depth"], resolution=0).working_size(99, 51) == (99, 51)
    native = tiny_marigold.depth(tmp_path / "native", default_processing_resolution=0)
    assert _policy(native).working_size(99, 51) == (99, 51)
    with pytest.raises(UsageError, match="0 steps"):
        _policy(native, answer_steps=0)


def test_values_are_those_of_the_maps_at_the_points(folders: dict[str, Path]) -> None:
    policy = _policy(folders["lighting"], slices=2)
    batch = _batch(policy)
    rollout = policy.rollout(batch, 3, 0, reference=False)["irradiance"]
    last = rollout.transitions[-1]
    with torch.no_grad():
        t, t_next = list(policy.chain.schedule)[-1]
        schedule = policy.chain.schedule
        estimate = policy.estimator(policy.modalities, policy.encoder(batch.images), schedule)(last.after, 3)
        final = to_vp(step(ODE, estimate, t, t_next, last=True).after, t_next)
        maps = policy.decode(policy.latents.decode(final.flatten(0, 1), "irradiance", (24, 32)), "irradiance")
    judged = batch.judged["irradiance"]
    for image, sample, pair, end in ((0, 0, 0, 0), (1, 2, 4, 1), (1, 0, 3, 0)):
        row, col = int(judged.rows[image, pair, end]), int(judged.cols[image, pair, end])
        torch.testing.assert_close(rollout.values[image, sample, pair, end], maps[image * 3 + sample, :, row, col],
                                   rtol=1e-4, atol=1e-5)  # fmt: skip
    spread = float(to_rf(final, t_next).std(1, correction=0).mean())
    assert rollout.sample_std == pytest.approx(spread, rel=1e-3)


def test_windows_move(folders: dict[str, Path]) -> None:
    policy = _policy(folders["depth"], steps=6, window=2, within=1.0, seed=3)
    batch = _batch(policy, size=(8, 8))
    places = set()
    for optimiser_step in range(12):
        rollout = policy.rollout(batch, 4, optimiser_step, reference=True)["depth"]
        first, second = rollout.transitions
        assert (first.index, second.index) == (0, 1)
        assert second.step == first.step + 1 < 5
        places.add(first.step)
        assert first.mean.shape[1] == 4
    assert places == {0, 1, 2, 3}


def test_kl_weighting(folders: dict[str, Path]) -> None:
    policy = _policy(folders["depth"], kl_weighting="flow_grpo")
    found = policy.rollout(_batch(policy), 2, 0, reference=True)["depth"].transitions
    times = list(policy.chain.schedule)
    assert [t.kl_scale for t in found] == pytest.approx([times[i][0] - times[i][1] for i in range(3)])


def _backward(policy: Diffusion, batch: Batch, rollouts: Any, size: int | None) -> dict[str, Tensor]:
    """Gradients of GRPO's loss over all microbatches."""
    policy.network.zero_grad()
    rollout = rollouts["depth"]
    advantage = advantages(torch.rand(2, 4, generator=torch.Generator().manual_seed(1)))
    for part in policy.microbatches(rollouts, size):
        transition = rollout.transitions[part.transition]
        mean = policy.replay(batch, rollouts, part)["depth"]
        ratio = log_ratio(part.of(transition.after), mean, part.of(transition.mean), transition.std)
        loss = clipped_loss(ratio, part.of(advantage), elements=transition.elements, clip_range_sum=1.0).loss
        (loss.sum() / (2 * 4 * 3)).backward()
    return {n: w.grad.clone() for n, w in policy.network.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
def test_oracle_30_microbatches_and_checkpointing_change_no_gradient(
    folders: dict[str, Path], lora: int | None
) -> None:
    policy = _policy(folders["depth"], lora=lora)
    _perturb(policy.network, 0.01)
    batch = _batch(policy)
    rollouts = policy.rollout(batch, 4, 0, reference=False)
    whole = _backward(policy, batch, rollouts, None)
    assert any(float(g.abs().max()) > 1e-6 for g in whole.values())
    scale = max(float(g.abs().max()) for g in whole.values())
    for found in (_backward(policy, batch, rollouts, 3), _backward(policy, batch, rollouts, 1)):
        for name, gradient in whole.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)
    policy.network.enable_gradient_checkpointing()  # type: ignore[operator]
    for name, gradient in _backward(policy, batch, rollouts, None).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-5 * scale)


def test_gradient_against_a_difference_quotient(folders: dict[str, Path]) -> None:
    policy = _policy(folders["depth"])
    batch = _batch(policy)
    rollouts = policy.rollout(batch, 4, 0, reference=False)
    gradients = _backward(policy, batch, rollouts, None)
    advantage = advantages(torch.rand(2, 4, generator=torch.Generator().manual_seed(1)))
    weight = policy.network.conv_out.bias  # type: ignore[union-attr]
    assert isinstance(weight, nn.Parameter)

    def loss() -> float:
        total = 0.0
        with torch.no_grad():
            for part in policy.microbatches(rollouts, None):
                transition = rollouts["depth"].transitions[part.transition]
                mean = policy.replay(batch, rollouts, part)["depth"].double()
                ratio = log_ratio(transition.after.double(), mean, transition.mean.double(), float(transition.std))
                total += float((-advantage * (ratio / transition.elements).exp()).sum()) / 24
        return total

    found = []
    for k in range(2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[k] += sign * 1e-2
            ends.append(loss())
            with torch.no_grad():
                weight[k] -= sign * 1e-2
        found.append((ends[0] - ends[1]) / 2e-2)
    assert found == pytest.approx(gradients["conv_out.bias"][:2].tolist(), rel=0.02, abs=1e-6)


def test_answers_have_a_gradient_and_noise_of_the_photo(folders: dict[str, Path]) -> None:
    policy = _policy(folders["lighting"], lora=2, answer_steps=2)
    images = _batch(policy).images
    codes = policy.answer(images, ("irradiance", "albedo"))
    assert list(codes) == ["irradiance", "albedo"]
    assert codes["albedo"].shape == (2, 3, 24, 32)
    codes["albedo"].square().mean().backward()
    assert any(float(w.grad.abs().max()) > 0 for w in policy.network.parameters() if w.grad is not None)
    with torch.no_grad():
        alone = policy.answer(images[1:].clone(), ("albedo",))["albedo"]
    torch.testing.assert_close(alone[0], codes["albedo"][1].detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [2, None], ids=["lora", "full"])
@pytest.mark.parametrize("name", ["depth", "lighting"])
def test_saved_pipelines_run(folders: dict[str, Path], tmp_path: Path, name: str, lora: int | None) -> None:
    policy = _policy(folders[name], lora=lora)
    _perturb(policy.network, 0.02)
    before = [w.clone() for w in policy.network.parameters()]
    channels = 8 if name == "depth" else 16
    expected = _output(policy.network, channels)
    saved = policy.save(tmp_path)
    assert (saved.architecture, saved.path) == ("pipeline", "pipeline")
    assert all(torch.equal(a, b) for a, b in zip(before, policy.network.parameters(), strict=True))
    again = Marigold(Checkpoint(tmp_path / saved.path, "tuned"), runtime=Runtime("cpu"))
    torch.testing.assert_close(_output(again.network.unet, channels), expected, rtol=1e-4, atol=1e-5)
    kind = next(iter(again.description.target))
    photo = (np.random.default_rng(0).random((24, 32, 3)) * 255).astype(np.uint8)
    tuned = again.predict([Sample("a", photo)], kind, 0)[0].value
    base = Marigold(Checkpoint(folders[name], "base"), runtime=Runtime("cpu")).predict([Sample("a", photo)], kind, 0)
    assert tuned.shape == base[0].value.shape
    assert not np.allclose(tuned, base[0].value, atol=1e-4)


def test_saving_twice_gives_the_same_bytes_and_no_paths(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = _policy(folders["normals"], lora=2)
    _perturb(policy.network)
    found = []
    for name in ("one", "two", "one"):  # also over what is there already
        policy.save(tmp_path / name)
        root = tmp_path / name
        found.append({p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()})
    assert found[0] == found[1] == found[2]
    assert not any(str(folders["normals"].parent).encode() in data for data in found[0].values())
    assert Path("pipeline/adapters/adapter_model.safetensors") in found[0]


def test_saved_adapters_fit_the_base(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = _policy(folders["depth"], lora=2)
    _perturb(policy.network)
    policy.save(tmp_path)
    unet = Marigold(Checkpoint(folders["depth"], "base"), runtime=Runtime("cpu")).network.unet
    adapted = PeftModel.from_pretrained(unet, str(tmp_path / "pipeline" / "adapters"))
    torch.testing.assert_close(_output(adapted), _output(policy.network), rtol=1e-4, atol=1e-5)


def test_what_can_not_be_tuned(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="LCMScheduler"):
        _policy(tiny_marigold.depth(tmp_path / "lcm", lcm=True))
    clipped = tiny_marigold.depth(tmp_path / "clipped")
    path = clipped / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"clip_sample": True}))
    with pytest.raises(UsageError, match="clip_sample"):
        _policy(clipped)
    with pytest.raises(UsageError, match="noise level of 0"):
        _policy(folders["depth"], noise_level=0.0)
    with pytest.raises(UsageError, match="none to score"):
        _policy(folders["depth"], steps=1)
    with pytest.raises(UsageError, match="window"):
        _policy(folders["depth"], window=4)
    with pytest.raises(UsageError, match="rank"):
        _policy(folders["depth"], lora=0)


@pytest.mark.parametrize(("images", "samples"), [(1, 1), (3, 4), (2, 8)])
@pytest.mark.parametrize("size", [None, 1, 2, 3, 5, 8, 100])
def test_rectangles_cover_everything_once(images: int, samples: int, size: int | None) -> None:
    count = torch.zeros(images, samples)
    for rows, columns in rectangles(images, samples, size):
        part = count[rows, columns]
        assert part.numel() <= (size or math.inf)
        part += 1
    assert bool((count == 1).all())


@pytest.mark.slow
def test_oracle_37_tuning_a_pipeline_raises_its_reward(folders: dict[str, Path]) -> None:
    """A consistent judge (the left point is closer), on a random pipeline: agreement must rise."""
    policy = _policy(folders["depth"], steps=3, kernel="ddim", noise_level=1.0)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(1, 3, 8, 8, generator=generator)
    rows = torch.randint(0, 8, (1, 40, 2), generator=generator)
    cols = torch.stack([torch.randint(0, 4, (1, 40), generator=generator),
                        torch.randint(4, 8, (1, 40), generator=generator)], dim=-1)  # fmt: skip
    judged = Judged("depth", rows, cols, torch.ones(1, 40), torch.ones(1, 40))
    optimiser = torch.optim.AdamW(policy.network.parameters(), lr=3e-3)
    rewards = []
    for number in range(30):
        batch = Batch(images, {"depth": judged}, (number,))
        rollouts = policy.rollout(batch, 8, number, reference=False)
        reward = agreement(rollouts["depth"].values, judged, hard=True).reward
        rewards.append(float(reward.mean()))
        advantage = advantages(reward, scale_rewards="floored", std_floor=0.05)
        optimiser.zero_grad()
        for part in policy.microbatches(rollouts, None):
            transition = rollouts["depth"].transitions[part.transition]
            mean = policy.replay(batch, rollouts, part)["depth"]
            ratio = log_ratio(transition.after, mean, transition.mean, transition.std)
            loss = clipped_loss(ratio, advantage, elements=transition.elements, clip_range_sum=1.0)
            loss.loss.mean().backward()
        optimiser.step()
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.25
