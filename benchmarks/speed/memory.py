"""Memory above what was there before a call: of Python and numpy, of the whole process, of a command."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = float(1 << 20)


def traced_peak(function: Callable[[], object]) -> float:
    """Peak of Python's and numpy's allocations during a call, above those before it, MiB.

    Blind to memory that other libraries take for themselves (torch, image decoders): see `resident_peak`.
    """
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return (tracemalloc.get_traced_memory()[1] - before) / MIB
    finally:
        tracemalloc.stop()


def resident_peak(function: Callable[[], object]) -> float | None:
    """Peak of this process's resident memory during a call, above that before it, MiB; None where Linux doesn't say.

    Pages are counted, so a few hundred KiB are noise; memory that the allocator kept from earlier calls is given back
    first, or it would hide what the call needs.
    """
    reset = Path("/proc/self/clear_refs")
    if sys.platform != "linux" or not os.access(reset, os.W_OK):
        function()
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        reset.write_text("5")  # the high-water mark starts again from what is resident now
    except OSError:
        function()
        return None
    before = _status("VmRSS")
    function()
    return max(0.0, _status("VmHWM") - before)


# Linux counts towards a process's peak what its parent held when it was started: a small parent reads it
_LAUNCHER = (
    "import os, resource, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions="
    "[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]); "
    "done = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done)"
)


@dataclass(frozen=True)
class Command:
    """A command as a function without arguments: runs it to its end and throws its output away.

    Raises
    ------
    subprocess.CalledProcessError
        It failed.
    """

    arguments: tuple[str, ...]
    cwd: Path | None = None

    def __call__(self) -> None:
        subprocess.run(self.arguments, cwd=self.cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def peak(self) -> float:
        """Peak resident memory of a run, MiB."""
        launch = (sys.executable, "-S", "-E", "-c", _LAUNCHER, *self.arguments)
        done = subprocess.run(launch, cwd=self.cwd, check=True, capture_output=True, text=True)
        return int(done.stdout) / (MIB if sys.platform == "darwin" else 1024)


def _status(field: str) -> float:
    """A line of /proc/self/status that counts kB, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)
