"""Trained weights as names and tensors, and their running average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of those that take a gradient."""
    return {k: p for k, p in network.named_parameters() if p.requires_grad}


def copied(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained weights, on the CPU."""
    return {k: p.detach().to("cpu", copy=True) for k, p in trained(network).items()}


def put(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set the trained weights.

    Raises
    ------
    KeyError
        Weights of another network.
    """
    with torch.no_grad():
        for name, parameter in trained(network).items():
            parameter.copy_(weights[name])


def relative_change(before: Sequence[Tensor], now: Sequence[Tensor]) -> float:
    """Length of the change of weights over their length before; NaN where that is 0."""
    apart = nn.utils.get_total_norm([b.detach() - a for a, b in zip(before, now, strict=True)])
    whole = float(nn.utils.get_total_norm(before))
    return float(apart) / whole if whole else math.nan


class Average:
    """Exponential moving average of the trained weights: what is evaluated and exported.

    The decay of the n-th update is min(decay, n / (n + 9)), so that a short run is no average with the base.

    Parameters
    ----------
    decay : in [0, 1); 0 keeps none, and the average is the weights themselves
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay, self._updates = network, decay, 0
        self._mean = {k: p.detach().clone() for k, p in trained(network).items()} if decay else {}

    def update(self) -> None:
        """Take in the present weights."""
        if not self._decay:
            return
        self._updates += 1
        share = 1 - min(self._decay, self._updates / (self._updates + 9))
        weights = trained(self._network)
        torch._foreach_lerp_(list(self._mean.values()), [weights[k].detach() for k in self._mean], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights."""
        if not self._decay:
            yield
            return
        weights = {k: p.detach().clone() for k, p in trained(self._network).items()}
        put(self._network, self._mean)
        try:
            yield
        finally:
            put(self._network, weights)

    def distance(self) -> float:
        """Length of the difference between the weights and their average, over the length of the weights."""
        weights = trained(self._network)
        if not self._mean:
            return 0.0
        apart = sum(float((weights[k].detach() - v).square().sum()) for k, v in self._mean.items())
        whole = sum(float(w.detach().square().sum()) for w in weights.values())
        return float((apart / whole) ** 0.5)

    def state_dict(self) -> dict[str, object]:
        return {"updates": self._updates, "mean": {k: v.to("cpu", copy=True) for k, v in self._mean.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        updates, mean = state["updates"], state["mean"]
        assert isinstance(updates, int)
        assert isinstance(mean, dict)
        self._updates = updates
        for name, value in self._mean.items():
            value.copy_(mean[name])
