"""What a run would do and cost, without changing a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from reasonx_ft.grpo.loss import RunningSpread
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.tuning.clock import Clock
from reasonx_ft.tuning.config import Objective, TuneConfig, per_modality
from reasonx_ft.tuning.objective import Draw, terms
from reasonx_ft.tuning.photo_set import Progress
from reasonx_ft.tuning.prepare import Prepared, Sources, prepare
from reasonx_ft.tuning.settings import about
from reasonx_ft.tuning.visits import label_histogram
from reasonx_ft.tuning.weights import trained


def make_plan(sources: Sources, config: TuneConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """The plan of a run; its cost is that of its second step, which is computed and thrown away."""
    prepared = prepare(sources, config, progress=progress)
    try:
        cost, elements = _cost(prepared)
        return {**_what(prepared), "clip range": _clip(config.objective, elements), "cost": cost,
                "not published, and chosen here": list(about(config.preset).unknown)}  # fmt: skip
    finally:
        prepared.close()


def _what(prepared: Prepared) -> dict[str, Any]:
    config, visits, left = prepared.config, prepared.visits, prepared.photos.left_out
    objective, entries = config.objective, prepared.photos.entries
    used = {m: sum(len(e.pairs[m]) for e in entries if m in e.pairs) for m in visits.modalities}
    sampled = sum(bool(per_modality(objective.grpo, m)) for m in visits.modalities)
    at_once = sampled if config.data.at_once == "all" else sampled / len(visits.modalities)
    samples = round(prepared.steps * config.data.images * objective.group * at_once)
    return {
        "base": prepared.policy.base, "preset": config.preset, "method": config.method,
        "judge": prepared.judge, "modalities": list(visits.modalities),
        "judged, not predicted": list(prepared.answers.unpredicted),
        "photos": {"training": len(visits.training), "held out": len(visits.held_out),
                   "without judgements": len(left.unjudged), "unreadable": len(left.unreadable),
                   "repeated": left.repeated},
        "pairs": used,
        "pairs left out": {m: {**vars(prepared.answers.excluded[m]), "on one pixel": left.same_pixel.get(m, 0)}
                           for m in used},
        "sureness of the judge, in tenths": dict(label_histogram(prepared.photos, visits.modalities)),
        "steps": prepared.steps, "photos a step": config.data.images, "samples": samples,
        "trained parameters": sum(p.numel() for p in trained(prepared.policy.network).values()),
        "processes": prepared.processes.world,
    }  # fmt: skip


def _clip(objective: Objective, elements: Mapping[str, int]) -> dict[str, Any]:
    """The clip range in both of its units, by modality that is sampled."""
    found: dict[str, Any] = {
        m: {"sum over elements": objective.clip_range_sum, "elements": n, "mean": objective.clip_range_sum / n}
        for m, n in elements.items()
    }
    if found and objective.inner == 1:
        found["note"] = "one update on each set of samples: the ratio is 1, nothing is clipped"
    return found


def _cost(prepared: Prepared) -> tuple[dict[str, Any], dict[str, int]]:
    """Seconds of a step, and of all (checks and reading of photos not counted); elements of a log-ratio by modality."""
    device = next(prepared.policy.network.parameters()).device
    with deterministic(prepared.config.machine.threads, cpu=device.type == "cpu"):
        return _steps(prepared, device)


def _steps(prepared: Prepared, device: torch.device) -> tuple[dict[str, Any], dict[str, int]]:
    config, policy = prepared.config, prepared.policy
    seconds, elements = 0.0, dict[str, int]()
    for step in range(min(2, prepared.steps)):
        start = time.perf_counter()
        draw = Draw(policy, prepared.visits.at(step), config.objective, RunningSpread(), prepared.processes,
                    Clock(device), step)  # fmt: skip
        rehearsed = prepared.rehearsal.at(step) if prepared.rehearsal is not None else None
        for _ in range(config.objective.inner):
            for term in terms(draw, rehearsed, config.machine.micro):
                term.value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
                elements |= {s.modality: s.elements for s in term.seen}
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    policy.network.zero_grad(set_to_none=True)
    cost = {"seconds a step": seconds, "minutes in all": seconds * prepared.steps / 60, "device": str(device)}
    return cost, elements
