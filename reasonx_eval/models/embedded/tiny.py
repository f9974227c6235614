"""The embedded predictors: `tiny`, feed-forward, and `tiny-flow`, a conditional flow. No download, seconds on a CPU.

Both know nothing but the clean synthetic rooms that they were trained on: they make the suite usable anywhere, and are
the usual start of tuning. They are no match for real networks on real photos.

A photo is brought to 128 pixels on its long side (sides in multiples of 8, antialiased), and the maps keep that size;
whoever scores them resizes by the protocol's rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import rng
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.embedded.card import WEIGHTS, TinyCard, load_network, read_card
from reasonx_eval.types import TASK_OF_KIND, Kind, Prediction, Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONG_SIDE: Final = 128
#: two pixels at the coarsest level of the networks
_SHORTEST = 16
_KINDS: Mapping[str, tuple[Kind, ...]] = {
    # the networks say metres; where that is far off, as in other rooms, an alignment in disparity forgives most
    "depth": ("disparity_affine", "depth_affine", "depth_scale", "depth_metric"),
    "normals": ("normal",),
    "albedo": ("albedo_linear",),
    "irradiance": ("irradiance",),
}


class EmbeddedModel(Model):
    """One photo at a time: no number depends on the other photos of a call."""

    network_name: str

    def __init__(self, weights: Path | None, device: str) -> None:
        self._shipped = weights is None
        self._weights = WEIGHTS / f"{self.network_name}.safetensors" if weights is None else Path(weights)
        # made for the CPU, where one photo takes some 20 ms; auto gives the same digits with and without a GPU
        self._device_name = "cpu" if device == "auto" else device

    @cached_property
    def card(self) -> TinyCard:
        card = read_card(self._weights)
        if card.model != self.network_name:
            raise UsageError(f"weights of {card.model}", where=str(self._weights), fix=f"--model {card.model}")
        return card

    @property
    def info(self) -> ModelInfo:
        card = self.card
        return ModelInfo(
            name=self.network_name if self._shipped else self._weights.stem,
            source=self.network_name if self._shipped else str(self._weights),
            weights_sha256=card.weights_sha256,
            licence=card.licence,
            parameters=card.parameters,
            base=card.base,
            trained_on=tuple(f"{d.dataset}/{d.split} ({d.n})" for d in card.data),
            reward=card.reward,
            options={"device": self._device_name.partition(":")[0], **self._options()},
        )

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return _KINDS

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, [k for kinds in _KINDS.values() for k in kinds], where=self.network_name)
        from reasonx_eval.models.loading.runtime import one_thread

        with one_thread():
            return [Prediction(kind, self._map(s, kind, seed)) for s in samples]

    def close(self) -> None:
        self.__dict__.pop("network", None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "network"}

    @cached_property
    def device(self) -> torch.device:
        from reasonx_eval.models.loading.runtime import pick_device

        return pick_device(self._device_name)

    @cached_property
    def network(self) -> Any:
        return load_network(self._weights, self.card).to(self.device)

    def _map(self, sample: Sample, kind: Kind, seed: int) -> NDArray[np.float32]:
        import torch

        from reasonx_eval.models.embedded.tiny_net import CODES
        from reasonx_eval.models.loading.runtime import to_numpy

        modality = TASK_OF_KIND[kind]
        with torch.inference_mode():
            value = CODES[modality].decode(self._code_of(sample, modality, seed))[0]
            if kind == "disparity_affine":
                value = 1 / value
            return to_numpy(value[0] if modality == "depth" else value.permute(1, 2, 0).contiguous())

    def _code_of(self, sample: Sample, modality: str, seed: int) -> Tensor:
        """The code [1, C, h, w] of one map of a photo."""
        from reasonx_eval.models.loading.runtime import to_tensor

        images = to_tensor(working_image(sample.image), self.device)[None]
        return self._code(images, modality, sample.id, seed)

    def _code(self, images: Tensor, modality: str, sample_id: str, seed: int) -> Tensor:
        """The code [1, C, h, w] of one map of a photo at its working size."""
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        """Options that change the output."""
        return {}


class Tiny(EmbeddedModel):
    """The feed-forward network: all four maps at once, no noise.

    Parameters
    ----------
    weights : another .safetensors file of this network, with its card beside it
    device : auto and cpu (the same), cuda or mps
    """

    network_name = "tiny"

    def __init__(self, *, weights: Path | None = None, device: str = "auto") -> None:
        super().__init__(weights, device)

    def _code(self, images: Tensor, modality: str, sample_id: str, seed: int) -> Tensor:
        code: Tensor = self.network(images)[modality]
        return code


class TinyFlow(EmbeddedModel):
    """The flow: noise becomes one map in a few Euler steps, under the condition of the photo.

    Parameters
    ----------
    steps : Euler steps from noise to map; one scores best
    ensemble : maps from as many noises, averaged as codes (depth and light: a geometric mean)
    weights, device : see Tiny
    """

    network_name = "tiny-flow"

    def __init__(
        self, *, steps: int = 1, ensemble: int = 1, weights: Path | None = None, device: str = "auto"
    ) -> None:
        for name, value in {"steps": steps, "ensemble": ensemble}.items():
            if not 1 <= value <= 1000:
                raise UsageError(f"{name} is {value}; needs 1 to 1000", where=self.network_name)
        super().__init__(weights, device)
        self._steps, self._ensemble = steps, ensemble

    def _code(self, images: Tensor, modality: str, sample_id: str, seed: int) -> Tensor:
        import torch

        from reasonx_eval.models.embedded.tiny_net import MODALITIES, euler, from_state

        condition = self.network.encode(images)
        index = torch.full((1,), MODALITIES.index(modality), device=self.device)
        total = torch.zeros((), device=self.device)
        for member in range(self._ensemble):
            stream = rng(seed, sample_id, "tiny-flow", modality, str(member))
            noise = torch.from_numpy(stream.standard_normal((1, 3, *images.shape[-2:]), dtype=np.float32))
            total = total + euler(self.network, noise.to(self.device), index, condition, self._steps)
        return from_state(total / self._ensemble, modality)

    def _options(self) -> dict[str, Any]:
        return {"steps": self._steps, "ensemble": self._ensemble}


def working_size(height: int, width: int, long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Height and width at which a photo is seen: the long side as given, both multiples of 8, 16 or more.

    Examples
    --------
    >>> working_size(480, 640)
    (96, 128)
    """
    factor = long_side / max(height, width)
    return max(_SHORTEST, round(height * factor / 8) * 8), max(_SHORTEST, round(width * factor / 8) * 8)


def working_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo [H, W, 3] at its working size."""
    return resized(image, *working_size(*image.shape[:2]))


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A photo [H, W, 3] at another size: integer arithmetic, with a filter that widens as the photo shrinks."""
    from PIL import Image

    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
