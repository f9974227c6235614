"""Training data for vision-language judges: marked photos, questions and right answers, from any dataset with maps.

A folder holds ``images/`` (the photos at 512 x 512 with both points drawn in), ``pairs.jsonl`` (a conversation a line,
in the format that fine-tuning tools read), ``pairs.parquet`` (the same rows as columns) and ``data.json`` (what they
are). Rows of one photo depend on the seed and the photo alone; photos that were done are kept by a later run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.io.documents import parse_json, read_model
from reasonx_eval.io.files import canonical_json, encode_json, safe_name, write_bytes, write_json, write_text
from reasonx_eval.io.results import DatasetRef
from reasonx_eval.io.seeding import rng
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME, SECOND, Sample
from reasonx_ft.annotation.markers import canonical, draw_markers
from reasonx_ft.annotation.pairs import BAND_NAMES, bands_of, sample_pairs
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import Meaning, Questions
from reasonx_ft.annotation.store.schema import stored_text
from reasonx_ft.judges.evaluation.truth import judged_modalities, map_relation, photo_of
from reasonx_ft.types import ORDERS, Photo

ROWS: Final = "pairs.jsonl"
TABLE: Final = "pairs.parquet"
ABOUT: Final = "data.json"
_PARTS: Final = ".parts"
#: pairs looked at for each that is kept
_CANDIDATES: Final = 8

#: (photos done, photos in all, photos that failed)
Progress = Callable[[int, int, int], None]


class DataSpec(BaseModel):
    """What a folder of training data is; the same spec gives the same rows.

    pairs : questions about each photo and modality
    same : least share of albedo's answers that are "same", where the photo has such pairs
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(1, alias="schema")
    dataset: DatasetRef
    selection: Selection
    modalities: tuple[str, ...]
    pairs: int = Field(ge=1)
    same: float = Field(0.5, ge=0, le=1)
    seed: int = Field(ge=0)
    questions: dict[str, str]
    picture: Literal["jpg", "png"]


class DataCard(DataSpec):
    """The spec, and what came of it. answers : modality -> answer -> rows"""

    photos: int
    rows: int
    answers: dict[str, dict[str, int]]
    failed: dict[str, str]
    rows_sha256: str


@dataclass(frozen=True)
class Chosen:
    """Pairs of one modality: int64 [J, 2, 2] canonical points, int8 [J] relations."""

    points: NDArray[np.int64]
    relation: NDArray[np.int8]


def write_data(
    data: Recent, out: Path, questions: Questions, *, modalities: Sequence[str] | None = None, pairs: int = 10,
    same: float = 0.5, seed: int = 0, picture: Literal["jpg", "png"] = "jpg", selection: Selection | None = None,
    progress: Progress | None = None,
) -> DataCard:  # fmt: skip
    """Write, or go on writing, training data into a folder.

    Raises
    ------
    UsageError
        A dataset without maps, a folder with data of another kind.
    """
    dataset = data.dataset
    asked = maps_of(dataset, modalities)
    spec = DataSpec(
        schema=1, dataset=DatasetRef(name=dataset.name, split=dataset.split, n=len(dataset),
                                     options={k: str(v) for k, v in dataset.options.items()},
                                     ids_sha256=dataset.ids_digest),
        selection=selection or Selection(), modalities=asked, pairs=pairs, same=same, seed=seed,
        questions={m: questions[m].digest for m in asked}, picture=picture,
    )  # fmt: skip
    ids = select(dataset.ids, spec.selection)
    _claim(out, spec)
    failed: dict[str, str] = {}
    lines: list[str] = []
    for number, sample_id in enumerate(ids):
        part = out / _PARTS / f"{safe_name(sample_id)}.jsonl"
        if part.is_file():
            rows = part.read_text(encoding="utf-8").splitlines()
        else:
            try:
                rows = _write_photo(data.load(sample_id), out, spec, questions)
                # the photo's rows come last: a photo whose rows are there has all its pictures
                write_text(part, "".join(row + "\n" for row in rows))
            except SampleError as error:
                failed[sample_id], rows = str(error), []
        lines += rows
        if progress:
            progress(number + 1, len(ids), len(failed))
    return _finish(out, spec, lines, len(ids), failed)


def maps_of(dataset: Any, modalities: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities to make questions of: those whose maps the dataset has.

    Raises
    ------
    UsageError
        There are none, or not what was asked for.
    """
    have, _ = judged_modalities(dataset, modalities)
    found = tuple(m for m in have if m in dataset.targets)
    if not found:
        raise UsageError(f"no maps to draw pairs on: it has {', '.join(dataset.targets)}", where=dataset.name)
    return found


def choose(sample: Sample, photo: Photo, modality: str, *, pairs: int, same: float, seed: int) -> Chosen:
    """Pairs of one modality, spread over the distance bands, with balanced answers.

    Of albedo's, at least the share `same` are of one base colour where the photo has as many among the candidates; of
    the others' neither point is right more often by more than one. Pairs too close to call are left out.

    Raises
    ------
    SampleError
        No candidate that the ground truth decides.
    """
    image = canonical(photo.image)
    points = sample_pairs(image, photo.digest, _CANDIDATES * pairs, seed=seed,
                          size=photo.image.shape[:2]).astype(np.int64)  # fmt: skip
    relation = map_relation(sample, modality, points)
    stream = rng(seed, photo.digest, "judge-data", modality)
    keys = (SAME, DIFFERENT) if modality == "albedo" else (FIRST, SECOND)
    first = [k for k in _spread(points, relation == keys[0], stream)]
    second = [k for k in _spread(points, relation == keys[1], stream)]
    if modality == "albedo":
        wanted = min(len(first), max(int(np.ceil(same * pairs)), pairs - len(second)))
        kept = np.array([*first[:wanted], *second[: pairs - wanted]], dtype=np.int64)
    else:
        # the direction is a matter of which point comes first: turned round, any pair is of the other answer
        kept = np.array(_spread(points, relation != LEFT_OUT, stream)[:pairs], dtype=np.int64)
    if not len(kept):
        raise SampleError(f"no pair that the ground truth of {modality} decides", where=sample.id)
    points, relation = points[kept], relation[kept]
    if modality != "albedo":
        order = stream.permutation(len(kept)) % 2 == 0
        turn = (relation == FIRST) != order
        points = np.where(turn[:, None, None], points[:, ::-1], points)
        relation = np.where(order, FIRST, SECOND).astype(np.int8)
    return Chosen(points, relation)


def _spread(points: NDArray[np.int64], among: NDArray[np.bool_], stream: np.random.Generator) -> list[int]:
    """The rows `among`, in random order, the distance bands by turns."""
    band = bands_of(points)
    queues = [list(stream.permutation(np.flatnonzero(among & (band == b)))) for b in range(len(BAND_NAMES))]
    found: list[int] = []
    while any(queues):
        found += [int(q.pop()) for q in queues if q]
    return found


def _write_photo(sample: Sample, out: Path, spec: DataSpec, questions: Questions) -> list[str]:
    """The rows of one photo; its pictures are written."""
    photo = photo_of(sample)
    rows = []
    for modality in spec.modalities:
        chosen = choose(sample, photo, modality, pairs=spec.pairs, same=spec.same, seed=spec.seed)
        orders = rng(spec.seed, photo.digest, "judge-data", modality, "orders").random(len(chosen.points)) < 0.5
        for k, (points, code) in enumerate(zip(chosen.points, chosen.relation, strict=True)):
            order = ORDERS[int(orders[k])]
            red, green = points if order == "red-first" else points[::-1]
            name = f"images/{safe_name(sample.id)}/{modality}-{k:03d}.{spec.picture}"
            _write_picture(out / name, draw_markers(canonical(photo.image), red[None], green[None])[0])
            template = questions[modality]
            meaning = template.positive(order) if code in (FIRST, SAME) else template.negative(order)
            row = _row(f"{sample.id}/{modality}/{k:03d}", name, template.question,
                       template.prefix + template.answers[meaning],
                       _about(sample, photo, modality, points, order, meaning))  # fmt: skip
            rows.append(encode_json(canonical_json(row)).decode())
    return rows


def _row(name: str, image: str, question: str, answer: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """One conversation in the common format."""
    return {"id": name, "image": image,
            "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}],
            "metadata": dict(metadata)}  # fmt: skip


def _about(
    sample: Sample, photo: Photo, modality: str, points: NDArray[np.int64], order: str, meaning: Meaning
) -> dict[str, Any]:
    return {"sample": sample.id, "photo": photo.digest, "modality": modality, "order": order, "answer": meaning,
            "first": points[0].tolist(), "second": points[1].tolist(),
            "band": BAND_NAMES[int(bands_of(points[None])[0])]}  # fmt: skip


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    # markers are thin and of pure colours: no halved chroma
    how: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {"compress_level": 3}
    Image.fromarray(picture).save(buffer, "JPEG" if path.suffix == ".jpg" else "PNG", **how)
    write_bytes(path, buffer.getvalue())


def _claim(out: Path, spec: DataSpec) -> None:
    """Make sure that a folder is free for, or holds, data of this spec."""
    path = out / _PARTS / "spec.json"
    if path.is_file():
        if path.read_text(encoding="utf-8") != spec.model_dump_json(by_alias=True):
            raise UsageError("data made with other settings lie there", where=str(out), fix="another --out")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("not an empty folder", where=str(out), fix="another --out")
    write_text(path, spec.model_dump_json(by_alias=True))


def _finish(out: Path, spec: DataSpec, lines: list[str], photos: int, failed: dict[str, str]) -> DataCard:
    write_text(out / ROWS, "".join(line + "\n" for line in lines))
    rows = [parse_json(line, ROWS) for line in lines]
    _write_table(out / TABLE, rows)
    answers: dict[str, dict[str, int]] = {m: {} for m in spec.modalities}
    for row in rows:
        about = row["metadata"]
        count = answers[about["modality"]]
        count[about["answer"]] = count.get(about["answer"], 0) + 1
    card = DataCard(**spec.model_dump(by_alias=True), photos=photos - len(failed), rows=len(rows), answers=answers,
                    failed=failed, rows_sha256=sha256_lines(lines))  # fmt: skip
    write_json(out / ABOUT, card.model_dump(mode="json", by_alias=True))
    return card


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = [r["metadata"] for r in rows]
    columns: dict[str, Any] = {
        **{k: [stored_text(r[k]) for r in rows] for k in ("id", "image")},
        "question": [r["conversations"][0]["value"].removeprefix("<image>\n") for r in rows],
        "answer": [r["conversations"][1]["value"] for r in rows],
        **{k: [stored_text(a[k]) for a in about] for k in ("sample", "photo", "modality", "order", "band")},
        "meaning": [a["answer"] for a in about],
        "first": pa.array([a["first"] for a in about], pa.list_(pa.int16(), 2)),
        "second": pa.array([a["second"] for a in about], pa.list_(pa.int16(), 2)),
    }  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_data(folder: Path) -> tuple[DataCard, list[dict[str, Any]]]:
    """The card and the rows of a finished folder.

    Raises
    ------
    UsageError
        No finished training data there.
    DataError
        Rows that are not those of the card, or a row of another form.
    """
    path = folder / ABOUT
    try:
        card = read_model(path, DataCard, "card of training data")
    except FileNotFoundError:
        raise UsageError(f"no {ABOUT} in it: no training data, or unfinished", where=str(folder),
                         fix="reasonx-ft judge-data --dataset NAME --out FOLDER") from None  # fmt: skip
    try:
        lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"can't be read: {' '.join(str(error).split())}", where=str(folder / ROWS)) from None
    if sha256_lines(lines) != card.rows_sha256:
        raise DataError("not the rows that data.json describes: edited, or a damaged copy", where=str(folder / ROWS))
    return card, [parse_json(line, str(folder / ROWS)) for line in lines]
