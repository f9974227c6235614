"""Processes that are forked from one that has imported torch: tests with many of them pay for its import once."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
#: what a tuning in several processes imports, early or late
_SERVER.set_forkserver_preload([
    "accelerate", "diffusers.loaders.peft", "peft", "pyarrow.dataset", "reasonx_eval.datasets.scenes.dataset",
    "reasonx_eval.models.adapters.marigold", "reasonx_ft.tuning.train", "torch._dynamo", "torch.distributed.fsdp",
])  # fmt: skip


def launch_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells one of several processes on a machine."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _child(function: Callable[..., None], arguments: Sequence[Any], environment: Mapping[str, str], said: Path) -> None:
    os.environ.update(environment)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    function(*arguments)


def start(
    said: Path, function: Callable[..., None], *arguments: Any, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Begin a call of a module's function in a process of its own; what it prints goes to the file `said`."""
    process = _SERVER.Process(target=_child, args=(function, arguments, environment or {}, said))
    process.start()
    return process


def together(folder: Path, function: Callable[..., None], *arguments: Any, world: int = 2) -> None:
    """Call a function in several processes that know of each other; what they print goes to files in a folder."""
    port = free_port()
    said = [folder / f"said-{port}-{rank}.txt" for rank in range(world)]
    running = [start(said[rank], function, *arguments, environment=launch_environment(rank, world, port))
               for rank in range(world)]  # fmt: skip
    for process in running:
        process.join(500)
    assert [p.exitcode for p in running] == [0] * world, "\n".join(path.read_text() for path in said)
