"""Marigold adapters against the library's own call, and against pipelines whose maps are known by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline
from PIL import Image

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.adapters import marigold
from reasonx_eval.models.adapters.marigold import Marigold
from reasonx_eval.models.adapters.marigold_maps import describe
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from tests.reasonx_eval.models import tiny_marigold as tiny

RNG = np.random.default_rng(5)
CPU = Runtime(device="cpu")
LIBRARY = {"depth": MarigoldDepthPipeline, "normals": MarigoldNormalsPipeline,
           "lighting": MarigoldIntrinsicsPipeline, "appearance": MarigoldIntrinsicsPipeline}  # fmt: skip
#: kind -> (folder, which of its maps, factors on its channels)
CONVENTION: dict[str, tuple[str, int, Any]] = {
    "depth_affine": ("depth", 0, 1),
    "normal": ("normals", 0, np.array([1, -1, -1])),
    "albedo_linear": ("lighting", 0, 1),
    "irradiance": ("lighting", 1, 1),
    "albedo_srgb": ("appearance", 0, 1),
}


def photo(height: int = 24, width: int = 40) -> np.ndarray:
    image = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image.setflags(write=False)  # as a decoder gives it
    return image


PHOTO = photo()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "depth": tiny.depth(root / "depth"),
        "depth-lcm": tiny.depth(root / "depth-lcm", lcm=True, seed=1),
        "normals": tiny.normals(root / "normals", seed=2),
        "lighting": tiny.intrinsics(root / "lighting", seed=3),
        "appearance": tiny.intrinsics(root / "appearance", tiny.APPEARANCE, seed=4),
    }


def model(folder: Path, **options: Any) -> Marigold:
    return Marigold(Checkpoint(folder, str(folder)), runtime=CPU, **options)


def predict(adapter: Any, kind: str, image: np.ndarray = PHOTO, sample_id: str = "room/1", seed: int = 7) -> Any:
    (prediction,) = adapter.predict([Sample(sample_id, image)], kind, seed)
    assert prediction.kind == kind
    assert prediction.value.dtype == np.float32
    return prediction.value


def by_library(cls: Any, folder: Path, image: np.ndarray, seed: int, sample_id: str, **options: Any) -> np.ndarray:
    """The pipeline's own maps, [targets, H, W, C]."""
    pipe = cls.from_pretrained(str(folder), use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(stream_seed(seed, sample_id) % 2**63)
    found: np.ndarray = pipe(Image.fromarray(image), generator=generator, **options).prediction
    return found


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"steps": 3, "processing_resolution": 0}, {"num_inference_steps": 3, "processing_resolution": 0}),
    ({"ensemble": 3, "match_input_resolution": False}, {"ensemble_size": 3, "match_input_resolution": False}),
    ({"ensemble": 2, "reduction": "mean", "steps": 1, "processing_resolution": 48, "resample_input": "bicubic",
      "resample_output": "nearest"},
     {"ensemble_size": 2, "ensembling_kwargs": {"reduction": "mean"}, "num_inference_steps": 1,
      "processing_resolution": 48, "resample_method_input": "bicubic", "resample_method_output": "nearest"}),
]  # fmt: skip


@pytest.mark.parametrize("kind", CONVENTION)
@pytest.mark.parametrize(("ours", "theirs"), OPTIONS, ids=["default", "native", "ensemble", "all"])
def test_equals_the_librarys_own_call(
    folders: dict[str, Path], kind: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    name, target, factors = CONVENTION[kind]
    expected = by_library(LIBRARY[name], folders[name], PHOTO, 7, "room/1", **theirs)[target] * factors
    value = predict(model(folders[name], **ours), kind)
    assert value.shape == (expected.shape[:2] if kind.startswith("depth") else expected.shape)
    assert value.shape[:2] == ((24, 40) if ours.get("match_input_resolution", True) else (19, 32))
    assert np.ptp(value) > 0.01
    np.testing.assert_allclose(value, expected[..., 0] if kind.startswith("depth") else expected, atol=1e-5)


@pytest.mark.parametrize("ensemble", [1, 3])
def test_a_scheduler_that_draws_noise_equals_the_library(folders: dict[str, Path], ensemble: int) -> None:
    expected = by_library(MarigoldDepthPipeline, folders["depth-lcm"], PHOTO, 7, "room/1", num_inference_steps=3,
                          ensemble_size=ensemble)[0, ..., 0]  # fmt: skip
    value = predict(model(folders["depth-lcm"], steps=3, ensemble=ensemble), "depth_affine")
    np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (7, 5), (480, 640), (33, 8)])
def test_any_size_equals_the_library(folders: dict[str, Path], size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = by_library(MarigoldNormalsPipeline, folders["normals"], image, 0, "x")[0] * np.array([1, -1, -1])
    value = predict(model(folders["normals"]), "normal", image, "x", 0)
    assert value.shape == (*size, 3)
    np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.slow
def test_a_photo_of_24_megapixels(folders: dict[str, Path]) -> None:
    image = np.tile(photo(48, 63), (84, 96, 1))
    value = predict(model(folders["depth"]), "depth_affine", image)
    assert value.shape == (4032, 6048)
    assert np.isfinite(value).all()


def test_a_strip_that_vanishes_is_an_error_of_that_sample(folders: dict[str, Path]) -> None:
    with pytest.raises(SampleError, match="2000 x 1 pixels: the short side vanishes"):
        predict(model(folders["depth"]), "depth_affine", photo(1, 2000))
    assert predict(model(folders["depth"], processing_resolution=0), "depth_affine", photo(1, 80)).shape == (1, 80)


def test_noise_depends_on_seed_and_sample_alone(folders: dict[str, Path]) -> None:
    adapter = model(folders["depth"])
    first = predict(adapter, "depth_affine")
    assert np.array_equal(first, predict(adapter, "depth_affine"))
    assert np.array_equal(first, predict(model(folders["depth"]), "depth_affine"))
    assert np.abs(first - predict(adapter, "depth_affine", seed=8)).max() > 1e-3
    assert np.abs(first - predict(adapter, "depth_affine", sample_id="room/2")).max() > 1e-3


def samples() -> list[Sample]:
    small = photo(9, 11)
    return [Sample("a", PHOTO), Sample("b", photo()), Sample("c", small), Sample("d", PHOTO), Sample("e", small)]


@pytest.mark.parametrize(("name", "kind"), [("depth-lcm", "depth_affine"), ("lighting", "irradiance")])
def test_a_batch_changes_no_bit(folders: dict[str, Path], name: str, kind: Any) -> None:
    batch = samples()
    adapter = Marigold(Checkpoint(folders[name], name), runtime=Runtime(device="cpu", batch_size=4))
    assert adapter.batch_size == 4
    together = adapter.predict(batch, kind, 3)
    backwards = adapter.predict(batch[::-1], kind, 3)[::-1]
    for sample, one, other in zip(batch, together, backwards, strict=True):
        assert np.array_equal(one.value, other.value)
        assert np.array_equal(one.value, adapter.predict([sample], kind, 3)[0].value)


def all_at_once(items: Sequence[Any], compute: Callable[[Sequence[Any]], Sequence[Any]], **_: Any) -> list[Any]:
    """What `in_batches` does on an accelerator."""
    return list(compute(items))


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize(("name", "kind"), [("depth-lcm", "depth_affine"), ("lighting", "albedo_linear")])
def test_batches_of_an_accelerator_give_the_same_maps(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, kind: Any, ensemble: int
) -> None:
    batch = samples()
    adapter = model(folders[name], ensemble=ensemble)
    alone = adapter.predict(batch, kind, 3)
    calls: list[int] = []
    one_call = adapter._call

    def counted(group: Sequence[Sample], seed: int) -> Any:
        calls.append(len(group))
        return one_call(group, seed)

    monkeypatch.setattr(adapter, "_call", counted)
    monkeypatch.setattr(marigold, "in_batches", all_at_once)
    together = adapter.predict(batch, kind, 3)
    assert calls == ([2, 1, 1, 1] if ensemble == 1 else [1] * 5)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.value, other.value, atol=1e-5)


def constant(folder: Path, colour: Sequence[float]) -> Path:
    """A pipeline whose VAE decodes anything to one colour in [-1, 1]."""
    from safetensors.torch import load_file, save_file

    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.weight"].zero_()
    weights["decoder.conv_out.bias"].copy_(torch.tensor(colour))
    save_file(weights, path)
    return folder


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ((0, 0, 1), (0, 0, -1)),  # a wall that faces the camera
        ((0, 1, 0), (0, -1, 0)),  # a floor, seen from above: up is -y here
        ((1, 0, 0), (1, 0, 0)),  # faces right
        ((0.6, 0.8, 0), (0.6, -0.8, 0)),
        ((0, 0.5, 0.5), (0, -(0.5**0.5), -(0.5**0.5))),  # unit length
    ],
)
def test_frame_of_normals(tmp_path: Path, theirs: tuple[float, ...], ours: tuple[float, ...]) -> None:
    value = predict(model(constant(tiny.normals(tmp_path / "n"), theirs)), "normal")
    np.testing.assert_allclose(value, np.broadcast_to(ours, value.shape), atol=1e-6)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((-1, -1, -1), 0.0), ((1, 1, 1), 1.0), ((0, 0, 0), 0.5), ((-1, 0, 1), 0.5), ((3, 3, 3), 1.0)],
)
def test_depth_is_0_near_and_1_far(tmp_path: Path, colour: tuple[float, ...], expected: float) -> None:
    value = predict(model(constant(tiny.depth(tmp_path / "d"), colour)), "depth_affine")
    np.testing.assert_allclose(value, expected, atol=1e-6)


def first_channels(self: Any, latent: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
    """A decoder that shows the mean of each latent channel."""
    size = (latent.shape[2] * 2, latent.shape[3] * 2)
    return (latent[:, :3].mean(dim=(2, 3), keepdim=True).expand(-1, -1, *size).clone(),)


def unet_says(folder: Path, channels: Sequence[float]) -> Path:
    """A pipeline whose U-Net gives one number for each latent channel."""
    from safetensors.torch import load_file, save_file

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.weight"].zero_()
    weights["conv_out.bias"].copy_(torch.tensor(channels))
    save_file(weights, path)
    return folder


@pytest.mark.parametrize("order", [["albedo", "shading", "residual"], ["residual", "shading", "albedo"]])
def test_maps_are_taken_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[str]) -> None:
    value = {"albedo": -0.5, "shading": 0.0, "residual": 0.5}
    folder = tiny.intrinsics(tmp_path / "i", {**tiny.LIGHTING, "target_names": order})
    scale = AutoencoderKL().config.scaling_factor
    # one step from pure noise: the clean latent is minus what the U-Net says (v-prediction at zero terminal SNR)
    unet_says(folder, [-value[name] * scale for name in order for _ in range(4)])
    monkeypatch.setattr(AutoencoderKL, "decode", first_channels)
    adapter = model(folder, steps=1)
    # the schedule ends a little before the clean latent: 3 % of the noise stays
    np.testing.assert_allclose(predict(adapter, "albedo_linear"), 0.25, atol=0.04)
    np.testing.assert_allclose(predict(adapter, "irradiance"), 0.5, atol=0.04)


def test_kinds_follow_the_configuration(tmp_path: Path, folders: dict[str, Path]) -> None:
    def kinds(folder: Path) -> dict[str, tuple[str, ...]]:
        return dict(describe(Checkpoint(folder, "x")).kinds)

    assert kinds(folders["depth"]) == {"depth": ("depth_affine",)}
    assert kinds(folders["normals"]) == {"normals": ("normal",)}
    assert kinds(folders["lighting"]) == {"albedo": ("albedo_linear",), "irradiance": ("irradiance",)}
    assert kinds(folders["appearance"]) == {"albedo": ("albedo_srgb",)}
    assert kinds(tiny.depth(tmp_path / "disparity", prediction_type="disparity")) == {"depth": ("disparity_affine",)}
    assert kinds(tiny.depth(tmp_path / "scale", shift_invariant=False)) == {"depth": ("depth_scale",)}
    encoded = {**tiny.LIGHTING, "shading": {"prediction_space": "srgb"}}
    assert kinds(tiny.intrinsics(tmp_path / "encoded", encoded)) == {"albedo": ("albedo_linear",)}


def test_old_checkpoints_that_are_called_marigold_pipeline(tmp_path: Path) -> None:
    folder = tiny.depth(tmp_path / "old")
    expected = by_library(MarigoldDepthPipeline, folder, PHOTO, 7, "room/1")[0, ..., 0]
    tiny.edit_index(folder, drop=["prediction_type"], _class_name="MarigoldPipeline")
    np.testing.assert_allclose(predict(model(folder), "depth_affine"), expected, atol=1e-5)

    tiny.edit_index(folder, drop=["scale_invariant", "shift_invariant"])
    with pytest.raises(UsageError, match=r"does not say what this pipeline predicts\n  try: --kind depth_affine"):
        model(folder)
    np.testing.assert_allclose(predict(model(folder, kind="depth_affine"), "depth_affine"), expected, atol=1e-5)
    assert model(folder, kind="normal").kinds == {"normals": ("normal",)}

    tiny.edit_index(folder, use_full_z_range=True)
    assert model(folder).kinds == {"normals": ("normal",)}


def test_one_kind_of_several(folders: dict[str, Path]) -> None:
    adapter = model(folders["lighting"], kind="irradiance")
    assert adapter.kinds == {"irradiance": ("irradiance",)}
    assert np.array_equal(predict(adapter, "irradiance"), predict(model(folders["lighting"]), "irradiance"))
    with pytest.raises(UsageError, match="unknown kind 'albedo_linear'"):
        predict(adapter, "albedo_linear")
    with pytest.raises(UsageError, match="unknown kind 'normal'"):
        model(folders["lighting"], kind="normal")


def test_info_states_the_resolved_options(folders: dict[str, Path]) -> None:
    info = model(folders["depth"], ensemble=3).info
    assert (info.name, info.source) == ("depth", str(folders["depth"]))
    assert info.options == {
        "steps": 2, "ensemble": 3, "processing_resolution": 32, "match_input_resolution": True,
        "resample_input": "bilinear", "resample_output": "bilinear", "reduction": "median", "device": "cpu",
        "dtype": "float32",
    }  # fmt: skip
    pipe = MarigoldDepthPipeline.from_pretrained(str(folders["depth"]))
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert info.parameters == sum(p.numel() for network in networks for p in network.parameters())
    assert info.weights_sha256 == Checkpoint(folders["depth"], "elsewhere").digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0 and ensemble 1; both must be at least 1"),
        ({"ensemble": 0}, "ensemble 0"),
        ({"processing_resolution": 33}, "it must be a multiple of 2"),
        ({"processing_resolution": -2}, "must be a multiple of 2, or 0"),
        ({"reduction": "closest"}, "reduction is 'closest'; this pipeline knows median and mean"),
    ],
)
def test_options_that_no_pipeline_can_run_with(folders: dict[str, Path], options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model(folders["depth"], **options)


def test_more_steps_than_the_scheduler_has(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="DDIMScheduler can't do 1001 steps"):
        model(folders["depth"], steps=1001).load()


def test_defaults_must_come_from_somewhere(tmp_path: Path) -> None:
    folder = tiny.depth(tmp_path / "d")
    tiny.edit_index(folder, drop=["default_denoising_steps", "default_processing_resolution"])
    with pytest.raises(UsageError, match="no default for steps"):
        model(folder)
    assert predict(model(folder, steps=1, processing_resolution=16), "depth_affine").shape == (24, 40)


def test_nan_is_an_error_of_the_sample(tmp_path: Path) -> None:
    adapter = model(constant(tiny.depth(tmp_path / "d"), (float("nan"), 0, 0)))
    with pytest.raises(SampleError, match=r"d: sample room/1: the network gives \d+ of \d+ values that are NaN"):
        predict(adapter, "depth_affine")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near(folders: dict[str, Path], dtype: str) -> None:
    half = Marigold(Checkpoint(folders["normals"], "n"), runtime=Runtime(device="cpu", dtype=dtype))
    value = predict(half, "normal")
    assert half.info.options["dtype"] == dtype
    angle = np.degrees(np.arccos(np.clip((value * predict(model(folders["normals"]), "normal")).sum(-1), -1, 1)))
    assert 0 < np.median(angle) < 10


def test_silence_and_close(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    adapter = model(folders["depth"], ensemble=2)
    first = predict(adapter, "depth_affine")
    adapter.close()
    assert np.array_equal(first, predict(adapter, "depth_affine"))
    assert capfd.readouterr() == ("", "")


def test_describing_imports_no_torch(folders: dict[str, Path]) -> None:
    code = ("import sys; from reasonx_eval.models.loading.checkpoint import find_checkpoint; "
            "from reasonx_eval.models.adapters.marigold_maps import describe; "
            "print(dict(describe(find_checkpoint(sys.argv[1])).kinds)); "
            "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(folders["lighting"])], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout == "{'albedo': ('albedo_linear',), 'irradiance': ('irradiance',)}\n"
