"""What every torch adapter needs: devices, number types, batches that shrink when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError, unknown

T = TypeVar("T")
R = TypeVar("R")

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Runtime:
    """Where and how a network computes.

    device : auto, cpu, cuda, cuda:N or mps
    dtype : float32, float16 or bfloat16; metrics and alignment are float64 whatever it is
    batch_size : images at a time, on an accelerator; on the CPU images go one by one, so that a batch
        never changes a bit
    trust_remote_code : run Python code that came with a checkpoint
    """

    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 1
    trust_remote_code: bool = False

    @property
    def torch_device(self) -> torch.device:
        return pick_device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        return DTYPES[self.dtype]

    def describe(self) -> dict[str, Any]:
        """What of it can change a number, for ModelInfo.options."""
        found: dict[str, Any] = {"device": self.torch_device.type, "dtype": self.dtype}
        return found | ({"trust_remote_code": True} if self.trust_remote_code else {})


def pick_device(name: str) -> torch.device:
    """The device of a name; auto is cuda, then mps, then cpu.

    Raises
    ------
    UsageError
        An unknown name, or a device that this machine or this build of torch doesn't have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:1", "mps"))
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("this torch sees no CUDA device", where=f"--device {name}", fix="--device cpu")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UsageError(f"there are {torch.cuda.device_count()} CUDA devices", where=f"--device {name}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("this torch has no MPS device", where="--device mps", fix="--device cpu")
    return torch.device(name)


def in_batches(
    items: Sequence[T], compute: Callable[[Sequence[T]], Sequence[R]], *, device: torch.device, name: str
) -> list[R]:
    """`compute` over `items`, one at a time on the CPU, whole batches elsewhere, halved when memory runs out.

    Raises
    ------
    torch.OutOfMemoryError
        One item alone does not fit.
    """
    if device.type == "cpu":
        return [r for item in items for r in compute([item])]
    done: list[R] = []
    size = len(items)
    while len(done) < len(items):
        try:
            done += compute(items[len(done) : len(done) + size])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = (size + 1) // 2
            print(f"{name}: out of memory, going on with {size} images at a time", file=sys.stderr)
    return done


def to_tensor(image: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """A photo uint8 [H, W, 3] as float32 [3, H, W] in [0, 1] on `device`."""
    # torch warns of arrays that can't be written, which some decoders give, although nothing is written here
    shared = image if image.flags.writeable and image.flags.c_contiguous else np.array(image, order="C")
    raw = torch.from_numpy(shared).to(device)
    return raw.permute(2, 0, 1).to(torch.float32).div_(255.0)


def to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor of any number type and device as a float32 array."""
    array: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).numpy()
    return array


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums in another order would change last bits with the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
