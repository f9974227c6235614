"""Saved predictions: every format against the array that went in; what is not stated is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import OpenEXR
import pytest

from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.models.base import ModelInfo
from reasonx_eval.models.saved.predictions import Saved, write_meta, write_prediction
from reasonx_eval.types import KINDS, Prediction, Sample

RNG = np.random.default_rng(0)
DEPTH = RNG.uniform(0.5, 9, (6, 7)).astype(np.float32)
COLOUR = RNG.uniform(0, 1, (6, 7, 3)).astype(np.float32)


def undecodable() -> Any:
    raise AssertionError("scoring saved predictions must not decode the photo")


def sample(sample_id: str) -> Sample:
    return Sample(sample_id, undecodable)


def read(model: Saved, sample_id: str = "a") -> np.ndarray:
    (kind,) = next(iter(model.kinds.values()))
    (prediction,) = model.predict([sample(sample_id)], kind, 0)
    assert prediction.kind == kind
    assert prediction.value.dtype in (np.float32, np.float64)
    return prediction.value


def write_exr(path: Path, value: np.ndarray) -> None:
    channels = {"Y": value} if value.ndim == 2 else {c: np.ascontiguousarray(value[..., i])
                                                     for i, c in enumerate("RGB")}  # fmt: skip
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))


def write_pfm(path: Path, value: np.ndarray, scale: float = -1.0) -> None:
    """As MiDaS writes it: the bottom row first, little-endian where the scale is negative."""
    colour = b"PF" if value.ndim == 3 else b"Pf"
    head = colour + f"\n{value.shape[1]} {value.shape[0]}\n{scale}\n".encode()
    path.write_bytes(head + np.flipud(value).astype("<f4" if scale < 0 else ">f4").tobytes())


def write_any(folder: Path, suffix: str, value: np.ndarray) -> None:
    path = folder / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, value)
    elif suffix == ".npz":
        np.savez(path, value)
    elif suffix in (".tif", ".tiff"):
        path.write_bytes(imagecodecs.tiff_encode(value, photometric="rgb" if value.ndim == 3 else None))
    elif suffix == ".pfm":
        write_pfm(path, value)
    elif suffix == ".exr":
        write_exr(path, value)
    else:
        with h5py.File(path, "w") as file:
            file["group/pred"] = value


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".exr", ".h5", ".tif", ".tiff", ".pfm"])
@pytest.mark.parametrize(("kind", "value"), [("depth_affine", DEPTH), ("albedo_linear", COLOUR)])
def test_float_formats_are_exact(tmp_path: Path, suffix: str, kind: str, value: np.ndarray) -> None:
    write_any(tmp_path, suffix, value)
    np.testing.assert_array_equal(read(Saved(tmp_path, kind=kind)), value)


def test_png16_needs_a_scale_and_applies_it(tmp_path: Path) -> None:
    millimetres = np.array([[0, 1500], [65535, 1]], dtype=np.uint16)
    write_png(tmp_path / "a.png", millimetres)
    with pytest.raises(SampleError, match="scale is not stated"):
        read(Saved(tmp_path, kind="depth_metric"))
    value = read(Saved(tmp_path, kind="depth_metric", png_scale=0.001, png_offset=0.25))
    np.testing.assert_allclose(value, [[0.25, 1.75], [65.785, 0.251]], rtol=1e-6)


def test_png8_is_for_albedo_srgb_only(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.array([[[0, 51, 255]]], dtype=np.uint8))
    np.testing.assert_allclose(read(Saved(tmp_path, kind="albedo_srgb")), [[[0, 0.2, 1]]], rtol=1e-7)
    with pytest.raises(SampleError, match="8 bits can't hold albedo_linear"):
        read(Saved(tmp_path, kind="albedo_linear"))
    with pytest.raises(SampleError, match="png_scale is for 16-bit"):
        read(Saved(tmp_path, kind="albedo_srgb", png_scale=1 / 65535))


def test_png_normals_need_their_encoding(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.array([[[255, 0, 51]]], dtype=np.uint8))
    with pytest.raises(SampleError, match="encoding is not stated"):
        read(Saved(tmp_path, kind="normal"))
    value = read(Saved(tmp_path, kind="normal", normals_encoding="half"))
    np.testing.assert_allclose(value, [[[1, -1, -0.6]]], atol=1e-6)


def test_half_encoding_of_floats_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (COLOUR * 2 - 1))
    with pytest.raises(SampleError, match="lies in \\[0, 1\\]"):
        read(Saved(tmp_path, kind="normal", normals_encoding="half"))
    np.save(tmp_path / "a.npy", COLOUR)
    np.testing.assert_allclose(read(Saved(tmp_path, kind="normal", normals_encoding="half")), COLOUR * 2 - 1, atol=1e-6)


# a wall that faces the camera, a floor, and a wall on the left that looks to the right, in each frame's own terms
FACING = {"opencv": (0, 0, -1), "opengl": (0, 0, 1), "dsine": (0, 0, 1)}
FLOOR = {"opencv": (0, -1, 0), "opengl": (0, 1, 0), "dsine": (0, 1, 0)}
LEFT_COLOUR = {"opencv": (1, 0, 0), "opengl": (1, 0, 0), "dsine": (-1, 0, 0)}


@pytest.mark.parametrize("frame", ["opencv", "opengl", "dsine"])
def test_normal_frames_agree_on_wall_floor_and_side(tmp_path: Path, frame: str) -> None:
    np.save(tmp_path / "a.npy", np.array([[FACING[frame], FLOOR[frame], LEFT_COLOUR[frame]]], dtype=np.float32))
    value = read(Saved(tmp_path, kind="normal", normals_frame=frame))  # type: ignore[arg-type]  # from parametrize
    np.testing.assert_array_equal(value, [[FACING["opencv"], FLOOR["opencv"], LEFT_COLOUR["opencv"]]])


@pytest.mark.parametrize("where", ["scene1/cam/a.npy", "scene1__cam__a.npy"])
def test_ids_with_slashes_nested_or_flat(tmp_path: Path, where: str) -> None:
    write_npy(tmp_path / where, DEPTH)
    model = Saved(tmp_path, kind="depth_scale")
    np.testing.assert_array_equal(read(model, "scene1/cam/a"), DEPTH)
    with pytest.raises(SampleError, match="scene1/cam/b"):
        read(model, "scene1/cam/b")


def test_pattern(tmp_path: Path) -> None:
    write_npy(tmp_path / "x/a_pred.npy", DEPTH)
    np.testing.assert_array_equal(read(Saved(tmp_path, kind="depth_scale", pattern="{id}_pred"), "x/a"), DEPTH)
    for bad in ("pred", "../{id}", "/{id}"):
        with pytest.raises(UsageError, match="pattern"):
            Saved(tmp_path, kind="depth_scale", pattern=bad)


def test_kind_from_meta_and_conflicts(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEPTH)
    with pytest.raises(UsageError) as caught:
        Saved(tmp_path)
    assert all(k in str(caught.value) for k in KINDS)
    assert caught.value.exit_code == 2
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"kind": "disparity_affine", "model": "mine"}))
    assert Saved(tmp_path).kinds == {"depth": ("disparity_affine",)}
    assert Saved(tmp_path, kind="disparity_affine").info.name == "mine"
    with pytest.raises(UsageError, match=r"kind is given as 'depth_metric', but meta.json says 'disparity_affine'"):
        Saved(tmp_path, kind="depth_metric")
    meta.write_text(json.dumps({"kind": "disparity_affine", "scale": 2}))
    with pytest.raises(UsageError, match="scale: unknown key"):
        Saved(tmp_path)
    meta.write_text("{")
    with pytest.raises(UsageError, match="JSON"):
        Saved(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "depth"}, "unknown kind 'depth'"),
        ({"kind": "depth_metric", "normals_frame": "opengl"}, "normals_frame is stated"),
        ({"kind": "depth_metric", "png_offset": 1.0}, "without png_scale"),
        ({"kind": "depth_metric", "png_scale": -1.0}, "png_scale: Input should be greater than 0"),
        ({"kind": "normal", "normals_frame": "blender"}, "normals_frame"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Saved(tmp_path, **options)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Saved(tmp_path / "no", kind="normal")


def test_missing_file_names_paths_and_a_near_name(tmp_path: Path) -> None:
    np.save(tmp_path / "kitchen_0017.npy", DEPTH)
    with pytest.raises(SampleError, match=r"expected kitchen_017\.npy.*similar name is there: kitchen_0017"):
        read(Saved(tmp_path, kind="depth_scale"), "kitchen_017")


def test_two_formats_for_one_id(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEPTH)
    write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint16))
    with pytest.raises(SampleError, match=r"2 files for one sample: a\.npy, a\.png"):
        read(Saved(tmp_path, kind="depth_scale"))
    np.testing.assert_array_equal(read(Saved(tmp_path, kind="depth_scale", suffix=".npy")), DEPTH)


@pytest.mark.parametrize("bad", ["../a", "/a", "a//b"])
def test_ids_stay_inside_the_folder(tmp_path: Path, bad: str) -> None:
    np.save(tmp_path / "a.npy", DEPTH)
    with pytest.raises(SampleError, match="not a safe relative path"):
        read(Saved(tmp_path, kind="depth_scale"), bad)
    with pytest.raises(SampleError, match="not a safe relative path"):
        write_prediction(tmp_path, bad, Prediction("depth_scale", DEPTH))


@pytest.mark.parametrize("axis", [0, 2])
def test_depth_drops_one_axis_of_length_one(tmp_path: Path, axis: int) -> None:
    np.save(tmp_path / "a.npy", np.expand_dims(DEPTH, axis))
    np.testing.assert_array_equal(read(Saved(tmp_path, kind="depth_scale")), DEPTH)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("albedo_linear", np.zeros((3, 6, 7), np.float32), "channels come first"),
        ("albedo_linear", np.zeros((6, 7), np.float32), r"needs \[H, W, 3\]"),
        ("normal", np.zeros((6, 7, 4), np.float32), r"shape \[6, 7, 4\]"),
        ("depth_scale", np.zeros((6, 7, 3), np.float32), "picture of the map"),
        ("depth_scale", np.zeros((2, 1, 6, 7), np.float32), r"shape \[2, 1, 6, 7\]"),
        ("normal", np.zeros((1, 2, 6, 7, 3), np.float32), r"shape \[2, 6, 7, 3\]"),
        ("depth_scale", np.zeros(7, np.float32), r"needs \[H, W\]"),
        ("depth_scale", np.zeros((0, 7), np.float32), "no pixels"),
        ("depth_scale", np.zeros((6, 7), np.uint16), "dtype uint16"),
        ("depth_scale", np.zeros((6, 7), np.complex64), "dtype complex64"),
    ],
)
def test_wrong_shape_or_dtype_is_not_guessed_at(tmp_path: Path, kind: str, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SampleError, match=message):
        read(Saved(tmp_path, kind=kind))


@pytest.mark.parametrize(("stored", "given"), [(np.float16, np.float32), (np.float32, np.float32),
                                              (np.float64, np.float64)])  # fmt: skip
def test_precision_is_never_lost_and_nan_passes(tmp_path: Path, stored: type, given: type) -> None:
    value = np.array([[1 / 3, np.nan]], stored)
    np.save(tmp_path / "a.npy", value)
    back = read(Saved(tmp_path, kind="depth_scale"))
    np.testing.assert_array_equal(back, value)
    assert back.dtype == given


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".exr", ".h5", ".tif", ".pfm"])
@pytest.mark.parametrize("content", [b"", b"not an image at all"])
def test_damaged_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(SampleError, match=rf"a\{suffix}: "):
        read(Saved(tmp_path, kind="depth_scale", png_scale=1.0))


def test_truncated_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEPTH)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(SampleError, match="truncated"):
        read(Saved(tmp_path, kind="depth_scale"))


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_several_arrays_need_a_key(tmp_path: Path, suffix: str) -> None:
    if suffix == "npz":
        np.savez(tmp_path / "a.npz", depth=DEPTH, conf=DEPTH * 0)
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["depth"], file["conf"] = DEPTH, DEPTH * 0
    with pytest.raises(SampleError, match=f"holds 2 arrays.*\n.*-O {suffix}_key=NAME"):
        read(Saved(tmp_path, kind="depth_scale"))
    with pytest.raises(SampleError, match="has no array 'dept'"):
        read(Saved(tmp_path, kind="depth_scale", **{f"{suffix}_key": "dept"}))  # type: ignore[arg-type]  # by name
    keyed = Saved(tmp_path, kind="depth_scale", **{f"{suffix}_key": "depth"})  # type: ignore[arg-type]  # by name
    np.testing.assert_array_equal(read(keyed), DEPTH)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_predictions_come_back_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    value = np.array([[1e-42, -0.0, np.nan], [np.inf, np.pi, 1e38]], dtype=dtype)
    info = ModelInfo("net", "net.onnx", weights_sha256="ab", licence="MIT", base="b", trained_on=("NYUv2",),
                     reward="whdr", parameters=7, options={"steps": 4})  # fmt: skip
    write_prediction(tmp_path, "s/1", Prediction("depth_scale", value))
    write_meta(tmp_path, kind="depth_scale", info=info, seed=3)
    model = Saved(tmp_path)
    assert read(model, "s/1").tobytes() == value.tobytes()
    assert (model.info.name, model.info.licence, model.info.base) == ("net", "MIT", "b")
    assert (model.info.trained_on, model.info.reward, model.info.parameters) == (("NYUv2",), "whdr", 7)
    assert model.info.options["model"] == {"steps": 4}
    assert model.info.options["stated_weights_sha256"] == "ab"


def test_identity_sees_content_size_and_names(tmp_path: Path) -> None:
    big = np.zeros((400, 400), np.float32)
    np.save(tmp_path / "a.npy", big)
    digests = {Saved(tmp_path, kind="depth_scale").info.weights_sha256}
    for change in (0, 200, 399):
        other = big.copy()
        other[change] = 1
        np.save(tmp_path / "a.npy", other)
        digests.add(Saved(tmp_path, kind="depth_scale").info.weights_sha256)
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    digests.add(Saved(tmp_path, kind="depth_scale").info.weights_sha256)
    np.save(tmp_path / "c.npy", big)
    digests.add(Saved(tmp_path, kind="depth_scale").info.weights_sha256)
    (tmp_path / "meta.json").write_text('{"kind": "depth_scale"}')
    digests.add(Saved(tmp_path).info.weights_sha256)
    assert len(digests) == 7


def test_refuses_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEPTH)
    with pytest.raises(UsageError, match="unknown kind 'depth_metric'"):
        Saved(tmp_path, kind="depth_scale").predict([sample("a")], "depth_metric", 0)


def test_every_byte_of_a_large_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((400, 400), np.float32))
    before = Saved(tmp_path, kind="depth_scale").info.weights_sha256
    data = bytearray(path.read_bytes())
    for place in range(200, len(data), len(data) // 7):
        data[place] ^= 1
        path.write_bytes(data)
        after = Saved(tmp_path, kind="depth_scale").info.weights_sha256
        assert after != before, place
        before = after


@pytest.mark.parametrize("how", ["external storage", "a virtual array", "a link"])
def test_hdf5_that_reads_another_file_is_refused(tmp_path: Path, how: str) -> None:
    secret = tmp_path / "elsewhere" / "secret.bin"
    secret.parent.mkdir()
    secret.write_bytes(DEPTH.astype("<f8").tobytes())
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["depth"] = DEPTH.astype("<f8")
    folder = tmp_path / "preds"
    folder.mkdir()
    with h5py.File(folder / "a.h5", "w") as file:
        if how == "external storage":
            file.create_dataset("depth", DEPTH.shape, "<f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif how == "a virtual array":
            layout = h5py.VirtualLayout(DEPTH.shape, "<f8")
            layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "depth", DEPTH.shape)
            file.create_virtual_dataset("depth", layout)
        else:
            file["depth"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/depth")
    with pytest.raises(SampleError, match="no array 'depth'" if how == "a link" else "lies in other files"):
        read(Saved(folder, kind="depth_scale", h5_key="depth"))


def test_pfm_of_either_byte_order_and_its_damage(tmp_path: Path) -> None:
    for scale in (-1.0, 1.0, -0.25):
        write_pfm(tmp_path / "a.pfm", DEPTH, scale)
        np.testing.assert_array_equal(read(Saved(tmp_path, kind="depth_scale")), DEPTH)
    whole = (tmp_path / "a.pfm").read_bytes()
    for damaged, words in ((whole[:-4], "bytes for"), (b"Pf\n3\n", "no PFM header"), (whole + b"1", "bytes for")):
        (tmp_path / "a.pfm").write_bytes(damaged)
        with pytest.raises(SampleError, match=rf"a\.pfm: can't be decoded \(.*{words}"):
            read(Saved(tmp_path, kind="depth_scale"))


def test_tiff_of_integers_needs_a_scale_as_a_png_does(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(imagecodecs.tiff_encode(np.full((3, 4), 2500, np.uint16)))
    with pytest.raises(SampleError, match="a 16-bit TIFF whose scale is not stated"):
        read(Saved(tmp_path, kind="depth_metric"))
    np.testing.assert_allclose(read(Saved(tmp_path, kind="depth_metric", png_scale=0.001)), 2.5)
    (tmp_path / "a.tif").write_bytes(imagecodecs.tiff_encode(np.full((3, 4), 25, np.int32)))
    with pytest.raises(SampleError, match="dtype int32; depth_metric needs float values"):
        read(Saved(tmp_path, kind="depth_metric"))


@pytest.mark.parametrize(("kind", "value"), [
    ("depth_scale", DEPTH[None, None]), ("depth_scale", DEPTH[None, ..., None]),
    ("normal", COLOUR[None]), ("normal", COLOUR[None, None]),
])  # fmt: skip
def test_a_batch_of_one_is_read(tmp_path: Path, kind: str, value: np.ndarray) -> None:
    write_npy(tmp_path / "a.npy", value)
    np.testing.assert_array_equal(read(Saved(tmp_path, kind=kind)), value.reshape(value.squeeze().shape))


def test_a_batch_of_one_with_channels_first_is_refused(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", COLOUR.transpose(2, 0, 1)[None])
    with pytest.raises(SampleError, match="channels come first"):
        read(Saved(tmp_path, kind="normal"))
