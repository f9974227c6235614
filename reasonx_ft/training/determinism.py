"""Arithmetic that repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def deterministic(threads: int, *, cpu: bool = True) -> Iterator[None]:
    """A fixed number of threads and only kernels that repeat themselves; put back afterwards.

    Parameters
    ----------
    cpu : whether it is a CPU that computes; accelerators have no repeating kernel for some gradients, so there only
        their choice of convolutions is fixed
    """
    fill: Any = torch.utils.deterministic  # its switches have no types
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    filled = fill.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(cpu or before[1])
    torch.backends.cudnn.deterministic = True
    # nothing reads memory before it is written here; filling all of it first takes a tenth of the time
    fill.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.deterministic = before[2]
        fill.fill_uninitialized_memory = filled
