"""Writers of files in the official formats of datasets."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.images import write_npy, write_png

NYU_SHAPE = (480, 640)
DIODE_SHAPE = (768, 1024)


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> bytes:
    """An 8-bit photo; returns the file's bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


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


@dataclass(frozen=True)
class NyuImage:
    """One labelled image: photo uint8 [480, 640, 3]; raw (0 = missing) and filled depth, float32 metres."""

    photo: NDArray[np.uint8]
    raw: NDArray[np.float32]
    filled: NDArray[np.float32]


def write_nyuv2_mat(path: Path, images: Mapping[int, NyuImage], scenes: Mapping[int, str] | None = None,
                    leave_out: Sequence[str] = ()) -> None:  # fmt: skip
    """The labelled .mat with all 1449 rows, of which only the given ones (1-based) are stored."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        shapes = {"images": ((1449, 3, 640, 480), "u1"), "depths": ((1449, 640, 480), "f4"),
                  "rawDepths": ((1449, 640, 480), "f4"), "labels": ((1449, 640, 480), "u2")}  # fmt: skip
        for key, (shape, dtype) in shapes.items():
            if key not in leave_out:
                file.create_dataset(key, shape, dtype, chunks=(1, *shape[1:]), compression="gzip", compression_opts=1)
        for number, image in images.items():
            rows = {"images": image.photo.transpose(2, 1, 0), "depths": image.filled.T, "rawDepths": image.raw.T}
            for key, row in rows.items():
                if key not in leave_out:
                    file[key][number - 1] = row
        if scenes is not None:
            cells = file.create_dataset("scenes", (1, 1449), h5py.ref_dtype)
            for number, scene in scenes.items():
                text = file.create_dataset(f"#refs#/{number}", data=np.array([[ord(c)] for c in scene], dtype="u2"))
                cells[0, number - 1] = text.ref


def write_splits_mat(path: Path, train: Sequence[int], test: Sequence[int]) -> None:
    """MATLAB 5, uint16 columns, as the official file."""
    from scipy.io import savemat

    columns = {"trainNdxs": train, "testNdxs": test}
    savemat(path, {k: np.array(v, dtype=np.uint16).reshape(-1, 1) for k, v in columns.items()})


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Metres as 16-bit codes."""
    return np.asarray(np.rint(depth * 1000.0), dtype=np.uint16)


def write_nyuv2_extracted(folder: Path, number: int, scene: str, image: NyuImage) -> None:
    """``SCENE/rgb_0001.png, depth_0001.png, filled_0001.png``."""
    write_png(folder / scene / f"rgb_{number:04d}.png", image.photo)
    write_png(folder / scene / f"depth_{number:04d}.png", millimetres(image.raw))
    write_png(folder / scene / f"filled_{number:04d}.png", millimetres(image.filled))


def write_nyuv2_bts(folder: Path, number: int, room: str, image: NyuImage, *, filled: bool = False) -> None:
    """``ROOM/rgb_00000.jpg, sync_depth_00000.png``, numbered from 0."""
    write_jpeg(folder / room / f"rgb_{number - 1:05d}.jpg", image.photo)
    write_png(folder / room / f"sync_depth_{number - 1:05d}.png", millimetres(image.filled if filled else image.raw))


def write_nyuv2_normals(folder: Path, number: int, stored: NDArray[Any], image: NDArray[np.uint8]) -> None:
    """``000000_img.png`` and ``_normal.png`` (uint8 codes) or ``_normal.npy`` (float vectors)."""
    stem = f"{number - 1:06d}"
    write_png(folder / f"{stem}_img.png", image)
    write_npy(folder / f"{stem}_intrins.npy", np.eye(3))
    if stored.dtype == np.uint8:
        write_png(folder / f"{stem}_normal.png", stored)
    else:
        write_npy(folder / f"{stem}_normal.npy", stored)


def eth3d_names(sample_id: str, *, tar: bool = False) -> tuple[str, str]:
    """Relative names of photo and depth: unpacked official archives, or the members of the combined tar."""
    scene, name = sample_id.split("/")
    image, depth = f"{scene}/images/dslr_images/{name}.JPG", f"{scene}/ground_truth_depth/dslr_images/{name}.JPG"
    return (f"rgb/{image}", f"depth/{scene}_dslr_depth/{depth}") if tar else (image, depth)


def write_eth3d(root: Path, sample_id: str, depth: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
    """Photo and bare float32 depth, as unpacked from the official archives."""
    photo_name, depth_name = eth3d_names(sample_id)
    write_jpeg(root / photo_name, image)
    (root / depth_name).parent.mkdir(parents=True, exist_ok=True)
    (root / depth_name).write_bytes(depth.astype("<f4").tobytes())


def write_tar(path: Path, members: Mapping[str, bytes], prefix: str = "./") -> None:
    """An uncompressed tar with a folder entry before each file, as GNU tar makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            folder = tarfile.TarInfo(prefix + str(Path(name).parent))
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@dataclass(frozen=True)
class DiodeFiles:
    """depth float32 [768, 1024, 1], mask float [768, 1024], normal float [768, 1024, 3] or None."""

    photo: NDArray[np.uint8]
    depth: NDArray[np.float32]
    mask: NDArray[Any]
    normal: NDArray[Any] | None


def write_diode(folder: Path, sample_id: str, files: DiodeFiles) -> None:
    """``NAME.png, NAME_depth.npy, NAME_depth_mask.npy`` and, if there are normals, ``NAME_normal.npy``."""
    stem = folder / sample_id
    write_png(stem.with_name(stem.name + ".png"), files.photo)
    write_npy(stem.with_name(stem.name + "_depth.npy"), files.depth)
    write_npy(stem.with_name(stem.name + "_depth_mask.npy"), files.mask)
    if files.normal is not None:
        write_npy(stem.with_name(stem.name + "_normal.npy"), files.normal)


def write_mit(folder: Path, layers: Mapping[str, NDArray[np.uint16]]) -> None:
    """``mask.png, original.png, reflectance.png, shading.png`` of one object, 16 bit and linear."""
    for name, layer in layers.items():
        write_png(folder / f"{name}.png", layer)
