"""The loop of every supervised training: steps, log, checkpoints, and a clean stop on Ctrl-C.

A training brings its network, its optimiser and a function that makes one step; what a step computes is decided by its
number alone, so that a training which was stopped or killed goes on from its last checkpoint to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel
from torch import nn

from reasonx_ft.training.files import CHECKPOINT, LOG, JsonLog, check_same, load_state, save_state
from reasonx_ft.training.interrupts import interrupts

#: called with (what is being done, done, total)
Progress = Callable[[str, int, int], None]
#: folder of the weights that are being scored: they become the result only with their scores
UNSCORED: Final = ".unscored"


def silent(_what: str, _done: int, _total: int) -> None:
    """The progress of those who gave none."""


@dataclass
class Trainer:
    """One training in one folder.

    Parameters
    ----------
    config : what decides the weights; a checkpoint of another configuration is refused
    network, optimiser : before the first step
    out : gets log.jsonl, and checkpoint.pt until `finish`
    steps : of the whole training
    log_every : steps between lines of the log, which hold the means of what the steps said since the line before
    save_every : steps between checkpoints: what a kill or a power cut may cost; 0 writes them at interrupts alone
    progress : called at every step
    """

    config: BaseModel
    network: nn.Module
    optimiser: torch.optim.Optimizer
    out: Path
    steps: int
    log_every: int
    save_every: int
    progress: Progress = silent
    #: sums of what the steps said since the last line of the log, and how many they were
    said: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    #: means in the last line of the log
    last: dict[str, float] = field(default_factory=dict)

    def run(
        self, step: Callable[[int], Mapping[str, float]], *, check: Callable[[], Mapping[str, float]] | None = None,
        check_every: int = 0,
    ) -> None:  # fmt: skip
        """Take all steps that are left.

        Parameters
        ----------
        step : makes step N (0 is the first) and returns numbers for the log
        check : measures the network as it is, every `check_every` steps; nothing depends on it

        Raises
        ------
        UsageError, DataError
            A checkpoint of another configuration, or one that can't be read.
        KeyboardInterrupt
            After a step, with a checkpoint written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        first = self._load()
        clock = time.process_time()
        with JsonLog(self.out / LOG, keep_below=first) as log, interrupts() as asked:
            for number in range(first, self.steps):
                self.progress("train", number, self.steps)
                self._add(step(number))
                done = number + 1
                if done % self.log_every == 0 or done == self.steps:
                    log.write({"step": done, **self._means(), "cpu_seconds": round(time.process_time() - clock, 1)})
                due = check is not None and check_every and done % check_every == 0 and done < self.steps
                saved = self.save_every and done % self.save_every == 0
                if due or saved or asked.is_set() or done == self.steps:
                    self._save(done)
                if asked.is_set() and done < self.steps:
                    raise KeyboardInterrupt
                if due and check is not None:
                    log.write({"step": done, "check": check()})
        self.progress("train", self.steps, self.steps)

    def finish(self) -> None:
        """Remove the checkpoint, once all that the training makes is written."""
        (self.out / CHECKPOINT).unlink(missing_ok=True)

    def _add(self, said: Mapping[str, float]) -> None:
        for name, value in said.items():
            self.said[name] = self.said.get(name, 0.0) + value
        self.counted += 1

    def _means(self) -> dict[str, float]:
        self.last = {name: value / self.counted for name, value in self.said.items()}
        self.said, self.counted = {}, 0
        return self.last

    def _save(self, step: int) -> None:
        state: dict[str, Any] = {
            "step": step, "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
            "said": self.said, "counted": self.counted, "last": self.last,
        }  # fmt: skip
        save_state(self.out / CHECKPOINT, self.config, state)

    def _load(self) -> int:
        """Put the folder's checkpoint into network and optimiser; the next step, 0 where there is none."""
        path = self.out / CHECKPOINT
        if not path.is_file():
            return 0
        state = load_state(path)
        check_same(state["config"], self.config.model_dump(mode="json"), path)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        # checkpoints of 0.1.0 have no sums: the first line of the log is of fewer steps
        self.said, self.counted = dict(state.get("said", {})), int(state.get("counted", 0))
        self.last = dict(state.get("last", {}))
        return int(state["step"])
