"""A trained network shared out among processes (fully sharded data parallel), for networks that fill one device.

Weights, gradients, the optimiser's state and the running average are kept in parts, one a process; a block's weights
come together when it computes. The frozen copy of the base that full fine-tuning keeps is not shared out: it is never
updated, and half as large. Checkpoints and models hold whole weights, so a run may go on with or without sharding.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from reasonx_eval.errors import UsageError
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.flow import FlowPolicy
from reasonx_ft.tuning.parallel import gather


class Shards:
    """Shares out the network of a policy, in place.

    Parameters
    ----------
    world : processes; more than one

    Raises
    ------
    UsageError
        One process; a network that is not called as a whole; weights that are to wait in the memory of the host.
    """

    def __init__(self, policy: Policy, world: int) -> None:
        if world < 2:
            raise UsageError("sharding needs several processes", where="machine.shard",
                             fix="accelerate launch --use_fsdp --num_processes 8 ...")  # fmt: skip
        if isinstance(policy, FlowPolicy):
            raise UsageError("tiny-flow is called by methods of its own, and sharding brings weights together for a "
                             "call of the whole network; it fits any device", where=policy.base, fix="no --use_fsdp")
        if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() in ("true", "1"):
            raise UsageError("weights are not moved to the memory of the host here", where="FSDP_OFFLOAD_PARAMS",
                             fix="--fsdp_offload_params false; policy.lora=16 needs far less memory")  # fmt: skip
        self._policy, network = policy, policy.network
        self._whole = copy.deepcopy(network).to("cpu")
        device = next(network.parameters()).device
        mesh = init_device_mesh(device.type, (world,))
        for module in [*blocks(network), network]:
            # also the outermost one's: between calls, everything else here expects parts
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            # gradients are added, as `Processes.add_gradients` adds them; gloo knows no other reduction either
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, the policy's network is a whole one on the CPU with the present weights; all processes come here."""
        sharded = self._policy.network
        parameters = dict(self._whole.named_parameters())
        with torch.no_grad():
            for name, value in sharded.named_parameters():
                parameters[name].copy_(gather(value))
        self._policy.network = self._whole
        try:
            yield
        finally:
            self._policy.network = sharded


def blocks(network: nn.Module) -> list[nn.Module]:
    """What is brought together at a time: the members of a network's outermost lists of modules."""
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            found += [m for m in child if next(m.parameters(), None) is not None]
        else:
            found += blocks(child)
    return found

