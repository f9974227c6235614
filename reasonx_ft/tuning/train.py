"""Tuning: a predictor gets better on photos that nobody labelled, by a judge's answers about pairs of points.

One step (`_Run.step`, the loop's page): a batch of photos; G samples of each by the policy; at the judged pairs, does
the sample say what the judge says? Samples that agree more than the others of their photo become likelier, within a
clip range and at a cost for leaving the base. Other terms use the same answers without sampling (`ranking`,
`expected`), so a mixture is one run with several weights.

What differs from the published recipe (preset `paper` is the recipe itself, with what it leaves open named):

- The judge is asked once, before training (`reasonx-ft annotate`): it sees the photo and never a prediction, so one
  answer serves every sample, step and epoch, and no judge is in memory here.
- Soft rewards: the probability that the judge gave, not its likelier answer; unsure answers then weigh little.
- Every modality in every step, where the network predicts them together.
- A flow or a pipeline explores in its output: noise around the answer at the judged points, as if the last step to
  t = 0 were the random one, so that samples cost no pass. White noise in the steps, as published (`explore = "steps"`),
  is denoised away, and what is left of it is credited to the whole map; noise in coarse cells is between the two.
- Credit by pairs, where the noise at two pixels is independent: the same gradient on average, from far fewer samples.
- Supervision on rendered scenes that the base knows, in small doses, against forgetting (`rehearsal`).
- Advantages are not divided by a group's deviation, or only down to a floor: one flipped pair would count 2.6.
- What is checked and exported may be a running average of the weights, and lie on the way back to the base.
- A part of the photos is held out; the best check on them is exported; guardrails stop a run that hacks its reward.

Two runs of one configuration give the same weights on one machine, whether interrupted or not: everything random is
keyed by seed, step and photo.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reasonx_eval.errors import PartialRun, ReasonXError, RegressionFound
from reasonx_eval.io.files import needing_space
from reasonx_eval.models.embedded.tuned import TunedCard, read_tuned_card
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.training.files import rise_and_cosine
from reasonx_ft.training.interrupts import interrupts
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.checkpoint import GRIDS, LOG, MODEL, TRACKERS, write_run
from reasonx_ft.tuning.checks import Checker, Guardrails
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.data import Progress
from reasonx_ft.tuning.export import Check, write_model
from reasonx_ft.tuning.facts import Facts
from reasonx_ft.tuning.monitor import Balance, Grids, Log, StepStatistics, Timer
from reasonx_ft.tuning.objective import StepLoss, check_first, compare, draw, reward
from reasonx_ft.tuning.parallel import gather
from reasonx_ft.tuning.state import Sources, TrainState, prepare
from reasonx_ft.tuning.weights import (
    Average,
    clone_state,
    load,
    load_optimiser_state,
    optimiser_state,
    relative_change,
    trained,
)


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    folder : of the exported model; card : of it
    step : whose weights those are, of `steps`
    stopped : why a guardrail ended the run, or None
    first, last : checks of the base and of the exported weights
    warnings : what is out of balance: a term that drowns another, a clip that always bites
    """

    folder: Path
    card: TunedCard
    step: int
    steps: int
    stopped: str | None
    first: Check
    last: Check
    warnings: tuple[str, ...] = ()


def tune(
    sources: Sources, config: TuneConfig, out: Path, *, name: str | None = None, stop_after: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:  # fmt: skip
    """Tune, or go on tuning, one network into a folder.

    Parameters
    ----------
    out : gets run.json, checkpoints/, log.jsonl, pictures, and at the end model/, which `reasonx-eval run` takes
    name : of the tuned model; default its base and the method
    stop_after : leave a checkpoint after that many steps, as an interrupt would; the same call goes on
    progress : called often, with (stage, done, total)

    Raises
    ------
    UsageError, DataError
        See `prepare`; a checkpoint of another run.
    PartialRun
        Interrupted, or no space left: what was saved is kept.
    RegressionFound
        No check was better than the base's: nothing is exported.
    ReasonXError
        Out of memory; a gradient that is not finite; a replay that does not repeat its rollout.
    """
    state = prepare(sources, config, progress=progress)
    try:
        cpu = next(state.policy.network.parameters()).device.type == "cpu"
        with needing_space(out), deterministic(config.machine.threads, cpu=cpu):
            return tune_prepared(state, out, name=name, stop_after=stop_after, progress=progress)
    finally:
        state.close()


def tune_prepared(
    state: TrainState, out: Path, *, name: str | None = None, stop_after: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:  # fmt: skip
    """`tune`, of what is open already."""
    say = progress if progress is not None and state.processes.first else _silent
    facts = state.facts(name)
    if state.processes.first:
        write_run(out, state, facts)
    run = Run(state, out, facts)
    saved, warnings = checkpoint.load(out, state.config, state.identity)
    first = run.restore(saved) if saved is not None else 0
    trackers = state.config.watch.report_to
    with Log(out / LOG, first, report_to=trackers, folder=out / TRACKERS, name=facts.name,
             active=state.processes.first) as log:  # fmt: skip
        for warning in warnings:
            log.write({"step": first, "warning": warning})
        stopped = _all_steps(run, first, log, say, stop_after)
    return _finish(run, facts, stopped)


def _all_steps(run: Run, first: int, log: Log, say: Progress, stop_after: int | None) -> str | None:
    """Steps from `first` on; why a guardrail ended them, or None."""
    state, watch = run.state, run.state.config.watch
    if run.guardrails.base is None:
        say("check", 0, 1)
        run.check(0, log)
    with interrupts() as asked:
        for step in range(first, state.steps):
            say("tune", step, state.steps)
            line = run.step(step)
            log.write(line)
            for warning in run.balance.look(line, run.config.optimiser.max_grad_norm):
                run.warnings.append(warning)
                log.write({"step": step + 1, "warning": warning})
            done = step + 1
            finished = done == state.steps
            stopped = run.check(done, log) if finished or _due(done, watch.check_every) else None
            if _due(done, watch.grid_every) or (watch.grid_every and finished):
                run.grids.draw(done, run.average)
            interrupted = state.processes.any(asked.is_set()) or done == stop_after
            if finished or interrupted or _due(done, watch.save_every) or stopped:
                run.save(done)
            if stopped:
                return stopped
            if interrupted and not finished:
                raise PartialRun(f"stopped after step {done} of {state.steps}: it is saved", where=str(run.out),
                                 fix="the same command goes on from there")  # fmt: skip
    say("tune", state.steps, state.steps)
    return None


class Run:
    """A run, step by step; state that is not keyed by the step goes into checkpoints."""

    def __init__(self, state: TrainState, out: Path, facts: Facts) -> None:
        config, network = state.config, state.policy.network
        self.state, self.out, self.config = state, out, config
        self.parameters = list(trained(network).values())
        # nothing is compiled or fused: the same arithmetic on every machine of a kind
        self.optimiser = torch.optim.AdamW(self.parameters, lr=config.optimiser.learning_rate,
                                           weight_decay=config.optimiser.weight_decay)  # fmt: skip
        self.average = Average(network, config.optimiser.ema, config.optimiser.interpolate)
        self.guardrails = Guardrails(config.guard)
        self.checker = Checker(state.policy, state.batches, config, facts, state.gathered)
        self.grids = Grids(out / GRIDS, state.policy, state.batches, config)
        self.timer = Timer(self.parameters[0].device)
        self.balance, self.warnings = Balance(), list[str]()
        self.last: Check | None = None

    def step(self, step: int) -> dict[str, Any]:
        """Batch -> rollouts -> rewards -> advantages -> for each microbatch: loss.backward() -> optimiser step.

        Returns the line for the log.
        """
        state, rules, timer = self.state, self.config.objective, self.timer
        size, began = self.config.machine.microbatch, time.perf_counter()
        statistics, every = StepStatistics(step + 1), self.config.watch.gradients_every
        # gradients of parts of shared-out weights can't be taken term by term
        measured = bool(every) and step % every == 0 and state.shards is None
        try:
            with timer.phase("batch"):
                batch = state.batches.at(step)
                scenes = state.rehearsal.at(step) if state.rehearsal is not None else None
            with timer.phase("rollout"):
                rollouts = draw(state.policy, batch, scenes, rules, step, microbatch=size)
            with timer.phase("reward"):
                rewards = reward(batch, rollouts, rules)
                advantages = compare(rewards, rules, state.processes)
            loss = StepLoss(state.policy, batch, scenes, rules, rollouts, advantages, state.processes)
            for iteration in range(rules.num_iterations):
                self.optimiser.zero_grad(set_to_none=True)
                statistics.begin_update()
                for microbatch in loss.microbatches(size):
                    with timer.phase("forward"):
                        part = loss.of(microbatch)
                    if iteration == 0:
                        self._check_replays(part.replayed)
                    with timer.phase("backward"):
                        if measured and iteration == 0:
                            statistics.add_gradients(part, self.parameters)
                        _backward(part.total)
                    statistics.add(part)
                with timer.phase("optimiser"):
                    statistics.add_update(**self._update(step))
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise _too_large(error, self.config) from error
        self.average.update()
        statistics.add_samples(rollouts.by_modality, advantages)
        return statistics.line(state.processes, average_distance=self.average.distance(),
                               seconds={"all": round(time.perf_counter() - began, 4), **timer.take()},
                               device=batch.images.device)  # fmt: skip

    def _check_replays(self, replayed: Any) -> None:
        exact = self.parameters[0].device.type == "cpu" and self.config.machine.dtype == "float32"
        for seen in replayed:
            check_first(seen, self.config.objective.clip_range_sum, exact)

    def _update(self, step: int) -> dict[str, float]:
        """Take the gradient to the weights.

        Its norm before it was clipped, the learning rate, and how far the weights went, as a share of their length.
        """
        how = self.config.optimiser
        if self.state.shards is None:  # which add up gradients themselves
            self.state.processes.add_gradients(self.parameters)
        norm = float(gather(nn.utils.clip_grad_norm_(self.parameters, how.max_grad_norm)))
        if not math.isfinite(norm):
            raise ReasonXError(f"the gradient is {norm} at step {step + 1}", where="tune",
                               fix="a smaller optimiser.learning_rate, or machine.dtype float32")  # fmt: skip
        rate = how.learning_rate * rise_and_cosine(step, self.state.steps, how.warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # activations are gone by now: this copy is not what needs most memory
        before = [p.detach().clone() for p in self.parameters]
        self.optimiser.step()
        return {"grad_norm": norm, "learning_rate": rate, "update": relative_change(before, self.parameters)}

    def check(self, done: int, log: Log) -> str | None:
        """Measure the averaged weights; keep them if they are the best; why the run has to stop, or None."""
        state = self.state
        with self.timer.phase("check"), self.average.applied():
            found = self.checker.check(done)
            stopped, best = self.guardrails.look(found)
            self.last = found
            if best:
                kept = {"weights": clone_state(state.policy.network), "check": vars(found)}
                if state.processes.first:
                    checkpoint.save_best(self.out, self.config, state.identity, kept, done)
        log.write({"step": done, "check": {k: v for k, v in vars(found).items() if k != "step"}, "best": best,
                   "stopped": stopped})  # fmt: skip
        if state.processes.any(stopped is not None):
            return stopped or "another process stopped the run"
        return None

    def save(self, done: int) -> None:
        """Write a checkpoint."""
        state = self.state
        if state.shards is None and not state.processes.first:
            return
        kept = {
            "weights": clone_state(state.policy.network), "optimiser": optimiser_state(self.optimiser),
            "average": self.average.state_dict(), "guardrails": self.guardrails.state_dict(),
            "check": None if self.last is None else vars(self.last),
        }  # fmt: skip
        if state.processes.first:
            checkpoint.save(self.out, self.config, state.identity, kept, done)

    def restore(self, saved: Mapping[str, Any]) -> int:
        """Go on from a checkpoint; the next step."""
        load(self.state.policy.network, saved["weights"])
        load_optimiser_state(self.optimiser, saved["optimiser"])
        self.average.load_state_dict(saved["average"])
        self.guardrails.load_state_dict(saved["guardrails"])
        self.last = None if saved["check"] is None else Check.of(saved["check"])
        return int(saved["step"])


def _finish(run: Run, facts: Facts, stopped: str | None) -> TrainResult:
    """Export the weights that are asked for."""
    state, policy = run.state, run.state.policy
    base, last = run.guardrails.base, run.last
    assert base is not None
    assert last is not None
    step, check = state.steps, last
    state.processes.wait()
    with run.average.applied():
        best = checkpoint.load_best(run.out)
        # nothing held out: no check is better than another, and only a stopped run falls back
        if best is not None and (stopped or (state.config.watch.export == "best" and state.batches.held_out)):
            load(policy.network, best["weights"])
            step, check = int(best["step"]), Check.of(best["check"])
        if step == 0:
            why = f"a guardrail stopped the run ({stopped.splitlines()[0]}), and no" if stopped else "no"
            raise RegressionFound(
                f"{why} check was better than the base: nothing is exported", where=str(run.out),
                fix=f"reasonx-ft export {run.out} --weights last, for the last weights; or --force with more steps, "
                    "another optimiser.learning_rate or a judge that is right more often",
            )  # fmt: skip
        notes = f"stopped after step {last.step}: {stopped.splitlines()[0]}" if stopped else ""
        with state.gathered():
            if state.processes.first:
                write_model(policy, run.out / MODEL, facts, step=step, check=check, base=base, notes=notes)
        state.processes.wait()
    return TrainResult(run.out / MODEL, read_tuned_card(run.out / MODEL), step, state.steps, stopped, base, check,
                       tuple(run.warnings))  # fmt: skip


def _backward(loss: torch.Tensor) -> None:
    # a batch without any judgement gives a number without a graph
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature


def _due(done: int, every: int) -> bool:
    return bool(every) and done % every == 0


def _silent(_stage: str, _done: int, _total: int) -> None:
    return None


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _too_large(error: BaseException, config: TuneConfig) -> ReasonXError:
    group, photos = config.objective.num_generations, config.data.batch_size
    size = config.machine.microbatch or photos * group
    return ReasonXError(
        f"out of memory: {' '.join(str(error).split())[:160]}", where="tune",
        fix=f"--set machine.microbatch={max(1, size // 2)} (fewer inputs at a time, the same result but for last "
            f"bits); or a smaller objective.num_generations ({group}) or data.batch_size ({photos}); for pipelines "
            "policy.gradient_checkpointing=true, policy.lora=16, machine.dtype=bfloat16",
    )  # fmt: skip
