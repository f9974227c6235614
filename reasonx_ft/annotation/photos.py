"""Photos to ask about: image files of a folder, or the samples of any dataset of reasonx-eval."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonx_eval.datasets.formats.naming import sentence
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.images import read_rgb
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.io.walk import PICTURES, walk_files
from reasonx_eval.types import Sample
from reasonx_ft.types import Photo, photo_digest

if TYPE_CHECKING:
    from reasonx_eval.datasets.base import Dataset

DATASET: Final = "dataset:"
_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


class Recent:
    """A dataset that remembers the last few samples it gave: the photo's reader and a ground-truth judge share them.

    Parameters
    ----------
    want : targets that every sample is loaded with
    """

    def __init__(self, dataset: Dataset, want: Collection[str] = (), keep: int = 16) -> None:
        self.dataset = dataset
        self._want, self._keep = tuple(want), keep
        self._samples: OrderedDict[str, Sample] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, sample_id: str) -> Sample:
        """A sample, from memory or from the dataset; raises what `Dataset.load` raises."""
        with self._lock:
            found = self._samples.get(sample_id)
        if found is not None:
            return found
        sample = self.dataset.load(sample_id, self._want)
        with self._lock:
            self._samples[sample_id] = sample
            while len(self._samples) > self._keep:
                self._samples.popitem(last=False)
        return sample


class Photos:
    """Photos in a fixed order, read when they are needed.

    Parameters
    ----------
    ids : names of the photos
    folder : where the files `ids` lie; or
    recent : the dataset whose samples they are
    overlooked : sentences about pictures that lie there and are not read
    """

    def __init__(
        self, ids: Sequence[str], *, folder: Path | None = None, recent: Recent | None = None,
        overlooked: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.ids = list(ids)
        self.overlooked = tuple(overlooked)
        self.folder, self.recent = folder, recent

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, name: str) -> Photo:
        """Read one photo.

        Raises
        ------
        SampleError
            It can't be read; names the file.
        """
        if self.recent is not None:
            image, sample_id = self.recent.load(name).image, name
            return Photo(name, image, photo_digest(image), sample_id)
        assert self.folder is not None
        image = read_rgb(self.folder / name, upright=True)
        return Photo(name, image, photo_digest(image))

    def read_ahead(self, workers: int = 2) -> Iterator[tuple[str, Photo | SampleError]]:
        """All photos in order, or why one can't be read; the next few are read in threads meanwhile."""

        def attempt(name: str) -> Photo | SampleError:
            try:
                return self.load(name)
            except SampleError as error:
                return error

        names = iter(self.ids)
        with ThreadPoolExecutor(workers) as pool:
            coming: list[tuple[str, Future[Photo | SampleError]]] = []
            try:
                while True:
                    for name in names:
                        coming.append((name, pool.submit(attempt, name)))
                        if len(coming) > 2 * workers:
                            break
                    if not coming:
                        return
                    name, future = coming.pop(0)
                    yield name, future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def open_photos(
    spec: str, *, root: Path | None = None, dataset_options: Mapping[str, Any] | None = None, limit: int | None = None,
    shard: str | None = None, want: Collection[str] = (),
) -> Photos:  # fmt: skip
    """The photos that a user names.

    Parameters
    ----------
    spec : a folder (png and jpg in it and below, sorted by path, without the files that systems leave), one image
        file, or ``dataset:NAME`` or ``dataset:NAME/SPLIT``
    root, dataset_options : of a dataset, as `reasonx_eval.registry.load_dataset` takes them
    limit : only N, spread evenly
    shard : "i/n", every n-th photo from the i-th
    want : targets that a dataset's samples are loaded with where it has them, for a judge that knows the ground truth

    Raises
    ------
    UsageError
        No such folder, no photos in it, an unknown dataset or split, a bad limit or shard.
    """
    selection = Selection(limit=limit, shard=shard)
    if spec.startswith(DATASET):
        dataset = open_dataset(spec, root, dataset_options)
        recent = Recent(dataset, [t for t in want if t in dataset.targets])
        return Photos(select(recent.dataset.ids, selection), recent=recent, overlooked=dataset.overlooked())
    if root is not None or dataset_options:
        raise UsageError("--root and --dataset-option are for dataset:NAME", where=spec)
    folder, names, said = _files(Path(spec))
    return Photos(select(names, selection), folder=folder, overlooked=[said] if said else [])


def open_dataset(spec: str, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """The dataset of ``dataset:NAME`` or ``dataset:NAME/SPLIT``; without a split, the first that it lists."""
    from reasonx_eval.registry import DATASETS, load_dataset

    name, split = spec.removeprefix(DATASET), None
    # a name may be the path of a folder or card, which has slashes of its own
    whole = name in DATASETS or Path(name).exists()
    if "/" in name and not whole:
        name, _, split = name.rpartition("/")
    return load_dataset(name, root, split, options)


def _files(path: Path) -> tuple[Path, list[str], str]:
    """A folder, the photos in it, and a sentence about pictures that are not read."""
    if path.is_file():
        return path.parent, [path.name], ""
    if not path.is_dir():
        raise UsageError("no such folder of photos", where=str(path), fix="a folder, or dataset:NAME[/SPLIT]")
    files = [p for p in walk_files(path) if p.is_file()]
    names = sorted(p.relative_to(path).as_posix() for p in files if p.suffix.lower() in _SUFFIXES)
    if not names:
        raise UsageError(f"no photos ({', '.join(_SUFFIXES)}) in it", where=str(path))
    other = [p.relative_to(path).as_posix() for p in files
             if p.suffix.lower() in PICTURES and p.suffix.lower() not in _SUFFIXES]  # fmt: skip
    return path, names, sentence(f"pictures not read, as they are not {', '.join(_SUFFIXES)}", other)
