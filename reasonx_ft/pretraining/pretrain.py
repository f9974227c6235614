"""Supervised training of the embedded networks, on one domain of rendered rooms with exact maps.

Usually from nothing, and that is how the shipped weights are made; from weights that are there it is what tuning on
unlabelled photos is measured against: how far the same network comes with every label (`start`).

What is trained: `tiny`, a feed-forward U-Net, `tiny-flow`, a conditional rectified flow (see
reasonx_eval.models.embedded.tiny_net), and the head of `dino-small` on a frozen backbone, whose tokens are computed
once (see reasonx_eval.models.embedded.dino). On what: `scenes-synthetic/train` only, clean rooms in one style, and
their mirror images. Why so narrow: they are the stand-in for estimators that were trained on renderings and then meet
photos, so the gap between `scenes-synthetic` and `scenes-wild` must be there for tuning to close. No other scene, photo
or weight goes in.

How it differs from the usual recipes: maps are logarithmic codes; steps of the maps count beside the maps (see
map_losses); the flow's network says the clean code and is trained on it by the same absolute errors, at times
t = 1 - u^2 (u uniform), dense at pure noise, where estimators of few steps spend their effort. So its estimate is a
median more than a mean, and as a sampler of the posterior it is approximate.

Two runs of one configuration give the same bytes on one machine: every draw is keyed by seed and step, arithmetic has a
fixed number of threads. An interrupt saves a checkpoint; the same command goes on from it, to the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.embedded.card import (
    WEIGHTS,
    TinyCard,
    TrainingData,
    build_network,
    load_network,
    read_card,
    write_model,
)
from reasonx_eval.models.embedded.dino import HUB_ID, load_backbone
from reasonx_eval.models.embedded.dino_net import DinoHead
from reasonx_eval.models.embedded.tiny_net import MODALITIES, TinyFlow, TinyNet, to_state
from reasonx_eval.registry import load_dataset
from reasonx_eval.run.provenance import collect
from reasonx_ft.pretraining.scores import check, scores
from reasonx_ft.pretraining.tokens import tokens_of
from reasonx_ft.training.config import PretrainConfig
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.training.files import rise_and_cosine
from reasonx_ft.training.losses import code_loss, normals_loss
from reasonx_ft.training.scene_batches import Batch, Scenes, batch_at, load_scenes
from reasonx_ft.training.trainer import UNSCORED, Progress, Trainer, silent

NETWORK: Final[Mapping[str, dict[str, Any]]] = {
    "tiny": {"widths": [16, 32, 64, 96]},
    "tiny-flow": {"widths": [16, 32, 64, 96], "embedding": 64},
    "dino-small": {"tokens": 16},
}
LOG_EVERY: Final = 20
SAVE_EVERY: Final = 100
#: longest gradient that is taken as it is
_CLIP = 1.0


def pretrain(config: PretrainConfig, out: Path, *, workers: int = 2, progress: Progress | None = None) -> Path:
    """Train, or go on training, one network into a folder.

    Parameters
    ----------
    out : gets MODEL.safetensors, MODEL.json (its card), log.jsonl, and checkpoint.pt until it is finished
    workers : processes that render; changes nothing in the result
    progress : called often

    Returns
    -------
    The path of the weights.

    Raises
    ------
    UsageError, DataError
        A data set without complete maps; a checkpoint of another configuration.
    """
    say = progress or silent
    dataset = load_dataset(config.dataset, split=config.split)
    ids = list(dataset.ids)[: config.scenes]
    with deterministic(config.threads):
        network, optimiser = _fresh(config)
        trainer = Trainer(config, network, optimiser, out, config.steps, LOG_EVERY, SAVE_EVERY, say)
        scenes = load_scenes(dataset, ids, workers, lambda done, total: say("scenes", done, total))
        if isinstance(network, DinoHead):
            backbone = load_backbone(str(config.backbone), network)
            found = tokens_of(dataset, ids, backbone, network.tokens, lambda done, total: say("tokens", done, total))
            scenes = replace(scenes, tokens=found)
        trainer.run(lambda step: _update(config, network, optimiser, scenes, step),
                    check=lambda: check(config, network), check_every=config.check_every)  # fmt: skip
        data = TrainingData(dataset=dataset.name, split=config.split, n=len(ids), ids_sha256=sha256_lines(ids))
        weights = _write(config, _card(config, network, data), network, out, say)
    trainer.finish()
    return weights


def _write(config: PretrainConfig, card: TinyCard, network: nn.Module, out: Path, say: Progress) -> Path:
    """Weights and card, with the scores that the written weights reach: a card without its scores is never there."""
    if config.test_scenes != 0:
        unscored = write_model(out / UNSCORED, card, network)
        found = scores(config.model, unscored, config.test_scenes, lambda done, total: say("test", done, total))
        card = card.model_copy(update={"scores": found})
        shutil.rmtree(out / UNSCORED)
    return write_model(out, card, network)


def _update(
    config: PretrainConfig, network: nn.Module, optimiser: torch.optim.Optimizer, scenes: Scenes, step: int
) -> dict[str, float]:
    """One optimiser step; the learning rate, the length of the gradient, and the loss of each modality."""
    batch = batch_at(scenes, seed=config.seed, step=step, images=config.images, flip=config.flip)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        losses = _losses(config, network, batch, step)
    for group in optimiser.param_groups:
        group["lr"] = rate(config, step)
    optimiser.zero_grad()
    total: Tensor = torch.stack(list(losses.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch's own signature
    norm = nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    optimiser.step()
    said = {k: float(v.detach()) for k, v in losses.items()}
    return {"learning_rate": rate(config, step), "gradient": float(norm), **said}


def rate(config: PretrainConfig, step: int) -> float:
    """The learning rate of a step: a linear rise, then half a cosine down to 0."""
    return config.learning_rate * rise_and_cosine(step, config.steps, config.warmup)


def _losses(config: PretrainConfig, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
    """The loss of each modality."""
    predicted, true = batch.codes, batch.codes
    if isinstance(network, DinoHead):
        assert batch.tokens is not None
        predicted = {m: code.float() for m, code in network(batch.images, batch.tokens).items()}
    elif isinstance(network, TinyNet):
        predicted = {m: code.float() for m, code in network(batch.images).items()}
    else:
        assert isinstance(network, TinyFlow)
        predicted, true = _denoised(network, batch, config.seed, step)
    return {
        m: normals_loss(predicted[m], true[m], of_unit_length=not isinstance(network, TinyFlow))
        if m == "normals"
        else code_loss(predicted[m], true[m], differences=config.differences, weight=config.difference_weight)
        for m in MODALITIES
    }


def _denoised(network: TinyFlow, batch: Batch, seed: int, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Clean codes that the network sees in noisy ones, and the true ones: all modalities of all images of a batch.

    The images are encoded once for the four modalities.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "pretrain", "noise", str(step)) % 2**63)
    clean = torch.cat([to_state(batch.codes[m]) for m in MODALITIES])
    modality = torch.arange(len(MODALITIES)).repeat_interleave(len(batch.images))
    t = 1 - torch.rand(len(clean), generator=generator) ** 2
    noise = torch.randn(clean.shape, generator=generator)
    state = torch.lerp(clean, noise, t.view(-1, 1, 1, 1))
    condition = [torch.cat([f] * len(MODALITIES)) for f in network.encode(batch.images)]
    found = network.clean(state, t, modality, condition).float()
    return (dict(zip(MODALITIES, found.chunk(len(MODALITIES)), strict=True)),
            dict(zip(MODALITIES, clean.chunk(len(MODALITIES)), strict=True)))  # fmt: skip


def _fresh(config: PretrainConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Network and optimiser before the first step; the global random state is left as it was."""
    weights = start_weights(config)
    if weights is not None:
        network = load_network(weights, read_card(weights)).train()
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(config.seed, "pretrain", "weights") % 2**63)
            network = build_network(config.model, _architecture(config))
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return network, optimiser


def _architecture(config: PretrainConfig) -> dict[str, Any]:
    """Arguments of the network's class; a head takes layers and channels from its backbone."""
    arguments = NETWORK[config.model]
    if config.model != "dino-small":
        return arguments
    if config.backbone is None:
        raise UsageError("no backbone is named", where="dino-small", fix=f"--backbone FOLDER, or --backbone {HUB_ID}")
    found = load_backbone(config.backbone)
    return {"channels": found.channels, "layers": list(found.layers), **arguments}


def start_weights(config: PretrainConfig) -> Path | None:
    """The file that training begins with, None for none.

    Raises
    ------
    UsageError
        No such file, or weights of the other model.
    """
    if config.start is None:
        return None
    weights = WEIGHTS / f"{config.model}.safetensors" if config.start == "shipped" else Path(config.start)
    card = read_card(weights)
    if card.model != config.model:
        raise UsageError(f"weights of {card.model}, not {config.model}", where=str(weights))
    return weights


def _card(config: PretrainConfig, network: nn.Module, data: TrainingData) -> TinyCard:
    """The card, without what is only known once the weights are written."""
    provenance = collect(seed=config.seed)
    weights = start_weights(config)
    before = read_card(weights) if weights is not None else None
    versions = {k: provenance.packages[k] for k in ("torch", "numpy")}
    return TinyCard(
        schema=1,
        model=config.model,
        network=before.network if before else _architecture(config),
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256="",
        licence="Apache-2.0",
        base=f"{config.model} {before.weights_sha256[:12]}" if before else config.backbone,
        data=[*(before.data if before else []), data],
        augmentation=["half of the images mirrored, normals with them"] if config.flip else [],
        training=config.model_dump(mode="json"),
        versions={"reasonx": provenance.reasonx, "python": provenance.python, **versions},
    )
