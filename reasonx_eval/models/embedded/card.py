"""Small networks on disk: NAME.safetensors in half precision, and NAME.json, a card that says where they come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.documents import read_model
from reasonx_eval.io.files import write_bytes, write_json
from reasonx_eval.models.loading.checkpoint import WRAPPER

if TYPE_CHECKING:
    from torch import nn

C = TypeVar("C", bound="CardPart")
N = TypeVar("N", bound="nn.Module")

#: the weights that ship with the package
WEIGHTS: Final = Path(__file__).parent / "weights"
#: a file with more than this is none of these networks
_MOST_BYTES: Final = 64 << 20


class CardPart(BaseModel):
    """A card or a part of one. A card has a field `weights_sha256`, the digest of the file it describes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """The card of a weights file.

    network : arguments of the network's class
    base : model or backbone that it was trained from
    training : the whole configuration of the training; versions : software that can change a bit of the result
    scores : measured on the weights as stored, in half precision
    """

    schema_: Literal[1] = Field(1, alias="schema")
    model: Literal["tiny", "tiny-flow", "dino-small"]
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


def read_card_file(weights: Path, card_type: type[C], *, what: str, made_by: str) -> C:
    """The card beside a weights file.

    Parameters
    ----------
    card_type : the card's class
    what, made_by : the kind of network, and the command that writes one, for errors

    Raises
    ------
    UsageError
        No such weights, no card, or a card that is none.
    DataError
        The weights are not those that the card describes.
    """
    if not weights.is_file():
        raise UsageError("no such file", where=str(weights), fix=f"a .safetensors file written by {made_by}")
    path = weights.with_suffix(".json")
    try:
        card = read_model(path, card_type, f"card of {what}", error=UsageError)
    except FileNotFoundError:
        raise UsageError(f"no card {path.name} beside it", where=str(weights)) from None
    if sha256_file(weights) != card.model_dump(include={"weights_sha256"})["weights_sha256"]:
        raise DataError("not the weights that its card describes: replaced, or a damaged copy", where=str(weights))
    return card


def write_weights(path: Path, card: CardPart, network: nn.Module) -> Path:
    """Write weights in half precision and their card, whose digest is filled in; the path of the weights.

    The bytes depend on the weights alone.
    """
    import torch
    from safetensors.torch import save

    state = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in sorted(network.state_dict().items())}
    write_bytes(path, save(state, metadata={"format": "pt"}))
    write_card(path, card.model_copy(update={"weights_sha256": sha256_file(path)}))
    return path


def write_card(weights: Path, card: CardPart) -> None:
    write_json(weights.with_suffix(".json"), card.model_dump(mode="json", by_alias=True))


def read_network(weights: Path, build: Callable[[], N], *, what: str) -> N:
    """A network with the weights of a file, float32, in evaluation mode.

    Parameters
    ----------
    weights : names may begin with ``module.``, as those of a wrapped network do
    build : makes the network with fresh weights
    what : the kind of network, for errors

    Raises
    ------
    DataError
        Not a safetensors file (a renamed text or pickle is not opened any further), or weights of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = str(weights)
    if weights.stat().st_size > _MOST_BYTES:
        raise DataError(f"{weights.stat().st_size >> 20} MiB: not {what}", where=where)
    try:
        state = load(weights.read_bytes())
    except SafetensorError as error:
        raise DataError(f"not a safetensors file ({error})", where=where) from None
    try:
        network = build()
        network.load_state_dict({re.sub(WRAPPER, "", k): v.float() for k, v in state.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"weights of another network: {' '.join(str(error).split())[:300]}", where=where) from None
    network.eval()
    return network


def read_card(weights: Path) -> TinyCard:
    """The card beside a weights file; see `read_card_file` for its errors."""
    return read_card_file(weights, TinyCard, what="these networks", made_by="reasonx-ft pretrain")


def write_model(folder: Path, card: TinyCard, network: nn.Module) -> Path:
    """Write a network and its card into a folder; the path of the weights."""
    return write_weights(folder / f"{card.model}.safetensors", card, network)


def build_network(model: str, arguments: dict[str, Any]) -> nn.Module:
    """A network of the named kind with fresh weights."""
    if model == "dino-small":
        from reasonx_eval.models.embedded.dino_net import DinoHead

        return DinoHead(**arguments)
    from reasonx_eval.models.embedded.tiny_net import TinyFlow, TinyNet

    network: nn.Module = {"tiny": TinyNet, "tiny-flow": TinyFlow}[model](**arguments)
    return network


def load_network(weights: Path, card: TinyCard) -> nn.Module:
    """The network of a card with the weights of a file, float32, in evaluation mode."""
    return read_network(weights, lambda: build_network(card.model, card.network), what="one of the small networks")
