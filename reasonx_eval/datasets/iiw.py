"""Intrinsic Images in the Wild: photos with human judgements of relative reflectance."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import PNG, Example, Written, graded_judgements, smooth_truth
from reasonx_eval.datasets.formats.maps import image_size
from reasonx_eval.datasets.formats.reading import find_folder, require_id, wanted
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import SampleError
from reasonx_eval.io.images import missing, read_rgb, write_png
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget, Sample, Target

_CODES: Mapping[str | None, int] = {"1": FIRST, "2": SECOND, "E": SAME}


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
        meta: dict[str, Any] = {}
        with suppress(SampleError):  # judgements need no photo; whoever does finds the error
            meta["photo_size"] = image_size(photo)
        return Sample(id=sample_id, source=partial(read_rgb, photo), targets=targets, meta=meta)


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
    file = _read(path)
    points, comparisons = file.intrinsic_points, file.intrinsic_comparisons
    rows: dict[int, int] = {}
    for row, point in enumerate(points):
        if rows.setdefault(point.id, row) != row:
            raise SampleError(f"intrinsic_points[{row}].id: {point.id} is the id of an earlier point too",
                              where=str(path))  # fmt: skip
    # points are looked up only where they count
    counted = [(k, c) for k, c in enumerate(comparisons) if c.darker in _CODES and (c.darker_score or 0) > 0]
    kept: list[tuple[int, int, int, float]] = []
    for k, c in counted:
        try:
            first, second = rows[c.point1], rows[c.point2]
        except KeyError as error:
            end = "point1" if c.point1 not in rows else "point2"
            raise SampleError(f"intrinsic_comparisons[{k}].{end}: {error} is not the id of any point",
                              where=str(path)) from None  # fmt: skip
        if points[first].opaque and points[second].opaque:
            kept.append((first, second, _CODES[c.darker], c.darker_score or 0.0))
    return JudgementTarget(
        points=np.array([(p.x, p.y) for p in points], dtype=np.float64).reshape(-1, 2),
        pairs=np.array([k[:2] for k in kept], dtype=np.int64).reshape(-1, 2),
        darker=np.array([k[2] for k in kept], dtype=np.int8),
        weight=np.array([k[3] for k in kept], dtype=np.float64),
    )


_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Score = Annotated[float, msgspec.Meta(lt=1e300)]  # no score is as large


class _Point(msgspec.Struct, gc=False):
    id: int
    x: _Fraction
    y: _Fraction
    opaque: bool | None


class _Comparison(msgspec.Struct, gc=False):
    point1: int
    point2: int
    darker: str | None
    darker_score: _Score | None


class _File(msgspec.Struct, gc=False):
    intrinsic_points: list[_Point]
    intrinsic_comparisons: list[_Comparison]


_DECODER = msgspec.json.Decoder(_File)


def _read(path: Path) -> _File:
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise SampleError(missing(path).what, where=str(path), fix="reasonx-eval doctor iiw --prepare") from None
    except OSError as error:
        raise SampleError(f"can't be read: {error}", where=str(path)) from None
    if not raw.strip():
        raise SampleError("file is empty: an interrupted copy or download?", where=str(path))
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        what, _, field = str(error).partition(" - at `$")
        found = f"{field.strip('.`')}: " if field else ""
        raise SampleError(f"{found}{what}", where=str(path)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise SampleError(f"not valid JSON ({error}): truncated?", where=str(path)) from None


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
