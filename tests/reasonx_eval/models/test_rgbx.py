"""RGB->X against a plain re-implementation of the published loop, formulas instead of a scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.adapters.rgbx import RgbX, working_size
from reasonx_eval.models.loading.catalogue import adapter_of, catalogue
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from tests.reasonx_eval.models import tiny_marigold as tiny

PHOTO = np.random.default_rng(2).integers(0, 256, (18, 26, 3)).astype(np.uint8)
PROMPT = {"albedo_linear": "Albedo (diffuse basecolor)", "irradiance": "Irradiance (diffuse lighting)"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny.parts(tmp_path_factory.mktemp("parts"), seed=6)


@pytest.fixture(scope="module")
def folder(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rgbx") / "rgb-to-x"
    for part, network in networks.items():
        network.save_pretrained(str(root / part))
    scheduler = json.loads((root / "scheduler" / "scheduler_config.json").read_text())
    # as published: the program, not the file, asks for the zero terminal SNR and for trailing steps
    scheduler |= {"rescale_betas_zero_snr": False, "timestep_spacing": "leading"}
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = {"_class_name": "StableDiffusionAOVMatEstPipeline", "_diffusers_version": "0.20.2",
             "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"]}  # fmt: skip
    (root / "model_index.json").write_text(json.dumps(index))
    return root


def model(folder: Path, **options: Any) -> RgbX:
    options = {"steps": 3, "processing_resolution": 24, **options}
    return RgbX(Checkpoint(folder, str(folder)), runtime=Runtime(device="cpu"), **options)


def predict(adapter: RgbX, kind: Any = "albedo_linear", image: np.ndarray = PHOTO, sample_id: str = "a") -> np.ndarray:
    (prediction,) = adapter.predict([Sample(sample_id, image)], kind, 5)
    assert prediction.value.dtype == np.float32
    return prediction.value


def signal_levels() -> np.ndarray:
    """The share of signal (alpha bar) at each of 1000 times, rescaled to none at the last."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    return np.asarray(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)


@torch.no_grad()
def published(parts: dict[str, Any], kind: str, seed: int, sample_id: str, steps: int, size: tuple[int, int]) -> Any:
    linear = torch.tensor((PHOTO / 255.0) ** 2.2, dtype=torch.float32).permute(2, 0, 1)[None]
    photo = torch.nn.functional.interpolate(linear, size, mode="bilinear", align_corners=False, antialias=True)
    vae, unet = parts["vae"], parts["unet"]
    condition = vae.encode(2 * photo - 1).latent_dist.mean * vae.config.scaling_factor
    ids = parts["tokenizer"](PROMPT[kind], padding="max_length", max_length=20, truncation=True).input_ids
    text = parts["text_encoder"](torch.tensor([ids])).last_hidden_state
    x = torch.randn(condition.shape, generator=torch.Generator().manual_seed(stream_seed(seed, sample_id) % 2**63))
    levels = signal_levels()
    for t in [round(1000 - i * 1000 / steps) - 1 for i in range(steps)]:
        v = unet(torch.cat([x, condition], 1), t, encoder_hidden_states=text).sample
        now, following = levels[t], levels[max(t - 1000 // steps, 0)]
        clean = now**0.5 * x - (1 - now) ** 0.5 * v
        noise = now**0.5 * v + (1 - now) ** 0.5 * x
        x = following**0.5 * clean + (1 - following) ** 0.5 * noise
    decoded = vae.decode(x / vae.config.scaling_factor).sample[0]
    return np.clip((decoded.permute(1, 2, 0).numpy() + 1) / 2, 0, 1)


@pytest.mark.parametrize("kind", ["albedo_linear", "irradiance"])
def test_equals_the_published_loop(folder: Path, networks: dict[str, Any], kind: str) -> None:
    expected = published(networks, kind, 5, "a", 3, (16, 24))
    value = predict(model(folder), kind)
    assert value.shape == (16, 24, 3)
    assert expected.std() > 0.01
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_each_map_has_a_prompt_of_its_own(folder: Path) -> None:
    adapter = model(folder)
    assert np.abs(predict(adapter, "albedo_linear") - predict(adapter, "irradiance")).max() > 1e-4
    assert adapter.kinds == {"albedo": ("albedo_linear",), "irradiance": ("irradiance",)}
    assert model(folder, kind="irradiance").kinds == {"irradiance": ("irradiance",)}
    with pytest.raises(UsageError, match="unknown kind 'normal'"):
        model(folder, kind="normal")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (744, 1000)), ((640, 480), (1000, 744)), ((500, 500), (1000, 1000)), ((4032, 6048), (664, 1000)),
     ((1, 1), (1000, 1000)), ((10, 2000), (0, 1000))],
)  # fmt: skip
def test_working_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert working_size(*size, 1000) == expected


def test_a_batch_changes_no_bit(folder: Path) -> None:
    batch = [Sample("a", PHOTO), Sample("b", PHOTO), Sample("c", np.asarray(Image.fromarray(PHOTO).rotate(90)))]
    adapter = model(folder)
    together = adapter.predict(batch, "albedo_linear", 0)
    for sample, one in zip(batch, together, strict=True):
        assert np.array_equal(one.value, adapter.predict([sample], "albedo_linear", 0)[0].value)
    assert np.abs(together[0].value - together[1].value).max() > 1e-3


def test_photos_of_one_size_may_share_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [Sample("a", PHOTO), Sample("b", PHOTO[::-1].copy()), Sample("c", PHOTO[:9])]
    adapter = model(folder)
    alone = adapter.predict(batch, "irradiance", 0)
    monkeypatch.setattr("reasonx_eval.models.adapters.rgbx.in_batches",
                        lambda items, compute, **_: list(compute(items)))  # fmt: skip
    for one, other in zip(alone, adapter.predict(batch, "irradiance", 0), strict=True):
        np.testing.assert_allclose(one.value, other.value, atol=1e-5)


def test_a_strip_that_vanishes(folder: Path) -> None:
    with pytest.raises(SampleError, match="1000 x 2 pixels: the short side vanishes"):
        predict(model(folder), image=np.zeros((2, 1000, 3), np.uint8))


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model_index.json does not name StableDiffusionAOVMatEstPipeline"):
        model(tiny.depth(tmp_path / "depth"))
    with pytest.raises(UsageError, match="steps is 0"):
        model(folder, steps=0)
    with pytest.raises(UsageError, match=r"can.t be loaded: .*1001"):
        model(folder, steps=1001).load()


def test_info_and_silence(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    adapter = model(folder)
    predict(adapter)
    adapter.close()
    info = adapter.info
    assert (info.name, info.licence) == ("rgb-to-x", None)
    assert info.options == {"steps": 3, "processing_resolution": 24, "device": "cpu", "dtype": "float32"}
    assert info.weights_sha256 is not None
    assert capfd.readouterr() == ("", "")


def test_which_adapter_runs_a_folder(folder: Path, tmp_path: Path) -> None:
    assert adapter_of(Checkpoint(folder, "x")) == "reasonx_eval.models.adapters.rgbx:RgbX"
    assert adapter_of(Checkpoint(tiny.depth(tmp_path / "d"), "x")) is None


def test_what_the_catalogue_says() -> None:
    assert catalogue()["rgb-to-x"].adapter == "reasonx_eval.models.adapters.rgbx:RgbX"
    assert "pickled" in (catalogue()["compphoto-intrinsic"].unavailable or "")
