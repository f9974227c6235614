"""Depth networks against the library's own processor, network and post-processing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.models.adapters.depth_kinds import meaning_of
from reasonx_eval.models.adapters.depth_processors import network_input
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.loading.catalogue import catalogue, entry_of
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from tests.reasonx_eval.models.tiny_hub import BUILDERS, PREPROCESSORS, SHA, as_hub_cache, save_depth

CPU = Runtime(device="cpu")
#: families whose processor transformers has without torchvision
WITH_PIL = ("depth_anything", "dpt", "dpt_dinov2", "glpn", "zoedepth")
SIZES = ((48, 61), (64, 64), (120, 33), (33, 120))


def photo(height: int, width: int, seed: int = 1) -> NDArray[np.uint8]:
    """Noise on a gradient; read-only, as a decoder gives it."""
    rng = np.random.default_rng([seed, height, width])
    ramp = np.linspace(0, 200, height)[:, None, None] + np.zeros((height, width, 3))
    image = (ramp + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
    image.setflags(write=False)
    return image


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("depth")
    return {family: save_depth(root / family, family) for family in BUILDERS}


def adapter(folder: Path | Checkpoint, runtime: Runtime = CPU, **options: Any) -> TransformersDepth:
    checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint(folder, str(folder))
    if checkpoint.config is not None and meaning_of(checkpoint.config, entry_of(checkpoint.hub_id)).kind is None:
        options.setdefault("kind", "depth_affine")
    return TransformersDepth(checkpoint, runtime=runtime, **options)


def predicted(model: TransformersDepth, *images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    samples = [Sample(f"s{i}", image) for i, image in enumerate(images)]
    return [p.value for p in model.predict(samples, model.kinds["depth"][0], seed=0)]


def library_network(folder: Path) -> Any:
    from transformers import AutoModelForDepthEstimation

    return AutoModelForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval()


def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZoeDepth's post-processing calls one function of torchvision, which for float tensors is torch's own."""
    from transformers.models.zoedepth import image_processing_pil_zoedepth as module

    def resize(depth: torch.Tensor, size: list[int], interpolation: str, antialias: bool) -> torch.Tensor:
        return functional.interpolate(depth[None], size, mode=interpolation, align_corners=False, antialias=antialias)[
            0
        ]

    stand_in = SimpleNamespace(resize=resize, InterpolationMode=SimpleNamespace(BICUBIC="bicubic"))
    monkeypatch.setattr(module, "tvF", stand_in, raising=False)


def library_depth(folder: Path, image: NDArray[np.uint8], *, flip: bool = False) -> NDArray[Any]:
    from transformers import AutoImageProcessor

    processor, network = AutoImageProcessor.from_pretrained(folder, backend="pil"), library_network(folder)
    x = processor(images=image, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.no_grad():
        output = network(pixel_values=x)
        size = [image.shape[:2]]
        if type(processor).__name__.startswith("Zoe"):
            mirrored = network(pixel_values=x.flip(-1)) if flip else None
            done = processor.post_process_depth_estimation(output, source_sizes=size, outputs_flipped=mirrored)
        else:
            done = processor.post_process_depth_estimation(output, target_sizes=size)
    return np.asarray(done[0]["predicted_depth"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", WITH_PIL)
def test_equals_the_librarys_own_path(
    folders: dict[str, Path], family: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torchvision(monkeypatch)
    image = photo(*size)
    expected = library_depth(folders[family], image)
    (got,) = predicted(adapter(folders[family]), image)
    assert got.dtype == np.float32
    assert got.shape == size
    assert expected.std() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_mirrored_mean_is_the_librarys(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    without_torchvision(monkeypatch)
    image = photo(48, 61)
    expected = library_depth(folders["zoedepth"], image, flip=True)
    (got,) = predicted(adapter(folders["zoedepth"], flip=True), image)
    (plain,) = predicted(adapter(folders["zoedepth"]), image)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(got - plain).max() > 1e-4
    with pytest.raises(UsageError, match="flip is for ZoeDepth"):
        adapter(folders["dpt"], flip=True)


def bilinear(raw: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> NDArray[np.float64]:
    """Bilinear resampling of [h, w] or [h, w, c], written out."""
    out = np.asarray(raw, dtype=np.float64)
    for axis, n in enumerate(size):
        m = out.shape[axis]
        if align_corners:
            at = np.arange(n) * ((m - 1) / (n - 1) if n > 1 else 0.0)
        else:
            at = np.maximum((np.arange(n) + 0.5) * m / n - 0.5, 0)
        low = np.minimum(np.floor(at).astype(int), m - 1)
        high, part = np.minimum(low + 1, m - 1), at - low
        part = part.reshape([-1 if i == axis else 1 for i in range(out.ndim)])
        out = out.take(low, axis) * (1 - part) + out.take(high, axis) * part
    return out


def raw_output(folder: Path, x: NDArray[Any]) -> Any:
    """The network's output for x [h, w, 3]."""
    with torch.no_grad():
        return library_network(folder)(pixel_values=torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32)))


@pytest.mark.parametrize("size", SIZES)
def test_depth_pro_is_its_published_formula(folders: dict[str, Path], size: tuple[int, int]) -> None:
    image = photo(*size)
    x = bilinear((image / 255.0 - 0.5) / 0.5, (64, 64))
    model = adapter(folders["depth_pro"])
    mine = network_input(image, model.processing).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(mine, x, atol=2e-6)
    output = raw_output(folders["depth_pro"], mine)
    fov = float(output.field_of_view[0])
    assert 20 < fov < 80
    # a pinhole camera: width = 2 focal tan(fov / 2); the raw output is inverse depth for focal = width
    focal_in_widths = 0.5 / np.tan(np.radians(fov) / 2)
    inverse = bilinear(output.predicted_depth[0].numpy(), size) / focal_in_widths
    (got,) = predicted(model, image)
    assert inverse.std() > 1
    np.testing.assert_allclose(1 / got, np.clip(inverse, 1e-4, 1e4), rtol=1e-5, atol=5e-5 * inverse.max())


def test_depth_pro_without_field_of_view_has_no_scale(tmp_path: Path) -> None:
    folder = save_depth(tmp_path / "pro", "depth_pro", use_fov_model=False)
    model = adapter(folder)
    assert model.kinds == {"depth": ("depth_scale",)}
    image = photo(48, 61)
    seen = network_input(image, model.processing).permute(1, 2, 0).numpy()
    inverse = bilinear(raw_output(folder, seen).predicted_depth[0].numpy(), (48, 61))
    (got,) = predicted(model, image)
    np.testing.assert_allclose(1 / got, np.clip(inverse, 1e-4, 1e4), rtol=1e-5, atol=5e-5 * inverse.max())


def test_chmv2_pads_and_resizes_corner_to_corner(folders: dict[str, Path]) -> None:
    image = photo(48, 61)
    mean, std = np.array([0.420, 0.411, 0.296]), np.array([0.213, 0.156, 0.143])
    x = np.pad((image / 255.0 - mean) / std, ((0, 0), (1, 2), (0, 0)))
    raw = raw_output(folders["chmv2"], x).predicted_depth[0].numpy()
    (got,) = predicted(adapter(folders["chmv2"]), image)
    np.testing.assert_allclose(got, bilinear(raw, (48, 61), align_corners=True), rtol=1e-5, atol=1e-4)


def test_tipsv2_squeezes_to_a_square(folders: dict[str, Path]) -> None:
    from PIL import Image

    model, image = adapter(folders["tipsv2_dpt"]), photo(112, 150)
    seen = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BILINEAR))
    mine = network_input(image, model.processing).permute(1, 2, 0).numpy() * 255
    assert np.abs(mine - seen).max() < 1.001  # both round a filter over the area to 8 bit
    exact = photo(56, 56)  # nothing to resize
    seen = network_input(exact, model.processing).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(seen, exact / 255.0, atol=1e-7)
    raw = raw_output(folders["tipsv2_dpt"], seen).predicted_depth[0].numpy()
    np.testing.assert_allclose(predicted(model, exact)[0], bilinear(raw, (56, 56)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (1, 40)])
def test_tiny_photos(folders: dict[str, Path], family: str, size: tuple[int, int]) -> None:
    (got,) = predicted(adapter(folders[family]), photo(*size))
    assert got.shape == size
    assert np.isfinite(got).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["depth_anything", "zoedepth"])
def test_24_megapixels(folders: dict[str, Path], family: str) -> None:
    image = np.zeros((4032, 6048, 3), dtype=np.uint8)
    image[1000:3000, 2000:4000] = 200
    (got,) = predicted(adapter(folders[family]), image)
    assert got.shape == (4032, 6048)
    assert np.isfinite(got).all()


def test_a_missing_size_becomes_one_step(folders: dict[str, Path]) -> None:
    """Where the library would resize to nothing, the side is one step: 14 for Depth Anything, 32 for GLPN."""
    assert network_input(photo(1, 400), adapter(folders["depth_anything"]).processing).shape == (3, 14, 70)
    assert network_input(photo(7, 65), adapter(folders["glpn"]).processing).shape == (3, 32, 64)


@pytest.mark.parametrize("family", BUILDERS)
def test_same_bytes_in_any_batch(folders: dict[str, Path], family: str) -> None:
    images = [photo(48, 61, i) for i in range(3)] + [photo(40, 30)]
    together = predicted(adapter(folders[family], Runtime(device="cpu", batch_size=4)), *images)
    alone = [predicted(adapter(folders[family]), image)[0] for image in reversed(images)]
    for one, other in zip(together, reversed(alone), strict=True):
        assert one.tobytes() == other.tobytes()


def test_groups_of_one_shape_keep_their_order(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator gets: photos of unequal shapes in one call."""
    from reasonx_eval.models.adapters import transformers_depth

    images = [photo(48, 61, 1), photo(61, 48, 2), photo(48, 61, 3)]
    model = adapter(folders["depth_anything"], Runtime(device="cpu", batch_size=3))
    one_by_one = predicted(model, *images)
    monkeypatch.setattr(transformers_depth, "in_batches", lambda items, compute, **_: compute(items))
    for got, expected in zip(predicted(model, *images), one_by_one, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["depth_anything", "dpt", "glpn", "zoedepth"])
def test_half_precision(folders: dict[str, Path], family: str, dtype: str) -> None:
    image = photo(48, 61)
    (full,) = predicted(adapter(folders[family]), image)
    model = adapter(folders[family], Runtime(device="cpu", dtype=dtype))
    (half,) = predicted(model, image)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()
    assert model.info.options["dtype"] == dtype


def test_dtype_of_the_file_does_not_decide(folders: dict[str, Path], tmp_path: Path) -> None:
    """Weights saved in half precision still compute in float32."""
    library_network(folders["depth_anything"]).half().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS["depth_anything"]))
    model = adapter(tmp_path)
    model.load()
    assert {p.dtype for p in model._network.parameters()} == {torch.float32}


def test_from_the_hubs_cache(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    as_hub_cache(folders["depth_anything"], tmp_path, "someone/tiny-depth")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    image = photo(48, 61)
    model = adapter(find_checkpoint("someone/tiny-depth"))
    assert model.info.name == "tiny-depth"
    assert model.info.source == "someone/tiny-depth"
    assert model.info.options["revision"] == SHA
    local = adapter(folders["depth_anything"])
    assert model.info.weights_sha256 == local.info.weights_sha256
    assert predicted(model, image)[0].tobytes() == predicted(local, image)[0].tobytes()


def test_a_folder_that_is_named_like_a_hub_id_gets_nothing_from_the_catalogue(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = catalogue()["depth-anything-v2-small"]
    assert named.hub is not None
    assert named.licence is not None
    shutil.copytree(folders["depth_anything"], tmp_path / named.hub)
    monkeypatch.chdir(tmp_path)
    found = find_checkpoint(named.hub)
    assert (found.hub_id, found.name) == (None, named.hub.rpartition("/")[2])
    info = adapter(found).info
    assert (info.licence, info.trained_on) == (None, ())
    assert info.notes == (f"read from the folder {tmp_path / named.hub}, not from the hub",)
    assert adapter(Checkpoint(tmp_path / named.hub, str(tmp_path / named.hub))).info.notes == ()


@pytest.mark.slow
def test_by_hub_id_in_a_process_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    as_hub_cache(folders["dpt"], tmp_path, "someone/tiny-dpt")
    script = ("from reasonx_eval import load_model\nfrom reasonx_eval.types import Sample\nimport numpy as np\n"
              "m = load_model('someone/tiny-dpt', device='cpu')\n"
              "print(m.kinds['depth'], m.predict([Sample('a', np.full((9, 8, 3), 99, np.uint8))], "
              "'disparity_affine', 0)[0].value.shape)")  # fmt: skip
    env = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "('disparity_affine',) (9, 8)", done.stderr
    assert done.stderr == ""  # neither bars nor reports of keys


def test_info(folders: dict[str, Path]) -> None:
    model = adapter(folders["depth_anything"])
    info = model.info
    assert info.name == "depth_anything"
    assert info.options["class"] == "DepthAnythingForDepthEstimation"
    assert info.options["processing"]["ensure_multiple_of"] == 14
    assert info.options["device"] == "cpu"
    assert info.parameters == sum(p.numel() for p in library_network(folders["depth_anything"]).parameters())
    assert info.licence is None
    assert info.trained_on == ()
    json.dumps(info.options, allow_nan=False)
    assert adapter(folders["dpt_dinov2"]).info.notes[0].startswith("photos are padded")
    assert model._network is None  # listing loads nothing
    model.load()
    assert model._network is not None
    model.close()
    assert model._network is None


def constant(folder: Path, last: Any, value: float) -> TransformersDepth:
    """The network of `folder` with a last layer that gives `value` everywhere."""
    network = library_network(folder)
    layer = last(network)
    layer.weight.data.zero_()
    layer.bias.data.fill_(value)
    network.save_pretrained(folder)
    return adapter(folder)


def test_units_of_known_outputs(tmp_path: Path) -> None:
    """Networks whose last layer is a constant: metres follow by hand."""
    image, half = photo(48, 61), float(np.log(3))  # sigmoid(log 3) = 3/4
    metric = save_depth(tmp_path / "da", "depth_anything", depth_estimation_type="metric", max_depth=20)
    model = constant(metric, lambda n: n.head.conv3, half)
    assert model.kinds == {"depth": ("depth_metric",)}
    np.testing.assert_allclose(predicted(model, image)[0], 15, rtol=1e-5)
    model = constant(save_depth(tmp_path / "glpn", "glpn", max_depth=80), lambda n: n.head.head[-1], half)
    np.testing.assert_allclose(predicted(model, image)[0], 60, rtol=1e-5)
    # Depth Pro: inverse depth 0.25 for a focal length of one width; at 90 degrees the focal length is half a width
    pro = save_depth(tmp_path / "pro", "depth_pro")
    constant(pro, lambda n: n.fov_model.head.layers[-1], 90.0)
    model = constant(pro, lambda n: n.head.layers[-2], 0.25)
    np.testing.assert_allclose(predicted(model, image)[0], 2.0, rtol=1e-5)


def test_nan_names_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    network = library_network(folders["dpt"])
    network.head.head[-2].bias.data.fill_(float("nan"))
    network.save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS["dpt"]))
    with pytest.raises(SampleError, match=r"broken: sample s0: the network gives 2928 of 2928 values"):
        predicted(adapter(tmp_path / "broken"), photo(48, 61))


def test_a_network_that_fails_names_itself(folders: dict[str, Path], tmp_path: Path) -> None:
    """DPT with sides that are no multiple of its patch."""
    save_depth(tmp_path / "odd", "zoedepth")
    odd = PREPROCESSORS["zoedepth"] | {"ensure_multiple_of": 1, "size": {"height": 7, "width": 7}}
    (tmp_path / "odd" / "preprocessor_config.json").write_text(json.dumps(odd))
    with pytest.raises(SampleError, match=r"odd: sample s0: ZoeDepthForDepthEstimation failed on \d+ x 7 pixels"):
        predicted(adapter(tmp_path / "odd"), photo(48, 61))
