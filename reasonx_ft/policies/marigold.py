"""What surrounds the U-Net of a Marigold-type pipeline and is never tuned: photos to latents, latents to maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.models.adapters.marigold_maps import DEPTH, NORMALS, Description
from reasonx_eval.types import NORMAL_FRAMES, TASK_OF_KIND, Kind
from reasonx_ft.grpo.schedules import Schedule, variance_preserving

# of maps without a unit: below it, light and depth count as nothing (of a range of 1; steps of 8-bit images are 4e-3)
_LEAST: Final = 1e-3


@dataclass(frozen=True)
class Target:
    """One of the maps of a prediction.

    place : among the maps in the latent
    kind : of the map, as the evaluation names it
    """

    place: int
    kind: Kind


class LatentMaps:
    """The frozen parts of a pipeline.

    Parameters
    ----------
    pipe : of diffusers, loaded; its text encoder is asked once, for the empty prompt, unless the pipeline has that
        embedding already
    description : which maps it predicts
    dtype : in which the autoencoder computes where it may (autocast)
    slices : photos and maps that go through the autoencoder at a time

    Raises
    ------
    UsageError
        A scheduler whose steps are not the Gaussian ones of this program.
    """

    def __init__(self, pipe: Any, description: Description, *, dtype: torch.dtype, slices: int = 4) -> None:
        _check_scheduler(pipe.scheduler)
        self.pipe, self._dtype, self._slices = pipe, dtype, slices
        self.targets = {TASK_OF_KIND[kind]: Target(place, kind) for kind, place in description.target.items()}
        self.n_targets = description.n_targets
        self.resolution = description.resolution
        self.default_steps = description.steps
        self.prediction = pipe.scheduler.config.prediction_type
        self._full_z = bool(getattr(pipe, "use_full_z_range", True)) or description.pipeline != NORMALS
        self._grey = description.pipeline == DEPTH
        pipe.vae.requires_grad_(False).eval()
        self.text = self._empty_prompt()
        self.device = next(pipe.vae.parameters()).device

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return int(2 ** (len(self.pipe.vae.config.block_out_channels) - 1))

    @property
    def channels(self) -> int:
        """Of the latent of all maps of a prediction."""
        return int(self.pipe.vae.config.latent_channels) * self.n_targets

    def schedule(self, steps: int) -> Schedule:
        """Times from the scheduler's own alphas; which of them, by its own spacing."""
        scheduler = self.pipe.scheduler
        config = scheduler.config
        return variance_preserving(
            scheduler.alphas_cumprod.double().tolist(), steps, config.timestep_spacing,
            offset=config.steps_offset if config.timestep_spacing == "leading" else 0,
            final_alpha=float(scheduler.final_alpha_cumprod),
        )  # fmt: skip

    def encode(self, images: Tensor) -> Tensor:
        """Latents float32 [B, C, h, w] of photos [B, 3, H, W] in [0, 1]: the mode, no sample. Sides are padded."""
        height, width = images.shape[-2:]
        padding = (0, -width % self.factor, 0, -height % self.factor)
        seen = functional.pad(images * 2 - 1, padding, mode="replicate")
        with self._autocast():
            parts = [self.pipe.vae.encode(part).latent_dist.mode() for part in torch.split(seen, self._slices)]
        return torch.cat(parts).float() * float(self.pipe.vae.config.scaling_factor)

    def decode(self, latents: Tensor, modality: str, size: tuple[int, int]) -> Tensor:
        """Codes float32 [M, C, H, W], about -1 to 1, of latents [M, channels, h, w]; C is 1 for depth, else 3."""
        place = self.target(modality).place
        each = self.pipe.vae.config.latent_channels
        of_map = latents[:, place * each : (place + 1) * each] / self.pipe.vae.config.scaling_factor
        with self._autocast():
            parts = [self.pipe.vae.decode(part, return_dict=False)[0] for part in torch.split(of_map, self._slices)]
        code = torch.cat(parts).float()[..., : size[0], : size[1]]
        return code.mean(1, keepdim=True) if self._grey else code

    def maps(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W]: the pipeline's, in this program's conventions; positive ones > 0.

        Values beyond the autoencoder's range are cut, as they are when the model is run.
        """
        kind = self.target(modality).kind
        value = code.clamp(-1, 1)
        if kind == "normal":
            return self._unit(value)
        value = (value + 1) / 2
        if kind == "albedo_srgb":
            value = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        if modality == "albedo":
            return value
        value = value.clamp_min(_LEAST)
        return 1 / value if kind == "disparity_affine" else value

    def target(self, modality: str) -> Target:
        """Which map a modality is.

        Raises
        ------
        UsageError
            The pipeline does not predict it.
        """
        if modality not in self.targets:
            raise unknown("modality", modality, self.targets, where=type(self.pipe).__name__)
        return self.targets[modality]

    def _unit(self, value: Tensor) -> Tensor:
        if not self._full_z:
            value = torch.cat([value[..., :2, :, :], value[..., 2:, :, :] * 0.5 + 0.5], dim=-3)
        value = value * value.new_tensor(NORMAL_FRAMES["opengl"]).view(3, 1, 1)
        # the root of 0 has no gradient, a vector of length 0 no direction: both stay 0
        length = value.square().sum(-3, keepdim=True)
        return value / torch.where(length > 0, length, 1.0).sqrt()

    def _empty_prompt(self) -> Tensor:
        """Embedding float32 [1, L, D] of the empty prompt, which is all that the network is ever timestep."""
        pipe = self.pipe
        if pipe.empty_text_embedding is None:
            tokens = pipe.tokenizer("", padding="do_not_pad", max_length=pipe.tokenizer.model_max_length,
                                    truncation=True, return_tensors="pt")  # fmt: skip
            with torch.no_grad():
                pipe.empty_text_embedding = pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device))[0]
            pipe.text_encoder.to("cpu")  # not asked again
        embedding: Tensor = pipe.empty_text_embedding.float()
        return embedding

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)


def _check_scheduler(scheduler: Any) -> None:
    config, name = scheduler.config, type(scheduler).__name__
    if not hasattr(scheduler, "final_alpha_cumprod") or "LCM" in name:
        raise UsageError(f"its scheduler is {name}; tuning takes the steps of DDIM",
                         fix="tune the checkpoint that this one was distilled from")  # fmt: skip
    for option in ("clip_sample", "thresholding"):
        if config.get(option):
            raise UsageError(f"its scheduler has {option} on: a step with a clipped estimate is not Gaussian",
                             where=name, fix=f"set {option} to false in scheduler_config.json")  # fmt: skip
