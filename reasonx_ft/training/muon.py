"""Muon, an optimiser for small networks with little time: steps of matrices are made orthogonal (Jordan et al. 2024).

The momentum of a weight matrix usually has a few large singular values; all others hardly move. Setting the singular
values of a step to about 1 lets every direction learn at one pace. A convolution's kernel is the matrix
[out, in * height * width]. What is no matrix (biases, norms) and what reads out the answer takes Adam's steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any, Final

import torch
from torch import Tensor

#: of the odd polynomial whose iteration brings singular values in (0, 1] near 1; published with the method
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix [m, n] with its singular vectors and singular values of about 1 (0.7 to 1.2), by five iterations."""
    a, b, c = _QUINTIC
    # half the bits are enough: the result is only near orthogonal in any case
    x = (matrix / (matrix.norm() + 1e-7)).to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = (x.T if tall else x).to(matrix.dtype)
    return found


class Muon(torch.optim.Optimizer):
    """Orthogonal steps for `matrices`, Adam's for `others`, both with decoupled weight decay.

    Parameters
    ----------
    learning_rate : of the matrices, root mean square of a step's singular values
    adam_rate : of the others
    momentum : Nesterov's, of the matrices
    betas : Adam's
    """

    def __init__(
        self, matrices: Iterable[Tensor], others: Iterable[Tensor], *, learning_rate: float, adam_rate: float,
        weight_decay: float, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:  # fmt: skip
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "lr": learning_rate, "orthogonal": True},
            {"params": list(others), "lr": adam_rate, "orthogonal": False},
        ]
        for group in groups:
            group["base_lr"] = group["lr"]
        super().__init__(groups, {"weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    def set_pace(self, pace: float) -> None:
        """All learning rates, as a share of the ones given."""
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * pace

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here evaluates a loss again
        for weight, group in self._weights():
            self._move(weight, group)

    def step_in(self, pool: Executor) -> None:
        """The same step, weights shared out among the threads of a pool."""
        list(pool.map(lambda one: self._move(*one), self._weights()))

    def _weights(self) -> list[tuple[Tensor, dict[str, Any]]]:
        return [(w, g) for g in self.param_groups for w in g["params"] if w.grad is not None]

    @torch.no_grad()
    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        update = self._muon(weight, group) if group["orthogonal"] else self._adam(weight, group)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _muon(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        velocity = state["momentum"].mul_(group["momentum"]).add_(weight.grad)
        ahead = (weight.grad + group["momentum"] * velocity).flatten(1)
        # a tall matrix changes its output as much as a square one
        scale = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        update: Tensor = (orthogonal(ahead) * scale).view_as(weight)
        return update

    def _adam(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(weight.grad, 1 - first)
        state["square"].lerp_(weight.grad.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        update: Tensor = mean / (square.sqrt() + 1e-8)
        return update
