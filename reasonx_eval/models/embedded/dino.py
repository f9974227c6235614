"""`dino-small`: the four maps from a frozen, pretrained DINOv2 backbone and a small head that ships with the package.

The backbone is any Dinov2-type network in transformers' format, from the hub's cache or a folder. It sees the photo at
14 pixels a token, 16 tokens on the long side. The head sees the tokens of three layers and the photo at 8 pixels a
token, which is the size of the maps: tokens know what is where, the photo knows where exactly.

The backbone never changes, so whoever trains the head computes a photo's tokens once (`Backbone`) and keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.models.adapters.transformers_weights import count_parameters, load_network
from reasonx_eval.models.base import ModelInfo
from reasonx_eval.models.embedded.dino_net import DinoHead
from reasonx_eval.models.embedded.tiny import EmbeddedModel, resized, working_size
from reasonx_eval.models.embedded.tiny_net import STRIDE
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint
from reasonx_eval.models.loading.runtime import to_tensor
from reasonx_eval.types import Sample

HUB_ID: Final = "facebook/dinov2-small"
#: model_type of the backbones that can be used
FAMILY: Final = ("dinov2", "dinov2_with_registers")
# of ImageNet, which all of the family were trained with
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A frozen Dinov2-type network: photos to the tokens of some of its layers.

    Parameters
    ----------
    network : Dinov2Model or Dinov2WithRegistersModel
    layers : which layers, counted from 1
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, network: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.network, self.layers = network.eval().requires_grad_(False), tuple(layers)
        config = network.config
        self.patch, self.channels = int(config.patch_size), int(config.hidden_size)
        self._registers = int(getattr(config, "num_register_tokens", 0))
        if not 1 <= min(self.layers) <= max(self.layers) <= config.num_hidden_layers:
            raise UsageError(f"layers {list(self.layers)}: the backbone has {config.num_hidden_layers}", where="dino")
        self.register_buffer("_mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Tokens float32 [B, L, 1 + h * w, C] of images [B, 3, patch * h, patch * w] in [0, 1], layer by layer.

        The first token of a layer is its class token, which sums up the photo; the others are the patches, row by row.
        """
        output = self.network(pixel_values=(images - self._mean) / self._std, output_hidden_states=True)
        tokens = torch.stack([self.network.layernorm(output.hidden_states[layer]) for layer in self.layers], dim=1)
        return torch.cat([tokens[:, :, :1], tokens[:, :, 1 + self._registers :]], dim=2)


def views(photo: NDArray[np.uint8], tokens: int, patch: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photo [H, W, 3] as the head and as the backbone see it, with so many tokens on the long side.

    Examples
    --------
    >>> head, backbone = views(np.zeros((480, 640, 3), np.uint8), 16, 14)
    >>> head.shape, backbone.shape
    ((96, 128, 3), (168, 224, 3))
    """
    height, width = working_size(photo.shape[0], photo.shape[1], STRIDE * tokens)
    seen = resized(photo, height // STRIDE * patch, width // STRIDE * patch)
    return resized(photo, height, width), seen


class Dino(EmbeddedModel):
    """The four maps from a frozen DINOv2 backbone and a head.

    Parameters
    ----------
    backbone : folder, or hub id in the local cache or on the hub; default: the one that the head was trained on
    weights : another .safetensors file of a head, with its card beside it
    device : auto and cpu (the same), cuda or mps

    Raises
    ------
    UsageError
        No such backbone, a network of another family, or one that the head does not fit.
    """

    network_name = "dino-small"

    def __init__(self, *, backbone: str | None = None, weights: Path | None = None, device: str = "auto") -> None:
        super().__init__(weights, device)
        self._source = backbone

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The backbone's files."""
        return find_checkpoint(self._source or self.card.base or HUB_ID)

    @property
    def info(self) -> ModelInfo:
        head, parameters = super().info, count_parameters(self.checkpoint)
        return replace(
            head,
            weights_sha256=sha256_lines([str(head.weights_sha256), self.checkpoint.digest]),
            parameters=None if parameters is None else parameters + (head.parameters or 0),
            options={**head.options, "backbone": self.checkpoint.source, "backbone_sha256": self.checkpoint.digest,
                     "head_sha256": head.weights_sha256},
        )

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, loaded, on the device."""
        return load_backbone(self.checkpoint, self.network).to(self.device)

    def close(self) -> None:
        super().close()
        self.__dict__.pop("backbone", None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "backbone"}

    def _code_of(self, sample: Sample, modality: str, seed: int) -> Tensor:
        head: DinoHead = self.network
        image, seen = (to_tensor(view, self.device)[None]
                       for view in views(sample.image, head.tokens, self.backbone.patch))  # fmt: skip
        code: Tensor = head(image, self.backbone(seen))[modality]
        return code


def load_backbone(source: str | Checkpoint, head: DinoHead | None = None) -> Backbone:
    """The backbone of a folder or hub id, float32, frozen, on the CPU, with the layers that a head takes.

    Parameters
    ----------
    source : folder or hub id, or its files
    head : default: tokens at half, three quarters and all of the depth, as a new head takes them

    Raises
    ------
    UsageError
        No such backbone, a network of another family, or one that the head does not fit.
    """
    checkpoint = source if isinstance(source, Checkpoint) else find_checkpoint(source)
    config: Mapping[str, Any] = checkpoint.config or {}
    if config.get("model_type") not in FAMILY:
        raise UsageError(f"its model_type is {config.get('model_type')}; a backbone is one of {', '.join(FAMILY)}",
                         where=checkpoint.source, fix=f"-O backbone=FOLDER, with the files of {HUB_ID}")  # fmt: skip
    channels, depth = config.get("hidden_size"), config.get("num_hidden_layers", 12)
    if head is not None and (channels != head.channels or depth < max(head.layers)):
        raise UsageError(f"the backbone has {depth} layers of {channels} channels; the head takes tokens of "
                         f"{head.channels} channels from layers {', '.join(map(str, head.layers))}",
                         where=checkpoint.source, fix="the backbone that the head was trained on, or -O weights= of "
                         "a head for this one: reasonx-ft pretrain")  # fmt: skip
    from transformers import AutoModel

    network = load_network(checkpoint, AutoModel, dtype=torch.float32, trust_remote_code=False)
    layers = head.layers if head is not None else (depth // 2, depth * 3 // 4, depth)
    return Backbone(network, layers)
