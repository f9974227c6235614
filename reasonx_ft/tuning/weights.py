"""Trained weights as names and tensors, their running average, and what lies between it and the base.

Where a network is shared out among processes (see `reasonx_ft.tuning.sharding`), a process holds a part of the weights.
Files hold whole ones; all processes must call the functions that gather them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_ft.tuning.parallel import gather, local, part_of

#: of the names that peft gives
_LOW_RANK_DOWN: Final = "lora_A"


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of those that take a gradient."""
    return {k: p for k, p in network.named_parameters() if p.requires_grad}


def clone_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained weights, whole and on the CPU."""
    return {k: gather(p).to("cpu", copy=True) for k, p in trained(network).items()}


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Its `state_dict`, with whole tensors on the CPU."""
    state = optimiser.state_dict()
    state["state"] = {k: {n: gather(v).cpu() if isinstance(v, Tensor) else v for n, v in values.items()}
                      for k, values in state["state"].items()}  # fmt: skip
    return state


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take what `optimiser_state` gave, each process its part."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    shared = {k: {n: part_of(v, parameters[k]) if isinstance(v, Tensor) and v.ndim else v for n, v in values.items()}
              for k, values in state["state"].items()}  # fmt: skip
    optimiser.load_state_dict({**state, "state": shared})


def load(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set the trained weights.

    Raises
    ------
    KeyError
        Weights of another network.
    """
    with torch.no_grad():
        for name, parameter in trained(network).items():
            parameter.copy_(part_of(weights[name], parameter))


def relative_change(before: Sequence[Tensor], now: Sequence[Tensor]) -> float:
    """Length of the change of weights over their length before; NaN where that is 0."""
    apart = gather(nn.utils.get_total_norm([b.detach() - a for a, b in zip(before, now, strict=True)]))
    length = float(gather(nn.utils.get_total_norm(before)))
    return float(apart) / length if length else math.nan


def between(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights a share of the way from one network to another; whole tensors, or the same parts of both.

    Of a low-rank update B A, which is 0 at first because B is, only B is shortened: the update itself is then `share`
    of what it was.
    """
    return {k: v if _LOW_RANK_DOWN in k else base[k] + share * (v - base[k]) for k, v in tuned.items()}


class Average:
    """The weights that are evaluated and exported: an exponential moving average, or a point on the way to it.

    The decay of the n-th update is min(decay, n / (n + 9)), so that a short run is no average with the base.

    Parameters
    ----------
    network : with the base's weights
    decay : in [0, 1); 0 keeps none, and the average is the weights themselves
    share : of the way from the base, see `between`; 1 is the average
    """

    def __init__(self, network: nn.Module, decay: float, share: float = 1.0) -> None:
        self._network, self._decay, self._updates, self._share = network, decay, 0, share
        self._base = {k: p.detach().clone() for k, p in trained(network).items()} if share < 1 else {}
        self._mean = {k: p.detach().clone() for k, p in trained(network).items()} if decay else {}

    def update(self) -> None:
        """Take in the present weights."""
        if not self._decay:
            return
        self._updates += 1
        share = 1 - min(self._decay, self._updates / (self._updates + 9))
        weights = trained(self._network)
        # part by part: every process has the same parts of both
        torch._foreach_lerp_([local(v) for v in self._mean.values()], [local(weights[k]) for k in self._mean], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the weights that are exported."""
        if not self._decay and self._share == 1:
            yield
            return
        weights = {k: p.detach().clone() for k, p in trained(self._network).items()}
        mean = self._mean or weights
        load(self._network, between(self._base, mean, self._share) if self._base else mean)
        try:
            yield
        finally:
            load(self._network, weights)

    def distance(self) -> float:
        """Length of the difference between the weights and their average, over the length of the weights."""
        if not self._mean:
            return 0.0
        return relative_change([w.detach() for w in trained(self._network).values()], list(self._mean.values()))

    def state_dict(self) -> dict[str, object]:
        return {"updates": self._updates, "mean": {k: gather(v).to("cpu", copy=True) for k, v in self._mean.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        updates, mean = state["updates"], state["mean"]
        assert isinstance(updates, int)
        assert isinstance(mean, dict)
        self._updates = updates
        for name, value in self._mean.items():
            value.copy_(part_of(mean[name], value))
