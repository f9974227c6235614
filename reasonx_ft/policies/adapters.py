"""Low-rank adapters (LoRA, through peft) on a network of diffusers: in place, so that the network stays what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.io.files import write_bytes, write_json
from reasonx_eval.io.seeding import stream_seed

#: the projections of all attention layers
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
_NAME: Final = "reasonx"


def add_adapters(network: Any, *, rank: int, alpha: int, targets: Sequence[str] = ATTENTION, seed: int = 0) -> None:
    """Freeze a network of diffusers and put adapters into it that start as no change; float32, and the only trained.

    Parameters
    ----------
    rank : of each change of a weight
    alpha : the change is scaled by alpha / rank
    targets : ends of the names of the layers
    seed : of the first half of each adapter; the global random state is left as it was

    Raises
    ------
    UsageError
        A rank below 1, or targets that the network does not have.
    """
    from peft import LoraConfig

    if rank < 1:
        raise UsageError(f"the rank of an adapter is {rank}; needs 1 or more")
    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "lora", "weights") % 2**63)
        try:
            network.add_adapter(config, _NAME)
        except ValueError as error:
            raise UsageError(f"no layer for adapters: {' '.join(str(error).split())[:200]}") from None
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def adapted_layers(network: nn.Module) -> dict[str, Any]:
    """Name -> layer, of all layers with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: layer for name, layer in network.named_modules() if isinstance(layer, BaseTunerLayer)}


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Inside, the network computes what it did before it had adapters, bit by bit."""
    layers = list(adapted_layers(network).values())
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the same network without adapters that computes what this one does; this one is left as it is."""
    layers = adapted_layers(network)
    found: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if ".lora_" in name:
            continue
        layer_name, _, leaf = name.rpartition(".base_layer.")
        if not layer_name:
            found[name] = value
            continue
        if leaf == "weight":
            value = value + layers[layer_name].get_delta_weight(_NAME).to(value.dtype)
        found[f"{layer_name}.{leaf}"] = value
    return found


def save_adapters(network: Any, folder: Path) -> None:
    """Write the adapters alone, as peft reads them (`PeftModel.from_pretrained(network, folder)`)."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    config = network.peft_config[_NAME].to_dict()
    known = {k: sorted(v) if isinstance(v, (set, list)) else getattr(v, "value", v) for k, v in config.items()}
    state = get_peft_model_state_dict(network, adapter_name=_NAME)
    weights = {f"base_model.model.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
    write_json(folder / "adapter_config.json", {**known, "inference_mode": True})
    write_bytes(folder / "adapter_model.safetensors", save(weights, {"format": "pt"}))
