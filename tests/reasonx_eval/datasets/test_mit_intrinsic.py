"""MIT intrinsic images: units, the photo's exposure, subsets, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets.mit_intrinsic import OBJECTS, MITIntrinsic
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.io.images import read_png, write_png
from tests.helpers.shared import SHARED

MIT = SHARED / "mit_intrinsic"
H, W = 20, 30


def write_object(folder: Path, white: int = 40000) -> None:
    """original = reflectance * shading / 65535, with a left half outside the mask."""
    reflectance = np.full((H, W, 3), (13107, 26214, 65535), np.uint16)  # 0.2, 0.4, 1.0
    shading = np.full((H, W), white, np.uint16)
    mask = np.zeros((H, W), np.uint16)
    mask[:, W // 2 :] = 65025
    product = np.rint(reflectance / 65535 * shading[..., None]).astype(np.uint16)
    for name, array in {"mask": mask, "original": product, "reflectance": reflectance, "shading": shading}.items():
        write_png(folder / f"{name}.png", array)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_object(tmp_path / "panther")
    return tmp_path


def test_layers_are_linear_fractions_of_65535(root: Path) -> None:
    sample = MITIntrinsic(root, "present").load("panther")
    np.testing.assert_allclose(sample.targets["albedo"].value[0, 0], [0.2, 0.4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(sample.targets["irradiance"].value, 40000 / 65535, rtol=1e-6)
    assert sample.targets["irradiance"].value.shape == (H, W, 3)
    assert sample.targets["albedo"].valid.sum() == H * W // 2


@pytest.mark.parametrize("white", [400, 40000])
def test_the_photo_is_exposed_to_white_inside_the_mask(root: Path, white: int) -> None:
    write_object(root / "panther", white)
    image = MITIntrinsic(root, "present").load("panther").image
    assert image.dtype == np.uint8
    # blue is the brightest channel and becomes white whatever the light; the others keep their ratio in linear light
    np.testing.assert_allclose(srgb_to_linear(image[0, -1] / 255), [0.2, 0.4, 1.0], atol=0.005)


def test_splits(root: Path) -> None:
    assert list(MITIntrinsic(root, "all").ids) == list(OBJECTS)
    assert len(OBJECTS) == 20
    assert list(MITIntrinsic(root, "present").ids) == ["panther"]
    write_object(root / "deer")
    assert list(MITIntrinsic(root, "present").ids) == ["deer", "panther"]
    with pytest.raises(UsageError, match="present"):
        MITIntrinsic(root, "presents")


def test_a_missing_object_is_an_error_of_its_sample(root: Path) -> None:
    data = MITIntrinsic(root, "all")
    with pytest.raises(SampleError, match=r"turtle.*missing|missing") as caught:
        data.load("turtle")
    assert "turtle" in str(caught.value)
    data.load("panther")


def test_an_object_in_other_letters_is_named(root: Path) -> None:
    (root / "Turtle").mkdir()
    (root / "notes").mkdir()
    [said] = MITIntrinsic(root, "present").overlooked()
    assert said == "folders not read, as letter case is not that of an object's name: 1 (Turtle)"
    assert MITIntrinsic(root, "all").overlooked() == ()


def test_layout_of_the_official_archive(tmp_path: Path) -> None:
    write_object(tmp_path / "MIT-intrinsic" / "data" / "sun")
    assert list(MITIntrinsic(tmp_path, "present").ids) == ["sun"]
    with pytest.raises(DataError, match="object folder"):
        MITIntrinsic(tmp_path / "MIT-intrinsic" / "data" / "sun", "all")


def test_damage_names_the_file(root: Path) -> None:
    data = MITIntrinsic(root, "present")
    write_png(root / "panther" / "reflectance.png", np.zeros((H, W, 3), np.uint8))
    with pytest.raises(SampleError, match=r"reflectance\.png.*16-bit"):
        data.load("panther")
    write_png(root / "panther" / "reflectance.png", np.zeros((H, W + 1, 3), np.uint16))
    with pytest.raises(SampleError, match=r"reflectance\.png"):
        data.load("panther")
    write_png(root / "panther" / "mask.png", np.zeros((H, W), np.uint16))
    with pytest.raises(SampleError, match="mask is empty"):
        _ = data.load("panther", []).image


@pytest.mark.skipif(not MIT.is_dir(), reason="REASONX_SHARED with data/mit_intrinsic is not here")
def test_real_layers_multiply_to_the_diffuse_photo() -> None:
    sample = MITIntrinsic(MIT, "present").load("panther")
    albedo, shading = sample.targets["albedo"], sample.targets["irradiance"]
    diffuse = read_png(MIT / "panther" / "diffuse.png").astype(np.float64)
    product = (albedo.value.astype(np.float64) * shading.value)[albedo.valid]
    # the layers are stored with scales of their own, so only proportionality is promised
    assert np.corrcoef(product.ravel(), diffuse[albedo.valid].ravel())[0, 1] > 0.99
    assert albedo.value.max() <= 1.0
    assert 250 <= sample.image[albedo.valid].max() <= 255
