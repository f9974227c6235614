"""One process or many: who shares the photos of a step, and how their sums come together.

Whole groups of samples stay on one process. Losses are divided by numbers of photos of all processes, so gradients are
added, once a step, and the update is that of one process with all photos.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Processes:
    """The processes of a run; a single one without `accelerate launch` or torchrun.

    Attributes
    ----------
    rank, world : this process and how many there are
    """

    def __init__(self, *, cpu: bool = False) -> None:
        launched = "RANK" in os.environ or "LOCAL_RANK" in os.environ
        self._state: Any = None
        if launched:
            from accelerate import PartialState  # long to import, and one process does without

            self._state = PartialState(cpu=cpu)
        self.rank = self._state.process_index if self._state else 0
        self.world = self._state.num_processes if self._state else 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process where there are several, else `name`."""
        if self._state is None or self.world == 1 or name == "cpu":
            return name
        return str(self._state.device)

    def rows(self, batch: int) -> slice:
        """Rows of this process in what `gather` gives of a batch of that many rows."""
        return slice(self.rank * batch, (self.rank + 1) * batch)

    def gather(self, value: Tensor) -> Tensor:
        """Rows of all processes, in their order; all must have the same shape."""
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        torch.distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def total(self, value: int) -> int:
        """Sum over processes."""
        return int(self.sums([float(value)])[0]) if self.world > 1 else value

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums over processes, of each value."""
        if self.world == 1:
            return list(values)
        whole = torch.tensor(values, dtype=torch.float64, device=self._device())
        torch.distributed.all_reduce(whole)
        return [float(v) for v in whole.cpu()]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over processes: one message for all of them."""
        if self.world == 1:
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        torch.distributed.all_reduce(flat)
        for p, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            assert p.grad is not None
            p.grad.copy_(part.view_as(p))

    def any(self, asked: bool) -> bool:
        """Whether any process was asked to stop: all of them stop at the same step then."""
        return bool(self.total(int(asked)))

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1 and self._state is not None:
            self._state.wait_for_everyone()

    def _device(self) -> torch.device:
        assert self._state is not None
        device: torch.device = self._state.device
        return device


def sharding_asked_for() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def is_part(value: Tensor) -> bool:
    """Whether a tensor is shared out among processes (a `DTensor`, of which a process holds a part)."""
    return hasattr(value, "full_tensor")


def gather(value: Tensor) -> Tensor:
    """A tensor with the parts of all processes; on its device, and the same memory where it was whole.

    All processes must come here.
    """
    return value.full_tensor().detach() if is_part(value) else value.detach()  # type: ignore[attr-defined]


def local(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds; the same memory, without gradient."""
    return value.to_local().detach() if is_part(value) else value.detach()  # type: ignore[attr-defined]


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, shared out as another of its shape is; one that is shared out already stays as it is."""
    if not is_part(like) or is_part(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # all processes have read the same file: nothing is sent
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
