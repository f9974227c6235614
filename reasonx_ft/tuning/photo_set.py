"""Photos with judgements as training sees them: small, and with pairs as pixels of the policy's maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_ft.annotation.coordinates import View
from reasonx_ft.annotation.photos import Photos
from reasonx_ft.annotation.store.table import Table

_SHARES: Final = 1 << 32

#: called with (what is being done, done, total)
Progress = Callable[[str, int, int], None]


class Sized(Protocol):
    """What is asked of a policy here."""

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
    """What is not used, and why.

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


def held_out(digest: str, share: float) -> bool:
    """Whether a photo is never trained on: decided by its digest alone, the same in every run."""
    return int(digest[:8], 16) < share * _SHARES


def _nothing(left: LeftOut, total: int) -> str:
    reasons = [f"{len(left.unjudged)} have no judgement in the store" if left.unjudged else "",
               f"{len(left.unreadable)} can't be read" if left.unreadable else ""]  # fmt: skip
    return f"none of {total} photos can be used: {', '.join(r for r in reasons if r) or 'there are none'}"
