"""What a run would do and cost, without changing a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonx_ft.training.determinism import deterministic
from reasonx_ft.tuning.batches import label_histogram
from reasonx_ft.tuning.config import Objective, TuneConfig, per_modality
from reasonx_ft.tuning.data import Progress
from reasonx_ft.tuning.settings import about
from reasonx_ft.tuning.state import Sources, TrainState, prepare
from reasonx_ft.tuning.train import Run
from reasonx_ft.tuning.weights import trained


def make_plan(sources: Sources, config: TuneConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """The plan of a run; its cost is that of its second step, which is computed and thrown away."""
    state = prepare(sources, config, progress=progress)
    try:
        cost, elements = _cost(state)
        return {**_content(state), "clip range": _clip(config.objective, elements), "cost": cost,
                "not published, and chosen here": list(about(config.preset).unknown)}  # fmt: skip
    finally:
        state.close()


def _content(state: TrainState) -> dict[str, Any]:
    config, batches, left = state.config, state.batches, state.photos.left_out
    objective, entries = config.objective, state.photos.entries
    used = {m: sum(len(e.pairs[m]) for e in entries if m in e.pairs) for m in batches.modalities}
    sampled = sum(bool(per_modality(objective.grpo, m)) for m in batches.modalities)
    at_once = sampled if config.data.modalities_per_step == "all" else sampled / len(batches.modalities)
    samples = round(state.steps * config.data.batch_size * objective.num_generations * at_once)
    return {
        "base": state.policy.base, "preset": config.preset, "method": config.method,
        "judge": state.judge, "modalities": list(batches.modalities),
        "judged, not predicted": list(state.answers.unpredicted),
        "photos": {"training": len(batches.training), "held out": len(batches.held_out),
                   "without judgements": len(left.unjudged), "unreadable": len(left.unreadable),
                   "repeated": left.repeated},
        "pairs": used,
        "pairs left out": {m: {**vars(state.answers.excluded[m]), "on one pixel": left.same_pixel.get(m, 0)}
                           for m in used},
        "sureness of the judge, in tenths": dict(label_histogram(state.photos, batches.modalities)),
        "steps": state.steps, "photos a step": config.data.batch_size, "samples": samples,
        "trained parameters": sum(p.numel() for p in trained(state.policy.network).values()),
        "processes": state.processes.world,
    }  # fmt: skip


def _clip(objective: Objective, elements: Mapping[str, int]) -> dict[str, Any]:
    """The clip range in both of its units, by modality that is sampled."""
    found: dict[str, Any] = {
        m: {"sum over elements": objective.clip_range_sum, "elements": n, "mean": objective.clip_range_sum / n}
        for m, n in elements.items()
    }
    if found and objective.num_iterations == 1:
        found["note"] = "one update on each set of samples: the ratio is 1, nothing is clipped"
    return found


def _cost(state: TrainState) -> tuple[dict[str, Any], dict[str, int]]:
    """Seconds of a step, and of all (checks and reading of photos not counted); elements of a log-ratio by modality."""
    device = next(state.policy.network.parameters()).device
    run = Run(state, Path(), state.facts(None))
    with deterministic(state.config.machine.threads, cpu=device.type == "cpu"):
        lines = [run.step(step) for step in range(min(2, state.steps))]
    seconds = lines[-1]["seconds"]["all"]
    elements = {m: next(iter(of_step.values())) for m, of_step in lines[0].get("elements", {}).items()}
    cost = {"seconds a step": seconds, "minutes in all": seconds * state.steps / 60, "device": str(device)}
    return cost, elements
