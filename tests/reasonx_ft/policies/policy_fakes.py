"""Predictors whose maps are their parameters, and judged pairs made by hand or at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from reasonx_eval.models.embedded.card import WEIGHTS, read_card
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.expected import expected_agreement
from reasonx_ft.policies.base import Saved
from reasonx_ft.policies.embedded import Embedded
from reasonx_ft.policies.feedforward import FeedForward, Predictor
from reasonx_ft.policies.noise import Noise, PixelNoise

CARD = read_card(WEIGHTS / "tiny.safetensors")
CHANNELS: Mapping[str, int] = {"depth": 1, "normals": 3, "albedo": 3, "irradiance": 3}


class Maps(nn.Module):
    """Codes that are parameters, the same for all images."""

    def __init__(self, codes: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.codes = nn.ParameterDict({m: nn.Parameter(c.clone()) for m, c in codes.items()})


class MapPredictor(Predictor):
    """Answers `Maps`, whatever the photo; decodes like the embedded networks."""

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = tuple(modalities)
        self.log_slope = {"depth": 0.6, "albedo": 0.8, "irradiance": 0.8}

    def codes(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        assert isinstance(network, Maps)
        found = {m: network.codes[m].expand(len(images), -1, -1, -1) for m in self.modalities}
        return {m: c / c.norm(dim=1, keepdim=True) if m == "normals" else c for m, c in found.items()}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return Embedded(CARD).decode(code, modality)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def save(self, network: nn.Module, folder: Path) -> Saved:
        raise NotImplementedError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_codes(height: int = 8, width: int = 8, *, seed: int = 0, modalities: Sequence[str] = tuple(CHANNELS),
                 spread: float = 0.3, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:  # fmt: skip
    """Codes [C, H, W] around the middle of each modality; normals near the camera's axis."""
    rng = generator(seed)
    codes = {m: spread * torch.randn(CHANNELS[m], height, width, generator=rng) for m in CHANNELS}
    codes["normals"][2] -= 1
    return {m: codes[m].to(dtype) for m in modalities}


def map_policy(codes: Mapping[str, Tensor], noise: Noise | None = None, **options: object) -> FeedForward:
    return FeedForward(MapPredictor(tuple(codes)), Maps(codes), noise or PixelNoise(), base="maps", **options)  # type: ignore[arg-type]


def expected_of(policy: FeedForward, code: Tensor, judged: Judged, **options: object) -> Tensor:
    """The expected agreement of a policy's noise around a code."""
    return expected_agreement(policy.values(code, judged), policy.covariance(code, judged), judged, **options)  # type: ignore[arg-type]


def random_judged(modality: str, images: int, pairs: int, height: int = 8, width: int = 8, *, seed: int = 0,
                  dtype: torch.dtype = torch.float32) -> Judged:  # fmt: skip
    """Pairs of different pixels with random probabilities."""
    rng = generator(seed)
    first = torch.randint(0, height * width, (images, pairs), generator=rng)
    second = (first + torch.randint(1, height * width, (images, pairs), generator=rng)) % (height * width)
    place = torch.stack([first, second], dim=-1)
    return Judged(modality, place // width, place % width, torch.rand(images, pairs, generator=rng).to(dtype),
                  torch.ones(images, pairs, dtype=dtype))  # fmt: skip


def judged_of(modality: str, probability: Sequence[Sequence[float]], weight: Sequence[Sequence[float]] | None = None
              ) -> Judged:  # fmt: skip
    """Pairs without places, for values that are given at the points."""
    p = torch.tensor(probability)
    places = torch.zeros(*p.shape, 2, dtype=torch.long)
    return Judged(modality, places, places, p, torch.ones_like(p) if weight is None else torch.tensor(weight))


def batch_of(judged: Mapping[str, Judged], height: int = 8, width: int = 8, *, seeds: Sequence[int] | None = None,
             seed: int = 0) -> Batch:  # fmt: skip
    images = len(next(iter(judged.values())).weight)
    photos = torch.rand(images, 3, height, width, generator=generator(seed))
    return Batch(photos, judged, tuple(range(images)) if seeds is None else tuple(seeds))


def part_of(batch: Batch, images: slice) -> Batch:
    return Batch(batch.images[images], {m: j.of(images) for m, j in batch.judged.items()}, batch.seeds[images])
