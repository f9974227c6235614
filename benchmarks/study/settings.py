"""The settings of a study: one validated object, from defaults and flags, written beside the results."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.study.design import BASES, JUDGES, METHODS
from reasonx_eval.errors import UsageError

#: about as many CPU seconds for each base and method; a step of `tiny-flow` under GRPO replays a state a sample
DEFAULT_STEPS: Final = {"tiny": 180, "tiny/labels": 270, "tiny-flow": 80, "tiny-flow/grpo": 50, "tiny-flow/labels": 140}


class StudySettings(BaseModel):
    """Everything that decides a study's figures.

    bases, methods, judges, seeds : what is combined; a seed is that of the tuning, of the judge's errors and of the
        pairs
    photos : of the training split, spread evenly; pairs : judged pairs of each photo and modality
    sets : ``key=value`` laid on the configuration of every tuning, as `reasonx-ft tune --set` takes them
    steps : optimiser steps, by BASE or BASE/METHOD; "labels" is the method of the supervised training
    ceiling_rate : learning rate of the supervised training
    limit : only N test scenes of each domain
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bases: tuple[str, ...] = BASES
    methods: tuple[str, ...] = METHODS
    judges: tuple[str, ...] = tuple(JUDGES)
    seeds: tuple[int, ...] = (0, 1, 2)
    photos: int = Field(1500, ge=10)
    pairs: int = Field(240, ge=1)
    sets: dict[str, Any] = {}
    steps: dict[str, Annotated[int, Field(ge=1)]] = DEFAULT_STEPS
    ceiling_rate: float = Field(2e-3, gt=0)
    limit: int | None = Field(None, ge=2)

    def steps_of(self, base: str, method: str) -> int:
        """Optimiser steps of a base by a method.

        Raises
        ------
        UsageError
            None is set.
        """
        found = self.steps.get(f"{base}/{method}", self.steps.get(base))
        if found is None:
            raise UsageError(f"no number of steps for {base} by {method}", where="study", fix=f"--steps {base}=200")
        return found
