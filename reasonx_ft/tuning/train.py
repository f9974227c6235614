"""Tuning: a predictor gets better on photos that nobody labelled, by a judge's answers about pairs of points.

One step: a few photos; G samples of each by the policy; at the judged pairs, does the sample say what the judge says?
Samples that agree more than their group become likelier, within a clip range and at a cost for leaving the base. Other
terms use the same answers without sampling (`ranking`, `expected`), so a mixture is one run with several weights.

What differs from the published recipe (preset `paper` is the recipe itself, with what it leaves open named):

- The judge is asked once, before training (`reasonx-ft annotate`): it sees the photo and never a prediction, so one
  answer serves every sample, step and epoch, and no judge is in memory here.
- Soft rewards: the probability that the judge gave, not its likelier answer; unsure answers then weigh little.
- Every modality in every step, where the network predicts them together.
- Credit by pairs, where the noise at two pixels is independent: the same gradient on average, from far fewer samples.
- Supervision on rendered scenes that the base knows, in small doses, against forgetting (`rehearsal`).
- Advantages are not divided by a group's deviation, or only down to a floor: one flipped pair would count 2.6.
- A running average of the weights is what is checked and exported.
- A part of the photos is held out; the best check on them is exported; guardrails stop a run that hacks its reward.

Two runs of one configuration give the same weights on one machine, whether interrupted or not: everything random is
keyed by seed, step and photo.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.errors import PartialRun, ReasonXError
from reasonx_eval.models.embedded.tuned import TunedCard, read_tuned_card
from reasonx_ft.grpo.loss import RunningSpread
from reasonx_ft.pretraining.batches import Batch
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.training.files import rise_and_cosine
from reasonx_ft.training.interrupts import interrupts
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.check import Check
from reasonx_ft.tuning.checks import Checker
from reasonx_ft.tuning.clock import Clock
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.export import Facts, write_model
from reasonx_ft.tuning.grids import Grids
from reasonx_ft.tuning.guardrails import Guardrails
from reasonx_ft.tuning.metrics import Log, SeenSoFar, memory_mib, rewards_line
from reasonx_ft.tuning.objective import Draw, check_first, terms
from reasonx_ft.tuning.photo_set import Progress
from reasonx_ft.tuning.prepare import Prepared, Sources, prepare
from reasonx_ft.tuning.run_files import EVENTS, GRIDS, LOG, MODEL, write_run
from reasonx_ft.tuning.weights import (
    Average,
    copied,
    load_whole_state,
    put,
    relative_change,
    trained,
    whole,
    whole_state,
)

#: decay of the running deviation of rewards
_SPREAD_DECAY: Final = 0.99


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    folder : of the exported model; card : of it
    step : whose weights those are, of `steps`
    stopped : why a guardrail ended the run, or None
    first, last : checks of the base and of the exported weights
    """

    folder: Path
    card: TunedCard
    step: int
    steps: int
    stopped: str | None
    first: Check
    last: Check


@dataclass
class _Run:
    """What changes from step to step; what of it is not keyed by the step goes into checkpoints."""

    prepared: Prepared
    out: Path
    optimiser: torch.optim.Optimizer
    average: Average
    spread: RunningSpread
    guardrails: Guardrails
    checker: Checker
    grids: Grids
    clock: Clock
    last: Check | None = None
    lines: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(trained(self.prepared.policy.network).values())


def tune(
    sources: Sources, config: TuneConfig, out: Path, *, name: str | None = None, stop_after: int | None = None,
    progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Tune, or go on tuning, one network into a folder.

    Parameters
    ----------
    out : gets run.json, checkpoints/, log.jsonl, pictures, and at the end model/, which `reasonx-eval run` takes
    name : of the tuned model; default its base and the method
    stop_after : leave a checkpoint after that many steps, as an interrupt would; the same call goes on
    progress : called often, with (what, done, total)

    Raises
    ------
    UsageError, DataError
        See `prepare`; a checkpoint of another run.
    PartialRun
        Interrupted; a checkpoint was saved.
    ReasonXError
        Out of memory; a gradient that is not finite; a replay that does not repeat its rollout.
    """
    prepared = prepare(sources, config, progress=progress)
    try:
        cpu = next(prepared.policy.network.parameters()).device.type == "cpu"
        with deterministic(config.machine.threads, cpu=cpu):
            return tune_prepared(prepared, out, name=name, stop_after=stop_after, progress=progress)
    finally:
        prepared.close()


def tune_prepared(
    prepared: Prepared, out: Path, *, name: str | None = None, stop_after: int | None = None,
    progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """`tune`, of what is open already."""
    say = progress if progress is not None and prepared.processes.first else _silent
    facts = prepared.facts(name)
    if prepared.processes.first:
        write_run(out, prepared, facts)
    run = _start(prepared, out, facts)
    state, warnings = checkpoint.load(out, prepared.config, prepared.identity)
    first = _restore(run, state) if state is not None else 0
    events = out / EVENTS if prepared.config.watch.tensorboard else None
    with Log(out / LOG, first, events=events, active=prepared.processes.first) as log:
        for warning in warnings:
            log.write({"step": first, "warning": warning})
        stopped = _all_steps(run, first, log, say, stop_after)
    return _finish(run, facts, stopped)


def _all_steps(run: _Run, first: int, log: Log, say: Progress, stop_after: int | None) -> str | None:
    """Steps from `first` on; why a guardrail ended them, or None."""
    prepared, watch = run.prepared, run.prepared.config.watch
    if run.guardrails.base is None:
        say("check", 0, 1)
        _check(run, 0, log)
    with interrupts() as asked:
        for step in range(first, prepared.steps):
            say("tune", step, prepared.steps)
            log.write(_step(run, step))
            done = step + 1
            finished = done == prepared.steps
            stopped = _check(run, done, log) if finished or _due(done, watch.check_every) else None
            if _due(done, watch.grid_every) or (watch.grid_every and finished):
                run.grids.draw(done, run.average)
            interrupted = prepared.processes.any(asked.is_set()) or done == stop_after
            if finished or interrupted or _due(done, watch.save_every) or stopped:
                _save(run, done)
            if stopped:
                return stopped
            if interrupted and not finished:
                raise PartialRun(f"stopped after step {done} of {prepared.steps}: it is saved", where=str(run.out),
                                 fix="the same command goes on from there")  # fmt: skip
    say("tune", prepared.steps, prepared.steps)
    return None


def _step(run: _Run, step: int) -> dict[str, Any]:
    """One set of samples, and `inner` updates by it; the line for the log."""
    prepared, clock, began = run.prepared, run.clock, time.perf_counter()
    objective, policy = prepared.config.objective, prepared.policy
    line: dict[str, Any] = {"step": step + 1}
    try:
        with clock.phase("visit"):
            visit = prepared.visits.at(step)
            rehearsed = prepared.rehearsal.at(step) if prepared.rehearsal is not None else None
        draw = Draw(policy, visit, objective, run.spread, prepared.processes, clock, step)
        for inner in range(objective.inner):
            line |= _update(run, draw, inner, rehearsed)
        line |= rewards_line(draw.rollouts, draw.worth)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise _too_large(error, prepared.config) from error
    run.average.update()
    line["average_distance"] = run.average.distance()
    line["seconds"] = {"all": round(time.perf_counter() - began, 4), **clock.take()}
    line["memory_mib"] = memory_mib(visit.images.device)
    return line


def _update(run: _Run, draw: Draw, inner: int, rehearsed: Batch | None) -> dict[str, Any]:
    """One optimiser step; what it saw."""
    prepared, clock = run.prepared, run.clock
    config, processes = prepared.config, prepared.processes
    objective, micro = config.objective, config.machine.micro
    exact = draw.visit.images.device.type == "cpu" and config.machine.dtype == "float32"
    seen_so_far, losses = SeenSoFar(), dict[str, float]()
    run.optimiser.zero_grad(set_to_none=True)
    portions = terms(draw, rehearsed, micro)
    while True:
        with clock.phase("forward"):
            term = next(portions, None)
        if term is None:
            break
        if inner == 0:
            for seen in term.seen:
                check_first(seen, objective.clip_range_sum, exact)
        with clock.phase("backward"):
            _backward(term.value)
        _add(losses, term.losses)
        seen_so_far.add(term.seen)
    with clock.phase("optimiser"):
        applied = _apply(run, draw.step)
    total = processes.sums([*losses.values()]) if losses else []
    return {"loss": dict(zip(losses, total, strict=True)), **applied, **seen_so_far.line()}


def _apply(run: _Run, step: int) -> dict[str, float]:
    """Take the gradient to the weights.

    Its length before it was clipped, the learning rate, and how far the weights went, as a share of their length.
    """
    how, parameters = run.prepared.config.optimiser, run.parameters
    if run.prepared.shards is None:  # which add up gradients themselves
        run.prepared.processes.add_gradients(parameters)
    norm = float(whole(nn.utils.clip_grad_norm_(parameters, how.clip)))
    if not math.isfinite(norm):
        raise ReasonXError(f"the gradient is {norm} at step {step + 1}", where="tune",
                           fix="a smaller optimiser.learning_rate, or machine.dtype float32")  # fmt: skip
    rate = how.learning_rate * _share(how.schedule, step, run.prepared.steps, how.warmup)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    # activations are gone by now: this copy is not what needs most memory
    before = [p.detach().clone() for p in parameters]
    run.optimiser.step()
    return {"gradient": norm, "learning_rate": rate, "update": relative_change(before, parameters)}


def _share(schedule: str, step: int, steps: int, warmup: int) -> float:
    if schedule == "cosine":
        return rise_and_cosine(step, steps, warmup)
    return min(1.0, (step + 1) / (warmup + 1))


def _check(run: _Run, done: int, log: Log) -> str | None:
    """Measure the averaged weights; keep them if they are the best; why the run has to stop, or None."""
    prepared = run.prepared
    with run.clock.phase("check"), run.average.applied():
        found = run.checker.check(done)
        stopped, best = run.guardrails.look(found)
        run.last = found
        if best:
            state = {"weights": copied(prepared.policy.network), "check": vars(found)}
            if prepared.processes.first:
                checkpoint.save_best(run.out, prepared.config, prepared.identity, state, done)
    log.write({"step": done, "check": {k: v for k, v in vars(found).items() if k != "step"}, "best": best,
               "stopped": stopped})  # fmt: skip
    if prepared.processes.any(stopped is not None):
        return stopped or "another process stopped the run"
    return None


def _save(run: _Run, done: int) -> None:
    prepared = run.prepared
    if prepared.shards is None and not prepared.processes.first:
        return
    state = {
        "weights": copied(prepared.policy.network), "optimiser": whole_state(run.optimiser),
        "average": run.average.state_dict(), "spread": run.spread.state_dict(),
        "guardrails": run.guardrails.state_dict(), "check": None if run.last is None else vars(run.last),
    }  # fmt: skip
    if prepared.processes.first:
        checkpoint.save(run.out, prepared.config, prepared.identity, state, done)


def _restore(run: _Run, state: Mapping[str, Any]) -> int:
    """Go on from a checkpoint; the next step."""
    put(run.prepared.policy.network, state["weights"])
    load_whole_state(run.optimiser, state["optimiser"])
    run.average.load_state_dict(state["average"])
    run.spread.load_state_dict(state["spread"])
    run.guardrails.load_state_dict(state["guardrails"])
    run.last = None if state["check"] is None else Check(**state["check"])
    return int(state["step"])


def _start(prepared: Prepared, out: Path, facts: Facts) -> _Run:
    config, network = prepared.config, prepared.policy.network
    how = config.optimiser
    parameters = list(trained(network).values())
    # nothing is compiled or fused: the same arithmetic on every machine of a kind
    optimiser = torch.optim.AdamW(parameters, lr=how.learning_rate, betas=how.betas, weight_decay=how.weight_decay)
    device = parameters[0].device
    return _Run(
        prepared, out, optimiser, Average(network, how.ema, how.interpolate), RunningSpread(_SPREAD_DECAY),
        Guardrails(config.guard),
        Checker(prepared.policy, prepared.visits, config, facts, prepared.whole),
        Grids(out / GRIDS, prepared.policy, prepared.visits, config), Clock(device),
    )  # fmt: skip


def _finish(run: _Run, facts: Facts, stopped: str | None) -> Outcome:
    """Export the weights that are asked for."""
    prepared, policy = run.prepared, run.prepared.policy
    base, last = run.guardrails.base, run.last
    assert base is not None
    assert last is not None
    step, check = prepared.steps, last
    prepared.processes.wait()
    with run.average.applied():
        best = checkpoint.load_best(run.out)
        # nothing held out: no check is better than another, and only a stopped run falls back
        if best is not None and (stopped or (prepared.config.watch.export == "best" and prepared.visits.held_out)):
            put(policy.network, best["weights"])
            step, check = int(best["step"]), Check(**best["check"])
        notes = f"stopped after step {last.step}: {stopped.splitlines()[0]}" if stopped else ""
        with prepared.whole():
            if prepared.processes.first:
                write_model(policy, run.out / MODEL, facts, step=step, check=check, base=base, notes=notes)
        prepared.processes.wait()
    return Outcome(run.out / MODEL, read_tuned_card(run.out / MODEL), step, prepared.steps, stopped, base, check)


def _backward(term: Tensor) -> None:
    # an image batch without any judgement gives a number without a graph
    if term.requires_grad:
        term.backward()  # type: ignore[no-untyped-call]  # torch's own signature


def _add(sums: dict[str, float], parts: Mapping[str, float]) -> None:
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + value


def _due(done: int, every: int) -> bool:
    return bool(every) and done % every == 0


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _too_large(error: BaseException, config: TuneConfig) -> ReasonXError:
    micro = config.machine.micro or config.data.images * config.objective.group
    return ReasonXError(
        f"out of memory: {' '.join(str(error).split())[:160]}", where="tune",
        fix=f"--set machine.micro={max(1, micro // 2)} (fewer inputs at a time, the same result but for last bits); or "
            f"a smaller objective.group ({config.objective.group}) or data.images ({config.data.images}); for "
            "pipelines policy.gradient_checkpointing=true, policy.lora=16, machine.dtype=bfloat16",
    )  # fmt: skip
