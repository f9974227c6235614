"""The small judge's weights on disk: NAME.safetensors, and NAME.json, the card that says where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.files import sha256_file, write_bytes, write_json
from reasonx_eval.models.saved_formats import explain
from reasonx_eval.models.tiny_card import TrainingData

if TYPE_CHECKING:
    from torch import nn

    from reasonx_ft.judges.tiny_net import JudgeNet

WEIGHTS: Final = Path(__file__).parent / "weights" / "tiny-judge.safetensors"
_MOST_BYTES: Final = 64 << 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeScore(_Part):
    """One figure of a judge on a split: share of right answers (albedo: mean over same and different), and beside it
    the expected calibration error and how often it is right where it disagrees with a base model."""

    dataset: str
    split: str
    modality: str
    n: int
    accuracy: float
    calibration_error: float
    base: str | None = None
    right_on_disagreements: float | None = None
    n_disagreements: int | None = None


class CurvePoint(_Part):
    """A training with fewer scenes and steps: its scores."""

    scenes: int
    steps: int
    scores: list[JudgeScore]


class JudgeCard(_Part):
    """What a weights file is.

    network : arguments of the network's class
    calibration : modality -> factor on the logit, and for albedo a shift, already in the weights
    training : the whole configuration of the training; versions : software that can change a bit of the result
    scores : measured on the weights as stored, in half precision
    """

    schema_: Literal[1] = Field(1, alias="schema")
    judge: Literal["tiny-judge"] = "tiny-judge"
    network: dict[str, Any]
    parameters: int
    weights_sha256: str
    licence: str
    description: str
    data: list[TrainingData]
    augmentation: list[str]
    training: dict[str, Any]
    calibration: dict[str, dict[str, float]]
    versions: dict[str, str]
    scores: list[JudgeScore] = []
    curve: list[CurvePoint] = []


def read_card(weights: Path) -> JudgeCard:
    """The card beside a weights file.

    Raises
    ------
    UsageError
        No such weights, no card, or a card that is none.
    DataError
        The weights are not those that the card describes.
    """
    if not weights.is_file():
        raise UsageError("no such file", where=str(weights),
                         fix="a .safetensors file written by reasonx-ft judge-train --judge tiny")  # fmt: skip
    path = weights.with_suffix(".json")
    try:
        card = JudgeCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no card {path.name} beside it", where=str(weights)) from None
    except (OSError, ValueError) as error:
        said = explain(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise UsageError(f"not a card of a small judge: {said}", where=str(path)) from None
    if sha256_file(weights) != card.weights_sha256:
        raise DataError("not the weights that its card describes: replaced, or a damaged copy", where=str(weights))
    return card


def write_judge(folder: Path, card: JudgeCard, network: nn.Module) -> Path:
    """Write weights in half precision and their card, whose digest is filled in; the path of the weights.

    The bytes depend on the weights alone.
    """
    import torch
    from safetensors.torch import save

    state = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in sorted(network.state_dict().items())}
    path = folder / WEIGHTS.name
    write_bytes(path, save(state, metadata={"format": "pt"}))
    write_card(path, card.model_copy(update={"weights_sha256": sha256_file(path)}))
    return path


def write_card(weights: Path, card: JudgeCard) -> None:
    write_json(weights.with_suffix(".json"), card.model_dump(mode="json", by_alias=True))


def load_judge_net(weights: Path, card: JudgeCard) -> JudgeNet:
    """The network of a card with the weights of a file, float32, in evaluation mode.

    Raises
    ------
    DataError
        Not a safetensors file, or weights of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from reasonx_ft.judges.tiny_net import JudgeNet

    where = str(weights)
    if weights.stat().st_size > _MOST_BYTES:
        raise DataError(f"{weights.stat().st_size >> 20} MiB: not a small judge", where=where)
    try:
        state = load(weights.read_bytes())
    except SafetensorError as error:
        raise DataError(f"not a safetensors file ({error})", where=where) from None
    try:
        network = JudgeNet(**card.network)
        network.load_state_dict({k: v.float() for k, v in state.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"weights of another network: {' '.join(str(error).split())[:300]}", where=where) from None
    return network.eval()
