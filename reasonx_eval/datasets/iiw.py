"""Intrinsic Images in the Wild: photos with human judgements of relative reflectance."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import PNG, Example, Written, graded_judgements, smooth_truth
from reasonx_eval.datasets.formats.reading import find_folder, require_id, wanted
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import SampleError
from reasonx_eval.io.images import read_rgb, write_png
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget, Sample, Target

#: no score or coordinate is as large
_LARGEST = 1e300
_CODES: Mapping[str | None, int] = {"1": FIRST, "2": SECOND, "E": SAME}
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
    raw = _read(path)
    # a sound file, as nearly every one is, is decoded to typed fields; any other is looked at field by field
    with suppress(ValueError, KeyError, RecursionError, _Unsound):
        return _of_typed(_TYPED.decode(raw))
    return _of_fields(_load_json(raw, path), _Where(path))


class _Point(msgspec.Struct, gc=False):
    id: int
    x: float
    y: float
    opaque: bool | None


class _Comparison(msgspec.Struct, gc=False):
    point1: int
    point2: int
    darker: str | None
    darker_score: float | None


class _File(msgspec.Struct, gc=False):
    intrinsic_points: list[_Point]
    intrinsic_comparisons: list[_Comparison]


_TYPED = msgspec.json.Decoder(_File)


class _Unsound(Exception):
    """A value that its type allows and the format doesn't."""


def _of_typed(file: _File) -> JudgementTarget:
    """The judgements of a sound file.

    Raises
    ------
    KeyError, _Unsound
        It isn't, or can't be told so quickly.
    """
    points, comparisons = file.intrinsic_points, file.intrinsic_comparisons
    rows = {p.id: row for row, p in enumerate(points)}
    xy = np.array([[p.x for p in points], [p.y for p in points]], dtype=np.float64)
    # a score of null becomes NaN, which isn't above 0
    weight = np.array([c.darker_score for c in comparisons], dtype=np.float64)
    if len(rows) < len(points) or xy.size == 0 or not (xy.min() >= 0 and xy.max() <= 1):
        raise _Unsound
    if (np.abs(weight) >= _LARGEST).any():
        raise _Unsound
    pairs = np.array([[rows[c.point1] for c in comparisons], [rows[c.point2] for c in comparisons]], dtype=np.int64)
    return _counted(points=xy, opaque=np.array([p.opaque for p in points], dtype=np.bool_), pairs=pairs, weight=weight,
                    darker=np.array([_CODES.get(c.darker, _NONE) for c in comparisons], dtype=np.int8))  # fmt: skip


def _of_fields(data: Any, where: _Where) -> JudgementTarget:
    """The judgements of any file; names the first field that is not as it must be."""
    points = [(p, f"intrinsic_points[{i}]") for i, p in enumerate(where.objects(data, "intrinsic_points"))]
    ids = [where.integer(p, "id", at) for p, at in points]
    rows = {key: i for i, key in enumerate(ids)}
    if len(rows) < len(ids):
        where.repeated(ids)
    xy = [[where.fraction(p, axis, at) for p, at in points] for axis in ("x", "y")]
    opaque = [where.flag(p, "opaque", at) for p, at in points]
    comparisons = [(c, f"intrinsic_comparisons[{i}]")
                   for i, c in enumerate(where.objects(data, "intrinsic_comparisons"))]  # fmt: skip
    codes = [_CODES.get(where.answer(c, "darker", at), _NONE) for c, at in comparisons]
    scores = [where.score(c, "darker_score", at) for c, at in comparisons]
    # points are looked up only where they count
    chosen = [i for i, (code, score) in enumerate(zip(codes, scores, strict=True))
              if code != _NONE and score is not None and score > 0]  # fmt: skip
    pairs = [[rows[where.known(*comparisons[i], end, rows)] for i in chosen] for end in ("point1", "point2")]
    return _counted(
        points=np.array(xy, dtype=np.float64), opaque=np.array(opaque, dtype=np.bool_),
        pairs=np.array(pairs, dtype=np.int64), darker=np.array([codes[i] for i in chosen], dtype=np.int8),
        weight=np.array([scores[i] for i in chosen], dtype=np.float64),
    )  # fmt: skip


def _counted(
    *, points: NDArray[np.float64], opaque: NDArray[np.bool_], pairs: NDArray[np.int64], darker: NDArray[np.int8],
    weight: NDArray[np.float64],
) -> JudgementTarget:  # fmt: skip
    """Judgements of points [2, P] and pairs [2, J], without those that don't count."""
    kept = (darker != _NONE) & (weight > 0) & opaque[pairs].all(axis=0)
    if not kept.all():
        pairs, darker, weight = pairs[:, kept], darker[kept], weight[kept]
    return JudgementTarget(points=points.T.copy(), pairs=pairs.T.copy(), darker=darker, weight=weight)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SampleError("file is missing", where=str(path), fix="reasonx-eval doctor iiw --prepare") from None
    except OSError as error:
        raise SampleError(f"can't be read: {error}", where=str(path)) from None


def _load_json(raw: bytes, path: Path) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
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
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                self.fail(f"{key}[{i}]", f"expected an object, got {_kind(item)}")
        return items

    def integer(self, record: Mapping[str, Any], key: str, at: str) -> int:
        value = self.get(record, key, at)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(f"{at}.{key}", f"expected an integer, got {_kind(value)}")
        return value

    def number(self, value: Any, field: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < _LARGEST:
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

    def known(self, record: Mapping[str, Any], at: str, key: str, rows: Mapping[int, int]) -> int:
        value = self.integer(record, key, at)
        if value not in rows:
            self.fail(f"{at}.{key}", f"{value} is not the id of any point")
        return value

    def repeated(self, ids: Sequence[int]) -> NoReturn:
        i = next(i for i, key in enumerate(ids) if ids.index(key) < i)
        self.fail(f"intrinsic_points[{i}].id", f"{ids[i]} is the id of an earlier point too")


def _kind(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (str, int, float, bool)) or value is None else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."


def iiw_json(points: Sequence[tuple[int, float, float, Any]], comparisons: Sequence[tuple[int, int, Any, Any]]) -> Any:
    """The official structure from (id, x, y, opaque) and (point1, point2, darker, darker_score)."""
    return {
        "id": 7,
        "intrinsic_points": [
            {"id": i, "x": x, "y": y, "opaque": o, "opaque_score": 1.0, "min_separation": 0.05, "sRGB": "808080"}
            for i, x, y, o in points
        ],
        "intrinsic_comparisons": [
            {"id": k, "point1": a, "point2": b, "darker": d, "darker_score": s, "darker_method": "CUBAM"}
            for k, (a, b, d, s) in enumerate(comparisons)
        ],
    }


def write_iiw(folder: Path, sample_id: str, content: Any, image: NDArray[np.uint8] | None = None) -> None:
    """``ID.json`` and, if an image is given, ``ID.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{sample_id}.json").write_text(text, encoding="utf-8")
    if image is not None:
        write_png(folder / f"{sample_id}.png", image)


def write_examples(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, sample_id in enumerate(split_lines("iiw_test")[:2]):
        judged, photo = graded_judgements(number), smooth_truth(96, 128, number).photo
        write_iiw(root / "data", sample_id, iiw_json(judged.points, judged.comparisons), photo)
        found[sample_id] = Written({"judgements": judged.counted}, photo)
    return found


DATASET = IIW
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("iiw", "iiw", write_examples, PNG),
)  # fmt: skip
