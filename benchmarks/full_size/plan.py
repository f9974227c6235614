"""What the published run would take at full size: operations counted exactly, hours by stated assumptions.

Counted: operations of one pass of each network, from its definition, and how many passes the recipe asks for.
Assumed: which share of a GPU's peak is reached. Nothing here is a measured GPU time; `full_size.measure` makes those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from benchmarks.full_size.full_size import AUTOENCODER, SHAPES, Measured, Setting, Shape, make_autoencoder, make_unet

#: the published run
PHOTOS: Final = 10_000
EPOCHS: Final = 3
GPUS: Final = (1, 8, 64)
#: of one H100 (SXM), dense bfloat16, by its data sheet
PEAK_TFLOPS: Final = 989.0
#: shares of the peak between which a U-Net of convolutions and attention is assumed to run
UTILISATION: Final = (0.25, 0.40)
#: bytes a second that each GPU exchanges gradients at, assumed: within a machine of eight, and between machines
EXCHANGE: Final = (200e9, 25e9)


@dataclass(frozen=True)
class Operations:
    """Of one pass, in TFLOP (a multiplication and an addition are two): the U-Net for one sample, the autoencoder for
    one photo or map; and the U-Net's parameters."""

    unet: float
    encode: float
    decode: float
    parameters: int


@dataclass(frozen=True)
class Work:
    """TFLOP of one batch of one photo, by phase."""

    phases: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.phases.values())


@lru_cache(maxsize=4)
def count(shape: Shape, pixels: int) -> Operations:
    """Operations of the networks of a shape for photos of a size; no weights are made."""
    side = pixels // 2 ** (len(shape.autoencoder) - 1)
    with torch.device("meta"):
        unet, autoencoder = make_unet(shape), make_autoencoder(shape)
        latent, text = torch.empty(1, 8, side, side), torch.empty(1, 2, shape.text)
        photo, code = torch.empty(1, 3, pixels, pixels), torch.empty(1, 4, side, side)
        return Operations(
            unet=_tflop(lambda: unet(latent, torch.empty(1), encoder_hidden_states=text, return_dict=False)[0]),
            encode=_tflop(lambda: autoencoder.encode(photo).latent_dist.mode()),
            decode=_tflop(lambda: autoencoder.decode(code, return_dict=False)[0]),
            parameters=sum(w.numel() for w in unet.parameters()),
        )


def work(setting: Setting, each: Operations) -> Work:
    """Operations of one batch of one photo under a setting."""
    scored = setting.steps - 1 if setting.window is None else setting.window
    passes = setting.group * scored * each.unet
    # gradients of activations; of weights, which adapters have next to none of; and activations once more
    backward = 1 + (setting.lora is None) + setting.gradient_checkpointing
    return Work({
        "rollout": setting.group * setting.steps * each.unet,
        "base": passes if setting.kl else 0.0,
        "replay": passes,
        "backward": backward * passes,
        "autoencoder": each.encode + setting.group * each.decode,
    })  # fmt: skip


def hours(batch: Work, setting: Setting, each: Operations, gpus: int, utilisation: float) -> float:
    """Of the whole run: arithmetic at a share of the peak, plus exchange of gradients where the whole is trained."""
    batches = PHOTOS * EPOCHS
    seconds = batches * batch.total / (gpus * PEAK_TFLOPS * utilisation)
    if gpus > 1 and setting.lora is None:
        exchanged = 2 * (gpus - 1) / gpus * 4 * each.parameters
        seconds += batches / (gpus * setting.images) * exchanged / EXCHANGE[gpus > 8]
    return seconds / 3600


def settings() -> list[tuple[str, Setting]]:
    """Name -> what the plan compares: the published recipe, and what makes it cheaper."""
    recipe = Setting(lora=None, gradient_checkpointing=True)
    return [
        ("as published, whole network", recipe),
        ("as published, adapters of rank 32", replace(recipe, lora=32)),
        ("window of 4 scored steps, adapters", replace(recipe, lora=32, window=4)),
        ("window of 4, no KL, no checkpointing, adapters",
         replace(recipe, lora=32, window=4, kl=False, gradient_checkpointing=False)),
    ]  # fmt: skip


def plan(measured: Sequence[Measured] = ()) -> str:
    """The plan as Markdown, with phases that were measured, if there are any."""
    shape = SHAPES["sd2"]
    each = count(shape, shape.pixels)
    low, high = UTILISATION
    lines = [
        "# The published run at full size",
        "",
        f"{PHOTOS:,} photos of {shape.pixels} pixels, {EPOCHS} epochs, groups of {Setting().group}, "
        f"{Setting().steps} steps of which all but the last are scored; a Stable-Diffusion-2-size U-Net "
        f"({each.parameters / 1e6:.0f} M parameters). Answers of the judge are made once, beforehand, and not counted.",
        "",
        f"**Counted** from the networks' definitions: {each.unet:.3f} TFLOP a pass of the U-Net for one sample, "
        f"{each.decode:.2f} to decode a map, {each.encode:.2f} to encode a photo. **Assumed**: {low:.0%} to {high:.0%} "
        f"of the {PEAK_TFLOPS:.0f} TFLOP/s of an H100 in bfloat16, "
        f"{EXCHANGE[0] / 1e9:.0f} GB/s between GPUs of one machine and {EXCHANGE[1] / 1e9:.0f} between machines. "
        "**Not measured: no hour in the first table is a GPU's.**",
        "",
        "| what | TFLOP a photo | rollout | base | replay and backward | autoencoder | "
        + " | ".join(f"hours on {n} GPU{'s' if n > 1 else ''}" for n in GPUS) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(GPUS),
    ]  # fmt: skip
    for name, setting in settings():
        batch = work(setting, each)
        share = {k: f"{v / batch.total:.0%}" for k, v in batch.phases.items()}
        both = (batch.phases["replay"] + batch.phases["backward"]) / batch.total
        times = [f"{hours(batch, setting, each, n, high):.2g} to {hours(batch, setting, each, n, low):.2g}"
                 for n in GPUS]  # fmt: skip
        lines.append(f"| {name} | {batch.total:.0f} | {share['rollout']} | {share['base']} | {both:.0%} | "
                     f"{share['autoencoder']} | " + " | ".join(times) + " |")  # fmt: skip
    lines += ["", *_memory(each)]
    for found in measured:
        lines += ["", *_measured(found)]
    return "\n".join(lines) + "\n"


def _memory(each: Operations) -> list[str]:
    weights = 4 * each.parameters / 2**30
    return [
        "Memory of weights alone, in GiB, computed from their number (activations and the autoencoder come on top): "
        f"whole network {weights * 4.5:.1f} (weights, gradients and two moments in float32, the frozen base in "
        f"bfloat16), adapters {weights:.1f} and 16 bytes for each of their own parameters.",
    ]  # fmt: skip


def _measured(found: Measured) -> list[str]:
    setting = found.setting
    what = "the whole network" if setting.lora is None else f"adapters of rank {setting.lora}"
    scored = setting.steps - 1 if setting.window is None else setting.window
    rest = found.outside - sum(p.seconds for p in found.phases if p.name in AUTOENCODER) / found.seconds
    pixels = setting.pixels or SHAPES[setting.size].pixels
    unit = "CPU seconds" if found.device == "cpu" else "seconds"
    lines = [
        f"**Measured** on {found.device} ({found.threads} thread{'s' if found.threads > 1 else ''}), {setting.dtype}, "
        f"size {setting.size}: one step of {setting.images} photo of {pixels} pixels, "
        f"group {setting.group}, {setting.steps} steps, "
        f"{scored} scored, {what} ({found.trained / 1e6:.2f} of {found.parameters / 1e6:.2f} M parameters): "
        f"{found.seconds:.3g} {unit}, {found.outside:.1%} of it outside the U-Net's passes "
        f"({rest:.1%} outside the autoencoder's too), peak {found.peak_gib:.1f} GiB.",
        "",
        f"| phase | {unit} | share | peak GiB |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for phase in found.phases:
        peak = "" if phase.peak_gib is None else f"{phase.peak_gib:.1f}"
        lines.append(f"| {phase.name} | {phase.seconds:.3g} | {phase.seconds / found.seconds:.1%} | {peak} |")
    return lines


def _tflop(call: Callable[[], Tensor]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops()) / 1e12
