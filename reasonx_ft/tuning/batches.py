"""What each optimiser step works on: decided by the seed, the step and the photo alone.

So training can go on from any step, and no number of processes, threads or cached photos changes a batch. Beside the
photos without labels come a few rendered scenes with known maps (*rehearsal*): what is rewarded is the order of points,
and nothing else in a tuning says what a map looks like. A few images of the domain that the base was trained on, with
the loss of its pretraining, keep it from forgetting that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import rng, stream_seed
from reasonx_eval.models.embedded.tiny_net import TinyFlow, TinyNet
from reasonx_ft.annotation.photos import DATASET, open_dataset
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.policies.base import Policy
from reasonx_ft.training.losses import code_loss, normals_loss
from reasonx_ft.training.scene_batches import Batch as Scenes
from reasonx_ft.training.scene_batches import batch_at, load_scenes
from reasonx_ft.tuning.config import Data, TuneConfig
from reasonx_ft.tuning.data import Entry, Pairs, PhotoSet, Progress, held_out
from reasonx_ft.tuning.parallel import Processes

#: distances over which steps of maps are compared, as in pretraining
_DIFFERENCES: Final = (1, 4, 12)


@dataclass(frozen=True)
class Chosen:
    """Photos of one process in one step, before their images are there.

    numbers : of entries; mirrored : bool of each
    """

    numbers: tuple[int, ...]
    mirrored: tuple[bool, ...]
    images: list[Future[NDArray[np.uint8]] | NDArray[np.uint8]]


class BatchSampler:
    """Batches of training photos, and of held-out ones.

    A batch has photos of one working size. Each size's photos are gone through again and again, in another order each
    time; how often a size comes up is proportional to its number of photos.

    Parameters
    ----------
    modalities : that are tuned
    steps : of the whole run, for the order of sizes
    rank, world : this process takes every world-th photo of a batch, from the rank-th
    device : that images and pairs are put on

    Raises
    ------
    UsageError
        A batch that processes can't share evenly, or no photo left to train on.
    """

    def __init__(
        self, photos: PhotoSet, data: Data, modalities: Sequence[str], *, seed: int, steps: int, rank: int = 0,
        world: int = 1, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        if data.batch_size % world:
            raise UsageError(f"data.batch_size {data.batch_size} can't be shared evenly among {world} processes")
        self._photos, self._data, self._seed = photos, data, seed
        self._rank, self._world, self._device = rank, world, device or torch.device("cpu")
        self.modalities = tuple(modalities)
        kept = held_out([e.digest for e in photos.entries], data.held_out)
        self.training = [k for k, out in enumerate(kept) if not out]
        self.held_out = [k for k, out in enumerate(kept) if out]
        self._sizes = self._by_size(self.training)
        self._place = self._schedule(steps)
        self._next: dict[int, Chosen] = {}

    def _by_size(self, numbers: Sequence[int]) -> list[list[int]]:
        sizes: dict[tuple[int, int], list[int]] = {}
        for k in numbers:
            sizes.setdefault(self._photos.entries[k].size, []).append(k)
        return [sizes[s] for s in sorted(sizes)]

    def _schedule(self, steps: int) -> NDArray[np.int64]:
        """Size of each step, and how many earlier steps had it: int64 [steps, 2]."""
        share = np.cumsum([len(s) for s in self._sizes]) / len(self.training)
        size = np.searchsorted(share, rng(self._seed, "tune", "sizes").random(steps), side="right")
        size = np.minimum(size, len(self._sizes) - 1)
        earlier = np.zeros(steps, dtype=np.int64)
        for s in range(len(self._sizes)):
            of_size = size == s
            earlier[of_size] = np.arange(int(of_size.sum()))
        return np.stack([size, earlier], axis=1)

    def at(self, step: int) -> Batch:
        """The photos of this process in a step; those of the next are read meanwhile."""
        chosen = self._next.pop(step, None) or self._choose(step)
        if step + 1 < len(self._place):
            self._next = {step + 1: self._choose(step + 1)}
        names = self.modalities
        if self._data.modalities_per_step == "one":
            names = (names[int(rng(self._seed, "tune", "modality", str(step)).integers(len(names)))],)
        entries = [self._photos.entries[k] for k in chosen.numbers]
        judged = {m: self._judged(entries, m, chosen.mirrored, step) for m in names}
        seeds = tuple(stream_seed(self._seed, "tune", "noise", str(step), e.digest) % 2**63 for e in entries)
        return Batch(self._stacked(chosen), judged, seeds)

    def _choose(self, step: int) -> Chosen:
        size, earlier = (int(v) for v in self._place[step])
        of_size, batch = self._sizes[size], self._data.batch_size
        places = range(earlier * batch + self._rank, (earlier + 1) * batch, self._world)
        numbers = tuple(of_size[int(_order(len(of_size), self._seed, size, p // len(of_size))[p % len(of_size)])]
                        for p in places)  # fmt: skip
        coin = rng(self._seed, "tune", "mirror", str(step)).random(batch)[self._rank :: self._world] < 0.5
        mirrored = tuple(bool(c) and self._data.flip for c in coin)
        return Chosen(numbers, mirrored, self._photos.request(numbers))

    def checks(self, photos: int, batch: int) -> Iterator[tuple[tuple[int, ...], Batch]]:
        """The first `photos` held-out photos with all their pairs, as they are: (numbers of entries, batch)."""
        for of_size in self._by_size(self.held_out[:photos]):
            for start in range(0, len(of_size), batch):
                numbers = tuple(of_size[start : start + batch])
                entries = [self._photos.entries[k] for k in numbers]
                chosen = Chosen(numbers, (False,) * len(numbers), self._photos.request(numbers))
                judged = {m: self._judged(entries, m, chosen.mirrored, None) for m in self.modalities}
                seeds = tuple(stream_seed(self._seed, "tune", "check", e.digest) % 2**63 for e in entries)
                yield numbers, Batch(self._stacked(chosen), judged, seeds)

    def shown(self, photos: int) -> Iterator[Tensor]:
        """Images [3, H, W] of the first held-out photos, or of the training ones where nothing is held out."""
        for number in (self.held_out or self.training)[:photos]:
            yield self._stacked(Chosen((number,), (False,), self._photos.request([number])))[0]

    def _stacked(self, chosen: Chosen) -> Tensor:
        """Images float32 [B, 3, H, W]."""
        found = [f.result() if isinstance(f, Future) else f for f in chosen.images]
        images = torch.from_numpy(np.stack([i[..., ::-1] if m else i
                                            for i, m in zip(found, chosen.mirrored, strict=True)]))  # fmt: skip
        return images.to(self._device).to(torch.float32) / 255

    def _judged(
        self, entries: Sequence[Entry], modality: str, mirrored: Sequence[bool], step: int | None
    ) -> Judged:
        """Pairs of some photos; those of a step are drawn, else all are taken."""
        drawn = [self._draw(e, modality, step) for e in entries]
        n = max(1, *(len(d) for d in drawn)) if step is None else self._data.pairs
        places = np.zeros((len(entries), n, 2), dtype=np.int64)
        probability = np.full((len(entries), n), 0.5, dtype=np.float32)
        weight = np.zeros((len(entries), n), dtype=np.float32)
        for k, pairs in enumerate(drawn):
            m = len(pairs)
            places[k, :m], probability[k, :m], weight[k, :m] = pairs.place, pairs.probability, 1.0
        width = entries[0].size[1]
        rows, cols = np.divmod(places, width)
        cols = np.where(np.array(mirrored)[:, None, None], width - 1 - cols, cols)
        return Judged(modality, *(torch.from_numpy(a).to(self._device) for a in (rows, cols, probability, weight)))

    def _draw(self, entry: Entry, modality: str, step: int | None) -> Pairs:
        pairs = entry.pairs.get(modality, _NONE)
        if step is None or len(pairs) <= self._data.pairs:
            return pairs
        stream = rng(self._seed, "tune", "pairs", str(step), entry.digest, modality)
        some = stream.choice(len(pairs), self._data.pairs, replace=False, shuffle=False)
        return Pairs(pairs.place[some], pairs.probability[some])


_NONE = Pairs(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))


@lru_cache(maxsize=64)
def _order(n: int, seed: int, size: int, epoch: int) -> NDArray[np.int64]:
    return rng(seed, "tune", "order", str(size), str(epoch)).permutation(n)


def label_histogram(photos: PhotoSet, modalities: Sequence[str], bins: int = 10) -> Mapping[str, list[int]]:
    """How sure the judge is: counts of abs(2 p - 1) of all pairs in equal bins over [0, 1], by modality."""
    found = {}
    for modality in modalities:
        parts = [e.pairs[modality].probability for e in photos.entries if modality in e.pairs]
        p = np.concatenate([_NONE.probability, *parts])
        found[modality] = [int(n) for n in np.histogram(np.abs(2 * p - 1), bins=bins, range=(0, 1))[0]]
    return found


class Rehearsal:
    """Scenes in memory, and a few of them for each step, keyed by seed and step.

    ids : of the scenes

    Raises
    ------
    UsageError
        A network whose codes are not those of the embedded ones; images that processes can't share; a dataset without
        complete maps.
    """

    def __init__(
        self, policy: Policy, config: TuneConfig, processes: Processes, progress: Progress | None = None
    ) -> None:
        rules = config.objective
        if not isinstance(policy.network, TinyNet | TinyFlow):
            raise UsageError("rehearsal needs the codes of tiny and tiny-flow only", where=policy.base,
                             fix="--set objective.rehearsal=0 and a weight of objective.distance instead")  # fmt: skip
        if rules.rehearsal_batch_size % processes.world:
            raise UsageError(f"objective.rehearsal_batch_size {rules.rehearsal_batch_size} can't be shared evenly "
                             f"among {processes.world} processes")  # fmt: skip
        dataset = open_dataset(DATASET + rules.rehearsal_data)
        self.ids = list(dataset.ids)[: rules.rehearsal_scenes]
        say = progress or (lambda _stage, _done, _total: None)
        # rendered here: starting other processes takes as long
        self._scenes = load_scenes(dataset, self.ids, 1, lambda done, total: say("rehearsal scenes", done, total))
        self._seed, self._images = config.seed, rules.rehearsal_batch_size
        self._flip, self._processes = config.data.flip, processes
        self._device = next(policy.network.parameters()).device

    def at(self, step: int) -> Scenes:
        """The scenes of this process in a step."""
        whole = batch_at(self._scenes, seed=self._seed, step=step, images=self._images, flip=self._flip)
        mine = slice(self._processes.rank, None, self._processes.world)
        codes = {m: c[mine].to(self._device) for m, c in whole.codes.items()}
        return Scenes(whole.images[mine].to(self._device), codes)


def rehearsal_loss(codes: Mapping[str, Tensor], true: Scenes, modalities: Sequence[str]) -> Tensor:
    """Mean over modalities of the losses of pretraining."""
    losses = [
        normals_loss(codes[m], true.codes[m], of_unit_length=True) if m == "normals"
        else code_loss(codes[m], true.codes[m], differences=_DIFFERENCES, weight=1.0)
        for m in modalities
    ]  # fmt: skip
    return torch.stack(losses).mean()
