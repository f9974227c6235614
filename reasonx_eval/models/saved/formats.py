"""Files of saved predictions: how each format is decoded, and the keys of its folder's meta.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io import images
from reasonx_eval.io.containers import open_h5, open_npz
from reasonx_eval.io.documents import read_json
from reasonx_eval.io.validation import explain
from reasonx_eval.types import NORMAL_FRAMES, TASK_OF_KIND, Kind

META_NAME: Final = "meta.json"

NormalsFrame = Literal["opencv", "opengl", "dsine"]
NormalsEncoding = Literal["none", "half"]
Suffix = Literal[".npy", ".npz", ".png", ".exr", ".h5", ".tif", ".tiff", ".pfm"]


class ModelRef(BaseModel):
    """Who made the predictions, as far as their folder says; all of it is a claim, none is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    source: str | None = None
    weights_sha256: str | None = None
    licence: str | None = None
    parameters: int | None = None
    base: str | None = None
    trained_on: tuple[str, ...] = ()
    reward: str | None = None
    options: Mapping[str, Any] = {}


class PredictionsMeta(BaseModel):
    """meta.json of a folder of predictions; unknown keys are refused.

    kind : meaning of the values, one of types.KINDS
    png_scale, png_offset : value = png * png_scale + png_offset, for 16-bit PNG and TIFF
    npz_key, h5_key : which array of a file with several
    normals_frame : axes of normals: opencv (x right, y down, z forward), opengl (x right, y up, z to the viewer),
        dsine (opencv axes, vectors away from the camera)
    normals_encoding : none, or half: stored as (n + 1) / 2
    suffix : the format to read where a sample has several
    pattern : file name without suffix; "{id}" stands for the sample id
    model : its name, or an object with name, source, weights_sha256, licence, base, trained_on, reward, options
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind | None = None
    png_scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    png_offset: float | None = Field(None, allow_inf_nan=False)
    npz_key: str | None = None
    h5_key: str | None = None
    normals_frame: NormalsFrame | None = None
    normals_encoding: NormalsEncoding | None = None
    suffix: Suffix | None = None
    pattern: str | None = None
    model: ModelRef | None = None
    seed: int | None = None
    notes: str | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("pattern")
    @classmethod
    def _has_id(cls, value: str | None) -> str | None:
        if value is not None and (value.count("{id}") != 1 or value.replace("{id}", "").strip("/") != value.replace(
                "{id}", "") or ".." in value):  # fmt: skip
            raise ValueError('needs "{id}" once, and must stay inside the folder')
        return value


def read_meta(folder: Path) -> PredictionsMeta | None:
    """The folder's meta.json, or None if it has none.

    Raises
    ------
    UsageError
        Not JSON, an unknown key, or a value out of range; names each.
    """
    path = folder / META_NAME
    try:
        return PredictionsMeta.model_validate(read_json(path, error=UsageError))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UsageError(explain(error), where=str(path),
                         fix=f"keys: {', '.join(PredictionsMeta.model_fields)}") from None  # fmt: skip


@dataclass(frozen=True)
class Decoding:
    """Everything that turns one file into a map of `kind`."""

    kind: Kind
    png_scale: float | None = None
    png_offset: float = 0.0
    npz_key: str | None = None
    h5_key: str | None = None
    normals_frame: NormalsFrame = "opencv"
    normals_encoding: NormalsEncoding = "none"


def read_map(path: Path, decoding: Decoding) -> NDArray[np.floating[Any]]:
    """One prediction as float32 or float64 [H, W] or [H, W, 3] in our conventions.

    Raises
    ------
    SampleError
        Damaged file, several arrays without a key, a PNG whose scale is not stated, wrong dtype or shape.
    """
    where = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SampleError(f"can't be read: {error.strerror or error}", where=where) from None
    if path.suffix in (".png", ".tif", ".tiff"):
        array: NDArray[Any] = images.read_png(path, raw) if path.suffix == ".png" else images.read_tiff(path, raw)
        if array.dtype in (np.uint8, np.uint16):
            array = _scale_codes(array, decoding, where)
    elif path.suffix == ".pfm":
        array = images.read_pfm(path, raw)
    elif path.suffix == ".exr":
        array = images.read_exr(path)
    elif path.suffix == ".npy":
        array = images.read_npy(path, raw)
    else:
        key = decoding.npz_key if path.suffix == ".npz" else decoding.h5_key
        array = _read_keyed(path, raw, key)
    value = as_map(array, decoding.kind, where)
    if decoding.kind == "normal":
        value = _our_normals(value, decoding, where, encoded_png=path.suffix in (".png", ".tif", ".tiff"))
    return value


def _read_keyed(path: Path, raw: bytes, key: str | None) -> NDArray[Any]:
    where = str(path)
    if not raw:
        raise SampleError("file is empty (0 bytes): an interrupted copy?", where=where)
    option = f"{path.suffix[1:]}_key"
    try:
        names, read = (open_npz if path.suffix == ".npz" else open_h5)(raw)
        name = key if key is not None else names[0] if len(names) == 1 else None
        if name in names:
            return read(name)
    except SampleError as error:
        raise SampleError(error.what, where=where, fix=error.fix) from None
    except UsageError as error:
        raise SampleError(error.what, where=where, fix="copy the array into the file itself") from None
    except Exception as error:
        raise SampleError(f"can't be decoded ({' '.join(str(error).split())[:200]}): truncated, or not {path.suffix}?",
                          where=where) from None  # fmt: skip
    if name is None:
        raise SampleError(f"holds {len(names)} arrays ({', '.join(names[:8])}); which one is not stated", where=where,
                          fix=f"-O {option}=NAME, or \"{option}\" in {META_NAME}")  # fmt: skip
    raise SampleError(f"has no array '{name}' ({option}); it holds {', '.join(names[:8])}", where=where)


def _scale_codes(png: NDArray[Any], decoding: Decoding, where: str) -> NDArray[np.float64]:
    kind, scale = decoding.kind, decoding.png_scale
    bits = 16 if png.dtype == np.uint16 else 8
    what = f"{bits}-bit {'PNG' if where.endswith('.png') else 'TIFF'}"
    if kind == "normal" and decoding.normals_encoding == "half" and scale is None:
        return np.asarray(png / (2**bits - 1.0))
    if bits == 8:
        if kind == "albedo_srgb" and scale is None:
            return np.asarray(png / 255.0)
        if kind == "normal" and scale is None:
            raise SampleError("8-bit normals whose encoding is not stated", where=where,
                              fix=f'-O normals_encoding=half, or the same in {META_NAME}')  # fmt: skip
        why = "png_scale is for 16-bit files" if scale is not None else f"8 bits can't hold {kind}"
        raise SampleError(f"an {what}: {why}; a picture of the map instead of the map?", where=where,
                          fix="save .npy float32, or a 16-bit PNG with png_scale")  # fmt: skip
    if scale is None:
        raise SampleError(f"a {what} whose scale is not stated: value = png * png_scale + png_offset", where=where,
                          fix=f'-O png_scale=0.001 (millimetres), or "png_scale" in {META_NAME}')  # fmt: skip
    return np.asarray(png * scale + decoding.png_offset)


def _our_normals(
    value: NDArray[np.floating[Any]], decoding: Decoding, where: str, encoded_png: bool
) -> NDArray[np.floating[Any]]:
    if decoding.normals_encoding == "half":
        low, high = float(value.min()), float(value.max())
        if not encoded_png and (low < -1e-3 or high > 1 + 1e-3):
            raise SampleError(f"stated as (n + 1) / 2, which lies in [0, 1], but values reach from {low:.3g} to "
                              f"{high:.3g}", where=where, fix="-O normals_encoding=none")  # fmt: skip
        value = value * 2 - 1
    signs = NORMAL_FRAMES[decoding.normals_frame]
    return value if signs == (1, 1, 1) else value * np.array(signs, dtype=value.dtype)


def as_map(array: NDArray[Any], kind: str, where: str) -> NDArray[np.floating[Any]]:
    """Check dtype and shape of one prediction and give it as [H, W] or [H, W, 3], float64 if it was, else float32.

    Leading axes of length 1 (a batch of one, a single channel) are dropped, and a trailing one of [H, W] kinds; nothing
    else is guessed.
    NaN and infinity pass: the caller decides about them.

    Raises
    ------
    SampleError
        Integers or objects, channels first, a missing or surplus axis, no pixels.
    """
    flat = TASK_OF_KIND[kind] == "depth"
    expected = "[H, W]" if flat else "[H, W, 3]"
    if not np.issubdtype(array.dtype, np.floating):
        raise SampleError(f"dtype {array.dtype}; {kind} needs float values (integers have no stated unit)", where=where)
    array = images.without_batch(array, 2 if flat else 3)
    if flat and array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    good = array.ndim == 2 if flat else array.ndim == 3 and array.shape[-1] == 3
    if not good:
        hint = ""
        if not flat and array.ndim == 3 and array.shape[0] == 3:
            hint = ": channels come first; move them to the end"
        elif flat and array.ndim == 3 and array.shape[-1] in (3, 4):
            hint = ": colours, so a picture of the map instead of the map?"
        raise SampleError(f"shape {list(array.shape)}; {kind} needs {expected}{hint}", where=where)
    if array.size == 0:
        raise SampleError(f"shape {list(array.shape)}: no pixels", where=where)
    return np.ascontiguousarray(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)
