"""What a run would do and cost, without changing a file."""

from __future__ import annotations

import time
from typing import Any

import torch

from reasonx_ft.grpo import RunningSpread
from reasonx_ft.tuning.clock import Clock
from reasonx_ft.tuning.config import TuneConfig, largest, per_modality
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
        return {**_what(prepared), "clip range": _clip(prepared), "cost": _cost(prepared),
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


def _clip(prepared: Prepared) -> dict[str, Any]:
    """The clip range in both of its units, by modality."""
    objective = prepared.config.objective
    if not largest(objective.grpo):
        return {}
    rollouts = prepared.policy.rollout(prepared.visits.at(0), objective.group, 0, reference=False)
    found: dict[str, Any] = {}
    for modality, rollout in rollouts.items():
        after = rollout.transitions[0].after
        pairs = objective.credit == "pairs"
        elements = after.shape[-1] * after.shape[-2] if pairs else prepared.policy.elements(rollout)
        found[modality] = {"sum over elements": objective.clip_range_sum, "elements": elements,
                           "mean": objective.clip_range_sum / elements}  # fmt: skip
    if objective.inner == 1:
        found["note"] = "one update on each set of samples: the ratio is 1, nothing is clipped"
    return found


def _cost(prepared: Prepared) -> dict[str, Any]:
    """Seconds of a step, and of all; checks and reading of photos not counted."""
    config, policy = prepared.config, prepared.policy
    seconds, device = 0.0, next(policy.network.parameters()).device
    for step in range(min(2, prepared.steps)):
        start = time.perf_counter()
        draw = Draw(policy, prepared.visits.at(step), config.objective, RunningSpread(), prepared.processes,
                    Clock(device), step)  # fmt: skip
        rehearsed = prepared.rehearsal.at(step) if prepared.rehearsal is not None else None
        for term in terms(draw, rehearsed, config.machine.micro):
            term.value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    policy.network.zero_grad(set_to_none=True)
    return {"seconds a step": seconds, "minutes in all": seconds * prepared.steps / 60,
            "device": str(device)}  # fmt: skip
