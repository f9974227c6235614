"""Flat scene folders: decoding, axes, units, and damage."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.datasets.flat import Flat
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.images import write_npy, write_png
from tests.helpers.shared import SHARED

HYPERSIM = SHARED / "hypersim"
H, W = 6, 8


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Scene `a`: depth rises with the column (mm), all normals face the camera, albedo is 0.25 linear."""
    write_png(tmp_path / "a_rgb.png", np.full((H, W, 3), 90, np.uint8))
    write_png(tmp_path / "a_depth.png", np.tile(np.arange(W, dtype=np.uint16) * 1000, (H, 1)))
    normal = np.zeros((H, W, 3), np.uint8)
    normal[...] = (128, 178, 255)  # opengl: y up, z to the camera
    normal[0, 0] = 0  # black: no normal here
    write_png(tmp_path / "a_normal.png", normal)
    code = round(float(linear_to_srgb(0.25)) * 255)
    write_png(tmp_path / "a_albedo.png", np.full((H, W, 3), code, np.uint8))
    write_png(tmp_path / "a_irradiance.png", np.full((H, W), 255, np.uint8))
    return tmp_path


def test_values_and_axes_by_hand(scene: Path) -> None:
    data = Flat(scene, "all", {"depth_scale": "0.001", "normals_frame": "opengl"})
    sample = data.load("a")
    depth = sample.targets["depth"]
    np.testing.assert_allclose(depth.depth[2], np.arange(W))
    assert not depth.valid[:, 0].any()
    assert depth.valid[:, 1:].all()
    normals = sample.targets["normals"]
    np.testing.assert_allclose(normals.normal[3, 3], [1 / 255, -(178 * 2 / 255 - 1), -1.0], atol=1e-6)
    assert not normals.valid[0, 0]
    assert normals.valid.sum() == H * W - 1
    np.testing.assert_allclose(sample.targets["albedo"].value, 0.25, atol=0.003)
    assert sample.targets["irradiance"].value.shape == (H, W, 3)
    np.testing.assert_allclose(sample.targets["irradiance"].value, 1.0)
    assert sample.image.dtype == np.uint8
    assert sample.image.shape == (H, W, 3)


@pytest.mark.parametrize(("frame", "sign"), [("opencv", (1, 1, 1)), ("opengl", (1, -1, -1)), ("dsine", (-1, -1, -1))])
def test_frames_are_signs_of_the_stored_vector(scene: Path, frame: str, sign: tuple[int, int, int]) -> None:
    (scene / "a_normal.png").unlink()
    vector = np.array([0.6, 0.0, 0.8], np.float32)
    write_npy(scene / "a_normal.npy", np.tile(vector, (H, W, 1)))
    normal = Flat(scene, "all", {"normals_frame": frame}).load("a", ["normals"]).targets["normals"].normal
    np.testing.assert_allclose(normal[1, 1], vector * sign)


def test_without_a_unit_there_is_no_depth(scene: Path) -> None:
    farther = Flat(scene)
    assert "depth" not in farther.targets
    assert "depth" not in farther.load("a").targets
    with pytest.raises(SampleError, match="no unit"):
        farther.load("a", ["depth"])


def test_encodings(scene: Path) -> None:
    write_png(scene / "a_albedo.png", np.full((H, W, 3), 32768, np.uint16))
    stored = 32768 / 65535
    for encoding, expected in (("linear", stored), ("gamma2.2", stored**2.2)):
        value = Flat(scene, "all", {"albedo_encoding": encoding}).load("a", ["albedo"]).targets["albedo"].value
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_jpeg_photo_and_order_of_ids(scene: Path) -> None:
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(scene / "10_rgb.jpg")
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(scene / "9_rgb.jpg")
    (scene / "notes.txt").write_text("no scene")
    assert list(Flat(scene).ids) == ["10", "9", "a"]
    with pytest.raises(SampleError, match=r"10_albedo\.png.*missing"):
        Flat(scene).load("10", ["albedo"])


def test_a_scene_without_its_photo_is_an_error_of_that_sample(scene: Path) -> None:
    write_png(scene / "b_albedo.png", np.zeros((H, W, 3), np.uint8))
    data = Flat(scene)
    assert list(data.ids) == ["a", "b"]
    with pytest.raises(SampleError, match=r"b_rgb\.png"):
        data.load("b")
    data.load("a")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (_truncate, "truncated"),
        (lambda p: p.write_bytes(b"GIF89a"), "can't be decoded"),
        (lambda p: write_png(p, np.zeros((W, H, 3), np.uint8)), "transposed"),
        (lambda p: write_png(p, np.zeros((2 * H, W, 3), np.uint8)), "resized"),
        (lambda p: write_png(p, np.zeros((H, W), np.uint8)), r"shape \(6, 8\)"),
    ],
)
def test_damage_names_the_file(scene: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(scene / "a_albedo.png")
    with pytest.raises(SampleError, match=message) as caught:
        Flat(scene).load("a", ["albedo"])
    assert "a_albedo.png" in str(caught.value)


def test_a_coloured_picture_of_depth_is_refused(scene: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8)
    write_png(scene / "a_depth.png", picture)
    with pytest.raises(SampleError, match="colour-mapped"):
        Flat(scene, "all", {"depth_scale": 1}).load("a", ["depth"])
    write_png(scene / "a_depth.png", np.repeat(picture[..., :1], 3, axis=2))
    np.testing.assert_allclose(
        Flat(scene, "all", {"depth_scale": 1}).load("a", ["depth"]).targets["depth"].depth, picture[..., 0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_scale": "mm"}, "depth_scale"),
        ({"depth_scale": -1}, "positive"),
        ({"normals_frame": "opengll"}, "opengl"),
        ({"depthscale": 1}, "depth_scale"),
    ],
)
def test_bad_options(scene: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Flat(scene, "all", options)


def test_a_folder_without_scenes_and_a_map_twice(scene: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"NAME_rgb\.png"):
        Flat(empty)
    write_npy(scene / "a_depth.npy", np.zeros((H, W), np.float32))
    with pytest.raises(DataError, match="two files of one map"):
        Flat(scene)


def test_survives_pickling(scene: Path) -> None:
    sample = pickle.loads(pickle.dumps(Flat(scene))).load("a")
    assert pickle.loads(pickle.dumps(sample)).image.shape == (H, W, 3)


@pytest.mark.skipif(not HYPERSIM.is_dir(), reason="REASONX_SHARED with data/hypersim is not here")
def test_real_scenes_face_the_camera() -> None:
    data = Flat(HYPERSIM, "all", {"normals_frame": "opengl"})
    assert list(data.ids) == ["scene_001", "scene_002", "scene_003"]
    columns, rows = np.meshgrid(np.linspace(-1, 1, 512), np.linspace(-1, 1, 512))
    rays = np.stack([columns, rows, np.full((512, 512), 1 / np.tan(np.radians(30)))], axis=-1)
    for name in data.ids:
        sample = data.load(name)
        assert sample.image.shape == (512, 512, 3)
        normals = sample.targets["normals"]
        facing = (normals.normal * rays).sum(axis=2)[normals.valid] < 0
        assert facing.mean() > 0.95
        # y points down, so floors and tables (the lower half) point up: y < 0
        assert normals.normal[400:, :, 1].mean() < -0.2


def test_maps_and_photos_that_are_not_read_are_named(scene: Path) -> None:
    for name in ("b_RGB.png", "b_disp.png", "c_rgb.bmp", "below/d_rgb.png", "notes.txt", "._a_rgb.png", "Thumbs.db"):
        (scene / name).parent.mkdir(exist_ok=True)
        (scene / name).write_bytes(b"x")
    data = Flat(scene)
    assert list(data.ids) == ["a"]
    names, below, depth = data.overlooked()
    assert names.endswith("with a known suffix: 3 (b_RGB.png, b_disp.png, c_rgb.bmp)")
    assert below == "pictures or maps not read, as they lie in folders below: 1 (below/d_rgb.png)"
    assert depth.startswith("depth files not read, as nothing says how many metres a unit is")
    assert depth.endswith(": 1 (a_depth.png)")
    assert len(Flat(scene, "all", {"depth_scale": 0.001}).overlooked()) == 2
