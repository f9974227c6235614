"""A folder of predictions as a model: nothing is computed, and the photos are never decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.digests import file_digest, lines_digest
from reasonx_eval.io.files import safe_name, write_json
from reasonx_eval.io.images import write_npy
from reasonx_eval.io.validation import explain
from reasonx_eval.io.walk import near_names, walk_files
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.saved.formats import (
    META_NAME,
    Decoding,
    ModelRef,
    NormalsEncoding,
    NormalsFrame,
    PredictionsMeta,
    Suffix,
    read_map,
    read_meta,
)
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Prediction, Sample

SUFFIXES = get_args(Suffix)


class Saved(Model):
    """Predictions read from files ``<sample id>.npy|.npz|.png|.exr|.h5|.tif|.pfm``.

    Ids with slashes are nested folders, or flat names with ``__`` for ``/``. Whatever is not given here comes
    from the folder's meta.json (see `PredictionsMeta`); stating a thing twice, differently, is an error.

    ``info.weights_sha256`` is known before the first sample is read. It covers the folder's meta.json and the name and
    all bytes of every file. The records of a run hold the digest of every value that was scored.

    Parameters
    ----------
    folder : Path
    kind : one of types.KINDS
    png_scale, png_offset, npz_key, h5_key, normals_frame, normals_encoding, suffix, pattern : see `PredictionsMeta`
    name : shown in tables; default: the model named in meta.json, or the folder's name

    Raises
    ------
    DataError
        No such folder.
    UsageError
        No kind stated, a contradiction with meta.json, or an option that the kind has no use for.
    """

    needs_image = False
    thread_safe = True

    def __init__(
        self,
        folder: Path | str,
        *,
        kind: str | None = None,
        png_scale: float | None = None,
        png_offset: float | None = None,
        npz_key: str | None = None,
        h5_key: str | None = None,
        normals_frame: NormalsFrame | None = None,
        normals_encoding: NormalsEncoding | None = None,
        suffix: Suffix | None = None,
        pattern: str | None = None,
        name: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        where = str(self.folder)
        if not self.folder.is_dir():
            raise DataError("no such folder of predictions", where=where)
        if kind is not None:
            check_kind(kind, KINDS, where=where)
        given = {
            "kind": kind, "png_scale": png_scale, "png_offset": png_offset, "npz_key": npz_key, "h5_key": h5_key,
            "normals_frame": normals_frame, "normals_encoding": normals_encoding, "suffix": suffix, "pattern": pattern,
        }  # fmt: skip
        self._meta = _merge(read_meta(self.folder), given, where)
        if self._meta.kind is None:
            raise UsageError(f"kind is not stated: no --kind, and none in {META_NAME}. One of: {', '.join(KINDS)}",
                             where=where, fix=f'--kind depth_metric, or {{"kind": "depth_metric"}} in '
                                              f"{self.folder / META_NAME}")  # fmt: skip
        self._name = name
        self._decoding = _decoding(self._meta, where)
        self._pattern = self._meta.pattern or "{id}"
        self._suffixes = (self._meta.suffix,) if self._meta.suffix else SUFFIXES
        if next(prediction_files(self.folder), None) is None:
            raise DataError(f"no prediction in this folder: no file ends in {', '.join(SUFFIXES)}", where=where)

    @property
    def info(self) -> ModelInfo:
        ref = self._meta.model or ModelRef(name=self._name or self.folder.resolve().name)
        stated = {"stated_weights_sha256": ref.weights_sha256} if ref.weights_sha256 else {}
        rules = self._meta.model_dump(mode="json", exclude_none=True, exclude={"model", "notes"})
        model_options = {"model": dict(ref.options)} if ref.options else {}
        return ModelInfo(
            name=self._name or ref.name,
            source=f"preds:{self.folder}",
            weights_sha256=self._fingerprint,
            licence=ref.licence,
            parameters=ref.parameters,
            base=ref.base,
            trained_on=ref.trained_on,
            reward=ref.reward,
            options={**rules, **model_options, **stated},
            notes=("saved predictions; weights_sha256 covers the names and all bytes of the files",
                   *([f"predicted by {ref.source}"] if ref.source else [])),
        )  # fmt: skip

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {TASK_OF_KIND[self._decoding.kind]: (self._decoding.kind,)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self._decoding.kind,), where=str(self.folder))
        return [self._read(s.id) for s in samples]

    def path(self, sample_id: str) -> Path:
        """The file of one sample.

        Raises
        ------
        SampleError
            No file, or several; names them.
        """
        found = self._candidates(sample_id)
        if len(found) == 1:
            return found[0]
        if found:
            raise SampleError(f"{len(found)} files for one sample: {', '.join(p.name for p in found)}",
                              where=f"{self.folder}: sample {sample_id}",
                              fix=f"-O suffix={found[0].suffix}, or keep one of them")  # fmt: skip
        stems = self._stems(sample_id)
        expected = ", ".join(f"{s}{'|'.join(self._suffixes)}" for s in stems)
        near = [n for s in stems for n in near_names(self.folder / f"{s}{self._suffixes[0]}")]
        near = near or get_close_matches(stems[0], self._known_stems, n=1, cutoff=0.6)
        hint = f"; a similar name is there: {near[0]}" if near else ""
        raise SampleError(f"no file; expected {expected}{hint}", where=f"{self.folder}: sample {sample_id}")

    def _stems(self, sample_id: str) -> tuple[str, ...]:
        try:
            safe = safe_name(sample_id)
        except ValueError as error:
            raise SampleError(str(error), where=str(self.folder)) from None
        return tuple(dict.fromkeys(self._pattern.replace("{id}", s) for s in (safe, safe.replace("/", "__"))))

    def _candidates(self, sample_id: str) -> list[Path]:
        paths = (self.folder / f"{stem}{suffix}" for stem in self._stems(sample_id) for suffix in self._suffixes)
        return [p for p in paths if p.is_file()]

    def _read(self, sample_id: str) -> Prediction:
        return Prediction(self._decoding.kind, read_map(self.path(sample_id), self._decoding))

    @cached_property
    def _known_stems(self) -> list[str]:
        return [p.relative_to(self.folder).as_posix().removesuffix(p.suffix) for p in prediction_files(self.folder)]

    @cached_property
    def _fingerprint(self) -> str:
        meta = self.folder / META_NAME
        lines = [f"{META_NAME}\t{file_digest(meta)}"] if meta.is_file() else []
        for path in prediction_files(self.folder):
            # a dead link is its sample's error, when that sample's turn comes
            digest = file_digest(path) if path.is_file() else "unreadable"
            lines.append(f"{path.relative_to(self.folder).as_posix()}\t{digest}")
        return lines_digest(lines)


def prediction_files(folder: Path) -> Iterator[Path]:
    """The files in `folder` and below that could be predictions, in sorted order; links are followed once."""
    return (path for path in walk_files(folder) if path.name.endswith(SUFFIXES))


def _merge(meta: PredictionsMeta | None, given: Mapping[str, Any], where: str) -> PredictionsMeta:
    stated = meta.model_dump(exclude_none=True) if meta else {}
    for key, value in given.items():
        if value is not None and key in stated and stated[key] != value:
            raise UsageError(f"{key} is given as '{value}', but {META_NAME} says '{stated[key]}'", where=where,
                             fix=f"leave it out, or correct {META_NAME}")  # fmt: skip
    merged = {**stated, **{k: v for k, v in given.items() if v is not None}}
    try:
        return PredictionsMeta.model_validate(merged)
    except ValidationError as error:
        raise UsageError(explain(error), where=where) from None


def _decoding(meta: PredictionsMeta, where: str) -> Decoding:
    assert meta.kind is not None
    for key in ("normals_frame", "normals_encoding"):
        if getattr(meta, key) is not None and meta.kind != "normal":
            raise UsageError(f"{key} is stated, but the kind is {meta.kind}", where=where)
    if meta.png_offset is not None and meta.png_scale is None:
        raise UsageError("png_offset is stated without png_scale", where=where)
    return Decoding(
        kind=meta.kind,
        png_scale=meta.png_scale,
        png_offset=meta.png_offset or 0.0,
        npz_key=meta.npz_key,
        h5_key=meta.h5_key,
        normals_frame=meta.normals_frame or "opencv",
        normals_encoding=meta.normals_encoding or "none",
    )


def write_prediction(folder: Path, sample_id: str, prediction: Prediction) -> Path:
    """Write one prediction as ``<sample id>.npy``, atomically, in its own precision; `Saved` reads it bit for bit.

    Raises
    ------
    SampleError
        The id would leave the folder.
    """
    try:
        path = folder / f"{safe_name(sample_id)}.npy"
    except ValueError as error:
        raise SampleError(str(error), where=str(folder)) from None
    value = np.asarray(prediction.value)
    write_npy(path, value if value.dtype in (np.float32, np.float64) else value.astype(np.float32))
    return path


def write_meta(
    folder: Path, *, kind: Kind, info: ModelInfo | None = None, seed: int | None = None, notes: str | None = None
) -> Path:
    """Write the meta.json that goes with `write_prediction`: the kind, and who predicted."""
    ref = None
    if info is not None:
        ref = ModelRef(**{name: getattr(info, name) for name in ModelRef.model_fields})
    meta = PredictionsMeta(kind=kind, model=ref, seed=seed, notes=notes)
    path = folder / META_NAME
    write_json(path, meta.model_dump(mode="json", exclude_none=True))
    return path
