"""What a run would do and cost, without changing a file."""

from __future__ import annotations

import time
from typing import Any

import torch

from reasonx_ft.grpo import RunningSpread
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.objective import answer_terms, judge, policy_terms
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
    at_once = len(visits.modalities) if config.data.at_once == "all" else 1
    samples = prepared.steps * config.data.images * objective.group * at_once if objective.grpo else 0
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
    if not objective.grpo:
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
    objective, micro = config.objective, config.machine.micro
    seconds = 0.0
    for step in range(min(2, prepared.steps)):
        visit = prepared.visits.at(step)
        start = time.perf_counter()
        if objective.grpo:
            rollouts = policy.rollout(visit, objective.group, step, reference=objective.kl > 0)
            worth = judge(visit, rollouts, objective, RunningSpread(), prepared.processes)
            for term, _ in policy_terms(policy, visit, rollouts, worth, objective, micro):
                term.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        for term, _ in answer_terms(policy, visit, objective, prepared.processes, micro):
            if term.requires_grad:
                term.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        if visit.images.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    policy.network.zero_grad(set_to_none=True)
    return {"seconds a step": seconds, "minutes in all": seconds * prepared.steps / 60,
            "device": str(next(policy.network.parameters()).device)}  # fmt: skip
