"""The parts that all networks of torch share: devices, number types, loading once, batches that fit into memory."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.models.base import Model
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.types import Sample

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N", bound=torch.nn.Module)

#: bytes; torch's own allocations on the CPU start at multiples of it
ALIGNMENT: Final = 64
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
        """The settings that can change a number, for ModelInfo.options."""
        found: dict[str, Any] = {"device": self.torch_device.type, "dtype": self.dtype}
        return found | ({"trust_remote_code": True} if self.trust_remote_code else {})


class CheckpointModel(Model):
    """A model with a checkpoint, read by `load` or the first prediction, whichever thread comes first.

    Parameters
    ----------
    checkpoint : its files
    runtime : where and how it computes
    name : shown in tables; default: the checkpoint's
    """

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime | None, name: str | None) -> None:
        self.checkpoint, self.runtime = checkpoint, runtime or Runtime()
        self.name = name or checkpoint.name
        self.batch_size = self.runtime.batch_size
        self._network: Any = None
        self._loading = threading.Lock()

    @abstractmethod
    def _read(self) -> Any:
        """The network on its device, in evaluation mode; raises UsageError where the files can't be loaded."""

    @property
    def network(self) -> Any:
        """The result of `_read`, which is called once."""
        with self._loading:
            if self._network is None:
                self._network = self._read()
            return self._network

    def _finite(self, value: NDArray[np.float32], sample: Sample) -> NDArray[np.float32]:
        """The map of a sample; raises SampleError if it holds NaN or infinity."""
        bad = value.size - int(np.count_nonzero(np.isfinite(value)))
        if bad:
            half = self.runtime.dtype != "float32"
            raise SampleError(f"the network gives {bad} of {value.size} values that are NaN or infinite"
                              f"{f': too large for {self.runtime.dtype}?' if half else ''}",
                              where=f"{self.name}: sample {sample.id}",
                              fix="--dtype float32" if half else None)  # fmt: skip
        return value

    def load(self) -> None:
        """Read the weights and move them to the device; does nothing when that is done.

        Raises
        ------
        UsageError
            The library can't load them.
        """
        _ = self.network

    def close(self) -> None:
        with self._loading:
            self._network = None
        gc.collect()
        if self.runtime.torch_device.type == "cuda":
            torch.cuda.empty_cache()


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


def aligned(network: N) -> N:
    """The network, with every tensor in memory of its own that starts at a multiple of 64 bytes.

    Libraries map a file of weights into memory and leave each tensor where it lies in the file. There, kernels of some
    processors add up in another order, so that the same weights in another file would give other last bits.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
    return network


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


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """No log lines and no progress bars of diffusers and transformers: stderr is the runner's."""
    logs: list[Any] = [import_module(f"{library}.utils.logging") for library in libraries]
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity(logging.ERROR)
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (level, bars) in zip(logs, before, strict=True):
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()
