"""How far a network's codes are from the true ones.

An absolute error alone leaves a map soft and its flat regions uneven, although what is asked of it afterwards is mostly
relative: which of two points is darker, by how much an edge steps. So steps between pixels are compared as well, at
several distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reasonx_eval.models.embedded.tiny_net import unit


def normals_loss(predicted: Tensor, true: Tensor, *, of_unit_length: bool) -> Tensor:
    """Mean length of the difference between vectors [B, 3, H, W]: between unit vectors, 2 sin(angle / 2).

    Parameters
    ----------
    of_unit_length : bring the prediction to unit length first
    """
    difference = (unit(predicted) if of_unit_length else predicted) - true
    # the root has no slope at 0
    return (difference.square().sum(dim=1) + 1e-6).sqrt().mean()


def code_loss(predicted: Tensor, true: Tensor, *, differences: Sequence[int], weight: float) -> Tensor:
    """Mean absolute error of codes [B, C, H, W], plus `weight` times that of their steps over each distance."""
    error = predicted - true
    steps = [_steps(error, d) for d in differences if d < min(error.shape[-2:])]
    total = error.abs().mean()
    return total + weight * torch.stack(steps).mean() if steps else total


def _steps(error: Tensor, distance: int) -> Tensor:
    down = error[..., distance:, :] - error[..., :-distance, :]
    right = error[..., distance:] - error[..., :-distance]
    return down.abs().mean() + right.abs().mean()
