"""The settings of a study: one validated object, from defaults and flags, written beside the results."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from reasonx_ft.study.design import BASES


class StudySettings(BaseModel):
    """Everything that decides a study's figures.

    bases, methods, judges, seeds : what is combined; a seed is that of the tuning, of the judge's errors and of the
        pairs
    photos : of the training split, spread evenly; pairs : judged pairs of each photo and modality
    sets : ``key=value`` laid on the configuration of every tuning, as `reasonx-ft tune --set` takes them
    ceiling_steps : optimiser steps of the supervised training of each base, on as many scenes
    ceiling_rate : its learning rate
    limit : only N test scenes of each domain
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bases: tuple[str, ...] = BASES
    methods: tuple[str, ...] = ("grpo", "ranking", "expected", "default")
    judges: tuple[str, ...] = ("oracle", "tiny", "random")
    seeds: tuple[int, ...] = (0, 1, 2)
    photos: int = Field(2000, ge=10)
    pairs: int = Field(120, ge=1)
    sets: dict[str, Any] = {}
    ceiling_steps: int = Field(500, ge=1)
    ceiling_rate: float = Field(2e-3, gt=0)
    limit: int | None = Field(None, ge=2)
