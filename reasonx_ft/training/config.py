"""The configuration of `reasonx-ft pretrain`: one validated object, from defaults, a TOML file, and flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.validation import explain

T = TypeVar("T", bound=BaseModel)

ModelName = Literal["tiny", "tiny-flow", "dino-small"]
MODEL_NAMES: Final[tuple[str, ...]] = get_args(ModelName)


class PretrainConfig(BaseModel):
    """Everything that decides the weights, bit by bit on one machine.

    start : weights that training begins with: "shipped", those of the package, or a .safetensors file with its card;
        None is from nothing
    backbone : of `dino-small`: a folder in transformers' format, or a hub id; it stays as it is
    dataset, split : what it is trained on; any data set that has all four maps at one size
    scenes : only the first N samples of the split
    steps, images : optimiser steps, and images in each; `tiny-flow` sees each image once per modality
    learning_rate, warmup : its peak, reached after `warmup` steps; then a half cosine down to 0
    differences : distances in pixels over which steps of the maps are compared, beside the maps themselves
    difference_weight : of that comparison
    flip : mirror half of the images (a normal's x changes sign)
    bfloat16 : convolutions in half the bits: other weights, and twice as quick where the CPU has it
    threads : of the arithmetic; another number may give other last bits
    check_every, check_scenes : how often, and on how many validation scenes, metrics are logged; 0 is never
    test_scenes : how many test scenes of each domain the card's scores are from; None is all, 0 leaves them out
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName
    seed: int = Field(0, ge=0)
    start: str | None = None
    backbone: str | None = None
    dataset: str = "scenes-synthetic"
    split: str = "train"
    scenes: int | None = Field(None, ge=1)
    steps: int = Field(ge=1)
    images: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    warmup: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    differences: tuple[int, ...] = (1, 4, 12)
    difference_weight: float = Field(1.0, ge=0)
    flip: bool = True
    bfloat16: bool = False
    threads: int = Field(2, ge=1)
    check_every: int = Field(500, ge=0)
    check_scenes: int = Field(20, ge=1)
    test_scenes: int | None = Field(None, ge=0)


#: what differs between the models; tokens of a mirrored photo are not the mirrored tokens
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"steps": 3500, "images": 8, "learning_rate": 3e-3},
    "tiny-flow": {"steps": 2400, "images": 4, "learning_rate": 3e-3},
    "dino-small": {"steps": 1500, "images": 8, "learning_rate": 2e-3, "scenes": 2000, "flip": False,
                   "backbone": "facebook/dinov2-small"},
}


def read_config(model: str, file: Path | None, flags: Mapping[str, Any]) -> PretrainConfig:
    """The configuration of a run: flags, then the file, then the model's defaults.

    Parameters
    ----------
    model : tiny, tiny-flow or dino-small
    file : TOML with fields of `PretrainConfig`
    flags : fields; None is "not given"

    Raises
    ------
    UsageError
        An unknown model or key (with the nearest match), a value of the wrong type or out of range, a file that can't
        be read or that is for the other model.
    """
    if model not in MODEL_NAMES:
        raise unknown("model", model, MODEL_NAMES, where="pretrain")
    given = config_table(file) if file is not None else {}
    where = str(file) if file is not None else "pretrain"
    if given.get("model", model) != model:
        raise UsageError(f"the file is for {given['model']}, not {model}", where=where)
    return validated(PretrainConfig, given, {**flags, "model": model}, where, defaults=DEFAULTS[model])


def validated(
    kind: type[T], given: Mapping[str, Any], flags: Mapping[str, Any], where: str, *,
    defaults: Mapping[str, Any] | None = None,
) -> T:  # fmt: skip
    """A configuration: flags (None is "not given"), then the table of a file, then the defaults.

    Raises
    ------
    UsageError
        An unknown key (with the nearest match), a value of the wrong type or out of range.
    """
    for key in given:
        if key not in kind.model_fields:
            raise unknown("key", key, kind.model_fields, where=where)
    chosen = {k: v for k, v in flags.items() if v is not None}
    try:
        return kind.model_validate({**(defaults or {}), **given, **chosen})
    except ValidationError as error:
        raise UsageError(explain(error), where=where) from None


def config_table(file: Path) -> dict[str, Any]:
    """The table of a configuration file; a file that can't be read or is no TOML is a UsageError."""
    try:
        return read_toml(file)
    except FileNotFoundError:
        raise UsageError("no such file", where=str(file)) from None
