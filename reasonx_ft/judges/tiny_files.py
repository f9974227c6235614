"""The small judge's weights on disk: NAME.safetensors, and NAME.json, the card that says where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from reasonx_eval.models.embedded.card import CardPart, TrainingData, read_card_file, read_network, write_weights

if TYPE_CHECKING:
    from torch import nn

    from reasonx_ft.judges.tiny_net import JudgeNet

WEIGHTS: Final = Path(__file__).parent / "weights" / "tiny-judge.safetensors"


class JudgeScore(CardPart):
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


class CurvePoint(CardPart):
    """A training with fewer scenes and steps: its scores."""

    scenes: int
    steps: int
    scores: list[JudgeScore]


class JudgeCard(CardPart):
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
    scores: list[JudgeScore] = Field(default_factory=list)
    curve: list[CurvePoint] = Field(default_factory=list)


def read_card(weights: Path) -> JudgeCard:
    """The card beside a weights file; see `card.read_card_file` for what is refused."""
    return read_card_file(weights, JudgeCard, what="a small judge", made_by="reasonx-ft judge-train --judge tiny")


def write_judge(folder: Path, card: JudgeCard, network: nn.Module) -> Path:
    """Write a judge and its card into a folder; the path of the weights."""
    return write_weights(folder / WEIGHTS.name, card, network)


def load_judge_net(weights: Path, card: JudgeCard) -> JudgeNet:
    """The network of a card with the weights of a file, float32, in evaluation mode, channels side by side."""
    import torch

    from reasonx_ft.judges.tiny_net import JudgeNet

    network = read_network(weights, lambda: JudgeNet(**card.network), what="a small judge")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # missing in torch's overloads
