"""The frozen base and the tuned network compute alike, to the last bit.

What is compared must not differ by how it was computed. Two things decide last bits beside the numbers: where weights
lie in memory (a mapped file leaves them at odd addresses), and by which product `torch.matmul` multiplies a batch with
a weight: it folds the batch into one matrix if the input is contiguous or the weight needs a gradient, and takes a
batched product otherwise. The two products round differently on some processors. So weights are copied to memory of
their own, and every linear layer gets a contiguous input: then training, sampling and the frozen copy take one path.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def one_path(network: nn.Module) -> nn.Module:
    """The network, computing by one path whether or not its weights need a gradient."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.data = weight.data.clone()
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and _contiguous not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_contiguous)
    return network


def _contiguous(_layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.contiguous() if isinstance(a, Tensor) else a for a in arguments)


def frozen_copy(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy that takes no gradient.

    Parameters
    ----------
    dtype : of autocast; layers hold what it would make of their weights anyway: the same output, half the memory
    """
    found = copy.deepcopy(one_path(network)).requires_grad_(False)
    if dtype != torch.float32:
        for layer in found.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.to(dtype)
    return found.eval()
