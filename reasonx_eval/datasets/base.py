"""The interface of a data set: its sample ids, and one sample at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from reasonx_eval.errors import DataError, UsageError, unknown
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.types import Sample


@dataclass(frozen=True)
class DatasetInfo:
    """The facts about a data set that `list`, `info` and `doctor --prepare` show.

    licence, homepage, size : how to get the official files
    splits : split name -> number of samples (None: depends on the files)
    farthest_m : the range of the sensor, metres; depth beyond it is in another unit
    usual_m : the median depth of such photos, metres, where they are alike enough to have one
    layout : how the files lie, where no manifest of the package says it
    example : a complete example of the file that describes the data, where there is one
    """

    name: str
    title: str
    targets: tuple[str, ...]
    splits: Mapping[str, int | None]
    licence: str
    homepage: str
    size: str
    needs_root: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    farthest_m: float | None = None
    usual_m: float | None = None
    layout: str = ""
    example: str = ""


class Dataset(ABC):
    """A split of a dataset on disk (or rendered), read lazily, one sample at a time.

    Subclasses must be cheap to construct, picklable, and safe to call from several threads and
    forked workers: file handles open lazily and never travel between processes.
    A constructor raises DataError when the folder can't be this dataset at all; damage of a single
    file is a SampleError from `load`, which names the file.
    """

    info: ClassVar[DatasetInfo]

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        if split not in self.info.splits:
            raise unknown("split", split, self.info.splits, where=self.info.name)
        known = dict(self.info.options)
        for key in options or {}:
            if key not in known:
                raise unknown("dataset option", key, known, where=self.info.name)
        if self.info.needs_root:
            if root is None:
                raise UsageError("this dataset is read from files: say where they are", where=self.info.name,
                                 fix=f"--root DIR, or REASONX_DATA=DIR with a folder {self.info.name} in it; "
                                     f"how to get them: reasonx-eval doctor {self.info.name} --prepare")  # fmt: skip
            if not Path(root).is_dir():
                raise DataError(f"no such folder: {root}", where=self.info.name,
                                fix=f"reasonx-eval doctor {self.info.name} --prepare")  # fmt: skip
        self.root = Path(root) if root is not None else None
        self.split = split
        self.options: Mapping[str, Any] = dict(options or {})

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """All sample ids of the split, in the dataset's own order; known without reading any sample."""

    @abstractmethod
    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        """Read one sample.

        Parameters
        ----------
        sample_id : str
            One of `ids`.
        want : collection of target names, optional
            Which targets to read; None reads all this dataset has. The image is decoded on first use.

        Raises
        ------
        SampleError
            A missing, truncated or wrongly shaped file; names the file and the likely cause.
        """

    def files(self, sample_id: str) -> Sequence[Path]:
        """The files a sample is read from (for digests, doctor and error messages); may be empty."""
        return ()

    def overlooked(self) -> Sequence[str]:
        """Files in the folder that look like a part of the data set and are not read: one sentence a kind.

        `doctor` warns of each, and a run says them first and keeps them in its result. Data sets whose ids are a list
        of the package have none: a file of theirs under another name is the error of its sample.
        """
        return ()

    @property
    def targets(self) -> Sequence[str]:
        """The targets that these files have, for the argument `want` of `load`."""
        return self.info.targets

    @property
    def splits(self) -> Sequence[str]:
        """The splits that these files have."""
        return tuple(self.info.splits)

    @property
    def name(self) -> str:
        return self.info.name

    def sibling(self, split: str) -> Dataset:
        """Another split of the same files, opened in the same way."""
        return type(self)(self.root, split, self.options)

    @property
    def ids_digest(self) -> str:
        """sha256 of the ids joined by newlines."""
        return sha256_lines(self.ids)

    def __len__(self) -> int:
        return len(self.ids)
