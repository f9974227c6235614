"""Marigold: diffusion models for depth, normals and intrinsic decomposition, through diffusers' own pipelines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.models.adapters.marigold_maps import describe, to_kind
from reasonx_eval.models.adapters.pipelines import (
    check_filled,
    check_parts,
    class_name,
    load_failure,
    noise_seed,
    only_variant,
    refuse_own_code,
    vae_factor,
)
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.loading.catalogue import catalogue, checkpoint_info
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint
from reasonx_eval.models.loading.options import parse_options
from reasonx_eval.models.loading.runtime import CheckpointModel, Runtime, aligned, in_batches, quiet
from reasonx_eval.types import TASK_OF_KIND, Kind, Prediction, Sample

Resample = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "area"]


class Marigold(CheckpointModel):
    """A Marigold-type checkpoint, run exactly as its diffusers pipeline runs it.

    The noise of a photo comes from (seed, sample id) and is drawn on the CPU, so that batches, shards and devices
    start from the same numbers. Photos of one size share a batch on an accelerator; on the CPU they go one by one.
    An ensemble takes one photo at a time.

    Parameters
    ----------
    checkpoint : its files
    runtime : device, number type, batch size
    kind : the only kind to give; needed where an old checkpoint does not state its output
    name : shown in tables; default: the last part of the checkpoint's id or path
    steps : denoising steps; default: the checkpoint's own
    ensemble : predictions to merge into one, each from noise of its own
    processing_resolution : long side, in pixels, that the network sees; 0 is the photo's own; default: the
        checkpoint's own
    match_input_resolution : resize the prediction to the photo's size, as the pipeline does by default
    resample_input, resample_output : interpolation of both resizings
    reduction : how an ensemble is merged; default: median (depth, intrinsics) or closest (normals)

    Raises
    ------
    UsageError
        A folder that is not such a checkpoint, or not all of it, or whose weights are pickled; options that it can't
        run with. Weights are only read by `load` or the first `predict`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        runtime: Runtime | None = None,
        kind: Kind | None = None,
        name: str | None = None,
        steps: int | None = None,
        ensemble: int = 1,
        processing_resolution: int | None = None,
        match_input_resolution: bool = True,
        resample_input: Resample = "bilinear",
        resample_output: Resample = "bilinear",
        reduction: Literal["median", "mean", "closest"] | None = None,
    ) -> None:
        super().__init__(checkpoint, runtime, name)
        trusted = self.runtime.trust_remote_code
        refuse_own_code(checkpoint, trust_remote_code=trusted)
        self.description = describe(checkpoint, kind)
        self._weights = check_parts(checkpoint, trust_remote_code=trusted)
        self._parameters = sum(w.parameters for w in self._weights.values())
        self.steps = _given(steps, self.description.steps, "steps", self.name)
        self.resolution = _given(processing_resolution, self.description.resolution, "processing_resolution", self.name)
        self.ensemble, self.match_input_resolution = ensemble, match_input_resolution
        self.resample_input, self.resample_output, self.reduction = resample_input, resample_output, reduction
        self._check_options()

    @property
    def info(self) -> ModelInfo:
        options: dict[str, Any] = {
            "steps": self.steps,
            "ensemble": self.ensemble,
            "processing_resolution": self.resolution,
            "match_input_resolution": self.match_input_resolution,
            "resample_input": self.resample_input,
            "resample_output": self.resample_output,
        }
        if self.ensemble > 1:
            options["reduction"] = self.reduction or self._merged_by[0]
        options |= self.runtime.describe()
        return checkpoint_info(self.checkpoint, name=self.name, parameters=self._parameters, options=options)

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return self.description.kinds

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, tuple(self.description.target), where=self.name)

        def compute(batch: Sequence[Sample]) -> list[Prediction]:
            return [Prediction(kind, value) for value in self._maps(batch, kind, seed)]

        return in_batches(samples, compute, device=self.runtime.torch_device, name=self.name)

    @property
    def _merged_by(self) -> tuple[str, str]:
        """The reductions that the pipeline knows, its default first."""
        return ("closest", "mean") if "normal" in self.description.target else ("median", "mean")

    def _check_options(self) -> None:
        factor = vae_factor(self.checkpoint)
        if self.steps < 1 or self.ensemble < 1:
            raise UsageError(f"steps is {self.steps} and ensemble {self.ensemble}; both must be at least 1",
                             where=self.name)  # fmt: skip
        if self.resolution < 0 or self.resolution % factor:
            raise UsageError(f"processing_resolution is {self.resolution}; it must be a multiple of {factor}, or 0 for "
                             "the photo's own", where=self.name)  # fmt: skip
        if self.reduction not in (None, *self._merged_by):
            raise UsageError(f"reduction is '{self.reduction}'; this pipeline knows {' and '.join(self._merged_by)}",
                             where=self.name)  # fmt: skip

    def _read(self) -> Any:
        with quiet("diffusers", "transformers"):
            import diffusers

            expected = getattr(diffusers, self.description.pipeline)
            own = class_name(self.checkpoint) is None  # code of the checkpoint's own, which was trusted
            cls = diffusers.DiffusionPipeline if own else expected
            try:
                pipe = cls.from_pretrained(
                    str(self.checkpoint.folder), use_safetensors=True, variant=only_variant(self._weights),
                    local_files_only=True, trust_remote_code=self.runtime.trust_remote_code,
                )  # fmt: skip
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise load_failure(error, self.checkpoint.folder) from error
            if not isinstance(pipe, expected):
                raise UsageError(f"its pipeline, {type(pipe).__name__}, is not a {self.description.pipeline}",
                                 where=self.name)  # fmt: skip
            check_filled(pipe, self._weights, self.checkpoint.folder)
            for part in self._weights:
                aligned(getattr(pipe, part))
            try:
                pipe.scheduler.set_timesteps(self.steps)
            except ValueError as error:
                raise UsageError(f"{type(pipe.scheduler).__name__} can't do {self.steps} steps: {error}",
                                 where=self.name, fix="-O steps=N") from None  # fmt: skip
            pipe.set_progress_bar_config(disable=True)
            if self.runtime.torch_device.type == "cpu" and self.runtime.torch_dtype != torch.float32:
                _resize_in_float32(pipe.image_processor)
            return pipe.to(self.runtime.torch_device, self.runtime.torch_dtype)

    def _maps(self, batch: Sequence[Sample], kind: Kind, seed: int) -> list[NDArray[np.float32]]:
        """One map per sample; neighbours of one size go through the network together, unless each is an ensemble."""
        maps: list[NDArray[np.float32]] = []
        for _, same in itertools.groupby(batch, key=lambda s: s.image.shape if self.ensemble == 1 else s.id):
            group = list(same)
            found = self._call(group, seed)  # [n * targets, H, W, C]
            found = found.reshape(len(group), self.description.n_targets, *found.shape[1:])
            for sample, value in zip(group, found[:, self.description.target[kind]], strict=True):
                self._finite(value, sample)
                # a copy, lest one map keep all maps of the batch in memory
                maps.append(to_kind(value.copy() if len(found) * found.shape[1] > 1 else value, kind))
        return maps

    def _call(self, group: Sequence[Sample], seed: int) -> NDArray[np.float32]:
        """The pipeline's output for photos of one size: float32 [n * targets, H, W, C]."""
        for sample in group:
            self._check_aspect(sample)
        generators = [torch.Generator("cpu").manual_seed(noise_seed(seed, sample.id)) for sample in group]
        with quiet("diffusers", "transformers"):
            output = self.network(
                [sample.image for sample in group],
                num_inference_steps=self.steps,
                ensemble_size=self.ensemble,
                processing_resolution=self.resolution,
                match_input_resolution=self.match_input_resolution,
                resample_method_input=self.resample_input,
                resample_method_output=self.resample_output,
                batch_size=len(group) if self.ensemble == 1 else self._members_at_once,
                ensembling_kwargs={"reduction": self.reduction} if self.reduction else None,
                generator=generators if len(generators) > 1 else generators[0],
            )
        value: NDArray[np.float32] = output.prediction
        return value

    @property
    def _members_at_once(self) -> int:
        """Members of an ensemble that go through the network together.

        A scheduler that draws noise in its steps (LCM) would draw other noise for other groups of members.
        """
        draws = type(self.network.scheduler).__name__ == "LCMScheduler"
        return 1 if draws or self.runtime.torch_device.type == "cpu" else min(self.ensemble, self.runtime.batch_size)

    def _check_aspect(self, sample: Sample) -> None:
        height, width = sample.image.shape[:2]
        if self.resolution and min(height, width) * self.resolution < max(height, width):
            raise SampleError(f"{width} x {height} pixels: the short side vanishes at a long side of {self.resolution}",
                              where=f"{self.name}: sample {sample.id}",
                              fix="-O processing_resolution=0")  # fmt: skip


#: kind -> the newest checkpoint of the catalogue that gives it, preferred kinds of a task first
MEMBERS: Final[Mapping[Kind, str]] = {
    "depth_affine": "marigold-depth-v1-1",
    "normal": "marigold-normals-v1-1",
    "albedo_linear": "marigold-iid-lighting-v1-1",
    "irradiance": "marigold-iid-lighting-v1-1",
    "albedo_srgb": "marigold-iid-appearance-v1-1",
}


class MarigoldFamily(Model):
    """``marigold``: the checkpoint that suits the task, fetched when that task is first asked for.

    Parameters
    ----------
    runtime : device, number type, batch size
    kind : the only kind to give
    name : shown in tables
    options : as `Marigold` takes them

    Raises
    ------
    UsageError
        An option that `Marigold` has not, or that only one of the checkpoints understands (reduction).
    """

    def __init__(
        self,
        *,
        runtime: Runtime | None = None,
        kind: Kind | None = None,
        name: str = "marigold",
        **options: Any,
    ) -> None:
        if kind is not None:
            check_kind(kind, tuple(MEMBERS), where=name)
        self.name, self.runtime = name, runtime or Runtime()
        self.batch_size = self.runtime.batch_size
        self._members = {k: v for k, v in MEMBERS.items() if kind in (None, k)}
        self._options = parse_options(Marigold, options, where=name,
                                      hidden=("checkpoint", "runtime", "kind", "name", "reduction"))  # fmt: skip
        self._chosen: Kind | None = None
        self._model: Marigold | None = None

    @property
    def info(self) -> ModelInfo:
        """The checkpoint of the kind that `kind_for` last gave; before that, only the name."""
        if self._chosen is None:
            return ModelInfo(name=self.name, source=self.name)
        return self._member(self._chosen).info

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        found: dict[str, tuple[Kind, ...]] = {}
        for kind in self._members:
            found[TASK_OF_KIND[kind]] = (*found.get(TASK_OF_KIND[kind], ()), kind)
        return found

    def kind_for(self, task: str, accepts: Sequence[str]) -> Kind:
        self._chosen = super().kind_for(task, accepts)
        return self._chosen

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, tuple(self._members), where=self.name)
        return self._member(kind).predict(samples, kind, seed)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None

    def _member(self, kind: Kind) -> Marigold:
        """The checkpoint of a kind; the one before it is let go, since few devices hold two."""
        hub = catalogue()[self._members[kind]].hub
        assert hub is not None
        if self._model is None or self._model.checkpoint.source != hub:
            self.close()
            self._model = Marigold(find_checkpoint(hub), runtime=self.runtime, name=self.name, **self._options)
        return self._model


def _resize_in_float32(processor: Any) -> None:
    """On the CPU, torch has no smooth resizing in half precision, where the pipeline wants to do it."""
    original = processor.preprocess

    def preprocess(image: Any, resolution: int, resample: str, device: torch.device, dtype: torch.dtype) -> Any:
        seen, padding, size = original(image, resolution, resample, device, torch.float32)
        return seen.to(dtype), padding, size

    processor.preprocess = preprocess


def _given(value: int | None, default: int | None, option: str, name: str) -> int:
    if value is None and default is None:
        raise UsageError(f"the checkpoint states no default for {option}", where=name, fix=f"-O {option}=N")
    return int(default if value is None else value)  # type: ignore[arg-type]  # one of them is a number
