"""ETH3D: raw float depth under a JPG name, from folders and from a tar, tiny and once full-size."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.datasets.eth3d import ETH3D
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.registry import load_dataset
from reasonx_eval.selftest.writers import eth3d_names, write_eth3d, write_jpeg, write_tar
from reasonx_eval.types import DepthTarget
from tests.reasonx_eval.datasets.makers import photo

IDS = ("courtyard/DSC_0286", "relief_2/DSC_0487", "office/DSC_0219")
HEIGHT, WIDTH = 48, 80


def tiny(sample_id: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(IDS.index(sample_id))
    depth = rng.uniform(0.5, 40, (HEIGHT, WIDTH)).astype(np.float32)
    depth[rng.random((HEIGHT, WIDTH)) < 0.5] = np.inf
    return depth, photo(rng, HEIGHT, WIDTH)


def write_tiny_tar(root: Path, photo_of: NDArray[np.uint8] | None = None) -> None:
    members = {}
    for sample_id in IDS:
        depth, image = tiny(sample_id)
        photo_name, depth_name = eth3d_names(sample_id, tar=True)
        members[photo_name] = write_jpeg(root / "tmp.jpg", image if photo_of is None else photo_of)
        members[depth_name] = depth.tobytes()
    write_tar(root / "eth3d.tar", members)


def depth_of(dataset: ETH3D, sample_id: str) -> DepthTarget:
    target = dataset.load(sample_id).targets["depth"]
    assert isinstance(target, DepthTarget)
    return target


def check(dataset: ETH3D) -> None:
    for sample_id in IDS:
        depth, image = tiny(sample_id)
        sample = dataset.load(sample_id)
        target = depth_of(dataset, sample_id)
        assert target.depth.dtype == np.float32
        assert np.array_equal(target.depth, depth)
        assert target.valid.dtype == np.bool_
        assert np.array_equal(target.valid, np.isfinite(depth))
        assert target.intrinsics is None
        assert (sample.group, dict(sample.meta)) == (sample_id.split("/")[0], {})
        assert np.median(np.abs(sample.image.astype(int) - image)) < 8  # JPEG
        assert dataset.load(sample_id, want=()).targets == {}


@pytest.mark.parametrize(("photo_in", "depth_in"), [
    ("", ""), ("{0}_dslr_jpg/", "{0}_dslr_depth/"), ("training/", "training/"), ("rgb/", "depth/{0}_dslr_depth/"),
    ("eth3d/rgb/", "eth3d/depth/{0}_dslr_depth/"),
])  # fmt: skip
def test_folders(tmp_path: Path, photo_in: str, depth_in: str) -> None:
    for sample_id in IDS:
        depth, image = tiny(sample_id)
        write_eth3d(tmp_path / "written", sample_id, depth, image)
        scene = sample_id.split("/")[0]
        for name, place in zip(eth3d_names(sample_id), (photo_in, depth_in), strict=True):
            target = tmp_path / "root" / (place.format(scene) + name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "written" / name).rename(target)
    dataset = load_dataset("eth3d", tmp_path / "root")
    assert isinstance(dataset, ETH3D)
    assert (dataset.split, len(dataset), dataset.ids[0]) == ("train-dslr", 454, "office/DSC_0219")
    check(dataset)
    assert all(p.is_file() for p in dataset.files(IDS[0]))
    check(pickle.loads(pickle.dumps(dataset)))


def test_tar(tmp_path: Path) -> None:
    write_tiny_tar(tmp_path)
    dataset = ETH3D(tmp_path, "train-dslr")
    check(dataset)
    assert dataset.files(IDS[0]) == (tmp_path / "eth3d.tar",)
    again = pickle.loads(pickle.dumps(dataset))
    check(again)
    with ThreadPoolExecutor(8) as pool:
        work = list(IDS) * 8
        for sample_id, target in zip(work, pool.map(lambda i: depth_of(again, i), work), strict=True):
            assert np.array_equal(target.depth, tiny(sample_id)[0])
    with pytest.raises(SampleError, match=r"no member .*DSC_0220\.JPG"):
        dataset.load("office/DSC_0220")


def test_layout_is_chosen_or_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no SCENE/ground_truth_depth/dslr_images or eth3d\.tar"):
        ETH3D(tmp_path, "train-dslr")
    write_tiny_tar(tmp_path)
    depth, image = tiny(IDS[0])
    write_eth3d(tmp_path, IDS[0], depth + 1, image)
    assert depth_of(ETH3D(tmp_path, "train-dslr"), IDS[0]).depth[0, 0] == depth[0, 0] + 1  # folders come first
    check(ETH3D(tmp_path, "train-dslr", {"layout": "tar"}))
    (tmp_path / "eth3d.tar").unlink()
    with pytest.raises(DataError, match=r"no eth3d\.tar"):
        ETH3D(tmp_path, "train-dslr", {"layout": "tar"})
    with pytest.raises(UsageError, match="did you mean 'folders'"):
        ETH3D(tmp_path, "train-dslr", {"layout": "folder"})


def test_full_size(tmp_path: Path) -> None:
    depth = np.arange(4032 * 6048, dtype="<f4").reshape(4032, 6048)
    depth[::3] = np.inf
    write_eth3d(tmp_path, IDS[0], depth, np.zeros((4032, 6048, 3), np.uint8))
    path = tmp_path / eth3d_names(IDS[0])[1]
    assert path.stat().st_size == 97_542_144
    target = depth_of(ETH3D(tmp_path, "train-dslr"), IDS[0])
    assert target.depth.shape == (4032, 6048)
    assert np.array_equal(target.depth, depth)
    assert not target.valid[::3].any()
    assert target.valid[1::3].all()
    with path.open("r+b") as handle:
        handle.truncate(97_542_144 - 8)
    with pytest.raises(SampleError, match=r"expected 97542144 bytes \(4032 x 6048 float32.*got 97542136: cut off"):
        ETH3D(tmp_path, "train-dslr").load(IDS[0])


def test_values_outside_the_format_are_not_measured(tmp_path: Path) -> None:
    depth, image = tiny(IDS[0])
    depth[:] = 2
    depth[0, :6] = [np.nan, -np.inf, np.inf, 0, -1, np.nan]
    write_eth3d(tmp_path, IDS[0], depth, image)
    dataset = ETH3D(tmp_path, "train-dslr")
    assert depth_of(dataset, IDS[0]).valid[0, :7].tolist() == [False] * 6 + [True]
    assert dataset.load(IDS[0]).meta == {"nan_pixels": 2}


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    depth, image = tiny(IDS[0])
    write_eth3d(tmp_path, IDS[0], depth, image)
    dataset = ETH3D(tmp_path, "train-dslr")
    photo_path, depth_path = dataset.files(IDS[0])
    with pytest.raises(SampleError, match=r"(?s)relief_2/.*file is missing.*unpack relief_2_dslr_jpg\.7z"):
        dataset.load(IDS[1])
    with pytest.raises(UsageError, match="no sample courtyard/DSC_9999"):
        dataset.load("courtyard/DSC_9999")
    for size, cause in ((0, "an empty file"), (15356, "cut off"), (30720, "depth of another photo size")):
        depth_path.write_bytes(bytes(size))
        with pytest.raises(SampleError, match=f"expected 15360 bytes .48 x 80 float32.*got {size}: {cause}"):
            dataset.load(IDS[0])
    depth_path.unlink()
    with pytest.raises(SampleError, match=r"unpack courtyard_dslr_depth\.7z"):
        dataset.load(IDS[0])
    write_eth3d(tmp_path, IDS[0], depth, image)
    photo_path.write_bytes(photo_path.read_bytes()[:-60])
    sample = dataset.load(IDS[0])  # the header is enough for depth
    with pytest.raises(SampleError, match="can't be decoded"):
        _ = sample.image
    photo_path.write_bytes(depth_path.read_bytes())
    with pytest.raises(SampleError, match="not a readable photo"):
        dataset.load(IDS[0])


def test_tar_with_depth_of_another_size(tmp_path: Path) -> None:
    write_tiny_tar(tmp_path, photo_of=np.zeros((40, 80, 3), np.uint8))
    with pytest.raises(SampleError, match=r"eth3d\.tar:depth/courtyard.*expected 12800 bytes .*got 15360"):
        ETH3D(tmp_path, "train-dslr").load(IDS[0])
