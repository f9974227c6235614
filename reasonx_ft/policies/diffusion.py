"""A Marigold-type pipeline as a policy: latents of all maps of a photo, denoised step by step under its latent.

One chain gives every map of a pipeline (albedo, irradiance and residual of a decomposition, say), so all its modalities
share transitions, and a replay is one pass for all of them. Photo latents and the empty prompt are encoded once and
shared by the group. States and means are float32 and live in the coordinates of `reasonx_ft.grpo.kernels`; only the
network computes in another type.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.io.files import write_json
from reasonx_eval.models.adapters.marigold import Marigold
from reasonx_eval.models.loading.catalogue import entry_of
from reasonx_eval.models.loading.checkpoint import read_json
from reasonx_eval.models.loading.runtime import Runtime, quiet
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.kernels import Estimate, Kernel, Name, from_output, to_vp
from reasonx_ft.grpo.loss import KlWeighting
from reasonx_ft.grpo.schedules import Schedule
from reasonx_ft.policies.adapters import ATTENTION, adapted_layers, add_adapters, merged_state, save_adapters
from reasonx_ft.policies.base import Compute, Saved, Source
from reasonx_ft.policies.chain import Chain, ChainPolicy, Encoder, photo_seeds
from reasonx_ft.policies.frozen import frozen_copy
from reasonx_ft.policies.marigold import LatentMaps
from reasonx_ft.policies.noise import Explore, NoiseName, make_noise, standard_normal

#: folder of the pipeline in what is saved, and of the adapters alone
PIPELINE: Final = "pipeline"
ADAPTERS: Final = "adapters"


class Diffusion(ChainPolicy):
    """A U-Net between an autoencoder's latents, tuned by its adapters or as a whole.

    Parameters
    ----------
    network : the U-Net, with adapters (see `adapters.add_adapters`) or, if all of it is trained, without
    latents : the frozen parts
    answer : times of the steps, without noise, of the answer that is evaluated
    resolution : long side, in pixels, at which photos are seen; 0 is their own
    options : see `ChainPolicy`
    """

    code_range = (-1.0, 1.0)

    def __init__(
        self, network: nn.Module, latents: LatentMaps, answer: Schedule, *, resolution: int = 768,
        compute: Compute | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.latents, self._answer, self.resolution = latents, answer, resolution
        self.modalities = tuple(latents.targets)
        latents.pipe.unet = None  # the network is what may be wrapped and sharded; nothing else refers to it
        self._adapted = bool(adapted_layers(network))
        compute = compute or Compute()
        frozen = None if self._adapted else frozen_copy(network, compute.dtype)
        super().__init__(network, frozen, compute=compute, **options)
        self._encoded: tuple[Tensor, Tensor] | None = None

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        if not self.resolution:
            return height, width
        longest = max(height, width)
        return max(1, height * self.resolution // longest), max(1, width * self.resolution // longest)

    def tracks(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(modalities)]

    def state_shape(self, height: int, width: int) -> tuple[int, ...]:
        factor = self.latents.factor
        return self.latents.channels, -(-height // factor), -(-width // factor)

    def encoder(self, images: Tensor) -> Encoder:
        """Latents of photos, [b, C, h, w]; kept for the replays of the same batch."""
        if self._encoded is None or self._encoded[0] is not images:
            with torch.no_grad():
                self._encoded = (images, self.latents.encode(images))
        condition = self._encoded[1]
        return lambda part: (condition[part],)

    def estimate(
        self, state: Tensor, t: float, timestep: float, track: tuple[str, ...], condition: Sequence[Tensor]
    ) -> Estimate:
        photos, samples = state.shape[:2]
        latents = condition[0][:, None].expand(-1, samples, *condition[0].shape[1:])
        seen = torch.cat([latents, to_vp(state, t)], dim=2)
        text = self.latents.text.to(state.device).repeat(photos * samples, 1, 1)
        time = torch.full((photos * samples,), timestep, device=state.device)
        with self.compute.autocast(state):
            output = self.network(seen.flatten(0, 1), time, encoder_hidden_states=text, return_dict=False)[0]
        return from_output(state, output.float().unflatten(0, (photos, samples)), t, self.latents.prediction)

    def at_points(self, final: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        found = []
        for i, latents in enumerate(to_vp(final, self.chain.schedule.times[-1])):  # one photo's maps at a time
            code = self.latents.decode(latents, judged.modality, size)
            found.append(judged.of(slice(i, i + 1)).at_points(code[None]))
        return self.decode_points(torch.cat(found), judged.modality)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        # noise of the photo's own, as it is drawn where the model is run: a loss on answers to one noise for all
        # photos would have the network learn that noise
        size = (images.shape[-2], images.shape[-1])
        noise = standard_normal(photo_seeds(images), (1, *self.state_shape(*size)), "answer", device=images.device)
        estimate = self.estimator(tuple(modalities), self.encoder(images), self._answer)
        final = to_vp(self.chain.answer(estimate, noise, self._answer)[:, 0], self._answer.times[-1])
        return {m: self.latents.decode(final, m, size) for m in modalities}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self.latents.maps(code, modality)

    def save(self, folder: Path) -> Saved:
        """The whole pipeline, adapters merged into it, in float32; beside it, the adapters alone."""
        inner: Any = getattr(self.network, "module", self.network)
        with torch.device("meta"):
            plain = type(inner).from_config(inner.config)
        plain.load_state_dict(merged_state(inner), assign=True)
        pipe, part = self.latents.pipe, folder / f".{PIPELINE}.part"
        shutil.rmtree(part, ignore_errors=True)
        pipe.register_modules(unet=plain)
        try:
            with quiet("diffusers", "transformers"):
                pipe.save_pretrained(str(part), safe_serialization=True)
                if self._adapted:
                    save_adapters(inner, part / ADAPTERS)
        finally:
            pipe.unet = None
        _forget_paths(part)
        shutil.rmtree(folder / PIPELINE, ignore_errors=True)
        part.rename(folder / PIPELINE)
        return Saved("pipeline", PIPELINE)


def _forget_paths(folder: Path) -> None:
    """Drop where parts were once loaded from: paths of this machine, and bytes that differ between machines."""
    for path in sorted(folder.rglob("*.json")):
        known = read_json(path) if path.name in ("config.json", "model_index.json", "scheduler_config.json") else None
        if known is not None and "_name_or_path" in known:
            write_json(path, {k: v for k, v in known.items() if k != "_name_or_path"})


def load_pipeline(
    source: Source, *, explore: Explore = "output", noise: NoiseName = "pixel", frequencies: int = 8,
    sigma: float | Mapping[str, float] | None = None, kernel: Name = "flow-sde", noise_level: float = 0.7,
    steps: int = 15, window: int | None = None, within: float = 1.0, cells: int | None = None,
    kl_weighting: KlWeighting = "exact", lora: int | None = None, lora_alpha: int | None = None,
    lora_targets: tuple[str, ...] = ATTENTION, gradient_checkpointing: bool = False, resolution: int | None = None,
    answer_steps: int | None = None, slices: int = 4, seed: int = 0,
) -> Diffusion:  # fmt: skip
    """The policy of a checkpoint, on its device.

    Parameters
    ----------
    source : the checkpoint, its name, device, and in which type the network computes; weights, latents and means are
        float32 in any case
    explore : in the output, around the deterministic answer, or in the steps of a chain
    noise, frequencies, sigma : of the output, in units of the autoencoder's pictures (-1 to 1), see
        `reasonx_ft.policies.noise`
    kernel, noise_level : of the steps, see `kernels.Kernel`
    steps : of a rollout
    window, within, cells, kl_weighting : see `Chain`
    lora, lora_alpha, lora_targets : rank of adapters, or None to train the whole network; scale, default the rank's
        double; ends of the names of adapted layers
    gradient_checkpointing : compute activations twice instead of keeping them
    resolution : long side, in pixels, at which photos are seen, 0 is their own; default: the checkpoint's
    answer_steps : of the deterministic answer; default: the checkpoint's own number, else 4
    slices : photos and maps that go through the autoencoder at a time
    seed : of adapters and of the window's place

    Raises
    ------
    UsageError
        Files that are no such pipeline, a scheduler that can't be tuned, options that make no policy.
    """
    checkpoint, runtime = source.checkpoint, source.runtime
    assert checkpoint is not None
    explorer = Kernel(kernel, noise_level)
    model = Marigold(checkpoint, runtime=Runtime(runtime.device, "float32", 1, runtime.trust_remote_code))
    latents = LatentMaps(model.network, model.description, dtype=runtime.torch_dtype, slices=slices)
    network = model.network.unet
    if lora is not None:
        add_adapters(network, rank=lora, alpha=lora_alpha or 2 * lora, targets=lora_targets, seed=seed)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
        latents.pipe.vae.enable_gradient_checkpointing()
    chain = Chain(latents.schedule(steps), explorer, window, within, kl_weighting, seed, variance_preserving=True,
                  cells=cells)  # fmt: skip
    around = make_noise(noise, frequencies) if explore == "output" else None
    answer = latents.schedule(_first(answer_steps, latents.default_steps, 4))
    known = entry_of(checkpoint.hub_id)
    return Diffusion(
        network, latents, answer, chain=chain, noise=around, sigma=sigma, base=source.name,
        licence=known.licence if known else None, resolution=_first(resolution, latents.resolution, 768),
        compute=source.compute,
    )  # fmt: skip


def _first(*numbers: int | None) -> int:
    """The first that is given; 0 is a number too."""
    return next(n for n in numbers if n is not None)
