"""Every dataset and layout as small official-format files, with what a loader must read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.plan import ANY
from reasonx_eval.selftest import writers
from reasonx_eval.selftest.truth import Truth, graded_judgements, smooth_truth
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Target

_NYU = {1: "kitchen_0004", 9: "office_0005"}
_DIODE = (split_lines("diode_val_indoor")[0], split_lines("diode_val_outdoor")[0])
_ETH3D = (split_lines("eth3d_dslr")[0], split_lines("eth3d_dslr")[-1])


@dataclass(frozen=True)
class Written:
    """What the files of one sample say.

    targets : by name; "depth.filled" is the depth of a dataset opened with an option of that value
    photo : uint8 [H, W, 3], or None where the loader derives it
    """

    targets: Mapping[str, Target]
    photo: NDArray[np.uint8] | None = None

    def target(self, name: str, options: Mapping[str, Any]) -> Target | None:
        for value in options.values():
            if f"{name}.{value}" in self.targets:
                return self.targets[f"{name}.{value}"]
        return self.targets.get(name)


@dataclass(frozen=True)
class Source:
    """One layout of one dataset.

    write : writes two or so samples below a folder and says what they hold; None for rendered datasets
    tolerance : target -> how much encoding may change it: metres, degrees, linear value, and codes of the photo
    options : how the dataset is opened; split : only for protocols that name none
    refused : options that this layout can't serve and must refuse
    only : the protocols this source is read for (all of its dataset, if empty)
    offers : targets it gives to protocols that serve any dataset
    """

    name: str
    dataset: str
    write: Callable[[Path], Mapping[str, Written]] | None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = "all"
    refused: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()

    def serves(self, protocol: Protocol) -> bool:
        """Whether a protocol is checked on this source."""
        if protocol.dataset == ANY:
            return protocol.target in self.offers
        return protocol.dataset == self.dataset and (not self.only or protocol.name in self.only)


def _depth(depth: NDArray[Any], valid: NDArray[np.bool_]) -> DepthTarget:
    return DepthTarget(depth.astype(np.float32), valid)


def _normals(truth: Truth, valid: NDArray[np.bool_]) -> NormalTarget:
    return NormalTarget(truth.normal.astype(np.float32), valid)


def _map(value: NDArray[np.float64], valid: NDArray[np.bool_]) -> MapTarget:
    rgb = value if value.ndim == 3 else np.repeat(value[..., None], 3, axis=2)
    return MapTarget(rgb.astype(np.float32), valid)


def _codes(vectors: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(n + 1) / 2 in 8 bit; black where there is none."""
    return np.where(seen[..., None], np.rint((vectors + 1) * 127.5), 0).astype(np.uint8)


def _everywhere(truth: Truth) -> NDArray[np.bool_]:
    return np.ones(truth.seen.shape, dtype=np.bool_)


def write_iiw(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, sample_id in enumerate(split_lines("iiw_test")[:2]):
        judged, photo = graded_judgements(number), smooth_truth(96, 128, number).photo
        writers.write_iiw(root / "data", sample_id, writers.iiw_json(judged.points, judged.comparisons), photo)
        found[sample_id] = Written({"judgements": judged.counted}, photo)
    return found


def _nyu(number: int) -> tuple[writers.NyuImage, Written]:
    truth = smooth_truth(*writers.NYU_SHAPE, number)
    filled = np.rint(truth.depth * 1000) / 1000
    raw = np.where(truth.seen, filled, 0)
    targets = {"depth.raw": _depth(raw, truth.seen), "depth.filled": _depth(filled, _everywhere(truth))}
    image = writers.NyuImage(truth.photo, raw.astype(np.float32), filled.astype(np.float32))
    return image, Written(targets, truth.photo)


def write_nyu_mat(root: Path) -> Mapping[str, Written]:
    made = {number: _nyu(number) for number in _NYU}
    writers.write_nyuv2_mat(root / "nyu_depth_v2_labeled.mat", {n: image for n, (image, _) in made.items()}, _NYU)
    return {f"{n:04d}": written for n, (_, written) in made.items()}


def write_nyu_extracted(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, scene in _NYU.items():
        image, found[f"{number:04d}"] = _nyu(number)
        writers.write_nyuv2_extracted(root / "test", number, scene, image)
    return found


def write_nyu_bts(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, scene in _NYU.items():
        image, found[f"{number:04d}"] = _nyu(number)
        writers.write_nyuv2_bts(root / "official_splits" / "test", number, scene[:-5], image)
    return found


def write_nyu_dsine(root: Path) -> Mapping[str, Written]:
    """8-bit codes of outward normals: the opposite of ours."""
    found = {}
    for number in _NYU:
        truth = smooth_truth(*writers.NYU_SHAPE, number)
        writers.write_nyuv2_normals(root / "test", number, _codes(-truth.normal, truth.seen), truth.photo)
        found[f"{number:04d}"] = Written({"normals": _normals(truth, truth.seen)}, truth.photo)
    return found


def write_nyu_marigold(root: Path) -> Mapping[str, Written]:
    """Floats, y up and z towards the camera."""
    found = {}
    for number in _NYU:
        truth = smooth_truth(*writers.NYU_SHAPE, number)
        stored = np.where(truth.seen[..., None], truth.normal * (1, -1, -1), 0).astype(np.float32)
        writers.write_nyuv2_normals(root / "test", number, stored, truth.photo)
        found[f"{number:04d}"] = Written({"normals": _normals(truth, truth.seen)}, truth.photo)
    return found


def _eth3d(number: int, size: tuple[int, int] = (720, 1080)) -> tuple[NDArray[np.float32], Written]:
    """Smaller than the photos of the release, yet larger than 1024, where fits are subsampled."""
    truth = smooth_truth(*size, number)
    depth = np.where(truth.seen, truth.depth, np.inf).astype(np.float32)
    return depth, Written({"depth": _depth(depth, truth.seen)}, truth.photo)


def write_eth3d_folders(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, sample_id in enumerate(_ETH3D):
        depth, found[sample_id] = _eth3d(number)
        writers.write_eth3d(root, sample_id, depth, _photo(found[sample_id]))
    return found


def write_eth3d_full(root: Path) -> Mapping[str, Written]:
    """One photo of the release's 24 megapixels, from a smaller map whose pixels become blocks."""
    depth, small = _eth3d(0, (504, 756))
    large = depth.repeat(8, axis=0).repeat(8, axis=1)
    photo = _photo(small).repeat(8, axis=0).repeat(8, axis=1)
    writers.write_eth3d(root, _ETH3D[0], large, photo)
    return {_ETH3D[0]: Written({"depth": _depth(large, np.isfinite(large))}, photo)}


def _photo(written: Written) -> NDArray[np.uint8]:
    assert written.photo is not None
    return written.photo


def write_eth3d_tar(root: Path) -> Mapping[str, Written]:
    members, found = {}, {}
    for number, sample_id in enumerate(_ETH3D):
        depth, found[sample_id] = _eth3d(number)
        photo_name, depth_name = writers.eth3d_names(sample_id, tar=True)
        members[photo_name] = writers.write_jpeg(root / "photo.jpg", _photo(found[sample_id]))
        members[depth_name] = depth.astype("<f4").tobytes()
    writers.write_tar(root / "eth3d.tar", members)
    return found


def write_diode(root: Path) -> Mapping[str, Written]:
    """The upper half of what the mask leaves out holds a depth that must not count by the mask."""
    found = {}
    for number, sample_id in enumerate(_DIODE):
        truth = smooth_truth(*writers.DIODE_SHAPE, number)
        stored = np.where(truth.seen, truth.depth, 0)
        upper = np.arange(len(stored)) < len(stored) // 2
        stored[upper] = np.where(truth.seen, stored, 8.0)[upper]
        normal = np.where(truth.seen[..., None], truth.normal * (1, -1, -1), 0).astype(np.float32)
        writers.write_diode(root / "val", sample_id, writers.DiodeFiles(
            truth.photo, stored.astype(np.float32)[..., None], truth.seen.astype(np.float32), normal))  # fmt: skip
        targets: dict[str, Target] = {"depth.file": _depth(stored, truth.seen),
                                      "depth.positive": _depth(stored, stored > 0)}  # fmt: skip
        found[sample_id] = Written({**targets, "normals": _normals(truth, truth.seen)}, truth.photo)
    return found


def write_mit(root: Path) -> Mapping[str, Written]:
    found = {}
    for number, name in enumerate(("apple", "turtle")):
        truth = smooth_truth(120, 160, number)
        code = {k: np.rint(v * 65535).astype(np.uint16) for k, v in
                (("reflectance", truth.albedo), ("shading", truth.light))}  # fmt: skip
        original = np.rint(truth.albedo * truth.light[..., None] * 65535).astype(np.uint16)
        writers.write_mit(root / name, {"mask": truth.seen.astype(np.uint16) * 65535, "original": original, **code})
        found[name] = Written({"albedo": _map(truth.albedo, truth.seen), "irradiance": _map(truth.light, truth.seen)})
    return found


_CARD = """
name = "own-data"
images = "rgb/{id}.png"

[depth]
path = "depth/{id}.png"
scale = 0.001

[normals]
path = "normal/{id}.png"
encoding = "png8"
frame = "opengl"

[albedo]
path = "albedo/{id}.png"
encoding = "srgb"
mask = "mask/{id}.png"

[irradiance]
path = "light/{id}.npy"
encoding = "linear"
"""
_JUDGED_CARD = """
name = "own-judgements"
images = "rgb/{id}.png"

[judgements]
path = "judged/{id}.json"
"""


def write_folder(root: Path) -> Mapping[str, Written]:
    """Own data with a card: millimetres, y-up normals, sRGB albedo with a mask, linear irradiance."""
    (root / "dataset.toml").write_text(_CARD, encoding="utf-8")
    found = {}
    for number, sample_id in enumerate(("hall/1", "room/2")):
        truth = smooth_truth(96, 128, number)
        write_png(root / "rgb" / f"{sample_id}.png", truth.photo)
        write_png(root / "depth" / f"{sample_id}.png", writers.millimetres(np.where(truth.seen, truth.depth, 0)))
        write_png(root / "normal" / f"{sample_id}.png", _codes(truth.normal * (1, -1, -1), truth.seen))
        write_png(root / "albedo" / f"{sample_id}.png", np.rint(linear_to_srgb(truth.albedo) * 255).astype(np.uint8))
        write_png(root / "mask" / f"{sample_id}.png", truth.seen.astype(np.uint8))
        write_npy(root / "light" / f"{sample_id}.npy", truth.light.astype(np.float32))
        found[sample_id] = Written({
            "depth": _depth(truth.depth, truth.seen), "normals": _normals(truth, truth.seen),
            "albedo": _map(truth.albedo, truth.seen), "irradiance": _map(truth.light, _everywhere(truth)),
        }, truth.photo)  # fmt: skip
    return found


def write_judged(root: Path) -> Mapping[str, Written]:
    """Own judgements, without the albedo that would settle them."""
    (root / "dataset.toml").write_text(_JUDGED_CARD, encoding="utf-8")
    found = {}
    for number, sample_id in enumerate("ab"):
        judged, photo = graded_judgements(number), smooth_truth(96, 128, number).photo
        write_png(root / "rgb" / f"{sample_id}.png", photo)
        writers.write_iiw(root / "judged", sample_id, writers.iiw_json(judged.points, judged.comparisons))
        found[sample_id] = Written({"judgements": judged.counted}, photo)
    return found


def write_flat(root: Path) -> Mapping[str, Written]:
    """One folder of scenes: centimetres in OpenEXR, outward float normals, 16-bit linear albedo and irradiance."""
    found = {}
    for number, name in enumerate(("a", "b")):
        truth = smooth_truth(96, 128, number)
        write_png(root / f"{name}_rgb.png", truth.photo)
        _write_exr(root / f"{name}_depth.exr", np.where(truth.seen, truth.depth * 100, 0).astype(np.float32))
        stored = np.where(truth.seen[..., None], -truth.normal, 0).astype(np.float32)
        write_npy(root / f"{name}_normal.npy", stored)
        for what, value in (("albedo", truth.albedo), ("irradiance", truth.light)):
            write_png(root / f"{name}_{what}.png", np.rint(value * 65535).astype(np.uint16))
        found[name] = Written({
            "depth": _depth(truth.depth, truth.seen), "normals": _normals(truth, truth.seen),
            "albedo": _map(truth.albedo, _everywhere(truth)), "irradiance": _map(truth.light, _everywhere(truth)),
        }, truth.photo)  # fmt: skip
    return found


def _write_exr(path: Path, plane: NDArray[np.float32]) -> None:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": plane}) as file:
        file.write(str(path))


_PNG = {"photo": 0.0}
_JPEG = {"photo": 3.0}
_EXACT = {"depth": 1e-6, "normals": 1e-3}
_MAPS = ("depth", "normals", "albedo", "irradiance")
#: the first source of a dataset goes through every check, the others through the reading and the perfect ones
SOURCES = (
    Source("iiw", "iiw", write_iiw, _PNG),
    Source("nyuv2, mat", "nyuv2", write_nyu_mat, {**_PNG, **_EXACT}),
    Source("nyuv2, extracted", "nyuv2", write_nyu_extracted, {**_PNG, **_EXACT}),
    Source("nyuv2, bts", "nyuv2", write_nyu_bts, {**_JPEG, **_EXACT}, refused={"depth": "filled"}),
    Source("nyuv2-normals, dsine", "nyuv2-normals", write_nyu_dsine, {**_PNG, "normals": 0.5}),
    Source("nyuv2-normals, marigold", "nyuv2-normals", write_nyu_marigold, {**_PNG, **_EXACT}),
    Source("eth3d, folders", "eth3d", write_eth3d_folders, {**_JPEG, **_EXACT}),
    Source("eth3d, tar", "eth3d", write_eth3d_tar, {**_JPEG, **_EXACT}),
    Source("eth3d, 24 megapixels", "eth3d", write_eth3d_full, {**_JPEG, **_EXACT}, only=("depth/eth3d",)),
    Source("diode", "diode", write_diode, {**_PNG, **_EXACT}),
    Source("mit-intrinsic", "mit-intrinsic", write_mit, {"albedo": 1e-5, "irradiance": 1e-5}),
    Source("folder", "folder", write_folder,
           {**_PNG, "depth": 6e-4, "normals": 0.5, "albedo": 0.006, "irradiance": 1e-6}, offers=_MAPS),
    Source("folder, judged", "folder", write_judged, _PNG, offers=("judgements",)),
    Source("flat", "flat", write_flat, {**_PNG, "depth": 1e-6, "normals": 1e-3, "albedo": 1e-5, "irradiance": 1e-5},
           {"depth_scale": 0.01, "normals_frame": "dsine", "albedo_encoding": "linear",
            "irradiance_encoding": "linear"}, offers=_MAPS),
    Source("scenes-synthetic", "scenes-synthetic", None, split="test", offers=("pairs", "agreement")),
    Source("scenes-wild", "scenes-wild", None, split="test"),
    Source("scenes-broad", "scenes-broad", None, split="test"),
)  # fmt: skip
