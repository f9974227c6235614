"""From the folder or hub id of a Marigold-type pipeline to a policy."""

from __future__ import annotations

from reasonx_eval.models.adapters.marigold import Marigold
from reasonx_eval.models.loading.catalogue import entry_of
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.grpo.kernels import Kernel, Name
from reasonx_ft.grpo.loss import KlWeighting, StepWeighting
from reasonx_ft.policies.adapters import ATTENTION, add_adapters
from reasonx_ft.policies.chain import Chain
from reasonx_ft.policies.diffusion import Diffusion
from reasonx_ft.policies.marigold import LatentMaps
from reasonx_ft.policies.source import Source


def load_pipeline(
    source: Source, *, kernel: Name = "flow-sde", level: float = 0.7, steps: int = 15, window: int | None = None,
    within: float = 1.0, shared_start: bool = False, kl_weighting: KlWeighting = "exact",
    step_weighting: StepWeighting = "none", lora: int | None = None, lora_alpha: int | None = None,
    lora_targets: tuple[str, ...] = ATTENTION, gradient_checkpointing: bool = False, resolution: int | None = None,
    answer_steps: int | None = None, slices: int = 4, seed: int = 0,
) -> Diffusion:  # fmt: skip
    """The policy of a checkpoint, on its device.

    Parameters
    ----------
    source : the checkpoint, its name, device, and in which type the network computes; weights, latents and means are
        float32 in any case
    kernel, level : see `kernels.Kernel`
    steps : of a rollout
    window, within, shared_start, kl_weighting, step_weighting : see `Chain`
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
    explorer = Kernel(kernel, level)
    model = Marigold(checkpoint, runtime=Runtime(runtime.device, "float32", 1, runtime.trust_remote_code))
    latents = LatentMaps(model.network, model.description, dtype=runtime.torch_dtype, slices=slices)
    network = model.network.unet
    if lora is not None:
        add_adapters(network, rank=lora, alpha=lora_alpha or 2 * lora, targets=lora_targets, seed=seed)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
        latents.pipe.vae.enable_gradient_checkpointing()
    chain = Chain(latents.schedule(steps), explorer, window, within, shared_start, kl_weighting, step_weighting, seed,
                  variance_preserving=True)  # fmt: skip
    answer = latents.schedule(_first(answer_steps, latents.default_steps, 4))
    known = entry_of(checkpoint.hub_id)
    return Diffusion(
        network, latents, chain, answer, base=source.name, licence=known.licence if known else None,
        resolution=_first(resolution, latents.resolution, 768), micro=source.micro, dtype=runtime.torch_dtype,
    )  # fmt: skip


def _first(*numbers: int | None) -> int:
    """The first that is given; 0 is a number too."""
    return next(n for n in numbers if n is not None)
