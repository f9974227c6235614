"""A tuned checkpoint: a folder with ``reasonx.json``, which states network, base and reward of the tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasonx_eval.errors import UsageError
from reasonx_eval.io.validation import explain, refuse_newer
from reasonx_eval.models.base import Model, ModelInfo, Wrapped
from reasonx_eval.models.loading.checkpoint import Checkpoint, read_json
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Kind, Prediction, Sample

CARD_NAME = "reasonx.json"
SCHEMA = 1


class TunedCard(BaseModel):
    """reasonx.json.

    architecture : the class that runs it. tiny, tiny-flow, dino-small: `path` is a .safetensors file with its card
        beside it (a folder `backbone`, if there, holds the backbone of dino-small); pipeline: a diffusers folder;
        transformers: a folder of a depth network
    path : the weights, inside the folder
    base : name or hub id of the model it was tuned from
    method : how, e.g. grpo, ranking
    reward : description of the reward
    rewarded : metrics that the reward is made of; tables mark them
    data : photos it was tuned on; judge : name of the judge that answered
    metrics : values at the end of tuning, with their signatures
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: int = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1)
    architecture: Literal["tiny", "tiny-flow", "dino-small", "pipeline", "transformers"]
    path: str
    base: str
    method: str
    reward: str
    rewarded: list[str] = []
    data: list[str] = []
    judge: str | None = None
    seed: int
    steps: int = Field(ge=0)
    licence: str | None = None
    metrics: dict[str, Any] = {}
    notes: str = ""


def read_tuned_card(folder: Path) -> TunedCard:
    """The card of a tuned checkpoint.

    Raises
    ------
    UsageError
        No card, an unknown or missing key, or a path that leaves the folder.
    NotComparable
        Written by a newer version of the program.
    """
    where = folder / CARD_NAME
    raw = read_json(where)
    if raw is None:
        raise UsageError(f"no {CARD_NAME}: not a tuned checkpoint", where=str(folder))
    refuse_newer(raw, SCHEMA, str(where))
    try:
        card = TunedCard.model_validate(raw)
    except ValidationError as error:
        raise UsageError(explain(error), where=str(where)) from None
    inside = (folder / card.path).resolve()
    if folder.resolve() not in inside.parents or not inside.exists():
        raise UsageError(f"path '{card.path}' is not a file or folder in the checkpoint", where=str(where))
    return card


class Tuned(Wrapped):
    """The network of a tuned checkpoint, with its base, reward and data in `info`.

    Parameters
    ----------
    checkpoint, runtime, kind, name : as adapters take them
    backbone : folder or hub id of the backbone, for a tuned head of dino-small
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        runtime: Runtime,
        kind: str | None = None,
        name: str | None = None,
        backbone: str | None = None,
    ) -> None:
        self.card = read_tuned_card(checkpoint.folder)
        if backbone is not None and self.card.architecture != "dino-small":
            raise UsageError(f"{self.card.architecture} has no backbone of its own", where=checkpoint.source)
        super().__init__(_network(self.card, checkpoint, runtime, kind, backbone))
        self._checkpoint = checkpoint
        self._name = name or self.card.name

    @property
    def info(self) -> ModelInfo:
        card, inner = self.card, self._model.info
        tuning = {"method": card.method, "seed": card.seed, "steps": card.steps, "judge": card.judge,
                  "rewarded": list(card.rewarded)}  # fmt: skip
        return replace(
            inner, name=self._name, source=self._checkpoint.source, weights_sha256=self._checkpoint.digest,
            licence=card.licence or inner.licence, base=card.base, reward=card.reward,
            trained_on=(*inner.trained_on, *(d for d in card.data if d not in inner.trained_on)),
            options={**inner.options, "tuning": {k: v for k, v in tuning.items() if v not in (None, [])}},
        )  # fmt: skip

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return self._model.kinds

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        return self._model.predict(samples, kind, seed)


def _network(
    card: TunedCard, checkpoint: Checkpoint, runtime: Runtime, kind: str | None, backbone: str | None
) -> Model:
    path, own_backbone = checkpoint.folder / card.path, checkpoint.folder / "backbone"
    if card.architecture == "dino-small":
        from reasonx_eval.models.embedded.dino import Dino

        source = backbone or (str(own_backbone) if own_backbone.is_dir() else None)
        return Dino(weights=path, backbone=source, device=runtime.device)
    if card.architecture in ("tiny", "tiny-flow"):
        from reasonx_eval.models.embedded.tiny import Tiny, TinyFlow

        cls = Tiny if card.architecture == "tiny" else TinyFlow
        return cls(weights=path, device=runtime.device)
    inner = Checkpoint(path, checkpoint.source, checkpoint.revision)
    if card.architecture == "pipeline":
        from reasonx_eval.models.adapters.marigold import Marigold

        return Marigold(inner, runtime=runtime, kind=kind)  # type: ignore[arg-type]  # checked by the adapter
    from reasonx_eval.models.adapters.transformers_depth import TransformersDepth

    return TransformersDepth(inner, runtime=runtime, kind=kind)
