"""Metrics of a network in training and after it, by the evaluation's own scoring."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from torch import nn

from reasonx_eval.models.embedded.card import Score
from reasonx_eval.models.embedded.dino import Dino
from reasonx_eval.models.embedded.tiny import Tiny, TinyFlow
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.run.evaluate import evaluate
from reasonx_eval.scoring import score_sample
from reasonx_ft.training.config import PretrainConfig

#: task -> the protocol, on any of the scenes, and the metric that is watched
WATCHED: Final[Mapping[str, tuple[str, str]]] = {
    "depth": ("depth/{}", "abs_rel"),
    "normals": ("normals/{}", "mean_deg"),
    "albedo": ("albedo/{}-whdr", "whdr10"),
    "irradiance": ("irradiance/{}", "si_mse"),
}
_TINY: Final = {"tiny": Tiny, "tiny-flow": TinyFlow}
#: what a card states: the domain it was trained on, and the one that it was not
TESTS: Final = ("scenes-synthetic", "scenes-wild")
_PROTOCOLS: Final = ("depth/{}", "normals/{}", "albedo/{}", "albedo/{}-whdr", "irradiance/{}")


def check(config: PretrainConfig, network: nn.Module) -> dict[str, float]:
    """Validation metrics of a network as it is, on the first scenes of `scenes-synthetic/val`."""
    dataset = load_dataset("scenes-synthetic", split="val")
    model = Dino(backbone=config.backbone) if config.model == "dino-small" else _TINY[config.model]()
    # in the place of the weights that the adapter would load
    model.__dict__["network"] = network
    found: dict[str, list[float]] = {}
    for sample_id in list(dataset.ids)[: config.check_scenes]:
        sample = dataset.load(sample_id)
        for task, (name, metric) in WATCHED.items():
            protocol = get_protocol(name.format(dataset.name))
            [prediction] = model.predict([sample], model.kind_for(task, protocol.accepts), config.seed)
            value = score_sample(sample=sample, prediction=prediction, protocol=protocol).metrics[metric]
            found.setdefault(f"{task}.{metric}", []).append(value)
    return {k: float(np.mean(v)) for k, v in found.items()}


def scores(
    model: str, weights: Path, limit: int | None, progress: Callable[[int, int], None] | None = None
) -> list[Score]:
    """What the written weights reach on the test scenes of both domains (or `limit` of each), by the runner."""
    # a head's card names its backbone
    adapter = load_model(model, options={"weights": weights})
    found: list[Score] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TESTS:
            for protocol in (p.format(name) for p in _PROTOCOLS):
                result = evaluate(model=adapter, protocol=protocol, limit=limit, out=folder)
                ref = f"{result.protocol.name}@{result.protocol.version}"
                found.append(Score(protocol=ref, signature=result.signature, n=result.n_scored,
                                   metrics={k: v.value for k, v in result.aggregate.items()}))  # fmt: skip
                if progress:
                    progress(len(found), len(TESTS) * len(_PROTOCOLS))
    return found
