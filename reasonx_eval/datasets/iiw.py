"""Intrinsic Images in the Wild: photos with human judgements of relative reflectance."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import pydantic_core

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.reading import find_folder, require_id, wanted
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import SampleError
from reasonx_eval.images import read_rgb
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget, Sample, Target

#: whether nothing is wrong with the values of a whole column
_Sound: TypeAlias = Callable[[list[Any]], bool]
_CODES = {"1": FIRST, "2": SECOND, "E": SAME}
#: the code of every other answer, which doesn't count
_NONE = -1


class IIW(Dataset):
    """``ID.png`` and ``ID.json`` of the official release.

    The root is the folder with ``data/`` or ``iiw-dataset/data/`` in it, or the data folder itself. The ids come
    from the package, never from the disk: a missing file is an error of its sample, not a smaller split.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="iiw",
        title="Intrinsic Images in the Wild (Bell et al. 2014)",
        targets=("judgements",),
        splits={"test": 1046, "all": 5230},
        licence="annotations: research use, see the homepage; photos: Creative Commons, per photo",
        homepage="https://opensurfaces.cs.cornell.edu/publications/intrinsic/",
        size="1.5 GB (iiw-dataset-release-0.zip)",
    )

    def __init__(self, root: Path | None, split: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self._folder = find_folder(self, ("data", "iiw-dataset/data", "."), _has_samples, "ID.json of this dataset")

    @property
    def ids(self) -> Sequence[str]:
        return split_lines(f"iiw_{self.split}")

    def files(self, sample_id: str) -> Sequence[Path]:
        return (self._folder / f"{sample_id}.png", self._folder / f"{sample_id}.json")

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        photo, judgements = self.files(sample_id)
        targets: dict[str, Target] = {}
        if wanted(want, "judgements"):
            targets["judgements"] = read_judgements(judgements)
        return Sample(id=sample_id, source=partial(read_rgb, photo), targets=targets)


def _has_samples(folder: Path) -> bool:
    known = frozenset(split_lines("iiw_all"))
    with os.scandir(folder) as entries:
        return any(e.name.endswith(".json") and e.name[:-5] in known for e in entries)


def read_judgements(path: Path) -> JudgementTarget:
    """The judgements of one photo that count, in file order, by the rules of the official ``whdr.py``.

    Dropped: ``darker`` other than 1, 2 or E; ``darker_score`` null or <= 0; either point not opaque.

    Raises
    ------
    SampleError
        A missing or truncated file, or a field that is absent or of another type; names the field.
    """
    data = _load_json(path)
    where = _Where(path)
    points = where.objects(data, "intrinsic_points")
    column = partial(where.column, points, "intrinsic_points")
    ids = column("id", where.integer, _INTEGERS)
    rows = dict(zip(ids, range(len(ids)), strict=True))
    if len(rows) < len(ids):
        where.repeated(ids)
    xy = [column(axis, where.fraction, _fractions) for axis in ("x", "y")]
    opaque = np.array(column("opaque", where.flag, _FLAGS), dtype=np.bool_)

    comparisons = where.objects(data, "intrinsic_comparisons")
    column = partial(where.column, comparisons, "intrinsic_comparisons")
    answers = column("darker", where.answer, _ANSWERS)
    darker = np.array([_CODES.get(answer, _NONE) for answer in answers], dtype=np.int8)
    # a score of null becomes NaN, which isn't above 0
    weight = np.array(column("darker_score", where.score, _scores), dtype=np.float64)
    counted = (darker != _NONE) & (weight > 0)
    # points are looked up only where they count
    chosen = None if counted.all() else np.flatnonzero(counted).tolist()
    known = _known_in(rows)
    ends = (column(end, partial(where.known, rows=rows), known, chosen) for end in ("point1", "point2"))
    pairs = np.array([list(map(rows.__getitem__, end)) for end in ends], dtype=np.int64).T.copy()
    if chosen is not None:
        darker, weight = darker[chosen], weight[chosen]
    kept = opaque[pairs].all(axis=1)
    if not kept.all():
        pairs, darker, weight = pairs[kept], darker[kept], weight[kept]
    return JudgementTarget(points=np.array(xy, dtype=np.float64).T.copy(), pairs=pairs, darker=darker, weight=weight)


def _load_json(path: Path) -> Any:
    try:
        raw = path.read_bytes()
        # three times as quick; what it doesn't take, the slower parser explains
        with suppress(ValueError):
            return pydantic_core.from_json(raw, allow_inf_nan=False)
        text = raw.decode()
    except FileNotFoundError:
        raise SampleError("file is missing", where=str(path), fix="reasonx-eval doctor iiw --prepare") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SampleError(f"can't be read: {error}", where=str(path)) from None
    if not text.strip():
        raise SampleError("file is empty: an interrupted copy or download?", where=str(path))

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SampleError(f"not valid JSON ({error}): truncated?", where=str(path)) from None


class _Where:
    """Typed access to the fields of one file; every failure names the file and the field."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, field: str, what: str) -> NoReturn:
        raise SampleError(f"{field}: {what}", where=str(self._path))

    def get(self, record: Mapping[str, Any], key: str, at: str) -> Any:
        if key not in record:
            self.fail(f"{at}.{key}", "is missing")
        return record[key]

    def objects(self, data: Any, key: str) -> list[dict[str, Any]]:
        if not isinstance(data, dict):
            self.fail("file", f"expected an object with {key}, got {_kind(data)}")
        items = data.get(key)
        if not isinstance(items, list):
            self.fail(key, "is missing" if key not in data else f"expected a list, got {_kind(items)}")
        if not _OBJECTS(items):
            i, item = next((i, item) for i, item in enumerate(items) if not isinstance(item, dict))
            self.fail(f"{key}[{i}]", f"expected an object, got {_kind(item)}")
        return items

    def integer(self, record: Mapping[str, Any], key: str, at: str) -> int:
        value = self.get(record, key, at)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(f"{at}.{key}", f"expected an integer, got {_kind(value)}")
        return value

    def number(self, value: Any, field: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e300:
            self.fail(field, f"expected a number, got {_kind(value)}")
        return float(value)

    def fraction(self, record: Mapping[str, Any], key: str, at: str) -> float:
        value = self.number(self.get(record, key, at), f"{at}.{key}")
        if not 0.0 <= value <= 1.0:
            self.fail(f"{at}.{key}", f"expected a fraction of the image in [0, 1], got {value:g}")
        return value

    def flag(self, record: Mapping[str, Any], key: str, at: str) -> bool:
        value = self.get(record, key, at)
        if value is not None and not isinstance(value, bool):
            self.fail(f"{at}.{key}", f"expected true, false or null, got {_kind(value)}")
        return bool(value)

    def answer(self, record: Mapping[str, Any], key: str, at: str) -> str | None:
        value = self.get(record, key, at)
        if value is not None and not isinstance(value, str):
            self.fail(f"{at}.{key}", f"expected '1', '2', 'E' or null, got {_kind(value)}")
        return value

    def score(self, record: Mapping[str, Any], key: str, at: str) -> float | None:
        value = self.get(record, key, at)
        return None if value is None else self.number(value, f"{at}.{key}")

    def known(self, record: Mapping[str, Any], key: str, at: str, rows: Mapping[int, int]) -> int:
        value = self.integer(record, key, at)
        if value not in rows:
            self.fail(f"{at}.{key}", f"{value} is not the id of any point")
        return value

    def repeated(self, ids: Sequence[int]) -> NoReturn:
        i = next(i for i, key in enumerate(ids) if ids.index(key) < i)
        self.fail(f"intrinsic_points[{i}].id", f"{ids[i]} is the id of an earlier point too")

    def column(
        self, records: Sequence[dict[str, Any]], name: str, key: str, field: Callable[[dict[str, Any], str, str], Any],
        sound: _Sound, chosen: Sequence[int] | None = None,
    ) -> list[Any]:  # fmt: skip
        """One field of the chosen records, as `field` gives it.

        Nearly every file is sound, which is seen of a whole column at once; of one that isn't, each field is looked
        at to say which it is.
        """
        found = records if chosen is None else [records[i] for i in chosen]
        with suppress(KeyError):
            values = list(map(itemgetter(key), found))
            if sound(values):
                return values
        numbers = range(len(records)) if chosen is None else chosen
        return [field(record, key, f"{name}[{i}]") for i, record in zip(numbers, found, strict=True)]


def _all_of(*types: type) -> _Sound:
    known = frozenset(types)
    return lambda values: known.issuperset(map(type, values))


_OBJECTS, _INTEGERS, _NUMBERS = _all_of(dict), _all_of(int), _all_of(int, float)
_FLAGS, _ANSWERS = _all_of(bool, type(None)), _all_of(str, type(None))


def _known_in(rows: Mapping[int, int]) -> _Sound:
    return lambda keys: _INTEGERS(keys) and rows.keys() >= set(keys)


def _fractions(values: list[Any]) -> bool:
    return _NUMBERS(values) and (not values or (min(values) >= 0 and max(values) <= 1))


def _scores(values: list[Any]) -> bool:
    given = [v for v in values if v is not None] if None in values else values
    return _NUMBERS(given) and (not given or (min(given) > -1e300 and max(given) < 1e300))


def _kind(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (str, int, float, bool)) or value is None else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."
