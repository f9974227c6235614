"""DIODE: masks, depth, normals and their axes, from files as the official archives hold them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.datasets.diode import DIODE
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.registry import load_dataset
from reasonx_eval.selftest.writers import DIODE_SHAPE, DiodeFiles, write_diode
from reasonx_eval.types import DepthTarget, NormalTarget
from tests.reasonx_eval.datasets.makers import diode_files

IN = "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
OUT = "outdoor/scene_00022/scan_00196/00022_00196_outdoor_350_020"
FILES = diode_files(np.random.default_rng(0))


def depth_of(dataset: DIODE, sample_id: str = IN) -> DepthTarget:
    target = dataset.load(sample_id, want=("depth",)).targets["depth"]
    assert isinstance(target, DepthTarget)
    return target


def normals_of(dataset: DIODE, sample_id: str = IN) -> NormalTarget:
    target = dataset.load(sample_id, want=("normals",)).targets["normals"]
    assert isinstance(target, NormalTarget)
    return target


def changed(**fields: Any) -> DiodeFiles:
    return DiodeFiles(**{**FILES.__dict__, **fields})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diode")
    write_diode(folder / "val", IN, FILES)
    write_diode(folder / "val", OUT, diode_files(np.random.default_rng(1), normals=False))
    return folder


def test_depth_mask_photo_and_camera(root: Path) -> None:
    dataset = load_dataset("diode", root)
    assert isinstance(dataset, DIODE)
    target = depth_of(dataset)
    assert (target.depth.dtype, target.depth.shape) == (np.float32, DIODE_SHAPE)
    assert np.array_equal(target.depth, FILES.depth[..., 0])
    assert target.valid.dtype == np.bool_
    assert np.array_equal(target.valid, FILES.mask == 1)
    assert target.intrinsics is not None
    assert target.intrinsics.tolist() == [[886.81, 0, 512], [0, 927.06, 384], [0, 0, 1]]
    sample = dataset.load(IN, want=())
    assert (sample.targets, sample.group, dict(sample.meta)) == ({}, "scene_00021", {})
    assert np.array_equal(sample.image, FILES.photo)
    assert np.array_equal(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(dataset)).load(IN))).image, FILES.photo)


def test_normals_become_x_right_y_down_z_forward(root: Path) -> None:
    assert FILES.normal is not None
    dataset = DIODE(root, "val")
    target = normals_of(dataset)
    assert target.normal.dtype == np.float32
    assert np.array_equal(target.normal[..., 0], FILES.normal[..., 0])
    assert np.array_equal(target.normal[..., 1:], -FILES.normal[..., 1:])
    assert np.array_equal(target.valid, np.linalg.norm(FILES.normal, axis=-1) > 0)
    assert np.array_equal(target.valid, FILES.mask == 1)
    assert dataset.load(IN, want=("normals",)).meta == {"normals_frame": "y-up"}
    as_stored = DIODE(root, "val", {"normals_frame": "y-down"})
    assert np.array_equal(normals_of(as_stored).normal, FILES.normal)
    assert as_stored.load(IN).meta == {"mask": "file", "normals_frame": "y-down"}


def test_a_wall_stored_with_y_up_faces_the_camera(tmp_path: Path) -> None:
    wall = np.zeros((*DIODE_SHAPE, 3))
    wall[..., 2] = 1
    write_diode(tmp_path / "val", IN, changed(normal=wall))  # float64, as some copies are
    target = normals_of(DIODE(tmp_path, "val"))
    assert target.normal.dtype == np.float32
    assert target.normal[5, 5].tolist() == [0, 0, -1]


def test_splits(root: Path) -> None:
    every, indoor, outdoor = (DIODE(root, s).ids for s in ("val", "val-indoor", "val-outdoor"))
    assert (len(every), len(indoor), len(outdoor)) == (771, 325, 446)
    assert tuple(every) == (*indoor, *outdoor)
    assert (indoor[0], outdoor[0]) == (IN, OUT)
    with pytest.raises(UsageError, match=r"no sample indoors/.* among the 446 of split 'val-outdoor'"):
        DIODE(root, "val-outdoor").load(IN)


def test_all_there_is_leaves_normals_out_where_there_are_none(root: Path) -> None:
    dataset = DIODE(root, "val")
    assert set(dataset.load(IN).targets) == {"depth", "normals"}
    assert set(dataset.load(OUT).targets) == {"depth"}
    assert [p.name[len(Path(OUT).name) :] for p in dataset.files(OUT)] == [".png", "_depth.npy", "_depth_mask.npy"]
    assert len(dataset.files(IN)) == 4
    assert all(p.is_file() for p in dataset.files(IN))
    with pytest.raises(SampleError, match=r"(?s)normals are missing.*val_normals\.tar\.gz"):
        dataset.load(OUT, want=("normals",))


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    write_diode(tmp_path / "val", IN, FILES)
    dataset = DIODE(tmp_path, "val")
    for path in dataset.files(IN):
        if not path.name.endswith("_normal.npy"):
            path.unlink()
    assert set(dataset.load(IN, want=("normals",)).targets) == {"normals"}
    with pytest.raises(SampleError, match=r"_depth\.npy: file is missing"):
        dataset.load(IN)


def test_masks_disagree_where_depth_is_no_number(tmp_path: Path) -> None:
    depth, mask = FILES.depth.copy(), np.ones(DIODE_SHAPE, np.uint8)
    depth[...] = 3
    depth[0, :4, 0] = [0, -1, np.nan, np.inf]
    mask[1] = 0
    write_diode(tmp_path, IN, changed(depth=depth, mask=mask))
    by_file, by_depth = (DIODE(tmp_path, "val", {"mask": m}) for m in ("file", "positive"))
    assert np.array_equal(depth_of(by_file).valid, mask == 1)
    assert by_file.load(IN, want=("depth",)).meta == {"mask": "file", "unusable_in_mask": 4}
    valid = np.ones(DIODE_SHAPE, bool)
    valid[0, :4] = False
    assert np.array_equal(depth_of(by_depth).valid, valid)
    assert by_depth.load(IN, want=("depth",)).meta == {"mask": "positive"}
    by_file.files(IN)[2].unlink()
    assert np.array_equal(depth_of(by_depth).valid, valid)  # doesn't need the mask file
    with pytest.raises(SampleError, match=r"_depth_mask\.npy: file is missing"):
        by_file.load(IN)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float64, np.int64])
@pytest.mark.parametrize("axis", [False, True])
def test_masks_of_any_type(tmp_path: Path, dtype: type, axis: bool) -> None:
    mask = FILES.mask.astype(dtype)
    write_diode(tmp_path / "val", IN, changed(mask=mask[..., None] if axis else mask, normal=None))
    assert np.array_equal(depth_of(DIODE(tmp_path, "val")).valid, FILES.mask == 1)


@pytest.mark.parametrize("inside", ["val", ".", "diode_val", "diode/val"])
def test_roots(tmp_path: Path, inside: str) -> None:
    with pytest.raises(DataError, match="no indoors/scene_00019"):
        DIODE(tmp_path, "val")
    (tmp_path / inside / "indoors/scene_00007").mkdir(parents=True)  # a training scene
    with pytest.raises(DataError, match="no indoors/scene_00019"):
        DIODE(tmp_path, "val")
    (tmp_path / inside / Path(OUT).parent).mkdir(parents=True)
    with pytest.raises(SampleError, match=r"_depth\.npy: file is missing"):
        DIODE(tmp_path, "val").load(OUT)


def test_options_are_checked(root: Path) -> None:
    with pytest.raises(UsageError, match="unknown value of option mask: 'files'; did you mean 'file'"):
        DIODE(root, "val", {"mask": "files"})
    with pytest.raises(UsageError, match="y-down, y-up"):
        DIODE(root, "val", {"normals_frame": "opencv"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("_depth.npy", cut, "can't be decoded"),
    ("_depth.npy", lambda p: p.write_bytes(b""), "file is empty"),
    ("_depth.npy", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50)), "can't be decoded"),
    ("_depth.npy", lambda p: write_npy(p, FILES.depth.astype(np.float64)), r"expected float32 .*holds float64"),
    ("_depth.npy", lambda p: write_npy(p, FILES.depth[:700]), r"holds float32 \(700, 1024\)"),
    ("_depth.npy", lambda p: write_npy(p, FILES.depth.repeat(3, axis=2)), r"holds float32 \(768, 1024, 3\)"),
    ("_depth_mask.npy", lambda p: write_npy(p, FILES.mask * 255), "0 and 1 only"),
    ("_depth_mask.npy", lambda p: write_npy(p, FILES.mask * np.nan), "0 and 1 only"),
    ("_depth_mask.npy", lambda p: write_npy(p, FILES.mask.astype("U1")), "expected number"),
    ("_depth_mask.npy", lambda p: write_npy(p, FILES.mask.T), r"holds float32 \(1024, 768\)"),
    ("_depth_mask.npy", cut, "can't be decoded"),
    ("_normal.npy", cut, "can't be decoded"),
    ("_normal.npy", lambda p: write_npy(p, np.ones((*DIODE_SHAPE, 3), np.uint8)), "expected float .*holds uint8"),
    ("_normal.npy", lambda p: write_npy(p, np.ones((3, *DIODE_SHAPE), np.float32)), r"holds float32 \(3, 768, 1024\)"),
]


@pytest.mark.parametrize(("suffix", "damage", "message"), DAMAGE)
def test_damage_is_one_error_that_names_the_file(tmp_path: Path, suffix: str, damage: Callable[[Path], Any],
                                                 message: str) -> None:  # fmt: skip
    write_diode(tmp_path / "val", IN, FILES)
    damage(tmp_path / "val" / (IN + suffix))
    with pytest.raises(SampleError, match=message) as caught:
        DIODE(tmp_path, "val").load(IN)
    assert suffix in str(caught.value)


@pytest.mark.parametrize(("damage", "message"), [
    (cut, "can't be decoded"), (Path.unlink, "file is missing"),
    (lambda p: write_png(p, FILES.photo[:384, :512]), "expected a photo of 1024 x 768, got 512 x 384"),
])  # fmt: skip
def test_damaged_photo(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    write_diode(tmp_path / "val", IN, changed(normal=None))
    damage(tmp_path / "val" / (IN + ".png"))
    sample = DIODE(tmp_path, "val").load(IN)
    with pytest.raises(SampleError, match=message):
        _ = sample.image
