"""The configuration of `reasonx-ft judge-train --judge tiny`: one validated object of defaults, TOML file and flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reasonx_ft.training.config import config_table, validated


class Source(BaseModel):
    """The first `scenes` samples of a split that has all four maps; None is all of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    split: str = "train"
    scenes: int | None = Field(None, ge=1)


class Weights(BaseModel):
    """A weight of each modality in a sum of losses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: float = Field(1.0, ge=0)
    normals: float = Field(1.0, ge=0)
    irradiance: float = Field(1.0, ge=0)
    albedo: float = Field(1.0, ge=0)


class JudgeConfig(BaseModel):
    """Everything that decides the weights of the small judge, bit by bit on one machine.

    sources : what it is trained on
    calibrate : the split that probabilities are calibrated on, in pairs and never in weights of a modality
    steps, images : optimiser steps, and images in each
    learning_rate, adam_rate : peaks, of matrices and of everything else; after `warmup` steps they fall to 0 by a half
        cosine
    pairs : point pairs of each image in each of the five bands
    answer_weights, map_weights : of each modality's answers and map errors; what is learnt slowest weighs most
    relit : share of images that are made anew from their maps
    bfloat16 : convolutions and attention in half the bits; other weights, and much quicker where the CPU has it
    threads : that a step's images are shared out among; another number draws other views of them
    base : the model whose disagreements the card's scores are about; None leaves them out
    test : split that the card's scores are from, beside the one of `calibrate`; None leaves it out
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0)
    sources: tuple[Source, ...] = (Source(dataset="scenes-broad"), Source(dataset="scenes-synthetic", scenes=1000))
    calibrate: Source = Source(dataset="scenes-broad", split="val")
    steps: int = Field(5600, ge=1)
    images: int = Field(16, ge=1)
    learning_rate: float = Field(0.02, gt=0, le=1)
    adam_rate: float = Field(2e-3, gt=0, le=1)
    warmup: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    pairs: int = Field(40, ge=1)
    answer_weights: Weights = Weights(depth=0.8, normals=1.75, irradiance=1.5, albedo=1.5)
    map_weights: Weights = Weights(depth=0.5, normals=1.0, irradiance=0.5, albedo=0.25)
    relit: float = Field(0.7, ge=0, le=1)
    bfloat16: bool = True
    threads: int = Field(2, ge=1)
    base: str | None = "tiny"
    test: Source | None = Source(dataset="scenes-wild", split="test")

    @model_validator(mode="after")
    def _shared_out(self) -> JudgeConfig:
        if self.images % self.threads:
            raise ValueError(f"{self.images} images a step can't be shared out among {self.threads} threads")
        return self


def read_config(file: Path | None, flags: Mapping[str, Any]) -> JudgeConfig:
    """The configuration of a run: flags, then the file, then the defaults.

    Parameters
    ----------
    file : TOML with fields of `JudgeConfig`
    flags : fields, and `scenes`: as many of the first source alone; None is "not given"

    Raises
    ------
    UsageError
        An unknown key (with the nearest match), a value of the wrong type or out of range, a file that can't be read.
    """
    where = str(file) if file is not None else "judge-train"
    given: dict[str, Any] = config_table(file) if file is not None else {}
    config = validated(JudgeConfig, given, {k: v for k, v in flags.items() if k != "scenes"}, where)
    if flags.get("scenes") is None:
        return config
    only = config.sources[0].model_dump() | {"scenes": flags["scenes"]}
    return validated(JudgeConfig, {}, {"sources": [only]}, where, defaults=config.model_dump())
