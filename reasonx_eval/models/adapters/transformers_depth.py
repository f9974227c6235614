"""Depth networks in transformers' format: Depth Anything, DPT and MiDaS, ZoeDepth, GLPN, Depth Pro and their kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.models.adapters.depth_kinds import class_name, decide_kind
from reasonx_eval.models.adapters.depth_processors import Processing, network_input, read_processing, to_photo
from reasonx_eval.models.adapters.transformers_weights import check_weights, count_parameters, load_network
from reasonx_eval.models.base import ModelInfo, check_kind
from reasonx_eval.models.loading.catalogue import checkpoint_info, entry_of
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import CheckpointModel, Runtime, in_batches, to_numpy
from reasonx_eval.types import Kind, Prediction, Sample


class TransformersDepth(CheckpointModel):
    """One network of AutoModelForDepthEstimation; predictions have the photo's size, as the library makes them.

    Loads on the first prediction, or by `load`, which any thread may call. Photos are resized and normalised on the
    CPU by the checkpoint's own rules (`depth_processors`), whether torchvision is installed or not.

    Parameters
    ----------
    checkpoint : its files
    runtime : where and how it computes
    kind : meaning of the output, where config.json leaves it open
    name : shown in tables; default: the folder's name or the last part of the hub id
    flip : also predict the mirrored photo and take the mean (ZoeDepth's own evaluation does)

    Raises
    ------
    UsageError
        No depth network, a kind that is not known or contradicts config.json, code that came with the checkpoint,
        a network that needs more than a photo, no weights, or no preprocessor_config.json. `load` raises the errors
        that only reading the weights shows.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        runtime: Runtime,
        kind: str | None = None,
        name: str | None = None,
        flip: bool = False,
    ) -> None:
        config = checkpoint.config
        found = None if config is None else class_name(config)
        if config is None or found is None:
            raise UsageError("no config.json of a depth network", where=checkpoint.source,
                             fix="reasonx-eval list models")  # fmt: skip
        _refuse_unusable(config, checkpoint, runtime)
        super().__init__(checkpoint, runtime, name)
        self._class_name, self._flip = found, flip
        self._facts = entry_of(checkpoint.hub_id)
        self._kind = decide_kind(config, checkpoint.source, kind, self._facts)
        check_weights(checkpoint.folder, checkpoint.source)
        self._processing = read_processing(checkpoint.folder, str(config.get("model_type")))
        self._notes = _notes(self._processing)
        if flip and self._processing.family != "zoedepth":
            raise UsageError("flip is for ZoeDepth, whose own evaluation does it", where=self.name)

    @property
    def info(self) -> ModelInfo:
        options = {"class": self._class_name, "processing": self._processing.describe(), **self.runtime.describe(),
                   "flip": self._flip, "revision": self.checkpoint.revision}  # fmt: skip
        return checkpoint_info(self.checkpoint, name=self.name, parameters=self._parameters, options=options,
                               notes=self._notes)  # fmt: skip

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {"depth": (self._kind,)}

    @cached_property
    def _parameters(self) -> int | None:
        return count_parameters(self.checkpoint)

    @property
    def processing(self) -> Processing:
        """The settings of the checkpoint's image processor."""
        return self._processing

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self._kind,), where=self.name)
        network, device = self.network, self.runtime.torch_device
        with torch.inference_mode():
            maps = in_batches(samples, lambda group: self._maps(network, device, group), device=device,
                              name=self.name)  # fmt: skip
        return [Prediction(kind, value) for value in maps]

    def _read(self) -> Any:
        from transformers import AutoModelForDepthEstimation

        network = load_network(self.checkpoint, AutoModelForDepthEstimation, dtype=self.runtime.torch_dtype,
                               trust_remote_code=self.runtime.trust_remote_code)  # fmt: skip
        return network.to(self.runtime.torch_device)

    def _maps(self, network: Any, device: torch.device, samples: Sequence[Sample]) -> list[Any]:
        inputs = [network_input(s.image, self._processing) for s in samples]
        maps: list[Any] = [None] * len(samples)
        for shape in dict.fromkeys(x.shape for x in inputs):
            members = [i for i, x in enumerate(inputs) if x.shape == shape]
            batch = torch.stack([inputs[i] for i in members]).to(device, self.runtime.torch_dtype)
            raw, fov = self._run(network, batch, samples[members[0]])
            for row, i in enumerate(members):
                height, width = samples[i].image.shape[:2]
                value = to_photo(raw[row], height, width, self._processing, None if fov is None else fov[row])
                maps[i] = self._finite(to_numpy(value), samples[i])
        return maps

    def _run(self, network: Any, batch: torch.Tensor, sample: Sample) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Raw output float32 [B, h, w], and fields of view [B] of networks that give them."""
        try:
            output = network(pixel_values=batch)
            raw = output.predicted_depth.to(torch.float32)
            if self._flip:
                mirrored = network(pixel_values=batch.flip(-1)).predicted_depth.to(torch.float32)
                raw = (raw + mirrored.flip(-1)) / 2
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise SampleError(f"{self._class_name} failed on {batch.shape[-1]} x {batch.shape[-2]} pixels: "
                              f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                              where=f"{self.name}: sample {sample.id}") from error  # fmt: skip
        if raw.ndim == 4 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.ndim != 3 or raw.shape[0] != len(batch):
            raise SampleError(f"{self._class_name} gives shape {list(raw.shape)}, not [{len(batch)}, h, w]",
                              where=f"{self.name}: sample {sample.id}")  # fmt: skip
        return raw, getattr(output, "field_of_view", None)


def _refuse_unusable(config: Mapping[str, Any], checkpoint: Checkpoint, runtime: Runtime) -> None:
    if config.get("auto_map") and not runtime.trust_remote_code:
        raise UsageError("config.json names Python code that came with the checkpoint (auto_map); it is not run",
                         where=checkpoint.source, fix="--trust-remote-code, after reading that code")  # fmt: skip
    if config.get("model_type") == "prompt_depth_anything":
        raise UsageError("Prompt Depth Anything completes a depth measurement that comes with the photo; a photo alone "
                         "is not enough", where=checkpoint.source)  # fmt: skip


def _notes(spec: Processing) -> tuple[str, ...]:
    if spec.do_pad and spec.size_divisor and spec.family in ("dpt", "chmv2"):
        return ("photos are padded to multiples of the patch and the padded map is stretched to the photo's size, "
                "as the library does",)  # fmt: skip
    return ()
