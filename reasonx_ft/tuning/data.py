"""Photos with their judged pairs as training reads them: answers from the store, photos small, pairs as pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError, unknown
from reasonx_eval.io.digests import sha256_lines
from reasonx_ft.annotation.coordinates import View
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.photos import Photos
from reasonx_ft.annotation.store.table import Table
from reasonx_ft.tuning.config import Data

_SHARES: Final = 1 << 32

#: called with (stage, done, total)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Excluded:
    """Pairs (or answers) of one modality that are not used.

    unanswered : answers without a probability (refused, garbage, failed)
    contested : answers whose key has another probability in another shard
    contradictory : pairs whose two colour orders differ by more than `max_gap`
    unsure : pairs below `min_confidence`
    """

    unanswered: int = 0
    contested: int = 0
    contradictory: int = 0
    unsure: int = 0

    def __str__(self) -> str:
        said = [f"{n:,} {name}" for name, n in vars(self).items() if n]
        return ", ".join(said) or "none"


@dataclass(frozen=True)
class Answers:
    """Tables by modality, in the order of the policy's modalities.

    judge : name; revision : of it
    excluded : by modality
    unpredicted : modalities that were judged and that the policy can't predict
    digest : of everything in the tables
    """

    tables: dict[str, Table] = field(repr=False)
    judge: str
    revision: str
    excluded: dict[str, Excluded]
    unpredicted: tuple[str, ...]
    digest: str


def read_answers(store: Store, data: Data, predicted: Sequence[str], base: str) -> Answers:
    """The answers about what a policy predicts.

    Parameters
    ----------
    predicted : modalities of the policy; base : its name, for errors

    Raises
    ------
    UsageError
        A modality that the model does not predict, or that nobody judged; several judges or wordings to choose from;
        no answer left after the rules of `data`.
    """
    revision = store.find_judge(data.judge)
    judged = sorted({s[0] for s in store.columns.streams if s[3] == revision})
    wanted = data.modalities if data.modalities is not None else [m for m in predicted if m in judged]
    for modality in wanted:
        if modality not in predicted:
            raise UsageError(f"{base} does not predict {modality}; it predicts {', '.join(predicted)}",
                             where="data.modalities")  # fmt: skip
        if modality not in judged:
            raise unknown("judged modality", modality, judged, where=str(store.folder))
    if not wanted:
        raise UsageError(f"the store judges {', '.join(judged)}; {base} predicts {', '.join(predicted)}: "
                         "nothing to tune", where=str(store.folder))  # fmt: skip
    tables, excluded = {}, {}
    for modality in [m for m in predicted if m in wanted]:
        tables[modality], excluded[modality] = _table(store, modality, revision, data)
    unpredicted = tuple(m for m in judged if m not in predicted)
    return Answers(tables, store.judges()[revision], revision, excluded, unpredicted, _digest(tables))


def _table(store: Store, modality: str, revision: str, data: Data) -> tuple[Table, Excluded]:
    sound = store.table(modality=modality, judge=revision, template=data.template, contested=False)
    consistent = sound.kept(max_gap=data.max_gap)
    kept = consistent.kept(min_confidence=data.min_confidence)
    rows = store.columns.of_streams(judge=revision, modality=modality, template=data.template)
    excluded = Excluded(unanswered=int(np.isnan(store.columns.probability[rows]).sum()),
                        contested=int(np.count_nonzero(store.contested[rows])),
                        contradictory=len(sound) - len(consistent), unsure=len(consistent) - len(kept))  # fmt: skip
    if not len(kept):
        whole = store.table(modality=modality, judge=revision, template=data.template)
        raise UsageError(f"none of {len(whole):,} pairs about {modality} can be used: {excluded}",
                         where=str(store.folder))  # fmt: skip
    return kept, excluded


def _digest(tables: dict[str, Table]) -> str:
    found = hashlib.sha256()
    for modality, table in sorted(tables.items()):
        found.update("\n".join([modality, table.judge, *table.digests, ""]).encode(errors="surrogatepass"))
        for array in (table.offsets, table.points, table.probability):
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


class Sized(Protocol):
    """A policy, as far as photos need it."""

    def working_size(self, height: int, width: int) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Pairs:
    """Judged pairs of one photo and modality, n of them.

    place : int32 [n, 2], row * width + column of both points in the map
    probability : float32 [n], see `Judged`
    """

    place: NDArray[np.int32] = field(repr=False)
    probability: NDArray[np.float32] = field(repr=False)

    def __len__(self) -> int:
        return len(self.probability)


@dataclass(frozen=True)
class Entry:
    """One photo: its name for people, its digest, its working size, and pairs by modality (at least one)."""

    name: str
    digest: str
    size: tuple[int, int]
    pairs: Mapping[str, Pairs] = field(repr=False)


@dataclass
class LeftOut:
    """Photos and pairs that are not used, and why.

    unreadable : name -> reason; unjudged : names of photos without a judgement
    repeated : photos that came before under another name
    same_pixel : pairs whose two points fall on one pixel of the map, by modality
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    unjudged: list[str] = field(default_factory=list)
    repeated: int = 0
    same_pixel: dict[str, int] = field(default_factory=dict)


class PhotoSet:
    """Entries with their images at working size, uint8 [3, h, w], in memory as far as a budget goes.

    Attributes
    ----------
    entries : in the order of the photos
    left_out : what of the photos and judgements is not in `entries`
    """

    def __init__(
        self, photos: Photos, policy: Sized, tables: Mapping[str, Table], *, budget: int, workers: int = 2,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Read all photos once.

        Parameters
        ----------
        policy : whose working size decides the pixels
        tables : modality -> judgements
        budget : bytes of images that are kept; the rest is read again when it is needed
        workers : threads that read

        Raises
        ------
        UsageError
            None of the photos has a judgement.
        """
        self._photos, self._policy, self._budget = photos, policy, budget
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="photos")
        self.entries: list[Entry] = []
        self.left_out = LeftOut()
        seen: set[str] = set()
        for done, (name, photo) in enumerate(photos.read_ahead(workers)):
            if progress:
                progress("photos", done, len(photos))
            if isinstance(photo, SampleError):
                self.left_out.unreadable[name] = str(photo)
            elif photo.digest in seen:
                self.left_out.repeated += 1
            else:
                seen.add(photo.digest)
                self._add(name, photo.digest, photo.image, tables)
        if progress:
            progress("photos", len(photos), len(photos))
        if not self.entries:
            raise UsageError(_nothing(self.left_out, len(photos)), where="photos",
                             fix="the photos that the judgements are about, unchanged")  # fmt: skip

    def _add(self, name: str, digest: str, image: NDArray[np.uint8], tables: Mapping[str, Table]) -> None:
        size = self._policy.working_size(*image.shape[:2])
        pairs = {}
        for modality, table in tables.items():
            points, probability = table.of(digest)
            found, dropped = locate(points, probability, size)
            if dropped:
                self.left_out.same_pixel[modality] = self.left_out.same_pixel.get(modality, 0) + dropped
            if len(found):
                pairs[modality] = found
        if not pairs:
            self.left_out.unjudged.append(name)
            return
        small = resized(image, size)
        if small.nbytes <= self._budget:
            self._budget -= small.nbytes
            self._kept[len(self.entries)] = small
        self.entries.append(Entry(name, digest, size, pairs))

    @property
    def digest(self) -> str:
        """Of the photos' own digests, in order."""
        return sha256_lines(e.digest for e in self.entries)

    def close(self) -> None:
        """Stop the threads that read."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def request(self, numbers: Sequence[int]) -> list[Future[NDArray[np.uint8]] | NDArray[np.uint8]]:
        """Images of entries, those in memory at once, others as they are read in threads."""
        return [self._kept[k] if k in self._kept else self._pool.submit(self._read, k) for k in numbers]

    def _read(self, number: int) -> NDArray[np.uint8]:
        entry = self.entries[number]
        photo = self._photos.load(entry.name)
        if photo.digest != entry.digest:
            raise SampleError("the photo has changed since tuning began", where=entry.name)
        return resized(photo.image, entry.size)


def locate(
    points: NDArray[np.int16], probability: NDArray[np.float32], size: tuple[int, int]
) -> tuple[Pairs, int]:
    """Canonical pairs as places in a map, and how many were dropped because both points fall on one pixel."""
    height, width = size
    at = View(height, width).locate(points)
    place = (at.rows * width + at.cols).astype(np.int32).reshape(-1, 2)
    apart = place[:, 0] != place[:, 1]
    return Pairs(place[apart], probability[apart]), int(np.count_nonzero(~apart))


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A photo [H, W, 3] at a size (h, w), [3, h, w], by Pillow's bilinear filter, which averages where it shrinks."""
    from PIL import Image

    if image.shape[:2] != size:
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def held_out(digests: Sequence[str], share: float) -> list[bool]:
    """Which photos are never trained on: decided by their digests, the same in every run.

    Where few photos would leave none, the one whose digest comes first is held out, unless `share` is 0.

    Raises
    ------
    UsageError
        Nothing is left to train on.

    Examples
    --------
    >>> held_out(["00ffffff", "80ffffff"], 0.1), held_out(["70ffffff", "80ffffff"], 0.1), held_out(["70ffffff"], 0)
    ([True, False], [True, False], [False])
    """
    number = [int(d[:8], 16) for d in digests]
    found = [n < share * _SHARES for n in number]
    if share > 0 and not any(found) and found:
        found[number.index(min(number))] = True
    if all(found):
        raise UsageError(f"all {len(found)} photos with judgements are held out, none is left to train on",
                         where="data.held_out", fix="more photos, or --set data.held_out=0")  # fmt: skip
    return found


def _nothing(left: LeftOut, total: int) -> str:
    reasons = [f"{len(left.unjudged)} have no judgement in the store" if left.unjudged else "",
               f"{len(left.unreadable)} can't be read" if left.unreadable else ""]  # fmt: skip
    return f"none of {total} photos can be used: {', '.join(r for r in reasons if r) or 'there are none'}"
