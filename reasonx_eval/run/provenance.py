"""Where a number comes from: versions, commit, hardware, passed and defaulted options."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import reasonx_eval
from reasonx_eval.io.results import Hardware, Provenance
from reasonx_eval.metrics import kernels

#: distributions whose version can change a number
_PACKAGES = ("numpy", "scipy", "scikit-image", "h5py", "pillow", "imagecodecs", "OpenEXR", "onnxruntime", "torch",
             "transformers", "diffusers")  # fmt: skip


def _git(*arguments: str) -> str | None:
    """Output of git in the package's own checkout, or None: installed from a wheel, or no git."""
    folder = Path(reasonx_eval.__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


@cache
def package_versions() -> Mapping[str, str]:
    """Versions of the distributions that can change a number, of those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _machine() -> Hardware:
    return Hardware(machine=platform.machine(), system=f"{platform.system()} {platform.release()}", cpu=_cpu(),
                    cores=os.cpu_count() or 1, memory_gib=_memory_gib())  # fmt: skip


def collect(
    *,
    seed: int,
    passed: dict[str, str | int | float | bool | list[str] | None] | None = None,
    defaulted: dict[str, str | int | float | bool | list[str] | None] | None = None,
) -> Provenance:
    """The provenance of a run that starts now."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return Provenance(
        reasonx=reasonx_eval.__version__,
        commit=_git("rev-parse", "HEAD"),
        dirty=None if status is None else bool(status),
        python=platform.python_version(),
        packages={**package_versions(), "reasonx kernels": "compiled" if kernels.available() else "numpy"},
        hardware=_machine(),
        seed=seed,
        passed=passed or {},
        defaulted=defaulted or {},
    )
