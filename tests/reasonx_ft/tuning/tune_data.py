"""A small judgement store about rendered scenes, and settings that keep a tuning short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasonx_eval.models.embedded.card import WEIGHTS, build_network, read_card
from reasonx_ft.annotation.annotate import Plan, annotate
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges.load import load_judge
from reasonx_ft.policies.base import Compute, Policy
from reasonx_ft.policies.embedded import TinyPredictor
from reasonx_ft.policies.feedforward import FeedForward
from reasonx_ft.policies.load import make_policy
from reasonx_ft.policies.noise import make_noise
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.settings import read_settings
from reasonx_ft.tuning.state import Sources
from reasonx_ft.types import Answer, JudgeInfo, Photo, Question, photo_digest

PHOTOS = "dataset:scenes-wild/train"
LIMIT = 14
SHORT: dict[str, Any] = {
    "optimiser.steps": 4, "optimiser.warmup_steps": 1, "data.batch_size": 2, "data.pairs": 12, "data.limit": LIMIT,
    "data.held_out": 0.3, "objective.num_generations": 4, "machine.threads": 1, "machine.workers": 1,
    "watch.check_every": 2,
    "watch.check_photos": 2, "watch.save_every": 2, "watch.export": "last", "data.min_confidence": 0.0,
    "objective.grpo": 1, "objective.ranking": 0, "objective.expected": 0, "objective.rehearsal": 0,
    "objective.kl": 0.02,
    "objective.credit": "pairs", "objective.scale_rewards": "none", "policy.noise": "pixel",
    "optimiser.learning_rate": 5e-4,
    "objective.balanced": True, "machine.dtype": "float32", "optimiser.interpolate": 1.0,
    # normals of a random network may point anywhere
    "guard.unrewarded_metrics": [], "guard.normals_away": 1.0,
}  # fmt: skip


def oracle_store(folder: Path, *, pairs: int = 24, limit: int = LIMIT) -> Path:
    """Faultless answers about scenes, one colour order."""
    questions = read_questions()
    photos = open_photos(PHOTOS, limit=limit, want=("depth", "normals", "albedo", "irradiance"))
    judge = load_judge("oracle", options={"preset": "perfect"}, questions=questions, dataset=photos.recent)
    annotate(photos, judge, folder, questions, Plan(pairs=pairs, orders="red-first"))
    return folder


def short(base: str = "tiny", **changes: Any) -> TuneConfig:
    """Settings of a tuning of four steps; dots in keys are written as two underscores."""
    dotted = {k.replace("__", "."): v for k, v in changes.items()}
    return read_settings(base=base, flags={**SHORT, **dotted})


def pipeline_settings(**changes: Any) -> TuneConfig:
    """The same of a diffusion pipeline."""
    flags = {k: v for k, v in SHORT.items() if k != "policy.noise"} | {
        "objective.credit": "image", "objective.scale_rewards": "floored", "policy.explore": "steps", "policy.steps": 3,
        "objective.num_generations": 3,
        "policy.answer_steps": 1, "data.limit": 8, "data.batch_size": 1, "machine.microbatch": 2,
    }  # fmt: skip
    return read_settings(base="pipeline", flags=flags | {k.replace("__", "."): v for k, v in changes.items()})


def sources(store: Path, base: str = "tiny") -> Sources:
    return Sources(base, PHOTOS, store)


def lines(out: Path) -> list[dict[str, Any]]:
    """The log of a tuning."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class SmallPredictor(TinyPredictor):
    """Like `tiny`, at a quarter of its size."""

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return 24, 32


def small_policy(model: str | Path, *, device: str = "auto", dtype: str = "float32", microbatch: int | None = None,
                 noise: str = "pixel", sigma: Any = None, **more: Any) -> Policy:  # fmt: skip
    """In the place of `make_policy`: for `tiny` a network of 10,000 weights, at random; others as they are."""
    if str(model) != "tiny" or more:
        return make_policy(model, device=device, dtype=dtype, microbatch=microbatch, noise=noise, sigma=sigma, **more)
    arguments = {"widths": [8, 8, 8, 8]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("tiny", arguments)
    card = read_card(WEIGHTS / "tiny.safetensors").model_copy(update={"network": arguments})
    return FeedForward(SmallPredictor(card), network, make_noise(noise, 4),  # type: ignore[arg-type]
                       base="tiny", licence=card.licence, sigma=sigma,
                       compute=Compute(microbatch=microbatch))  # fmt: skip


INFO = JudgeInfo("hand", "rev0")


def photo(k: int, height: int = 24, width: int = 32) -> Photo:
    """A photo of noise."""
    image = np.random.default_rng(k).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(f"{k}.png", image, photo_digest(image))


def write_answers(folder: Path, rows: list[tuple[Question, Answer]], info: JudgeInfo = INFO) -> None:
    """One more shard with these answers."""
    with Store.open(folder, create=True).writer(info, read_questions()) as writer:
        writer.append([q for q, _ in rows], [a for _, a in rows])


def write_photos(folder: Path, photos: list[Photo]) -> Path:
    """The photos as PNG files."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for p in photos:
        Image.fromarray(p.image).save(folder / p.id)
    return folder
