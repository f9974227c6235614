"""Arithmetic that repeats itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(threads: int, *, cpu: bool = True) -> Iterator[None]:
    """A fixed number of threads and only kernels that repeat themselves; put back afterwards.

    Parameters
    ----------
    cpu : whether it is a CPU that computes; accelerators have no repeating kernel for some gradients, so there only
        their choice of convolutions is fixed
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(cpu or before[1])
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.deterministic = before[2]
