"""A tuning run of an embedded network on synthetic photos with random answers, ready for its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.speed.photos import every_question, photo
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.grpo.batch import Batch
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.tuning.settings import read_settings
from reasonx_ft.tuning.state import Sources, TrainState, prepare
from reasonx_ft.tuning.train import Run
from reasonx_ft.types import AnswerBatch, JudgeInfo

#: height and width of the photos, the size that the embedded networks work at
SIZE = (96, 128)
_STEPS = 100_000
#: one advantage a map, its noise shared by all points, a KL to the base: what published recipes do
_SETTINGS: dict[str, Any] = {
    "objective.grpo": 1.0, "objective.ranking": 0.0, "objective.expected": 0.0, "objective.rehearsal": 0.0,
    "objective.kl": 0.02, "objective.credit": "image", "objective.scale_rewards": "none", "objective.units": "sum",
    "objective.balanced": False, "objective.albedo_space": "linear", "objective.albedo_threshold": 0.05,
    "data.modalities_per_step": "all", "data.held_out": 0.0, "data.flip": False,
    "data.min_confidence": 0.0, "optimiser.steps": _STEPS, "machine.dtype": "float32", "machine.workers": 1,
    "guard.unrewarded_metrics": [],
}  # fmt: skip
_POLICY = {"tiny": {"policy.noise": "lowrank"}, "tiny-flow": {"policy.explore": "steps"}}


@dataclass
class Tuning:
    """A run that takes one step at a time."""

    run: Run
    state: TrainState
    done: int = 0

    def step(self) -> dict[str, Any]:
        """The next optimiser step; its line for the log."""
        line = self.run.step(self.done)
        self.done += 1
        return line

    @property
    def group(self) -> int:
        return self.state.config.objective.num_generations

    def batch(self) -> Batch:
        """Of the first step."""
        return self.state.batches.at(0)


@contextmanager
def tuning(
    folder: Path, base: str, *, images: int, group: int, pairs: int = 40, threads: int = 1,
    modalities: tuple[str, ...] | None = None,
) -> Iterator[Tuning]:  # fmt: skip
    """A run in a folder; inside, torch computes as a tuning has it."""
    store, photos = folder / "answers", folder / "photos"
    if not photos.is_dir():
        photos.mkdir(parents=True)
        _write(photos, store, count=2 * images, pairs=pairs)
    flags = {**_SETTINGS, **_POLICY[base], "data.batch_size": images, "data.pairs": pairs,
             "objective.num_generations": group, "data.modalities": modalities, "machine.threads": threads}  # fmt: skip
    state = prepare(Sources(base, str(photos), store), read_settings(base=base, flags=flags))
    try:
        with deterministic(threads):
            yield Tuning(Run(state, folder / "run", state.facts(None)), state)
    finally:
        state.close()


def _write(photos: Path, store: Path, *, count: int, pairs: int) -> None:
    with Store.open(store, create=True).writer(JudgeInfo("random", "r0"), read_questions()) as writer:
        for k in range(count):
            made = photo(k, SIZE)
            Image.fromarray(made.image).save(photos / made.id)
            draw = rng(0, "answers", str(k))
            asked = every_question(made, draw.integers(30, 482, (pairs, 2, 2)).astype(np.int16), ("red-first",))
            n = len(asked)
            writer.add([asked], AnswerBatch(draw.random(n), np.zeros(n, np.int8), np.zeros(n)))
