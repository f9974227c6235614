"""Depth networks in transformers' format as a feed-forward policy sees them.

Codes follow what the network's numbers mean. Metric depth and depth up to scale are written as logarithms, so that
noise is a ratio. Relative disparity and depth have neither scale nor zero, so their code is the map standardised over
the photo: what an evaluation's fit would take out moves no code, and neither noise nor distance to the base sees it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.files import write_json
from reasonx_eval.models.adapters.depth_processors import Processing, target_size
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.adapters.transformers_weights import load_network
from reasonx_eval.models.loading.catalogue import entry_of
from reasonx_eval.models.loading.checkpoint import Checkpoint, read_json
from reasonx_eval.types import Kind
from reasonx_ft.policies.adapters import adapted_layers, add_adapters, merged_state
from reasonx_ft.policies.base import Policy, Saved, Source
from reasonx_ft.policies.feedforward import FeedForward, Predictor
from reasonx_ft.policies.noise import NoiseName, make_noise

#: kinds whose code is a logarithm; the others are standardised
_POSITIVE: Final = ("depth_metric", "depth_scale")
#: families that are tuned as they are run
_FAMILIES: Final = ("dpt", "glpn", "tipsv2_dpt")
_PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
#: projections of attention layers, as the libraries' depth networks name them
_QUERIES_AND_VALUES: Final = ("query", "value", "q_proj", "v_proj")
#: metres; nothing is nearer to a camera
_NEAREST: Final = 1e-3
FOLDER: Final = "network"


class DepthPredictor(Predictor):
    """One network of AutoModelForDepthEstimation.

    Photos are normalised as the checkpoint says. They come resized to the network's input, and what a processor would
    pad is resized to the next multiple of the patch instead.

    Parameters
    ----------
    kind : what the output means
    processing : settings of the image processor
    checkpoint : where the processor's file is clone_state from

    Raises
    ------
    UsageError
        A processor that changes more of the photo than its size and range.
    """

    modalities = ("depth",)

    def __init__(self, kind: Kind, processing: Processing, checkpoint: Checkpoint) -> None:
        if processing.family not in _FAMILIES:
            raise UsageError(f"networks with a {processing.family} processor are not tuned here: it pads photos or "
                             "rescales maps by what it sees of the camera", where=checkpoint.source,
                             fix="a DPT, Depth Anything or GLPN checkpoint")  # fmt: skip
        self.kind, self._processing, self._checkpoint = kind, processing, checkpoint
        self.log_slope: Mapping[str, float] = {"depth": -1.0 if kind == "disparity_affine" else 1.0}

    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        raw = network(pixel_values=self._input(images)).predicted_depth.float()
        raw = raw if raw.ndim == 4 else raw[:, None]
        if raw.ndim != 4 or raw.shape[:2] != (len(images), 1):
            raise SampleError(f"the network gives shape {list(raw.shape)}, not [{len(images)}, h, w]",
                              where=self._checkpoint.source)  # fmt: skip
        if raw.shape[-2:] != images.shape[-2:]:
            mode = "bilinear" if self._processing.family == "tipsv2_dpt" else "bicubic"
            raw = functional.interpolate(raw, images.shape[-2:], mode=mode, align_corners=False)
        return {"depth": raw.clamp_min(_NEAREST).log() if self.kind in _POSITIVE else _standardised(raw)}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Metres or a positive depth; of relative maps, one whose order and log-ratios are the code's."""
        return torch.exp(self.log_slope[modality] * code.clamp(-30, 30))

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        spec = self._processing
        if spec.do_resize:
            height, width = target_size(height, width, spec)
        if spec.do_pad and spec.size_divisor:
            step = spec.size_divisor
            height, width = (max(step, round(side / step) * step) for side in (height, width))
        return height, width

    def save(self, network: nn.Module, folder: Path) -> Saved:
        inner: Any = getattr(network, "module", network)
        if adapted_layers(inner):
            with torch.device("meta"):
                plain = type(inner)(inner.config)
            plain.load_state_dict(merged_state(inner), assign=True)
            inner = plain
        part = folder / f".{FOLDER}.part"
        shutil.rmtree(part, ignore_errors=True)
        inner.save_pretrained(str(part), safe_serialization=True)
        for name in _PROCESSORS:
            if (self._checkpoint.folder / name).is_file():
                shutil.copyfile(self._checkpoint.folder / name, part / name)
        known = read_json(part / "config.json") or {}
        write_json(part / "config.json", {k: v for k, v in known.items() if k != "_name_or_path"})
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        part.rename(folder / FOLDER)
        return Saved("transformers", FOLDER)

    def _input(self, images: Tensor) -> Tensor:
        """Photos [B, 3, H, W] in [0, 1] as the processor leaves them."""
        spec = self._processing
        seen = images * (255 * (spec.rescale_factor if spec.do_rescale else 1.0))
        if not spec.do_normalize:
            return seen
        mean, std = (seen.new_tensor(v).view(3, 1, 1) for v in (spec.image_mean, spec.image_std))
        return (seen - mean) / std


def _standardised(raw: Tensor) -> Tensor:
    """Maps [B, 1, H, W] with mean 0 and variance 1 each; flat maps are 0."""
    centred = raw - raw.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).add(1e-12).sqrt()


def load_depth_network(
    source: Source, *, kind: str | None = None, noise: NoiseName = "lowrank", frequencies: int = 16,
    sigma: float | Mapping[str, float] | None = None, lora: int | None = None, lora_alpha: int | None = None,
    lora_targets: tuple[str, ...] = _QUERIES_AND_VALUES, seed: int = 0,
) -> Policy:  # fmt: skip
    """A checkpoint of AutoModelForDepthEstimation.

    Parameters
    ----------
    kind : what its output means; default: what the checkpoint says
    noise, frequencies, sigma : see `reasonx_ft.policies.noise`
    lora, lora_alpha, lora_targets, seed : see `adapters.add_adapters`; without lora, the whole network is trained
    """
    from transformers import AutoModelForDepthEstimation

    checkpoint, runtime = source.checkpoint, source.runtime
    assert checkpoint is not None
    model = TransformersDepth(checkpoint, runtime=runtime, kind=kind)
    predictor = DepthPredictor(model.kinds["depth"][0], model.processing, checkpoint)
    network = load_network(checkpoint, AutoModelForDepthEstimation, dtype=torch.float32,
                           trust_remote_code=runtime.trust_remote_code)  # fmt: skip
    if lora is not None:
        add_adapters(network, rank=lora, alpha=lora_alpha or 2 * lora, targets=lora_targets, seed=seed)
    # of the catalogue: the model's own info would read all weights for their digest
    known = entry_of(checkpoint.hub_id)
    return FeedForward(predictor, network.to(runtime.torch_device), make_noise(noise, frequencies),
                       adapted=lora is not None, base=source.name, licence=known.licence if known else None,
                       sigma=sigma, compute=source.compute)  # fmt: skip
