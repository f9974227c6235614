"""What is logged of a step: enough to see a fault (a ratio that is not 1, dead groups, a KL that jumps) as it happens.

A line of ``log.jsonl`` is nested by kind, modality and transition. Ratios, clipped shares and divergences are those of
the first process; rewards are of all. A ratio is that of the mean log-density, the one that is clipped.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from reasonx_eval.errors import UsageError
from reasonx_ft.policies.base import Rollout
from reasonx_ft.training.files import JsonLog
from reasonx_ft.tuning.clock import process_peak
from reasonx_ft.tuning.objective import Seen, Worth


class SeenSoFar:
    """Joins what the portions of one update saw, by modality and transition."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], list[Seen]] = {}

    def add(self, seen: Sequence[Seen]) -> None:
        for s in seen:
            self._parts.setdefault((s.modality, s.transition), []).append(s)

    def line(self) -> dict[str, Any]:
        """ratio (mean, min, max, std), clipped shares, nats to the sampling weights and to the base."""
        found: dict[str, Any] = {"ratio": {}, "clipped_high": {}, "clipped_low": {}, "kl_old": {}, "kl": {}}
        for (modality, transition), parts in sorted(self._parts.items()):
            log_ratio = torch.cat([p.log_ratio.reshape(-1) for p in parts]).double()
            ratio = (log_ratio / parts[0].elements).exp()
            values: dict[str, Any] = {
                "ratio": {"mean": float(ratio.mean()), "min": float(ratio.min()), "max": float(ratio.max()),
                          "std": float(ratio.std(correction=0))},
                "clipped_high": _share(torch.cat([p.high.reshape(-1) for p in parts])),
                "clipped_low": _share(torch.cat([p.low.reshape(-1) for p in parts])),
                "kl_old": float(-log_ratio.mean()) + 0.0,
            }  # fmt: skip
            divergence = [p.kl.reshape(-1) for p in parts if p.kl is not None]
            if divergence:
                values["kl"] = float(torch.cat(divergence).mean())
            for kind, value in values.items():
                found[kind].setdefault(modality, {})[str(transition)] = value
        return {k: v for k, v in found.items() if v}


def _share(flags: torch.Tensor) -> float:
    return float(flags.double().mean())


def rewards_line(rollouts: Mapping[str, Rollout], worth: Mapping[str, Worth]) -> dict[str, Any]:
    """Rewards, their spread within groups, dead groups, advantages and how far the samples of a photo lie apart."""
    found: dict[str, Any] = {k: {} for k in ("reward", "reward_std", "groups", "dead", "advantage_max", "spread")}
    for modality, w in worth.items():
        known = w.everyone[~w.everyone.isnan().any(1)].double()
        advantage = w.advantage if w.credit is None else w.credit
        values = {
            "reward": float(known.mean()), "reward_std": float(known.std(1, correction=0).mean()),
            "dead": w.dead / w.groups if w.groups else math.nan, "advantage_max": float(advantage.abs().max()),
            "spread": rollouts[modality].spread, "groups": w.groups,
        } if w.groups else {"groups": 0}  # fmt: skip
        for kind, value in values.items():
            found[kind][modality] = value
    return {k: v for k, v in found.items() if v}


def memory_mib(device: torch.device) -> dict[str, float]:
    """Peak memory: of the accelerator since the last call, of the process on a CPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        return {"device": round(peak, 1)}
    return {"process": round(process_peak() / 2**20, 1)}


class Log:
    """The JSON lines of a run, and event files for TensorBoard where they are asked for.

    Parameters
    ----------
    keep_below : what was logged of later steps is dropped: those steps are done again
    events : folder for event files, or None
    active : False in all processes but the first, which write nothing

    Raises
    ------
    UsageError
        Event files are asked for, and nothing that writes them is installed.
    """

    def __init__(self, path: Path, keep_below: int, *, events: Path | None = None, active: bool = True) -> None:
        self._events: Any = None if events is None or not active else _event_writer(events, keep_below)
        self._lines = JsonLog(path, keep_below) if active else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line; numbers that are not finite are left out of it, JSON has no form for them."""
        if self._lines is None:
            return
        clean = _finite(line)
        self._lines.write(clean)
        if self._events is not None:
            for name, value in _scalars(clean):
                self._events.add_scalar(name, value, line["step"])

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.__exit__(kind, error, trace)
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, keep_below: int) -> Any:
    if importlib.util.find_spec("tensorboardX") is None:
        raise UsageError("event files need tensorboardX", where="watch.tensorboard",
                         fix="pip install 'reasonx[tensorboard]'")  # fmt: skip
    from tensorboardX import SummaryWriter

    # what a stopped run wrote beyond its checkpoint is done again
    return SummaryWriter(str(folder), purge_step=keep_below + 1 if keep_below else None)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        cleaned = {str(k): _finite(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v is not None}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _scalars(line: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{path}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield f"{path}{key}", float(value)
