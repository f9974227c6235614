"""Photos from folders and datasets: order, selection, damage, and the sample that is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.images import read_rgb
from reasonx_eval.io.seeding import rng
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import DepthTarget
from reasonx_ft.annotation.photos import Recent, open_dataset, open_photos
from reasonx_ft.types import Photo, photo_digest
from tests.helpers.shared import SHARED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(["b.png", "a/z.JPG", "a/y.jpeg", ".hidden/h.png", "a/.g.png", "c.txt"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no photo")
            continue
        image = rng(k, "image").integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(path, format="PNG" if path.suffix == ".png" else "JPEG")
    return tmp_path / "photos"


def test_a_folder_is_read_in_order_without_hidden_files(folder: Path) -> None:
    photos = open_photos(str(folder))
    assert photos.ids == ["a/y.jpeg", "a/z.JPG", "b.png"]
    found = list(photos.read_ahead())
    assert [name for name, _ in found] == photos.ids
    for name, photo in found:
        assert isinstance(photo, Photo)
        expected = np.asarray(Image.open(folder / name).convert("RGB"))
        np.testing.assert_array_equal(photo.image, expected)
        assert photo.digest == photo_digest(expected)
        assert photo.sample_id is None


def test_links_are_followed_and_pictures_that_are_not_read_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a").rename(tmp_path / "far")
    (folder / "a").symlink_to(tmp_path / "far")
    for name in ("c.webp", "d.HEIC", "@eaDir/b.png", "__MACOSX/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    photos = open_photos(str(folder))
    assert photos.ids == ["a/y.jpeg", "a/z.JPG", "b.png"]
    assert photos.overlooked == ("pictures not read, as they are not .png, .jpg, .jpeg: 2 (c.webp, d.HEIC)",)


def test_the_digest_is_of_the_pixels_not_of_the_file(folder: Path) -> None:
    image = Image.open(folder / "b.png")
    image.save(folder / "again.png", compress_level=0)
    photos = open_photos(str(folder))
    assert photos.load("again.png").digest == photos.load("b.png").digest
    assert photos.load("again.png").digest != photos.load("a/y.jpeg").digest
    # the same bytes in another shape are another photo
    flat = np.zeros((2, 6, 3), np.uint8)
    assert photo_digest(flat) != photo_digest(flat.reshape(6, 2, 3))


def test_limit_and_shards(folder: Path) -> None:
    assert open_photos(str(folder), limit=1).ids == ["a/y.jpeg"]
    parts = [open_photos(str(folder), shard=f"{k}/2").ids for k in (1, 2)]
    assert parts == [["a/y.jpeg", "b.png"], ["a/z.JPG"]]
    with pytest.raises(UsageError, match="a shard is i/n"):
        open_photos(str(folder), shard="3/2")
    assert open_photos(str(folder / "b.png")).ids == ["b.png"]


def test_damaged_photos_do_not_stop_the_rest(folder: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "empty.png").write_bytes(b"")
    found = dict(open_photos(str(folder)).read_ahead(workers=3))
    assert len(found) == 5
    bad = {name for name, photo in found.items() if isinstance(photo, SampleError)}
    assert bad == {"a/cut.png", "a/empty.png"}
    assert "cut.png" in str(found["a/cut.png"])


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder of photos"):
        open_photos(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no photos"):
        open_photos(str(tmp_path))
    with pytest.raises(UsageError, match="are for dataset:NAME"):
        open_photos(str(tmp_path), root=tmp_path)


def test_a_dataset_and_its_splits() -> None:
    photos = open_photos("dataset:scenes-wild/train", limit=2)
    assert photos.ids == ["wild/train/00000", "wild/train/02000"]
    photo = photos.load(photos.ids[1])
    expected = load_dataset("scenes-wild", split="train").load(photos.ids[1], ()).image
    np.testing.assert_array_equal(photo.image, expected)
    assert photo.sample_id == photos.ids[1]
    assert open_dataset("dataset:scenes-synthetic").split == "test"
    assert open_photos("dataset:scenes-wild", dataset_options={"size": "32x32"}, limit=1).load(
        "wild/test/00000").image.shape == (32, 32, 3)  # fmt: skip
    with pytest.raises(UsageError, match="unknown split 'trian'"):
        open_photos("dataset:scenes-wild/trian")
    with pytest.raises(UsageError, match="did you mean 'scenes-wild'"):
        open_photos("dataset:scenes-wid")


def test_the_real_photos(tmp_path: Path) -> None:
    if not (SHARED / "wild").is_dir():
        pytest.skip("no shared photographs on this machine (REASONX_SHARED)")
    for name, photo in open_photos(str(SHARED / "wild"), limit=3).read_ahead():
        assert isinstance(photo, Photo), name
        assert photo.image.shape[2] == 3


def test_a_sample_is_loaded_once_for_photo_and_judge() -> None:
    recent = Recent(open_dataset("dataset:scenes-wild/test"), ["depth"], keep=2)
    first = recent.load("wild/test/00000")
    assert recent.load("wild/test/00000") is first
    assert isinstance(first.targets["depth"], DepthTarget)
    assert "albedo" not in first.targets
    for k in (1, 2):
        recent.load(f"wild/test/{k:05d}")
    assert recent.load("wild/test/00000") is not first


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright_as_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    from PIL import ImageOps

    image = Image.fromarray(rng(0, "exif").integers(0, 256, (16, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    found = open_photos(str(tmp_path)).load(f"a.{suffix}").image
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert found.shape == expected.shape == ((24, 16, 3) if orientation >= 5 else (16, 24, 3))
    assert np.abs(found.astype(int) - expected).max() <= (0 if suffix == "png" else 8)  # two decoders of JPEG
    # ground truth of a dataset lies on the stored pixels
    assert read_rgb(tmp_path / f"a.{suffix}").shape == (16, 24, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own
def test_damaged_exif_is_no_damage_of_a_photo(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" * 3)
    assert open_photos(str(tmp_path)).load("a.jpg").image.shape == (4, 6, 3)
