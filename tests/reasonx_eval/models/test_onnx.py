"""ONNX networks of a few nodes, whose outputs are known by hand: every rule of the card is checked on them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.models.adapters.onnx import OnnxModel, target_size
from reasonx_eval.models.adapters.onnx_card import InputSpec, OnnxCard
from reasonx_eval.models.adapters.onnx_files import external_files
from reasonx_eval.types import Sample
from tests.reasonx_eval.models.tiny_onnx import (
    DOUBLE,
    FLOAT16,
    INT64,
    UINT8,
    Node,
    channel_sum,
    identity,
    network,
    pooled,
)

RNG = np.random.default_rng(3)
PHOTO = RNG.integers(0, 256, (10, 14, 3)).astype(np.uint8)
X = PHOTO.astype(np.float64)

Make = Callable[..., OnnxModel]


def without_bytes(value: Any) -> str | None:
    return "bytes" if isinstance(value, bytes) else None


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(network_bytes: bytes, *, kind: str = "albedo_linear", output: dict[str, Any] | None = None,
              **source: Any) -> OnnxModel:  # fmt: skip
        path = tmp_path / "net.onnx"
        path.write_bytes(network_bytes)
        card = {
            "name": "tiny",
            "input": {"range": "0-1", "channels": "RGB", **source},
            "output": {"kind": kind, **(output or {})},
        }
        path.with_suffix(".json").write_text(json.dumps(card))
        return OnnxModel(path)

    return build


def run(model: OnnxModel, image: np.ndarray = PHOTO) -> np.ndarray:
    (prediction,) = model.predict([Sample("s/1", image)], model.card.output.kind, 0)
    assert prediction.value.dtype == np.float32
    return prediction.value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, X / 255),
        ({"range": "0-255"}, X),
        ({"channels": "BGR"}, X[..., ::-1] / 255),
        ({"colour": "linear"}, srgb_to_linear(X / 255)),
        ({"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.5]}, (X / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.5]),
        # mean and std are in channel order, so here they belong to blue, green, red
        ({"range": "0-255", "channels": "BGR", "mean": [104, 117, 123]}, X[..., ::-1] - [104, 117, 123]),
    ],
)
def test_what_the_network_gets(make: Make, source: dict[str, Any], expected: np.ndarray) -> None:
    np.testing.assert_allclose(run(make(identity(), **source)), expected, rtol=1e-5, atol=1e-6)


def test_channels_last(make: Make) -> None:
    np.testing.assert_allclose(run(make(identity((1, "h", "w", 3)), layout="NHWC")), X / 255, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT16, 1e-3), (DOUBLE, 1e-6)])
def test_other_float_types(make: Make, dtype: int, tolerance: float) -> None:
    np.testing.assert_allclose(run(make(identity(dtype=dtype))), X / 255, atol=tolerance)


def test_bytes_in_bytes_out(make: Make) -> None:
    np.testing.assert_array_equal(run(make(identity(dtype=UINT8), range="0-255")), X)
    with pytest.raises(UsageError, match="takes 8-bit values"):
        make(identity(dtype=UINT8))


def test_depth_comes_out_flat_and_in_network_resolution(make: Make) -> None:
    value = run(make(channel_sum([1, 2, 4]), kind="depth_metric"))
    np.testing.assert_allclose(value, (X / 255) @ [1, 2, 4], rtol=1e-5)
    small = run(make(pooled(2), kind="disparity_affine"))
    np.testing.assert_allclose(small, (X / 255).mean(-1).reshape(5, 2, 7, 2).mean((1, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"scale": 2, "offset": -1}, 2 * X / 255 - 1),
        ({"transform": "exp"}, np.exp(X / 255)),
        ({"transform": "exp", "scale": 3, "offset": 1}, 3 * np.exp(X / 255) + 1),
        ({"transform": "reciprocal", "floor": 0.1}, 1 / np.maximum(X / 255, 0.1)),
    ],
)
def test_transforms(make: Make, output: dict[str, Any], expected: np.ndarray) -> None:
    np.testing.assert_allclose(run(make(identity(), output=output)), expected, rtol=1e-5, atol=1e-6)


def test_normals_are_turned_into_our_frame(make: Make) -> None:
    encoded = {"scale": 2, "offset": -1, "normals_frame": "opengl"}
    value = run(make(identity(), kind="normal", output=encoded))
    np.testing.assert_allclose(value, (2 * X / 255 - 1) * [1, -1, -1], atol=1e-6)


def test_intensity_becomes_colour_albedo(make: Make) -> None:
    photo = PHOTO.copy()
    photo[0, 0] = 0
    linear = srgb_to_linear(photo / 255)
    rule = {"transform": "intensity_to_albedo"}
    value = run(make(channel_sum([0.2, 0.3, 0.4]), output=rule, colour="linear"), photo)
    intensity = linear @ [0.2, 0.3, 0.4]
    np.testing.assert_allclose(value.mean(-1), intensity, rtol=1e-5)
    lit = linear.sum(-1) > 0
    colour, expected = value[lit], linear[lit]
    np.testing.assert_allclose(colour / colour.sum(-1, keepdims=True), expected / expected.sum(-1, keepdims=True),
                               rtol=1e-5)  # fmt: skip
    # half the resolution: the intensity is brought to the photo
    assert run(make(pooled(2), output=rule, colour="linear"), photo).shape == photo.shape


def test_black_photo_has_grey_albedo(make: Make) -> None:
    bias = network([Node("Conv", ["x", "k", "b"], ["y"])], [("x", (1, 3, "h", "w"))], [("y", (1, 1, "h", "w"))],
                   {"k": np.zeros((1, 3, 1, 1), np.float32), "b": np.array([0.25], np.float32)})  # fmt: skip
    value = run(make(bias, output={"transform": "intensity_to_albedo"}), np.zeros((4, 4, 3), np.uint8))
    np.testing.assert_array_equal(value, 0.25)


@pytest.mark.parametrize(("method", "pil"), [("bilinear", Image.Resampling.BILINEAR), ("area", Image.Resampling.BOX),
                                             ("bicubic", Image.Resampling.BICUBIC),
                                             ("nearest", Image.Resampling.NEAREST)])  # fmt: skip
def test_fixed_size_resizes_as_pillow(make: Make, method: str, pil: Image.Resampling) -> None:
    value = run(make(identity((1, 3, 5, 8)), size=[5, 8], resize=method))
    np.testing.assert_allclose(value, np.asarray(Image.fromarray(PHOTO).resize((8, 5), pil)) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "multiple", "expected"),
    [
        ("native", 1, (480, 640)),
        ("native", 14, (476, 644)),
        ("native", 1000, (1000, 1000)),
        ([224, 320], 32, (224, 320)),
        ({"short_side": 240}, 1, (240, 320)),
        ({"long_side": 518}, 14, (392, 518)),
    ],
)
def test_target_sizes(size: Any, multiple: int, expected: tuple[int, int]) -> None:
    spec = InputSpec.model_validate({"size": size, "multiple_of": multiple, "range": "0-1", "channels": "RGB"})
    assert target_size(480, 640, spec) == expected


def test_fixed_batch_gets_the_same_photo(make: Make) -> None:
    np.testing.assert_allclose(run(make(identity((4, 3, "h", "w")))), X / 255, rtol=1e-6)


def test_chooses_an_output(make: Make) -> None:
    twice = network([Node("Identity", ["x"], ["a"]), Node("Add", ["x", "x"], ["b"])], [("x", (1, 3, "h", "w"))],
                    [("a", (1, 3, "h", "w")), ("b", (1, 3, "h", "w"))])  # fmt: skip
    for output, factor in (({}, 1), ({"index": 1}, 2), ({"name": "b"}, 2)):
        np.testing.assert_allclose(run(make(twice, output=output)), factor * X / 255, rtol=1e-6)
    with pytest.raises(UsageError, match="unknown output 'bb'; did you mean 'b'"):
        make(twice, output={"name": "bb"})
    with pytest.raises(UsageError, match=r"index is 2, but the network has 2 outputs"):
        make(twice, output={"index": 2})
    with pytest.raises(UsageError, match="unknown input 'y'"):
        make(twice, name="y")


def test_info(make: Make, tmp_path: Path) -> None:
    model = make(identity())
    assert model.info.weights_sha256 == sha256_file(tmp_path / "net.onnx")
    assert model.info.options["input"]["resize"] == "bilinear"
    assert model.kinds == {"albedo": ("albedo_linear",)}
    (tmp_path / "net.onnx.data").write_bytes(b"more weights")
    assert make(identity()).info.weights_sha256 != model.info.weights_sha256


def test_survives_pickling_and_closing(make: Make) -> None:
    model = make(identity())
    before = run(model)
    np.testing.assert_array_equal(run(pickle.loads(pickle.dumps(model))), before)
    model.close()
    np.testing.assert_array_equal(run(model), before)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (identity((1, 3, "h", "w")), ("native", "NCHW", "normal")),
        (identity((1, 32, 48, 3)), ([32, 48], "NHWC", "normal")),
        (channel_sum([1, 1, 1], (1, 3, 32, 48)), ([32, 48], "NCHW", "disparity_affine")),
    ],
    ids=without_bytes,
)
def test_without_a_card_prints_one_that_works(tmp_path: Path, body: bytes, names: tuple[Any, str, str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(body)
    with pytest.raises(UsageError) as caught:
        OnnxModel(path)
    text = caught.value.what
    assert "inputs:  x (float)[" in text
    example = text[text.index("{"):]
    card = OnnxCard.model_validate_json(example)
    size = list(card.input.size) if isinstance(card.input.size, tuple) else card.input.size
    assert (size, card.input.layout, card.output.kind) == names
    assert '"mean": [0.0, 0.0, 0.0]' in example
    assert (card.licence, card.trained_on) == (None, ())  # copied as it is, it must not claim anything
    path.with_suffix(".json").write_text(example)
    model = OnnxModel(path)
    assert np.isfinite(run(model)).all()


def test_card_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(identity())
    card = tmp_path / "other.json"
    card.write_text(json.dumps({"name": "n", "input": {"range": "0-1", "channels": "RGB"},
                                "output": {"kind": "albedo_srgb"}}))  # fmt: skip
    assert OnnxModel(path, card=card).kinds == {"albedo": ("albedo_srgb",)}


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (identity((1, 3, 32, 48)), {}, r'fixed height of 32, but the card says size native(.|\n)*"size": \[32, 48\]'),
        (identity((1, 3, 32, 48)), {"size": [32, 32]}, r"fixed width of 48"),
        (identity((1, "h", "w", 3)), {}, "has h channels in layout NCHW"),
        (identity((1, 3, "h", "w")), {"layout": "NHWC"}, "has w channels in layout NHWC"),
        (identity((1, 32, 48, 3)), {"size": [48, 3]}, "has 32 channels in layout NCHW"),
        (identity((3, "h", "w")), {}, "has 3 axes; a photo needs 4"),
        (identity(dtype=INT64), {}, "supported types"),
        (identity(), {"range": "0-2"}, "input.range"),
        (identity(), {"std": [1, 0, 1]}, "above 0"),
        (identity(), {"size": [30, 32], "multiple_of": 32}, "no multiple of 32"),
        (identity(), {"colour": "linear", "range": "0-255"}, 'needs range "0-1"'),
        (identity(), {"size": {"short_side": 2, "long_side": 3}}, "not both"),
        (identity(), {"colour_space": "srgb"}, "colour_space: unknown key"),
        (identity(), {"output": {"transform": "intensity_to_albedo"}, "kind": "albedo_srgb"}, "gives kind"),
        (identity(), {"output": {"normals_frame": "dsine"}}, "normals_frame is stated"),
        (identity(), {"output": {"layout": "NHW"}}, "has no channels"),
        (identity(), {"kind": "depth"}, "output.kind"),
    ],
    ids=without_bytes,
)
def test_cards_that_cannot_be(make: Make, body: bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(body, **options)


def test_several_inputs(make: Make) -> None:
    two = network([Node("Add", ["x", "z"], ["y"])], [("x", (1, 3, "h", "w")), ("z", (1, 3, "h", "w"))],
                  [("y", (1, 3, "h", "w"))])  # fmt: skip
    with pytest.raises(UsageError, match=r"has 2 inputs \(x .*z "):
        make(two)


def test_output_of_another_shape(make: Make) -> None:
    with pytest.raises(SampleError, match=r"tiny: sample s/1: .*shape \[1, 3, 10, 14\]; depth_metric .* one channel"):
        run(make(identity(), kind="depth_metric"))
    with pytest.raises(SampleError, match=r"needs three channels"):
        run(make(channel_sum([1, 1, 1]), kind="normal"))


def test_output_that_is_not_finite_names_the_model(make: Make) -> None:
    photo = PHOTO.copy()
    photo[2, 3, 1] = 0
    broken = make(identity(), output={"transform": "reciprocal"})
    bad = int(np.count_nonzero(photo == 0))
    with pytest.raises(SampleError, match=f"tiny: sample s/1: the network gives {bad} of 420 values that are NaN"):
        run(broken, photo)


def test_network_that_fails_on_a_size(make: Make) -> None:
    fixed = network([Node("Reshape", ["x", "s"], ["y"])], [("x", (1, 3, "h", "w"))], [("y", (1, 3, 10, 14))],
                    {"s": np.array([1, 3, 10, 14])})  # fmt: skip
    assert run(make(fixed)).shape == (10, 14, 3)
    with pytest.raises(SampleError, match="tiny: sample s/1: the network failed on 9 x 10 pixels"):
        run(make(fixed), PHOTO[:, :9])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"PK\x03\x04 not a network", "damaged, or another format"),
     (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
     (identity()[:-20], "damaged")],
    ids=without_bytes,
)  # fmt: skip
def test_files_that_are_no_networks(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        OnnxModel(path)


def test_operator_that_does_not_exist(make: Make) -> None:
    unknown = network([Node("Teleport", ["x"], ["y"])], [("x", (1, 3, "h", "w"))], [("y", (1, 3, "h", "w"))])
    with pytest.raises((DataError, UsageError), match="Teleport"):
        make(unknown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"providers": ("CudaExecutionProvider",)}, "has no CudaExecutionProvider; it has .*CPUExecutionProvider"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_options(make: Make, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    make(identity())
    with pytest.raises(UsageError, match=message):
        OnnxModel(tmp_path / "net.onnx", **options)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        OnnxModel(tmp_path / "net.onnx")


# ---- external data


def split(folder: Path, **places: str) -> Path:
    """A sum of channels whose two kernels lie in other files."""
    kernels = {name: np.full((1, 3, 1, 1), value, np.float32) for name, value in (("a", 1.0), ("b", 2.0))}
    nodes = [Node("Conv", ["x", "a"], ["p"]), Node("Conv", ["x", "b"], ["q"]), Node("Add", ["p", "q"], ["y"])]
    path = folder / "net.onnx"
    path.write_bytes(network(nodes, [("x", (1, 3, "h", "w"))], [("y", (1, 1, "h", "w"))], kernels, places=places))
    for name, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(kernels[name].tobytes())
    (folder / "net.json").write_text(json.dumps({"name": "n", "input": {"range": "0-1", "channels": "RGB"},
                                                 "output": {"kind": "depth_scale"}}))  # fmt: skip
    return path


def test_every_file_of_external_data_is_part_of_the_digest(tmp_path: Path) -> None:
    path = split(tmp_path, a="one.bin", b="weights/two")
    assert external_files(path) == (tmp_path / "one.bin", tmp_path / "weights/two")
    before, value = OnnxModel(path).info.weights_sha256, run(OnnxModel(path))
    for place in ("one.bin", "weights/two"):
        (tmp_path / place).write_bytes(np.full(3, 5.0, np.float32).tobytes())
        model = OnnxModel(path)
        assert not np.array_equal(run(model), value)
        assert model.info.weights_sha256 != before
        before, value = model.info.weights_sha256, run(model)


def test_networks_without_external_data_keep_their_digest(tmp_path: Path) -> None:
    path = split(tmp_path)
    assert external_files(path) == ()
    assert OnnxModel(path).info.weights_sha256 == sha256_file(path)


def test_external_data_that_can_not_be_read(tmp_path: Path) -> None:
    path = split(tmp_path, a="one.bin")
    (tmp_path / "one.bin").unlink()
    with pytest.raises(DataError, match=r"weights are in one\.bin, which is missing"):
        external_files(path)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(DataError, match="outside its folder"):
        external_files(split(inside, a="../one.bin"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged"):
        external_files(path)
