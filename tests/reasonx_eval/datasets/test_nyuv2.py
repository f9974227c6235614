"""NYUv2: the same image, id and values from all three layouts; the official .mat; surface normals."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.datasets.nyuv2 import NYUv2
from reasonx_eval.datasets.nyuv2_normals import NYUv2Normals
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import read_png, write_npy, write_png
from reasonx_eval.registry import load_dataset
from reasonx_eval.selftest.writers import (
    NYU_SHAPE,
    NyuImage,
    write_nyuv2_bts,
    write_nyuv2_extracted,
    write_nyuv2_mat,
    write_nyuv2_normals,
)
from reasonx_eval.types import DepthTarget, NormalTarget
from tests.helpers.shared import SHARED
from tests.reasonx_eval.datasets.makers import nyu_images, photo

MAT = "nyu_depth_v2_labeled.mat"
NUMBERS = (1, 9, 1449)  # test images; 9 is office_0005
IMAGES = nyu_images(NUMBERS)
SCENES = {1: "kitchen_0004", 9: "office_0005", 1449: "dining_room_0037", 3: "office_0003"}


@pytest.fixture(scope="module")
def mat_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mat")
    write_nyuv2_mat(root / MAT, {**IMAGES, 3: IMAGES[1]}, SCENES)
    return root


@pytest.fixture(scope="module")
def extracted_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extracted")
    for number, image in IMAGES.items():
        write_nyuv2_extracted(root / "test", number, SCENES[number], image)
    return root


def depth_of(dataset: NYUv2, sample_id: str) -> DepthTarget:
    target = dataset.load(sample_id).targets["depth"]
    assert isinstance(target, DepthTarget)
    return target


def check_image(dataset: NYUv2, number: int, expected: NDArray[np.float32]) -> None:
    target = depth_of(dataset, f"{number:04d}")
    assert target.depth.dtype == np.float32
    assert np.array_equal(target.depth, expected)
    assert target.valid.dtype == np.bool_
    assert np.array_equal(target.valid, expected > 0)
    assert target.intrinsics is not None
    assert target.intrinsics.tolist() == [[518.8579, 0, 325.5824], [0, 519.4696, 253.7362], [0, 0, 1]]


def expected_depth(image: NyuImage, depth: str) -> NDArray[np.float32]:
    return image.raw if depth == "raw" else image.filled


@pytest.mark.parametrize("depth", ["raw", "filled"])
def test_mat(mat_root: Path, depth: str) -> None:
    dataset = NYUv2(mat_root, "test", {"depth": depth})
    for number in NUMBERS:
        check_image(dataset, number, expected_depth(IMAGES[number], depth))
        sample = dataset.load(f"{number:04d}", want=())
        assert sample.targets == {}
        assert sample.image.flags.c_contiguous
        assert np.array_equal(sample.image, IMAGES[number].photo)
        assert sample.meta == {"layout": "mat", "depth": depth}
    assert depth_of(dataset, "1449").valid.all() == (depth == "filled")


@pytest.mark.parametrize("depth", ["raw", "filled"])
def test_extracted(extracted_root: Path, depth: str) -> None:
    dataset = NYUv2(extracted_root, "test", {"depth": depth, "layout": "extracted"})
    for number in NUMBERS:
        check_image(dataset, number, expected_depth(IMAGES[number], depth))
        sample = dataset.load(f"{number:04d}")
        assert np.array_equal(sample.image, IMAGES[number].photo)
        assert sample.group == SCENES[number]
    names = [p.name for p in dataset.files("0009")]
    assert names == ["rgb_0009.png", "depth_0009.png" if depth == "raw" else "filled_0009.png"]


def test_bts_counts_from_zero_and_is_raw(tmp_path: Path) -> None:
    for number, image in IMAGES.items():
        write_nyuv2_bts(tmp_path / "official_splits" / "test", number, "office", image)
    dataset = NYUv2(tmp_path, "test")
    for number in NUMBERS:
        check_image(dataset, number, IMAGES[number].raw)
        error = np.abs(dataset.load(f"{number:04d}").image.astype(int) - IMAGES[number].photo)
        assert np.median(error) < 8  # JPEG
    assert [p.name for p in dataset.files("0001")] == ["rgb_00000.jpg", "sync_depth_00000.png"]
    assert dataset.load("0009").meta["layout"] == "bts"


def test_bts_holds_raw_depth_only(tmp_path: Path) -> None:
    write_nyuv2_bts(tmp_path, 1, "kitchen", IMAGES[1])
    with pytest.raises(UsageError, match="raw depth only"):
        NYUv2(tmp_path, "test", {"depth": "filled"})


def test_one_image_has_one_id_and_one_group_in_every_layout(mat_root: Path, extracted_root: Path,
                                                            tmp_path: Path) -> None:  # fmt: skip
    write_nyuv2_bts(tmp_path, 9, "office", IMAGES[9])
    samples = [NYUv2(root, "test").load("0009") for root in (mat_root, extracted_root, tmp_path)]
    assert [s.meta["layout"] for s in samples] == ["mat", "extracted", "bts"]
    assert [s.group for s in samples] == ["office_0005"] * 3
    depths = [s.targets["depth"].depth for s in samples]  # type: ignore[union-attr]
    assert np.array_equal(depths[0], depths[1])
    assert np.array_equal(depths[0], depths[2])


def test_splits_and_ids(mat_root: Path, extracted_root: Path) -> None:
    dataset = load_dataset("nyuv2", mat_root)
    assert (dataset.split, len(dataset)) == ("test", 654)
    assert (dataset.ids[:3], dataset.ids[-1]) == (("0001", "0002", "0009"), "1449")
    assert (len(NYUv2(mat_root, "train")), len(NYUv2(mat_root, "all"))) == (795, 1449)
    assert np.array_equal(NYUv2(mat_root, "all").load("0003").image, IMAGES[1].photo)
    assert NYUv2(mat_root, "train").load("0003", want=()).group == "office_0003"  # from the file's scenes
    with pytest.raises(DataError, match=r"needs the official \.mat"):
        NYUv2(extracted_root, "all", {"layout": "extracted"})
    with pytest.raises(UsageError, match="0003"):
        dataset.load("0003")


def test_scenes_may_be_absent(tmp_path: Path) -> None:
    write_nyuv2_mat(tmp_path / MAT, {1: IMAGES[1]})
    dataset = NYUv2(tmp_path, "all")
    assert dataset.load("0001", want=()).group == "kitchen_0004"  # the package knows those of the test split
    assert dataset.load("0003", want=()).group is None


def test_places_and_options(tmp_path: Path, extracted_root: Path) -> None:
    with pytest.raises(DataError, match=r"no nyu_depth_v2_labeled\.mat.*rgb_NNNN\.png.*rgb_NNNNN\.jpg"):
        NYUv2(tmp_path, "test")
    (tmp_path / "nyu_labeled_extracted").symlink_to(extracted_root)
    assert NYUv2(tmp_path, "test").load("0001", want=()).group == "kitchen_0004"
    assert NYUv2(extracted_root / "test", "test").load("0001", want=()).group == "kitchen_0004"
    with pytest.raises(UsageError, match="did you mean 'raw'"):
        NYUv2(extracted_root, "test", {"depth": "rw"})
    with pytest.raises(UsageError, match="unknown dataset option"):
        NYUv2(extracted_root, "test", {"dept": "raw"})
    with pytest.raises(DataError, match="no nyu_depth_v2_labeled"):
        NYUv2(extracted_root, "test", {"layout": "mat"})


def write_splits_mat(path: Path, train: Sequence[int], test: Sequence[int]) -> None:
    """MATLAB 5, uint16 columns, as the official file."""
    from scipy.io import savemat

    columns = {"trainNdxs": train, "testNdxs": test}
    savemat(path, {k: np.array(v, dtype=np.uint16).reshape(-1, 1) for k, v in columns.items()})


def test_splits_mat_is_checked(mat_root: Path, tmp_path: Path) -> None:
    (tmp_path / MAT).symlink_to(mat_root / MAT)
    train, test = ([int(n) for n in split_lines(f"nyuv2_{s}")] for s in ("train", "test"))
    path = tmp_path / "splits.mat"
    write_splits_mat(path, train, test)
    assert len(NYUv2(tmp_path, "test")) == 654
    good = path.read_bytes()
    for name, bad_train, bad_test in (("testNdxs", train, test[:-1]), ("testNdxs", train, [n - 1 for n in test]),
                                      ("trainNdxs", test, train), ("trainNdxs", train[::-1], test)):  # fmt: skip
        write_splits_mat(path, bad_train, bad_test)
        with pytest.raises(DataError, match=f"'{name}' has"):
            NYUv2(tmp_path, "test")
    for damaged in (good[:700], b"", b"x" * 300, good[:128] + b"\xff" * 400):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"splits\.mat: (not a readable|has no)"):
            NYUv2(tmp_path, "test")


def test_damaged_mat(mat_root: Path, tmp_path: Path) -> None:
    path = tmp_path / MAT
    good = (mat_root / MAT).read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="download or copy stopped early"):
        NYUv2(tmp_path, "test")
    for other in (b"", b"MATLAB 5.0 MAT-file" + bytes(2000)):
        path.write_bytes(other)
        with pytest.raises(DataError, match="can't be opened"):
            NYUv2(tmp_path, "test")
    write_nyuv2_mat(path, {}, leave_out=("rawDepths",))
    with pytest.raises(DataError, match="no array 'rawDepths'; it holds depths, images, labels"):
        NYUv2(tmp_path, "test")
    assert len(NYUv2(tmp_path, "test", {"depth": "filled"})) == 654


def test_a_damaged_block_of_the_mat_is_one_bad_sample(mat_root: Path, tmp_path: Path) -> None:
    import h5py

    data = bytearray((mat_root / MAT).read_bytes())
    with h5py.File(mat_root / MAT) as file:
        block = next(b for b in map(file["rawDepths"].id.get_chunk_info, range(3)) if b.chunk_offset[0] == 8)
    # the user block of the file comes before what HDF5 counts from
    start = 512 + block.byte_offset
    data[start : start + block.size] = bytes(block.size)
    (tmp_path / MAT).write_bytes(data)
    dataset = NYUv2(tmp_path, "test")
    with pytest.raises(SampleError, match="image 9 of 'rawDepths' can't be read"):
        dataset.load("0009")
    check_image(dataset, 1, IMAGES[1].raw)


def test_mat_of_another_shape(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / MAT, "w") as file:
        file["images"] = np.zeros((10, 3, 64, 48), np.uint8)
    with pytest.raises(DataError, match=r"array 'images' is uint8 \(10, 3, 64, 48\), expected uint8 \(1449"):
        NYUv2(tmp_path, "test")


@pytest.mark.parametrize("chunks", [(1, 640, 480), (4, 80, 60), (1, 100, 7), None])
def test_every_storage_of_the_mat_reads_the_same(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    import h5py

    with h5py.File(tmp_path / MAT, "w", userblock_size=512) as file:
        for key, row, kind in (("images", (3, 640, 480), "u1"), ("rawDepths", (640, 480), "f4")):
            parts = chunks and (chunks[0], 1, *chunks[1:])[-len(row) - 1 :]
            file.create_dataset(key, (1449, *row), kind, chunks=parts, compression=chunks and "gzip")
        for number in NUMBERS[:2]:
            file["images"][number - 1] = IMAGES[number].photo.transpose(2, 1, 0)
            file["rawDepths"][number - 1] = IMAGES[number].raw.T
    dataset = NYUv2(tmp_path, "test")
    for number in (*NUMBERS[:2], NUMBERS[0]):
        sample = dataset.load(f"{number:04d}")
        assert sample.image.flags.c_contiguous
        assert np.array_equal(sample.image, IMAGES[number].photo)
        assert np.array_equal(sample.targets["depth"].depth, IMAGES[number].raw)


def test_a_mat_that_becomes_shorter_while_it_is_open_gives_no_zeros(mat_root: Path, tmp_path: Path) -> None:
    (tmp_path / MAT).write_bytes((mat_root / MAT).read_bytes())
    dataset = NYUv2(tmp_path, "test")
    dataset.load("0001")
    with (tmp_path / MAT).open("r+b") as handle:
        handle.truncate((tmp_path / MAT).stat().st_size - 100)
    with pytest.raises(SampleError, match="the file became shorter"):
        dataset.load("0009")


def _load_in_child(dataset: NYUv2, queue: Any) -> None:
    queue.put(depth_of(dataset, "0009").depth[100, ::50].tolist())


def test_threads_pickles_and_forks(mat_root: Path) -> None:
    dataset = NYUv2(mat_root, "test")
    work = [f"{n:04d}" for n in NUMBERS] * 8
    with ThreadPoolExecutor(8) as pool:
        for sample_id, target in zip(work, pool.map(lambda i: depth_of(dataset, i), work), strict=True):
            assert np.array_equal(target.depth, IMAGES[int(sample_id)].raw)
    again = pickle.loads(pickle.dumps(dataset))  # while the file is open
    check_image(again, 9, IMAGES[9].raw)
    sample = pickle.loads(pickle.dumps(again.load("0009")))
    assert np.array_equal(sample.image, IMAGES[9].photo)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_load_in_child, args=(dataset, queue))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads that other code left
        child.start()
    assert queue.get() == IMAGES[9].raw[100, ::50].tolist()
    child.join()
    assert child.exitcode == 0
    check_image(dataset, 9, IMAGES[9].raw)  # the parent's handle still works


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("truncated", _truncate, "can't be decoded"),
    ("empty", lambda p: p.write_bytes(b""), "file is empty"),
    ("missing", Path.unlink, "file is missing"),
    ("8 bit", lambda p: write_png(p, np.ones(NYU_SHAPE, np.uint8)), r"expected uint16 .*the file holds uint8"),
    ("small", lambda p: write_png(p, np.ones((240, 320), np.uint16)), r"holds uint16 \(240, 320\)"),
    ("colour", lambda p: write_png(p, np.ones((*NYU_SHAPE, 3), np.uint16)), r"holds uint16 \(480, 640, 3\)"),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_damaged_depth_png(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    write_nyuv2_extracted(tmp_path / "test", 1, "kitchen_0004", IMAGES[1])
    dataset = NYUv2(tmp_path, "test")
    damage(dataset.files("0001")[1])
    with pytest.raises(SampleError, match=message) as caught:
        dataset.load("0001")
    assert "depth_0001.png" in str(caught.value)
    assert np.array_equal(dataset.load("0001", want=()).image, IMAGES[1].photo)


def test_missing_and_doubled_images(tmp_path: Path) -> None:
    write_nyuv2_extracted(tmp_path / "test", 1, "kitchen_0004", IMAGES[1])
    with pytest.raises(SampleError, match=r"no folder has rgb_0009\.png"):
        NYUv2(tmp_path, "test").load("0009")
    write_png(tmp_path / "test/kitchen_0005/rgb_0001.png", IMAGES[1].photo)
    with pytest.raises(DataError, match="image 1 is in both"):
        NYUv2(tmp_path, "test").load("0001")
    (tmp_path / "test/kitchen_0005/rgb_0001.png").unlink()
    write_png(tmp_path / "test/kitchen_0004/rgb_0001.png", IMAGES[1].photo[:240])
    with pytest.raises(SampleError, match="expected a photo of 640 x 480, got 640 x 240"):
        _ = NYUv2(tmp_path, "test").load("0001").image


def test_in_painted_depth_with_holes_is_refused(tmp_path: Path) -> None:
    """Raw depth lies under the name of in-painted depth in a tree that is passed around."""
    write_nyuv2_extracted(tmp_path / "test", 1, "kitchen_0004", NyuImage(IMAGES[1].photo, IMAGES[1].raw, IMAGES[1].raw))
    dataset = NYUv2(tmp_path, "test", {"depth": "filled"})
    with pytest.raises(SampleError, match=r"filled_0001\.png: in-painted depth has no holes"):
        dataset.load("0001")
    assert not depth_of(NYUv2(tmp_path, "test"), "0001").valid.all()


# Surface normals


def normals_of(dataset: NYUv2Normals, sample_id: str) -> NormalTarget:
    target = dataset.load(sample_id).targets["normals"]
    assert isinstance(target, NormalTarget)
    return target


def test_dsine_normals(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (*NYU_SHAPE, 3), dtype=np.uint8)
    codes[:20] = 0
    codes[30, 30] = (0, 0, 1)
    codes[40, 40] = (128, 128, 255)  # a wall that faces the camera
    image = photo(np.random.default_rng(1), *NYU_SHAPE)
    write_nyuv2_normals(tmp_path / "test", 9, codes, image)
    dataset = load_dataset("nyuv2-normals", tmp_path)
    assert isinstance(dataset, NYUv2Normals)
    assert dataset.ids == NYUv2(tmp_path_with_depth(tmp_path), "test").ids
    target = normals_of(dataset, "0009")
    assert target.normal.dtype == np.float32
    np.testing.assert_allclose(target.normal, 1.0 - codes / 255.0 * 2.0, atol=1e-7)
    np.testing.assert_allclose(target.normal[40, 40], [0, 0, -1], atol=0.005)
    assert np.array_equal(target.valid, codes.astype(int).sum(axis=-1) > 0)
    assert not target.valid[:20].any()
    assert target.valid[30, 30]
    sample = dataset.load("0009", want=())
    assert (sample.targets, sample.group, sample.meta["layout"]) == ({}, "office_0005", "dsine")
    assert np.array_equal(sample.image, image)
    assert [p.name for p in dataset.files("0009")] == ["000008_img.png", "000008_normal.png"]


def tmp_path_with_depth(folder: Path) -> Path:
    write_nyuv2_extracted(folder / "depth" / "test", 1, "kitchen_0004", IMAGES[1])
    return folder / "depth"


@pytest.mark.parametrize("inside", ["test", ".", "nyuv2/test"])
def test_marigold_normals(tmp_path: Path, inside: str) -> None:
    stored = np.random.default_rng(0).standard_normal((*NYU_SHAPE, 3)).astype(np.float32)
    stored[:10] = 0
    stored[20, 20] = np.nan
    stored[30, 30] = (0, 0, 1)  # towards the viewer
    stored[31, 31] = (0, 1, 0)  # a floor: up
    write_nyuv2_normals(tmp_path / inside, 1, stored, photo(np.random.default_rng(1), *NYU_SHAPE))
    target = normals_of(NYUv2Normals(tmp_path, "test"), "0001")
    assert np.array_equal(target.normal[..., 0], stored[..., 0], equal_nan=True)
    assert np.array_equal(target.normal[..., 1:], -stored[..., 1:], equal_nan=True)
    assert target.normal[30, 30].tolist() == [0, 0, -1]
    assert target.normal[31, 31].tolist() == [0, -1, 0]
    assert target.valid.sum() == 480 * 640 - 10 * 640 - 1
    assert not target.valid[:10].any()
    assert not target.valid[20, 20]


def test_two_kinds_of_normals_need_a_choice(tmp_path: Path) -> None:
    image = photo(np.random.default_rng(1), *NYU_SHAPE)
    with pytest.raises(DataError, match=r"no 000000_img\.png"):
        NYUv2Normals(tmp_path, "test")
    write_nyuv2_normals(tmp_path, 1, np.full((*NYU_SHAPE, 3), 200, np.uint8), image)
    with pytest.raises(DataError, match=r"normal\.npy"):
        NYUv2Normals(tmp_path, "test", {"layout": "marigold"})
    write_nyuv2_normals(tmp_path, 1, np.ones((*NYU_SHAPE, 3), np.float32), image)
    with pytest.raises(UsageError, match="both kinds"):
        NYUv2Normals(tmp_path, "test")
    for layout, first in (("dsine", 1 - 400 / 255), ("marigold", 1)):
        target = normals_of(NYUv2Normals(tmp_path, "test", {"layout": layout}), "0001")
        assert target.normal[0, 0, 0] == np.float32(first)


@pytest.mark.parametrize("layout", ["dsine", "marigold"])
def test_damaged_normals(tmp_path: Path, layout: str) -> None:
    stored = np.full((*NYU_SHAPE, 3), 1, np.uint8 if layout == "dsine" else np.float32)
    write_nyuv2_normals(tmp_path, 1, stored, photo(np.random.default_rng(1), *NYU_SHAPE))
    dataset = NYUv2Normals(tmp_path, "test")
    path = dataset.files("0001")[1]
    write = write_png if layout == "dsine" else write_npy
    write(path, stored[::2])
    with pytest.raises(SampleError, match=r"the file holds \w+ \(240, 640, 3\)"):
        dataset.load("0001")
    write(path, stored.astype(np.uint16))
    with pytest.raises(SampleError, match="the file holds uint16"):
        dataset.load("0001")
    _truncate(path)
    with pytest.raises(SampleError, match="can't be decoded"):
        dataset.load("0001")
    with pytest.raises(SampleError, match="file is missing"):
        dataset.load("0002")


PAIR = SHARED / "nyuv2/pairs"


@pytest.mark.skipif(not (PAIR / "nyud_000433.normal_gt.png").is_file(),
                    reason="REASONX_SHARED: no folder with real sample data")  # fmt: skip
def test_real_normals_face_the_camera_and_agree_with_their_depth(tmp_path: Path) -> None:
    """A real map, re-coded as the 8-bit outward file, comes back as the normals of its own depth."""
    red, green, blue = np.moveaxis(read_png(PAIR / "nyud_000433.normal_gt.png") / 255.0 * 2.0 - 1.0, -1, 0)
    camera = np.stack([red, -blue, green], axis=-1)
    known = np.linalg.norm(camera, axis=-1) > 0.5
    codes = np.where(known[..., None], np.rint((1.0 - camera) / 2.0 * 255.0).clip(0, 255), 0).astype(np.uint8)
    write_nyuv2_normals(tmp_path, 1, codes, read_png(PAIR / "nyud_000433.rgb.png"))
    target = normals_of(NYUv2Normals(tmp_path, "test"), "0001")
    assert np.array_equal(target.valid, known)

    depth = read_png(PAIR / "nyud_000433.depth_x5000.png") / 5000.0
    rows, columns = np.mgrid[:480, :640]
    rays = np.stack([(columns - 325.5824) / 518.8579, (rows - 253.7362) / 519.4696, np.ones_like(depth)], axis=-1)
    assert np.mean(np.sum(target.normal * rays, axis=-1)[known] < 0) > 0.99

    points, step = rays * depth[..., None], 8
    right = points[step:-step, 2 * step :] - points[step:-step, : -2 * step]
    down = points[2 * step :, step:-step] - points[: -2 * step, step:-step]
    from_depth = np.cross(down, right)
    inner = (slice(step, -step), slice(step, -step))
    measured = depth > 0
    good = (known[inner] & measured[step:-step, 2 * step :] & measured[step:-step, : -2 * step]
            & measured[2 * step :, step:-step] & measured[: -2 * step, step:-step])  # fmt: skip
    a, b = target.normal[inner][good].astype(float), from_depth[good]
    cosine = np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert np.median(np.degrees(np.arccos(cosine.clip(-1, 1)))) < 10
