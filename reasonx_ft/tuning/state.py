"""Everything a run needs before its first step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reasonx_eval.errors import UsageError
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import DATASET, open_photos
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.load import make_policy
from reasonx_ft.tuning.batches import BatchSampler, Rehearsal
from reasonx_ft.tuning.config import TuneConfig, largest
from reasonx_ft.tuning.data import Answers, PhotoSet, Progress, held_out, read_answers
from reasonx_ft.tuning.facts import Facts
from reasonx_ft.tuning.parallel import Processes, sharding_asked_for

if TYPE_CHECKING:
    from reasonx_ft.tuning.sharding import Shards


@dataclass(frozen=True)
class Sources:
    """The names that a user gives.

    base : a model that `make_policy` takes; photos : as `open_photos` takes them; store : folder of judgements
    root, dataset_options : of a dataset of photos
    """

    base: str
    photos: str
    store: Path
    root: Path | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainState:
    """A run before its first step.

    shards : where the policy's network is shared out among the processes
    rehearsal : scenes with known maps, where the objective asks for them
    steps : optimiser steps in all
    identity : what a checkpoint must agree with, name -> digest
    """

    sources: Sources
    config: TuneConfig
    processes: Processes
    policy: Policy
    shards: Shards | None
    answers: Answers
    photos: PhotoSet
    batches: BatchSampler
    rehearsal: Rehearsal | None
    steps: int
    identity: Mapping[str, str]

    def facts(self, name: str | None) -> Facts:
        """This run as a card describes it."""
        config, rules = self.config, self.config.objective
        used = {m: sum(len(e.pairs[m]) for e in self.photos.entries if m in e.pairs) for m in self.batches.modalities}
        hard = "its likelier answer" if rules.reward == "hard" else "its probabilities"
        return Facts(
            name=name or f"{self.policy.base.rpartition('/')[2]}-{config.method.replace('+', '-')}",
            base=self.policy.base,
            method=config.method,
            reward=f"agreement of {', '.join(used)} at point pairs with the answers of a judge ({hard})",
            data=(*self._rehearsed(), f"{self.sources.photos.removeprefix(DATASET)} "
                                      f"({len(self.batches.training)} photos, no labels)"),
            judge=self.judge,
            seed=config.seed,
            licence=self.policy.licence,
            pairs=used,
            config=config.model_dump(mode="json"),
        )

    def _rehearsed(self) -> tuple[str, ...]:
        if self.rehearsal is None:
            return ()
        return (f"{self.config.objective.rehearsal_data} ({len(self.rehearsal.ids)} scenes, true maps)",)

    @property
    def judge(self) -> str:
        """Name and revision, for cards and signatures."""
        return f"{self.answers.judge}@{self.answers.revision[:12]}"

    def gathered(self) -> AbstractContextManager[None]:
        """Inside, the policy can be saved: its network has whole weights."""
        return nullcontext() if self.shards is None else self.shards.gathered()

    def close(self) -> None:
        self.photos.close()


def prepare(sources: Sources, config: TuneConfig, *, progress: Progress | None = None) -> TrainState:
    """Open everything.

    Raises
    ------
    UsageError
        An unknown base, option, judge or modality; no judged photo.
    """
    processes = Processes(cpu=config.machine.device == "cpu")
    machine = config.machine
    store = Store.open(sources.store)
    policy = make_policy(sources.base, device=processes.device(machine.device), dtype=machine.dtype,
                         microbatch=machine.microbatch, **config.policy)  # fmt: skip
    if config.objective.credit == "pairs" and largest(config.objective.grpo) and not policy.local_noise:
        raise UsageError("credit by pairs needs noise that is local, and this policy's is not", where=policy.base,
                         fix="--set objective.credit=image, or --set policy.noise=pixel, or in steps policy.cells=8")
    if config.objective.credit == "image" and policy.noise is None and policy.local_noise:
        raise UsageError("noise in cells is credited by pairs", where=policy.base,
                         fix="--set objective.credit=pairs --set objective.scale_rewards=none")  # fmt: skip
    answers = read_answers(store, config.data, policy.modalities, policy.base)
    photos = PhotoSet(
        open_photos(sources.photos, root=sources.root, dataset_options=sources.dataset_options,
                    limit=config.data.limit),
        policy, answers.tables, budget=int(machine.cache_gib * 2**30), workers=machine.workers, progress=progress,
    )  # fmt: skip
    device = next(policy.network.parameters()).device
    steps = config.optimiser.steps or 0
    if not steps:
        training = held_out([e.digest for e in photos.entries], config.data.held_out).count(False)
        steps = max(1, math.ceil(config.optimiser.epochs * training / config.data.batch_size))
    batches = BatchSampler(photos, config.data, list(answers.tables), seed=config.seed, steps=steps,
                           rank=processes.rank, world=processes.world, device=device)  # fmt: skip
    rehearsal = Rehearsal(policy, config, processes, progress) if config.objective.rehearsal else None
    identity = {"base weights": _weights_digest(policy), "judgements": answers.digest, "photos": photos.digest}
    shards = _shards(policy, processes.world, config)
    return TrainState(sources, config, processes, policy, shards, answers, photos, batches, rehearsal, steps, identity)


def _shards(policy: Policy, world: int, config: TuneConfig) -> Shards | None:
    if not (sharding_asked_for() if config.machine.shard is None else config.machine.shard):
        return None
    from reasonx_ft.tuning.sharding import Shards  # half a second that one process does without

    return Shards(policy, world)


def _weights_digest(policy: Policy) -> str:
    found = hashlib.sha256()
    for name, value in sorted(policy.network.state_dict().items()):
        found.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()

