"""The judgement store: answers collected once, kept, copied, and read on machines that have no judge.

A folder of Parquet shards (`reasonx_ft.annotation.store.shards`) and a ``meta.json``. Rows are only ever added. The
same key in several shards is one answer: one with a probability before one without, then the first in the order of
shard names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import DataError, UsageError, unknown
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.annotation.store.meta import META, read_meta, update_meta
from reasonx_ft.annotation.store.schema import MODALITIES, Columns, Joiner, pack
from reasonx_ft.annotation.store.shards import (
    About,
    Damaged,
    Shard,
    count_rows,
    foreign_paths,
    read_shard,
    shard_paths,
    write_shard,
)
from reasonx_ft.annotation.store.sorting import Canonical, sort_rows
from reasonx_ft.annotation.store.statistics import StreamStats, stream_stats
from reasonx_ft.annotation.store.table import Table, make_table
from reasonx_ft.annotation.store.writer import ROWS, SECONDS, Writer
from reasonx_ft.types import JudgeInfo

__all__ = ["Conflict", "Damaged", "Store", "StreamStats", "Table", "Writer", "merge"]

#: rows of a shard that `merge` writes: 20 MB or so
MERGED_ROWS = 1_000_000


@dataclass(frozen=True)
class Conflict:
    """One key with two different probabilities; the first is the one that counts."""

    photo: str
    points: tuple[int, int, int, int]
    modality: str
    order: str
    judge: str
    probabilities: tuple[float, float]
    shards: tuple[str, str]


@dataclass(frozen=True)
class Verification:
    """What `Store.verify` found.

    rows : in whole shards; duplicates : of them, rows whose key came before
    conflicts : duplicates with another probability, in all; examples : the first ten
    foreign : other Parquet files in the folder, which nothing reads; unfinished : left by a killed writer
    """

    shards: int
    rows: int
    duplicates: int
    conflicts: int
    examples: tuple[Conflict, ...]
    damaged: tuple[Damaged, ...]
    foreign: tuple[str, ...]
    unfinished: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.damaged and not self.conflicts


class Store:
    """The judgements in a folder, as they are when it is opened.

    Attributes
    ----------
    folder : Path
    shards : the whole shards, in name order
    damaged : shards that can't be used, which count as absent
    about : templates and judges, by digest and revision
    """

    def __init__(self, folder: Path, shards: Iterable[Shard | Damaged], rows: int) -> None:
        self.folder = folder
        self.about = About()
        joiner = Joiner(rows)
        paths: list[Path] = []
        damaged: list[Damaged] = []
        self._sizes: list[int] = []
        for shard in shards:
            if isinstance(shard, Damaged):
                damaged.append(shard)
                continue
            self.about |= shard.about
            paths.append(shard.path)
            self._sizes.append(len(shard.columns))
            joiner.add(shard.columns)
        self.shards, self.damaged = tuple(paths), tuple(damaged)
        self._all = joiner.columns()

    @classmethod
    def open(cls, folder: Path | str, *, create: bool = False) -> Store:
        """Read a store.

        Parameters
        ----------
        create : make the folder where there is none

        Raises
        ------
        UsageError
            No such folder, a file, or a folder that holds other things and no judgements.
        DataError
            Its meta.json is not that of a judgement store.
        """
        folder = Path(folder)
        _check_folder(folder, create=create)
        for _ in range(10):
            paths = shard_paths(folder)
            store = cls(folder, map(read_shard, paths), count_rows(paths))
            # a merge may have taken away what was listed
            if all(d.path.exists() for d in store.damaged):
                return store
        raise DataError("shards keep vanishing while they are read", where=str(folder))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        return sort_rows(len(self._all), self._all.take)

    @property
    def _order(self) -> NDArray[np.uint32]:
        """Rows by photo and place in it; of equal keys, the row that counts comes first."""
        return self._sorted[0]

    @property
    def _repeats(self) -> NDArray[np.bool_]:
        """Of the rows in `_order`, those whose key came before."""
        return self._sorted[1]

    @cached_property
    def columns(self) -> Columns:
        """All answers, each key once, sorted by photo and place."""
        return self._all.take(self._order[~self._repeats])

    @cached_property
    def _photo_numbers(self) -> dict[bytes, int]:
        return {d: k for k, d in enumerate(self._all.photos)}

    @cached_property
    def _photo_offsets(self) -> NDArray[np.int64]:
        return np.searchsorted(self.columns.photo, np.arange(len(self._all.photos) + 1))

    def __len__(self) -> int:
        return len(self._all) - int(np.count_nonzero(self._repeats))

    def known(
        self, photo: str, points: NDArray[np.integer], streams: Sequence[tuple[str, str, str, str]],
        stream: NDArray[np.integer], *, with_probability: bool = False,
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Which questions about a photo have been answered, bool [N]; exact, not by hashes.

        Parameters
        ----------
        photo : digest, hex
        points : integers [N, 4], (x1, y1, x2, y2)
        streams : (modality, order, template digest, judge revision) [S]
        stream : integers [N], rows of `streams`
        with_probability : count only answers that have one
        """
        number = self._photo_numbers.get(bytes.fromhex(photo))
        if number is None:
            return np.zeros(len(points), dtype=np.bool_)
        rows = slice(int(self._photo_offsets[number]), int(self._photo_offsets[number + 1]))
        have = self.columns.place[rows]
        if with_probability:
            have = have[~np.isnan(self.columns.probability[rows])]
        ours = {s: k for k, s in enumerate(self._all.streams)}
        numbers = np.array([ours.get(s, -1) for s in streams], dtype=np.int64)[stream]
        found: NDArray[np.bool_] = (numbers >= 0) & np.isin(pack(points, np.maximum(numbers, 0)), have)
        return found

    def writer(
        self, info: JudgeInfo, questions: Questions, *, rows: int = ROWS, seconds: float = SECONDS
    ) -> Writer:  # fmt: skip
        """A writer that adds to this folder; what it adds is seen when the store is opened again."""
        return Writer(self.folder, info, questions, rows=rows, seconds=seconds)

    def judges(self) -> dict[str, str]:
        """Revision -> name of every judge that has answered."""
        return {s[3]: str(self.about.judges.get(s[3], {}).get("name", s[3])) for s in self._all.streams}

    def find_judge(self, judge: str | None) -> str:
        """The revision of a judge that is named by its name or its revision's beginning; None is the only one.

        Raises
        ------
        UsageError
            None or several fit.
        """
        have = self.judges()
        fits = sorted(r for r, name in have.items() if judge is None or name == judge or r.startswith(judge))
        if len(fits) == 1:
            return fits[0]
        listed = [f"{name} ({r})" for r, name in sorted(have.items())]
        if not fits and judge is not None:
            raise unknown("judge", judge, listed, where=str(self.folder))
        raise UsageError(f"the store has answers of {', '.join(listed) or 'no judge'}; name one of them",
                         where=str(self.folder))  # fmt: skip

    def table(
        self, *, modality: str, judge: str | None = None, template: str | None = None, contested: bool = True
    ) -> Table:
        """Points and probabilities for training, both colour orders averaged.

        Parameters
        ----------
        modality : depth, normals, irradiance or albedo
        judge : name or revision; may be left out if there is one only
        template : digest of the wording; may be left out if there is one only
        contested : also use what has another probability in another shard, as the first shard has it

        Raises
        ------
        UsageError
            Nothing fits, or several judges or wordings do.
        """
        if modality not in MODALITIES:
            raise unknown("modality", modality, MODALITIES)
        revision = self.find_judge(judge)
        rows = self.columns.of_streams(judge=revision, modality=modality, template=template)
        used = {self.columns.streams[k][2] for k in np.unique(self.columns.stream[rows])}
        if len(used) > 1:
            raise UsageError(f"{modality} was asked in {len(used)} wordings (templates {', '.join(sorted(used))})",
                             where=str(self.folder), fix="tune: set data.template to one of them")  # fmt: skip
        if not rows.any():
            raise UsageError(f"no answers about {modality} of judge {revision}", where=str(self.folder))
        if not contested:
            rows &= ~self.contested
        return make_table(self.columns.take(rows), modality, revision)

    @cached_property
    def contested(self) -> NDArray[np.bool_]:
        """Which rows of `columns` have another probability in another shard, bool."""
        found = np.zeros(len(self._order), dtype=np.bool_)
        found[self._contradictions[2]] = True
        return found[~self._repeats]

    @cached_property
    def _contradictions(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]]:
        """Rows that count, rows with the same key and another probability, and the places of the first in `_order`."""
        before = np.flatnonzero(self._repeats)
        # the row that counts is the first of its group
        leaders = np.maximum.accumulate(np.where(self._repeats, 0, np.arange(len(self._repeats))))[before]
        kept, other = self._order[leaders], self._order[before]
        p, q = self._all.probability[kept], self._all.probability[other]
        # an answer beside a failure is a repeated question, no contradiction
        differ = ~np.isnan(p) & ~np.isnan(q) & (p != q)
        return kept[differ], other[differ], leaders[differ]

    def stats(self) -> list[StreamStats]:
        """Counts, flags, agreement between colour orders and histograms, by judge, modality and wording."""
        return stream_stats(self.columns, self.judges())

    def verify(self) -> Verification:
        """Damaged shards, and keys with different answers."""
        kept, other, _ = self._contradictions
        names = sorted(p.name for p in self.folder.iterdir() if p.name.endswith(".part"))
        return Verification(
            shards=len(self.shards), rows=len(self._all), duplicates=int(self._repeats.sum()),
            conflicts=len(kept), damaged=self.damaged,
            examples=tuple(self._conflict(int(a), int(b)) for a, b in zip(kept[:10], other[:10], strict=True)),
            foreign=tuple(p.name for p in foreign_paths(self.folder)), unfinished=tuple(names),
        )  # fmt: skip

    def _conflict(self, kept: int, other: int) -> Conflict:
        rows = self._all
        modality, order, _, judge = rows.streams[rows.stream[kept]]
        ends = np.cumsum(self._sizes)
        shards = [self.shards[int(np.searchsorted(ends, row, side="right"))].name for row in (kept, other)]
        x1, y1, x2, y2 = (int(v) for v in rows.points[kept])
        return Conflict(rows.photos[rows.photo[kept]].hex(), (x1, y1, x2, y2), modality, order, judge,
                        (float(rows.probability[kept]), float(rows.probability[other])),
                        (shards[0], shards[1]))  # fmt: skip


def _check_folder(folder: Path, *, create: bool) -> None:
    """Raise what `Store.open` raises for a folder that is no store; make it if it may be made."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise UsageError("a file, not a folder", where=str(folder))
        if not create:
            raise UsageError("no such folder", where=str(folder), fix="reasonx-ft annotate IMAGES --out FOLDER")
        try:
            folder.mkdir(parents=True, exist_ok=True)  # another writer may be as quick
        except OSError as error:
            raise UsageError(f"can't be made: {error.strerror or error}", where=str(folder)) from None
    meta = read_meta(folder)
    # what another writer has just begun to write is not something else
    others = any(not p.name.endswith(".part") for p in folder.iterdir())
    if meta is None and not shard_paths(folder) and not (create and not others):
        raise UsageError(f"not a judgement store: neither {META} nor shards (answers-*.parquet) in it",
                         where=str(folder), fix="an empty or a new folder" if create else None)  # fmt: skip


def merge(stores: Iterable[Store], out: Path, *, remove: bool = False) -> list[Path]:
    """Write the answers of one or several stores as few shards; the bytes depend on the answers alone.

    Parameters
    ----------
    out : folder of a store, made if it is not there; its own shards stay
    remove : delete the shards that were merged; damaged ones stay

    Returns
    -------
    the shards written
    """
    stores = list(stores)
    _check_folder(out, create=True)
    about = _about(out, stores)
    canonical = Canonical([s._all for s in stores])
    rows = canonical.sorted_rows()
    written = []
    for start in range(0, len(rows), MERGED_ROWS):
        written.append(write_shard(out, canonical.take(rows[start : start + MERGED_ROWS]).compact(), about))
    update_meta(out, about)
    if remove:
        _check_written(written, len(rows))
        for path in {p for s in stores for p in s.shards} - set(written):
            path.unlink(missing_ok=True)
    return written


def _about(out: Path, stores: Sequence[Store]) -> About:
    """Templates and judges of the shards in `out`, then those of the stores."""
    about = About()
    if not any(store.folder.samefile(out) for store in stores):
        for shard in map(read_shard, shard_paths(out)):
            about |= shard.about if isinstance(shard, Shard) else About()
    for store in sorted(stores, key=lambda s: not s.folder.samefile(out)):
        about |= store.about
    return about


def _check_written(paths: Sequence[Path], rows: int) -> None:
    """Read merged shards back and count their answers, before what they were made from is deleted."""
    n = 0
    for path in paths:
        found = read_shard(path)
        if isinstance(found, Damaged):
            raise DataError(f"read back, {found.reason}; no source was deleted", where=str(path),
                            fix="check the disk, then merge again")  # fmt: skip
        n += len(found.columns)
    if n != rows:
        raise DataError(f"{n:,} answers read back of {rows:,} written; no source was deleted", where=str(paths[0]))
