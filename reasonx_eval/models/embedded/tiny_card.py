"""Weights of the small networks on disk: NAME.safetensors, and NAME.json, the card that says where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from reasonx_eval.models.embedded.card_files import CardPart, read_card_file, read_network, write_weights

if TYPE_CHECKING:
    from torch import nn

#: the weights that ship with the package
WEIGHTS: Final = Path(__file__).parent / "weights"


class TrainingData(CardPart):
    """n samples of a split; ids_sha256 is over their ids, one a line."""

    dataset: str
    split: str
    n: int
    ids_sha256: str


class Score(CardPart):
    """Averages under one protocol; the signature says which rules made them."""

    protocol: str
    signature: str
    n: int
    metrics: dict[str, float | None]


class TinyCard(CardPart):
    """What a weights file is.

    network : arguments of the network's class
    training : the whole configuration of the training; versions : software that can change a bit of the result
    scores : measured on the weights as stored, in half precision
    """

    schema_: Literal[1] = Field(1, alias="schema")
    model: Literal["tiny", "tiny-flow"]
    network: dict[str, Any]
    parameters: int
    weights_sha256: str
    licence: str
    base: str | None = None
    reward: str | None = None
    data: list[TrainingData]
    augmentation: list[str]
    training: dict[str, Any]
    versions: dict[str, str]
    scores: list[Score] = Field(default_factory=list)


def read_card(weights: Path) -> TinyCard:
    """The card beside a weights file; see `card_files.read_card_file` for what is refused."""
    return read_card_file(weights, TinyCard, what="these networks", made_by="reasonx-ft pretrain")


def write_model(folder: Path, card: TinyCard, network: nn.Module) -> Path:
    """Write a network and its card into a folder; the path of the weights."""
    return write_weights(folder / f"{card.model}.safetensors", card, network)


def build_network(model: str, arguments: dict[str, Any]) -> nn.Module:
    """A network of the named kind with fresh weights."""
    from reasonx_eval.models.embedded.tiny_net import TinyFlow, TinyNet

    network: nn.Module = {"tiny": TinyNet, "tiny-flow": TinyFlow}[model](**arguments)
    return network


def load_network(weights: Path, card: TinyCard) -> nn.Module:
    """The network of a card with the weights of a file, float32, in evaluation mode."""
    return read_network(weights, lambda: build_network(card.model, card.network), what="one of the small networks")
