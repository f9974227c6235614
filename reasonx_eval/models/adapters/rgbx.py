"""RGB<->X (Zeng et al., SIGGRAPH 2024), its RGB->X half, put together from the checkpoint's parts.

The published pipeline is a class of its own, which diffusers does not have. It is a plain denoising loop:
the U-Net sees the noisy latent and, after it, the latent of the photo, both times the VAE's scaling factor, and the
text says which map is wanted; no guidance; DDIM with zero terminal SNR and trailing steps. The photo goes in as linear
light (code value ** 2.2) with a long side of 1000 pixels. Albedo and irradiance come out linear; the ** (1 / 2.2) of
the published program is for display, and is left out here.

Its normals are not offered: nothing published says in which frame they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.models.adapters.pipelines import (
    check_filled,
    check_parts,
    class_name,
    load_failure,
    noise_seed,
    part_config,
    vae_factor,
)
from reasonx_eval.models.base import ModelInfo, check_kind
from reasonx_eval.models.loading.catalogue import checkpoint_info
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import CheckpointModel, Runtime, aligned, in_batches, quiet, to_numpy
from reasonx_eval.types import TASK_OF_KIND, Kind, Prediction, Sample

#: the class that its checkpoints name
RGBX: Final = "StableDiffusionAOVMatEstPipeline"
PROMPTS: Final[Mapping[Kind, str]] = {
    "albedo_linear": "Albedo (diffuse basecolor)",
    "irradiance": "Irradiance (diffuse lighting)",
}
#: linear light of the 256 codes
LINEAR: Final = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


@dataclass(frozen=True)
class _Networks:
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


class RgbX(CheckpointModel):
    """RGB->X: albedo and irradiance, linear, at the resolution that the network works in.

    Noise comes from (seed, sample id), as in `Marigold`.

    Parameters
    ----------
    checkpoint : its files
    runtime : device, number type, batch size
    kind : the only kind to give
    name : shown in tables; default: the last part of the checkpoint's id or path
    steps : denoising steps
    processing_resolution : long side, in pixels, that the network sees; both sides are cut to multiples of 8

    Raises
    ------
    UsageError
        A folder that is not such a checkpoint, or not all of it, or whose weights are pickled.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        runtime: Runtime | None = None,
        kind: Kind | None = None,
        name: str | None = None,
        steps: int = 50,
        processing_resolution: int = 1000,
    ) -> None:
        super().__init__(checkpoint, runtime, name)
        if class_name(checkpoint) != RGBX:
            raise UsageError(f"model_index.json does not name {RGBX}", where=str(checkpoint.folder))
        self._weights = check_parts(checkpoint, trust_remote_code=self.runtime.trust_remote_code)
        self._parameters = sum(w.parameters for w in self._weights.values())
        self._factor = vae_factor(checkpoint)
        if kind is not None:
            check_kind(kind, tuple(PROMPTS), where=self.name)
        self._offered = tuple(k for k in PROMPTS if kind in (None, k))
        if steps < 1 or processing_resolution < self._factor:
            raise UsageError(f"steps is {steps}, processing_resolution {processing_resolution}; they must be at least "
                             f"1 and {self._factor}", where=self.name)  # fmt: skip
        self.steps, self.resolution = steps, processing_resolution

    @property
    def info(self) -> ModelInfo:
        options = {"steps": self.steps, "processing_resolution": self.resolution} | self.runtime.describe()
        return checkpoint_info(self.checkpoint, name=self.name, parameters=self._parameters, options=options)

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {TASK_OF_KIND[k]: (k,) for k in self._offered}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, self._offered, where=self.name)
        networks: _Networks = self.network

        def compute(batch: Sequence[Sample]) -> list[Prediction]:
            found: list[Prediction] = []
            for _, same in itertools.groupby(batch, key=lambda s: s.image.shape):
                found += [Prediction(kind, value) for value in self._maps(networks, list(same), kind, seed)]
            return found

        with torch.no_grad():
            return in_batches(samples, compute, device=self.runtime.torch_device, name=self.name)

    def _read(self) -> _Networks:
        with quiet("diffusers", "transformers"):
            return self._assemble()

    def _assemble(self) -> _Networks:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = self.checkpoint.folder
        classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
        try:
            parts = {
                part: cls.from_pretrained(str(folder / part), use_safetensors=True, local_files_only=True,
                                          variant=self._weights[part].variant)
                for part, cls in classes.items()
            }  # fmt: skip
            configured: Any = DDIMScheduler.from_config
            scheduler = configured(
                dict(part_config(self.checkpoint, "scheduler", "scheduler_config.json")),
                rescale_betas_zero_snr=True, timestep_spacing="trailing",
            )  # fmt: skip
            tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
            scheduler.set_timesteps(self.steps)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise load_failure(error, folder) from error
        networks = _Networks(tokenizer=tokenizer, scheduler=scheduler, **parts)
        check_filled(networks, self._weights, folder)
        latent = networks.vae.config.latent_channels
        if (networks.unet.config.in_channels, networks.unet.config.out_channels) != (2 * latent, latent):
            raise UsageError(f"the U-Net has {networks.unet.config.in_channels} input channels; a noisy latent and a "
                             f"photo's latent are {2 * latent}", where=str(folder / "unet"))  # fmt: skip
        for part in parts.values():
            aligned(part).to(self.runtime.torch_device, self.runtime.torch_dtype).eval()
        return networks

    def _maps(self, networks: _Networks, group: Sequence[Sample], kind: Kind, seed: int) -> list[NDArray[np.float32]]:
        """One map per photo of one size, float32 [h, w, 3] in [0, 1]."""
        device, dtype = self.runtime.torch_device, self.runtime.torch_dtype
        photo = torch.cat([self._photo(sample) for sample in group]).to(device, dtype)
        scale = networks.vae.config.scaling_factor
        image_latent = networks.vae.encode(photo).latent_dist.mode() * scale  # [n, 4, h / 8, w / 8]
        noise = [torch.randn(image_latent[:1].shape, dtype=dtype,
                             generator=torch.Generator("cpu").manual_seed(noise_seed(seed, sample.id)))
                 for sample in group]  # fmt: skip
        latent = torch.cat(noise).to(device) * networks.scheduler.init_noise_sigma
        text = self._text(networks, PROMPTS[kind]).repeat(len(group), 1, 1)
        networks.scheduler.set_timesteps(self.steps, device=device)
        for t in networks.scheduler.timesteps:
            seen = torch.cat([networks.scheduler.scale_model_input(latent, t), image_latent], dim=1)
            step = networks.unet(seen, t, encoder_hidden_states=text, return_dict=False)[0]
            latent = networks.scheduler.step(step, t, latent, return_dict=False)[0]
        decoded = networks.vae.decode(latent / scale, return_dict=False)[0]
        maps = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)  # NaN stays NaN
        return [self._finite(to_numpy(value), sample) for sample, value in zip(group, maps, strict=True)]

    def _photo(self, sample: Sample) -> torch.Tensor:
        """The photo as the VAE takes it: linear light in [-1, 1], float32 [1, 3, h, w]."""
        height, width = sample.image.shape[:2]
        size = working_size(height, width, self.resolution, self._factor)
        if 0 in size:
            raise SampleError(f"{width} x {height} pixels: the short side vanishes at a long side of {self.resolution}",
                              where=f"{self.name}: sample {sample.id}")  # fmt: skip
        linear = torch.from_numpy(LINEAR[sample.image]).permute(2, 0, 1)[None]
        seen = torch.nn.functional.interpolate(linear, size, mode="bilinear", antialias=True)
        return seen * 2.0 - 1.0

    def _text(self, networks: _Networks, prompt: str) -> torch.Tensor:
        tokens = networks.tokenizer(prompt, padding="max_length", max_length=networks.tokenizer.model_max_length,
                                    truncation=True, return_tensors="pt")  # fmt: skip
        found: torch.Tensor = networks.text_encoder(tokens.input_ids.to(self.runtime.torch_device))[0]
        return found


def working_size(height: int, width: int, long_side: int, multiple: int = 8) -> tuple[int, int]:
    """Height and width that the network sees: the long side given, both cut to a multiple.

    >>> working_size(480, 640, 1000)
    (744, 1000)
    """
    ratio = height / width
    size = (long_side, int(long_side / ratio)) if height > width else (int(long_side * ratio), long_side)
    return size[0] // multiple * multiple, size[1] // multiple * multiple
