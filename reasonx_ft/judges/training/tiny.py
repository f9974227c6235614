"""Training of the small judge, from nothing, in under 20 minutes on two cores.

On what: `scenes-broad/train`, rooms with everything strongly randomised, and a part of `scenes-synthetic/train`; never
anything of `scenes-wild`. The broad domain stands in for the wide knowledge that a pretrained vision-language judge
brings along: a judge trained on the narrow domain of the base models knows no more than they do, and can't teach them.

What is unlike training on question and answer: the maps are known at every pixel, so the network learns the maps
(see map_losses) and, on the same features, the answers about 200 pairs of points of each photo; and most photos are
made anew from albedo and irradiance, with other paint, light and cameras, turned and zoomed (see judge_augmentation).
At the end one factor for each modality, fitted on `scenes-broad/val`, makes logits into calibrated probabilities.

Two runs of one configuration give the same bytes on one machine; an interrupt saves a checkpoint, and the same command
goes on from it to the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reasonx_eval.errors import DataError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.io.seeding import rng, stream_seed
from reasonx_eval.models.embedded.card import TrainingData
from reasonx_eval.models.embedded.tiny_net import CODES
from reasonx_eval.registry import load_dataset
from reasonx_eval.run.provenance import collect
from reasonx_ft.judges.tiny_files import JudgeCard, JudgeScore, write_judge
from reasonx_ft.judges.tiny_net import JUDGED, SIZE, JudgeNet, Seen
from reasonx_ft.judges.training.augmentation import PARTS, Views, mirrored, vary
from reasonx_ft.judges.training.calibration import calibrate
from reasonx_ft.judges.training.config import JudgeConfig
from reasonx_ft.judges.training.pairs import Pairs, draw_pairs
from reasonx_ft.training.determinism import deterministic
from reasonx_ft.training.files import rise_and_cosine
from reasonx_ft.training.losses import code_loss, normals_loss
from reasonx_ft.training.muon import Muon
from reasonx_ft.training.scene_batches import DARKEST, Scenes, load_scenes
from reasonx_ft.training.trainer import UNSCORED, Progress, Trainer, silent

NETWORK: Final = {"widths": [32, 96, 128], "blocks": 2, "layers": 4, "heads": 4, "point": 64, "pair": 96}
LOG_EVERY: Final = 50
SAVE_EVERY: Final = 200
#: distances in cells of half the photo's size over which steps of maps are compared
_DIFFERENCES: Final = (1, 3, 8)


def train_tiny(config: JudgeConfig, out: Path, *, workers: int = 2, progress: Progress | None = None) -> Path:
    """Train, or go on training, the small judge into a folder.

    Parameters
    ----------
    out : gets tiny-judge.safetensors, tiny-judge.json (its card), log.jsonl, and checkpoint.pt until it is finished
    workers : processes that render; changes nothing in the result
    progress : called often

    Returns
    -------
    The path of the weights.

    Raises
    ------
    UsageError, DataError
        A data set without complete maps or of another size; a checkpoint of another configuration.
    """
    say = progress or silent
    with deterministic(config.threads):
        network, optimiser = _fresh(config)
        network.train()
        trainer = Trainer(config, network, optimiser, out, config.steps, LOG_EVERY, SAVE_EVERY, say)
        sets, data = _load(config, workers, say)
        with _threads(config.threads) as pool:
            trainer.run(lambda step: _update(config, network, optimiser, sets, step, pool))
        factors = calibrate(network, config.calibrate)
        card = _card(config, network, data, factors)
    unscored = write_judge(out / UNSCORED, card, network)
    weights = write_judge(out, card.model_copy(update={"scores": _scores(config, unscored, say)}), network)
    shutil.rmtree(out / UNSCORED)
    trainer.finish()
    return weights


def _scores(config: JudgeConfig, weights: Path, say: Progress) -> list[JudgeScore]:
    from reasonx_ft.judges.evaluation.scores import scores

    splits = [s for s in (config.calibrate, config.test) if s is not None]
    found = []
    for k, split in enumerate(splits):
        say("scores", k, len(splits))
        found += scores(weights, split, config.base)
    say("scores", len(splits), len(splits))
    return found


def _load(config: JudgeConfig, workers: int, say: Progress) -> tuple[list[Scenes], list[TrainingData]]:
    """All scenes of all sources, in memory, and what they are."""
    sets, data = [], []
    for source in config.sources:
        dataset = load_dataset(source.dataset, split=source.split)
        ids = list(dataset.ids)[: source.scenes]
        what = f"scenes of {dataset.name}"
        scenes = load_scenes(dataset, ids, workers, lambda done, total, what=what: say(what, done, total))  # type: ignore[misc]  # the default binds the name
        if scenes.images.shape[-2:] != SIZE:
            raise DataError(f"photos of {scenes.images.shape[-2:]} pixels, not {SIZE}", where=dataset.name)
        sets.append(scenes)
        data.append(TrainingData(dataset=dataset.name, split=source.split, n=len(ids), ids_sha256=sha256_lines(ids)))
    return sets, data


def _update(
    config: JudgeConfig, network: JudgeNet, optimiser: Muon, sets: Sequence[Scenes], step: int, pool: Executor
) -> dict[str, float]:
    """One optimiser step; the losses of answers and maps by modality.

    Each thread takes a part of the batch all the way to its gradients: threads wait for each other once a step, not at
    every operation, which matters where they share the cores with others.
    """
    weights = list(network.parameters())
    parts = list(pool.map(lambda part: _gradients(config, network, weights, sets, step, part), range(config.threads)))
    for k, weight in enumerate(weights):
        # always in one order: sums of floats depend on it
        weight.grad = torch.stack([gradients[k] for gradients, _ in parts]).mean(dim=0)
    optimiser.set_pace(pace(config, step))
    optimiser.step_in(pool)
    return {name: sum(said[name] for _, said in parts) / len(parts) for name in parts[0][1]}


def _gradients(
    config: JudgeConfig, network: JudgeNet, weights: Sequence[Tensor], sets: Sequence[Scenes], step: int, part: int
) -> tuple[tuple[Tensor, ...], dict[str, float]]:
    """Gradients of a part of a step's batch, and its losses."""
    views, pairs = batch_at(config, sets, step, part)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        seen = network.look(views.photos)
        codes = network.codes(seen)
    answers = network.answers(Seen(seen.features, seen.colours.float()), pairs.points)
    wrong = answer_losses(answers, pairs)
    off = map_losses({m: c.float() for m, c in codes.items()}, views.maps)
    parts = [getattr(config.answer_weights, m) * v for m, v in zip(JUDGED, wrong, strict=True)]
    parts += [getattr(config.map_weights, m) * v for m, v in off.items()]
    loss = torch.stack(parts).sum()
    gradients = torch.autograd.grad(loss, list(weights))
    said = {f"answers.{m}": float(v) for m, v in zip(JUDGED, wrong.detach(), strict=True)}
    return gradients, said | {f"maps.{m}": float(v.detach()) for m, v in off.items()}


def batch_at(config: JudgeConfig, sets: Sequence[Scenes], step: int, part: int = 0) -> tuple[Views, Pairs]:
    """The views and pairs of one thread's part of a step; nothing but the arguments decides them."""
    n = sum(len(s) for s in sets)
    share = config.images // config.threads
    start = step * config.images + part * share
    chosen = [int(_order(n, config.seed, k // n)[k % n]) for k in range(start, start + share)]
    photos, maps = _gather(sets, chosen)
    keys = (str(step), str(part))
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "judge", "pairs", *keys) % 2**63)
    with torch.no_grad():
        which = torch.rand(len(chosen), 1, 1, 1, generator=generator) < 0.5
        photos, maps = mirrored(photos, maps, which)
        views = vary(photos, maps, seed=stream_seed(config.seed, "judge", "views", *keys), relit=config.relit)
        return views, draw_pairs(views.maps, config.pairs, generator)


def _gather(sets: Sequence[Scenes], chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Photos [B, 3, H, W] in [0, 1] and stacked maps [B, 10, H, W] of scenes numbered through all sets."""
    starts = np.cumsum([0, *(len(s) for s in sets)])
    photos, maps = [], []
    for k in chosen:
        number = int(np.searchsorted(starts, k, side="right")) - 1
        row = k - int(starts[number])
        photos.append(torch.from_numpy(sets[number].images[row]))
        maps.append(torch.cat([torch.from_numpy(sets[number].maps[m][row]) for m in PARTS]))
    return torch.stack(photos).float() / 255, torch.stack(maps).float()


def answer_losses(logits: Tensor, pairs: Pairs) -> Tensor:
    """Cross entropy of each modality's answers, [4]; of albedo's, both answers weigh the same."""
    weight = pairs.decided.float()
    same = pairs.truth[..., 3]
    share = same.float().mean().clamp(0.05, 0.95)
    weight[..., 3] *= torch.where(same, 0.5 / share, 0.5 / (1 - share))
    loss = functional.binary_cross_entropy_with_logits(logits, pairs.truth.float(), reduction="none")
    return (loss * weight).sum(dim=(0, 1)) / weight.sum(dim=(0, 1)).clamp_min(1)


def map_losses(codes: dict[str, Tensor], maps: Tensor) -> dict[str, Tensor]:
    """The error of each map's code at half size, where every other pixel of the map is the truth."""
    found = {}
    for modality, (first, last) in PARTS.items():
        value = maps[:, first:last, ::2, ::2]
        code = CODES[modality]
        if modality == "normals":
            found[modality] = normals_loss(codes[modality], value, of_unit_length=True)
        else:
            true = code.encode(value.clamp_min(DARKEST))
            found[modality] = code_loss(codes[modality], true, differences=_DIFFERENCES, weight=1.0)
    return found


def pace(config: JudgeConfig, step: int) -> float:
    """The share of the peak learning rate at a step."""
    return rise_and_cosine(step, config.steps, config.warmup)


def _fresh(config: JudgeConfig) -> tuple[JudgeNet, Muon]:
    """Network and optimiser before the first step; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "judge", "weights") % 2**63)
        network = JudgeNet(**NETWORK)  # type: ignore[arg-type]  # checked where a card is read
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads
    reads_out = ("maps.", "pair.3.", "place")
    matrices = {n: p for n, p in network.named_parameters() if p.ndim >= 2 and not n.startswith(reads_out)}
    others = [p for n, p in network.named_parameters() if n not in matrices]
    optimiser = Muon(matrices.values(), others, learning_rate=config.learning_rate, adam_rate=config.adam_rate,
                     weight_decay=config.weight_decay)  # fmt: skip
    return network, optimiser


def _card(
    config: JudgeConfig, network: nn.Module, data: list[TrainingData], factors: dict[str, dict[str, float]]
) -> JudgeCard:
    """The card, without what is only known once the weights are written."""
    provenance = collect(seed=config.seed)
    versions = {k: provenance.packages[k] for k in ("torch", "numpy")}
    return JudgeCard(
        schema=1,
        network=NETWORK,
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256="",
        licence="Apache-2.0",
        description="Relative questions about two points of a photo. Trained on rendered rooms only: the strongly "
        "randomised domain stands in for a pretrained judge's wide knowledge. Nothing of scenes-wild was used in "
        "training or in any choice.",
        data=data,
        augmentation=["mirrored", "turned by up to 14 degrees and zoomed", "repainted and relit from exact maps",
                      "another camera: exposure, balance, vignetting, blur, noise, tone curve, compression"],
        training=config.model_dump(mode="json"),
        calibration=factors,
        versions={"reasonx": provenance.reasonx, "python": provenance.python, **versions},
    )  # fmt: skip


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return rng(seed, "judge", "order", str(epoch)).permutation(n)


@contextmanager
def _threads(n: int) -> Iterator[Executor]:
    """Threads that each compute on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
