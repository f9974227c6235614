"""From the name of a model to a policy that tunes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.adapters.transformers_weights import load_network as transformers_network
from reasonx_eval.models.embedded.card import WEIGHTS, load_network, read_card
from reasonx_eval.models.embedded.tuned import CARD_NAME, read_tuned_card
from reasonx_eval.models.loading.catalogue import entry_of
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint, is_hub_id
from reasonx_eval.models.loading.options import parse_options
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.grpo.kernels import Kernel, Name
from reasonx_ft.grpo.loss import KlWeighting, StepWeighting
from reasonx_ft.grpo.schedules import linear
from reasonx_ft.policies.adapters import add_adapters
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.chain import Chain
from reasonx_ft.policies.depth_network import DepthPredictor
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.policies.flow_network import TinyFlowNetwork
from reasonx_ft.policies.noise import Cells, LowFrequencies, Noise
from reasonx_ft.policies.pipeline import load_pipeline
from reasonx_ft.policies.predictor import TinyPredictor
from reasonx_ft.policies.source import Source

NoiseName = Literal["pixel", "cells", "lowrank"]

#: projections of attention layers, as the libraries' depth networks name them
_QUERIES_AND_VALUES: Final = ("query", "value", "q_proj", "v_proj")
#: the embedded networks
EMBEDDED: Final = ("tiny", "tiny-flow")


def make_policy(
    model: str | Path, *, device: str = "auto", dtype: str = "float32", micro: int | None = None, **options: Any
) -> Policy:
    """The policy of a model, on its device, with the base's weights.

    Parameters
    ----------
    model : tiny, tiny-flow, a weights file of one of them, a tuned checkpoint, or a folder or hub id of a transformers
        depth network or a Marigold-type pipeline
    device : auto, cpu, cuda, cuda:N or mps; for the embedded networks, auto is cpu
    dtype : float32 or bfloat16, in which the network computes; codes, means and densities are float32
    micro : network inputs in one pass
    options : of the policy, typed or text; which ones there are depends on the model

    Raises
    ------
    UsageError
        No such model, one that can't be tuned, an unknown option (with the nearest match) or one of a wrong type.
    """
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"))
    if micro is not None and micro < 1:
        raise UsageError(f"micro is {micro}; needs 1 or more")
    build, source = _find(str(model), Runtime(device, dtype), micro)
    parsed = parse_options(build, options, where=str(model), hidden=("source",))
    return build(source, **parsed)


def _find(model: str, runtime: Runtime, micro: int | None) -> tuple[Callable[..., Policy], Source]:
    if model in EMBEDDED:
        return _BUILDERS[model], Source(model, runtime, micro, path=WEIGHTS / f"{model}.safetensors")
    path = Path(model).expanduser()
    if path.suffix == ".safetensors":
        return _BUILDERS[read_card(path).model], Source(path.stem, runtime, micro, path=path)
    if (path / CARD_NAME).is_file():
        card = read_tuned_card(path)
        inside = path / card.path
        if card.architecture in EMBEDDED:
            return _BUILDERS[card.architecture], Source(card.name, runtime, micro, path=inside)
        return _of_checkpoint(Checkpoint(inside, model), Source(card.name, runtime, micro))
    if not path.is_dir() and not is_hub_id(model):
        raise unknown("model", model, (*EMBEDDED, "a folder", "owner/name of the hub"))
    found = find_checkpoint(model, allow_pickle=True)
    return _of_checkpoint(found, Source(found.hub_id or model, runtime, micro))


def _of_checkpoint(checkpoint: Checkpoint, source: Source) -> tuple[Callable[..., Policy], Source]:
    kind = "pipeline" if checkpoint.index is not None else "transformers" if checkpoint.config is not None else None
    if kind is None:
        raise UsageError("neither a diffusers pipeline (model_index.json) nor a transformers model (config.json)",
                         where=checkpoint.source, fix="reasonx-eval list models")  # fmt: skip
    return _BUILDERS[kind], Source(source.name, source.runtime, source.micro, checkpoint=checkpoint)


def make_noise(noise: NoiseName, cell: int, frequencies: int) -> Noise:
    """The noise of a name: pixel, cells of `cell` pixels, or lowrank with `frequencies` along each side."""
    if noise == "lowrank":
        return LowFrequencies(frequencies)
    if noise not in ("pixel", "cells"):
        raise unknown("noise", noise, ("pixel", "cells", "lowrank"))
    return Cells(1 if noise == "pixel" else cell)


def _embedded_device(runtime: Runtime) -> torch.device:
    return torch.device("cpu") if runtime.device == "auto" else runtime.torch_device


def _tiny(
    source: Source, *, noise: NoiseName = "pixel", cell: int = 8, frequencies: int = 8,
    sigma: float | Mapping[str, float] | None = None,
) -> Policy:  # fmt: skip
    assert source.path is not None
    card = read_card(source.path)
    network = load_network(source.path, card).to(_embedded_device(source.runtime))
    return FeedForward(TinyPredictor(card), network, make_noise(noise, cell, frequencies), base=source.name,
                       licence=card.licence, sigma=sigma, micro=source.micro,
                       dtype=source.runtime.torch_dtype)  # fmt: skip


def _tiny_flow(
    source: Source, *, kernel: Name = "flow-sde", level: float = 0.7, steps: int = 2, window: int | None = None,
    within: float = 1.0, seed: int = 0, shared_start: bool = False, kl_weighting: KlWeighting = "exact",
    step_weighting: StepWeighting = "none",
) -> Policy:  # fmt: skip
    assert source.path is not None
    card = read_card(source.path)
    network = load_network(source.path, card).to(_embedded_device(source.runtime))
    chain = Chain(linear(steps), Kernel(kernel, level), window, within, shared_start, kl_weighting, step_weighting,
                  seed)  # fmt: skip
    return FlowPolicy(TinyFlowNetwork(card), network, chain, base=source.name, licence=card.licence, micro=source.micro,
                      dtype=source.runtime.torch_dtype)  # fmt: skip


def _depth_network(
    source: Source, *, kind: str | None = None, noise: NoiseName = "lowrank", cell: int = 14, frequencies: int = 16,
    sigma: float | Mapping[str, float] | None = None, lora: int | None = None, lora_alpha: int | None = None,
    lora_targets: tuple[str, ...] = _QUERIES_AND_VALUES, seed: int = 0,
) -> Policy:  # fmt: skip
    from transformers import AutoModelForDepthEstimation

    checkpoint, runtime = source.checkpoint, source.runtime
    assert checkpoint is not None
    model = TransformersDepth(checkpoint, runtime=runtime, kind=kind)
    predictor = DepthPredictor(model.kinds["depth"][0], model.processing, checkpoint)
    network = transformers_network(checkpoint, AutoModelForDepthEstimation, dtype=torch.float32,
                                   trust_remote_code=runtime.trust_remote_code)  # fmt: skip
    if lora is not None:
        add_adapters(network, rank=lora, alpha=lora_alpha or 2 * lora, targets=lora_targets, seed=seed)
    # of the catalogue: the model's own info would read all weights for their digest
    known = entry_of(checkpoint.hub_id)
    return FeedForward(predictor, network.to(runtime.torch_device), make_noise(noise, cell, frequencies),
                       base=source.name, licence=known.licence if known else None, sigma=sigma, micro=source.micro,
                       dtype=runtime.torch_dtype, adapted=lora is not None)  # fmt: skip


_BUILDERS: Final[Mapping[str, Callable[..., Policy]]] = {
    "tiny": _tiny,
    "tiny-flow": _tiny_flow,
    "pipeline": load_pipeline,
    "transformers": _depth_network,
}
