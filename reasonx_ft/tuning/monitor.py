"""What is recorded while a run goes on: the statistics of each step, where its time goes, pictures of fixed photos.

A line of ``log.jsonl`` is nested by kind, modality and transition: enough to see a fault (a ratio that is not 1, groups
of equal rewards, a KL that jumps) as it happens. Ratios, clipped shares and divergences are those of the first process;
rewards are of all. A ratio is that of the mean log-density, the one that is clipped.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.report.pictures import Panel, Style, draw_rows
from reasonx_ft.grpo.batch import Rollout
from reasonx_ft.policies.base import Policy
from reasonx_ft.training.files import JsonLog
from reasonx_ft.tuning.batches import BatchSampler
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.objective import Advantages, Loss, TransitionStatistics
from reasonx_ft.tuning.parallel import Processes
from reasonx_ft.tuning.weights import Average


class StepStatistics:
    """Of one optimiser step, microbatch by microbatch; of several updates, the last one's."""

    def __init__(self, step: int) -> None:
        self._line: dict[str, Any] = {"step": step}
        self.begin_update()

    def begin_update(self) -> None:
        self._terms: dict[str, float] = {}
        self._gradients: dict[str, list[Tensor]] = {}
        self._replayed: dict[tuple[str, int], list[TransitionStatistics]] = {}

    def add(self, loss: Loss) -> None:
        """Take in a microbatch."""
        for name, value in loss.terms.items():
            self._terms[name] = self._terms.get(name, 0.0) + float(value.detach())
        for seen in loss.replayed:
            self._replayed.setdefault((seen.modality, seen.transition), []).append(seen)

    def add_gradients(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        """Take in the gradient of each term of a microbatch, before the way back that frees its graph."""
        for name, term in loss.terms.items():
            if not term.requires_grad:
                continue
            found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            sums = self._gradients.setdefault(name, [torch.zeros_like(p) for p in parameters])
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += gradient

    def add_update(self, **values: Any) -> None:
        """Take in numbers of the optimiser's update."""
        self._line |= values

    def add_samples(self, rollouts: Mapping[str, Rollout], advantages: Mapping[str, Advantages]) -> None:
        """Rewards, their spread within groups, groups of equal rewards, advantages, and how far samples lie apart."""
        kinds = ("reward", "reward_std", "groups", "zero_variance_groups", "advantage_max", "sample_std")
        found: dict[str, Any] = {k: {} for k in kinds}
        for modality, a in advantages.items():
            known = a.everyone[~a.everyone.isnan().any(1)].double()
            credit = a.advantage if a.credit is None else a.credit
            values = {
                "reward": float(known.mean()), "reward_std": float(known.std(1, correction=0).mean()),
                "zero_variance_groups": a.zero_variance_groups / a.groups, "groups": a.groups,
                "advantage_max": float(credit.abs().max()), "sample_std": rollouts[modality].sample_std,
            } if a.groups else {"groups": 0}  # fmt: skip
            for kind, value in values.items():
                found[kind][modality] = value
        self._line |= {k: v for k, v in found.items() if v}

    def line(self, processes: Processes, *, device: torch.device, **more: Any) -> dict[str, Any]:
        """The line for the log; all processes come here."""
        totals = processes.sums([*self._terms.values()]) if self._terms else []
        norms = {name: float(nn.utils.get_total_norm(sums)) for name, sums in self._gradients.items()}
        gradients = {"gradients": norms} if norms else {}
        return {**self._line, "loss": dict(zip(self._terms, totals, strict=True)), **gradients, **self._transitions(),
                **more, "memory_mib": _memory_mib(device)}  # fmt: skip

    def _transitions(self) -> dict[str, Any]:
        """Ratio (mean, min, max, std), its elements, clipped shares, nats to the sampling weights and to the base."""
        kinds = ("ratio", "elements", "clipped_high", "clipped_low", "kl_old", "kl")
        found: dict[str, Any] = {kind: {} for kind in kinds}
        for (modality, transition), parts in sorted(self._replayed.items()):
            log_ratio = torch.cat([p.log_ratio.reshape(-1) for p in parts]).double()
            ratio = (log_ratio / parts[0].elements).exp()
            values: dict[str, Any] = {
                "ratio": {"mean": float(ratio.mean()), "min": float(ratio.min()), "max": float(ratio.max()),
                          "std": float(ratio.std(correction=0))},
                "elements": parts[0].elements,
                "clipped_high": float(torch.cat([p.high.reshape(-1) for p in parts]).double().mean()),
                "clipped_low": float(torch.cat([p.low.reshape(-1) for p in parts]).double().mean()),
                "kl_old": float(-log_ratio.mean()) + 0.0,
            }  # fmt: skip
            divergence = [p.kl.reshape(-1) for p in parts if p.kl is not None]
            if divergence:
                values["kl"] = float(torch.cat(divergence).mean())
            for kind, value in values.items():
                found[kind].setdefault(modality, {})[str(transition)] = value
        return {k: v for k, v in found.items() if v}


#: terms that use the judge's answers
_OF_ANSWERS: Final = ("policy", "ranking", "expected")
#: a term that is so many times another leaves it no say
_DROWNED: Final = 10.0


class Balance:
    """Watches the gradients of the terms, and how often the clip bites; says once what is out of balance."""

    def __init__(self) -> None:
        self._norms: dict[str, list[float]] = {}
        self._clipped: list[bool] = []
        self._said: set[str] = set()

    def look(self, line: Mapping[str, Any], max_grad_norm: float) -> list[str]:
        """Warnings that a step's line for the log gives rise to."""
        self._clipped.append(line["grad_norm"] > max_grad_norm)
        for name, norm in line.get("gradients", {}).items():
            self._norms.setdefault(name, []).append(norm)
        found = {**self._of_terms(), **self._of_clip(max_grad_norm)}
        new = [text for key, text in found.items() if key not in self._said]
        self._said |= found.keys()
        return new

    def _of_terms(self) -> dict[str, str]:
        """After three measurements. A KL or a distance is 0 where a run starts: that it is small says nothing."""
        means = {n: sum(v) / len(v) for n, v in self._norms.items() if len(v) >= 3}
        found = {}
        for large, norm in means.items():
            for small in (*_OF_ANSWERS, "rehearsal"):
                if norm > _DROWNED * means.get(small, math.inf):
                    found[f"{large}/{small}"] = (
                        f"the gradient of objective.{_key(large)} is {norm / max(means[small], 1e-30):.3g} times that "
                        f"of objective.{_key(small)}, which has no say then: choose other weights"
                    )  # fmt: skip
        return found

    def _of_clip(self, max_grad_norm: float) -> dict[str, str]:
        share = sum(self._clipped) / len(self._clipped)
        if len(self._clipped) < 20 or share <= 0.9:
            return {}
        return {"clip": f"optimiser.max_grad_norm {max_grad_norm:g} shortens the gradient in {share:.0%} of the steps: "
                        "its length is lost; a larger one keeps it"}  # fmt: skip


def _key(term: str) -> str:
    return "grpo" if term == "policy" else term


class Timer:
    """Seconds of each phase of a step; an accelerator is waited for, so that its work is counted where it is asked."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        found, self.seconds = self.seconds, {}
        return {k: round(v, 4) for k, v in found.items()}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def process_peak() -> int:
    """Most memory that this process has held, bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _memory_mib(device: torch.device) -> dict[str, float]:
    """Peak memory: of the accelerator since the last call, of the process on a CPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        return {"device": round(peak, 1)}
    return {"process": round(process_peak() / 2**20, 1)}


class Log:
    """The JSON lines of a run, and the trackers that are asked for.

    Parameters
    ----------
    keep_below : lines of later steps are dropped: those steps are done again
    report_to : names that `accelerate.tracking` knows; folder, name : where they write, and under which name
    active : False in all processes but the first, which write nothing

    Raises
    ------
    UsageError
        A tracker that is not installed or not known.
    """

    def __init__(
        self, path: Path, keep_below: int, *, report_to: Sequence[str] = (), folder: Path | None = None,
        name: str = "tuning", active: bool = True,
    ) -> None:  # fmt: skip
        self._trackers = [_tracker(kind, folder or path.parent, name) for kind in report_to] if active else []
        self._lines = JsonLog(path, keep_below) if active else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line; numbers that are not finite are left out of it, JSON has no form for them."""
        if self._lines is None:
            return
        clean = _finite(line)
        self._lines.write(clean)
        for tracker in self._trackers:
            tracker.log(dict(_scalars(clean)), step=line["step"])

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.__exit__(kind, error, trace)
        for tracker in self._trackers:
            tracker.finish()


def _tracker(kind: str, folder: Path, name: str) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if kind not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise UsageError(f"unknown tracker '{kind}': {known}", where="watch.report_to")
    if kind not in [str(t) for t in get_available_trackers()]:
        raise UsageError(f"{kind} is not installed", where="watch.report_to", fix=f"pip install {kind}")
    PartialState()  # trackers write in the first process, and ask it which one they are in
    tracker: Any = LOGGER_TYPE_TO_CLASS[kind]
    made = tracker(name, logging_dir=str(folder)) if tracker.requires_logging_directory else tracker(name)
    if hasattr(made, "start"):
        made.start()
    return made


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


_STYLES: dict[str, Style] = {"depth": "depth", "normals": "normal", "albedo": "linear", "irradiance": "linear"}


class Grids:
    """Pictures of the same photos as tuning goes on: the photo, the base's maps, the present ones.

    Draws ``step-00000100.png`` into a folder, of the first held-out photos (of the training ones without any).
    """

    def __init__(self, folder: Path, policy: Policy, batches: BatchSampler, config: TuneConfig) -> None:
        self._folder, self._policy, self._batches = folder, policy, batches
        self._photos = config.watch.grid_photos

    def draw(self, step: int, average: Average) -> None:
        """Draw the averaged weights beside the base."""
        modalities = list(self._batches.modalities)
        images = list(self._batches.shown(self._photos))
        with torch.no_grad():
            with self._policy.as_base():
                before = [self._policy.answer(image[None], modalities) for image in images]
            with average.applied():
                after = [self._policy.answer(image[None], modalities) for image in images]
        rows = []
        for image, base, now in zip(images, before, after, strict=True):
            row = [Panel("photo", _pixels(image), "rgb")]
            for m in modalities:
                # a depth's first panel sets the colour scale of both
                row += [Panel(f"{m}, base", self._map(base[m], m), _STYLES[m]),
                        Panel(f"{m}, step {step}", self._map(now[m], m), _STYLES[m])]  # fmt: skip
            rows.append(row)
        draw_rows(self._folder / f"step-{step:08d}.png", rows)

    def _map(self, code: Tensor, modality: str) -> NDArray[np.float32]:
        value = self._policy.decode(code, modality)[0].float().cpu().numpy()
        return value[0] if modality == "depth" else np.ascontiguousarray(value.transpose(1, 2, 0))


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).cpu().numpy().transpose(1, 2, 0))
