"""Photos and their maps, all in memory, and batches of them that depend on the seed and the step alone.

A scene takes some 10 ms to render and a few dozen passes need it again, so each is rendered once, by several processes,
and kept as it came (8 bit) with maps in half precision: 280 kB a scene of 96 x 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.seeding import rng
from reasonx_eval.models.embedded.tiny_net import CODES, STRIDE
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Target
from reasonx_ft.training.interrupts import worker_pool

Maps = dict[str, NDArray[np.float16]]

#: black has no logarithm: what is darker (or nearer) counts as this
DARKEST: Final = 1e-3


@dataclass(frozen=True)
class Scenes:
    """N photos with their maps.

    images : uint8 [N, 3, H, W]
    maps : modality -> float16 [N, C, H, W], in the units of the data set's targets
    tokens : of a frozen backbone, float16 [N, L, 1 + h * w, C]; None where the network has none
    """

    images: NDArray[np.uint8]
    maps: Maps
    tokens: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """images : float32 [B, 3, H, W] in [0, 1]; codes : modality -> float32 [B, C, H, W], see tiny_net.CODES

    tokens : float32 [B, L, 1 + h * w, C], of a network on a frozen backbone
    """

    images: Tensor
    codes: dict[str, Tensor]
    tokens: Tensor | None = None


def load_scenes(
    dataset: Dataset, ids: Sequence[str], workers: int, progress: Callable[[int, int], None] | None = None
) -> Scenes:
    """Read (or render) samples with all four maps, in parallel.

    Parameters
    ----------
    workers : processes; 1 reads in this one
    progress : called with (done, total)

    Raises
    ------
    UsageError
        The data set lacks one of the maps.
    DataError
        Samples differ in size, or have sides that the networks can't take, or pixels without ground truth.
    """
    missing = [m for m in CODES if m not in dataset.targets]
    if missing:
        raise UsageError(f"no ground truth of {', '.join(missing)}: all four maps are needed", where=dataset.name)
    scenes: Scenes | None = None
    for k, (image, maps) in enumerate(_read_all(dataset, ids, workers)):
        if scenes is None:
            # filled one by one: a list of parts beside the whole would take the memory twice
            scenes = Scenes(np.empty((len(ids), *image.shape), np.uint8),
                            {m: np.empty((len(ids), *v.shape), np.float16) for m, v in maps.items()})  # fmt: skip
            _check_size(image, dataset)
        if image.shape != scenes.images.shape[1:]:
            raise DataError(f"samples of different sizes: {scenes.images.shape[2:]} and {image.shape[1:]}",
                            where=dataset.name)  # fmt: skip
        scenes.images[k] = image
        for modality, value in maps.items():
            scenes.maps[modality][k] = value
        if progress:
            progress(k + 1, len(ids))
    if scenes is None:
        raise UsageError("no samples", where=dataset.name)
    return scenes


def _check_size(image: NDArray[np.uint8], dataset: Dataset) -> None:
    height, width = image.shape[1:]
    if height % STRIDE or width % STRIDE:
        raise DataError(f"{height}x{width} pixels: both sides must be multiples of {STRIDE}", where=dataset.name)


def _read_all(dataset: Dataset, ids: Sequence[str], workers: int) -> Iterator[tuple[NDArray[np.uint8], Maps]]:
    if workers == 1:
        yield from map(_read, repeat(dataset), ids)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_read, repeat(dataset), ids, chunksize=16)


def _read(dataset: Dataset, sample_id: str) -> tuple[NDArray[np.uint8], Maps]:
    sample = dataset.load(sample_id, want=tuple(CODES))
    maps: Maps = {}
    for modality in CODES:
        value, valid = _known(sample.targets[modality])
        if not valid.all():
            raise DataError(f"{modality} is not known everywhere: only complete maps can be trained on",
                            where=sample_id)  # fmt: skip
        array = value.astype(np.float16)
        maps[modality] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return sample.image.transpose(2, 0, 1), maps


def _known(target: Target) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if isinstance(target, DepthTarget):
        return target.depth, target.valid
    if isinstance(target, NormalTarget):
        return target.normal, target.valid
    assert isinstance(target, MapTarget)
    return target.value, target.valid


def batch_at(scenes: Scenes, *, seed: int, step: int, images: int, flip: bool) -> Batch:
    """The batch of a step: whole passes over the scenes, each in an order of its own.

    Nothing but the arguments decides it, so training can go on from any step.
    """
    chosen = [_order(len(scenes), seed, k // len(scenes))[k % len(scenes)]
              for k in range(step * images, (step + 1) * images)]  # fmt: skip
    mirrored = rng(seed, "pretrain", "flip", str(step)).random(images) < 0.5
    turn = torch.from_numpy(mirrored if flip else np.zeros(images, dtype=np.bool_)).view(-1, 1, 1, 1)
    photos = torch.from_numpy(scenes.images[chosen]).to(torch.float32) / 255
    codes = {}
    for modality, code in CODES.items():
        value = torch.from_numpy(scenes.maps[modality][chosen]).to(torch.float32)
        value = torch.where(turn, value.flip(-1), value)
        if modality == "normals":
            # a mirror turns left into right
            value = torch.where(turn, value * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1), value)
        codes[modality] = code.encode(value.clamp_min(DARKEST) if code.spread else value)
    tokens = None if scenes.tokens is None else torch.from_numpy(scenes.tokens[chosen]).to(torch.float32)
    return Batch(torch.where(turn, photos.flip(-1), photos), codes, tokens)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return rng(seed, "pretrain", "order", str(epoch)).permutation(n)
