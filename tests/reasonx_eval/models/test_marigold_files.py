"""Folders that are not, or not all of, a Marigold checkpoint: one message each, and no code of theirs is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.marigold import MEMBERS, Marigold, MarigoldFamily
from reasonx_eval.models.adapters.marigold_maps import handles
from reasonx_eval.models.loading.catalogue import catalogue
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint, find_weights, tensor_shapes
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import TASK_OF_KIND, Sample
from tests.reasonx_eval.models import tiny_marigold as tiny
from tests.reasonx_eval.models.tiny_hub import moved

PHOTO = np.random.default_rng(1).integers(0, 256, (16, 24, 3)).astype(np.uint8)
CPU = Runtime(device="cpu")
UNET = Path("unet/diffusion_pytorch_model.safetensors")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.depth(tmp_path_factory.mktemp("whole") / "depth")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "depth"))


def load(folder: Path, **options: Any) -> Marigold:
    model = Marigold(Checkpoint(folder, str(folder)), runtime=Runtime(device="cpu", **options))
    model.load()
    return model


def value(model: Any, kind: Any = "depth_affine") -> np.ndarray:
    (prediction,) = model.predict([Sample("a", PHOTO)], kind, 0)
    found: np.ndarray = prediction.value
    return found


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


Damage = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: write(d / UNET, b"these are no weights, but text\n" * 9), "not a safetensors file"),
        (lambda d: write(d / UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS pointer"),
        (lambda d: write(d / UNET, b""), "the file is empty"),
        (lambda d: write(d / UNET, b"abc"), "not a safetensors file"),
        (lambda d: write(d / UNET, (8).to_bytes(8, "little") + b'{"a": 1}'), "not a safetensors file"),
        (lambda d: write(d / UNET, (2).to_bytes(8, "little") + b"[]"), "not a safetensors file"),
        (lambda d: write(d / UNET, (d / UNET).read_bytes()[:-10]), "bytes, but its header says"),
        (lambda d: (d / UNET).unlink(), "no weights: diffusion_pytorch_model.safetensors is missing"),
        (lambda d: shutil.rmtree(d / "unet"), "the folder unet is missing"),
        (lambda d: shutil.rmtree(d / "vae"), "the folder vae is missing"),
        (lambda d: shutil.rmtree(d / "text_encoder"), "the folder text_encoder is missing"),
        (lambda d: shutil.rmtree(d / "tokenizer"), "the folder tokenizer is missing"),
        (lambda d: shutil.rmtree(d / "scheduler"), "the folder scheduler is missing"),
        (lambda d: (d / "vae" / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json is missing"),
        (lambda d: write(d / "unet" / "config.json", b"{"), "not readable JSON"),
        (lambda d: (d / "model_index.json").unlink(), "no model_index.json: not a diffusers pipeline"),
        (lambda d: write(d / "model_index.json", b"[1]"), "not a JSON object"),
        (lambda d: tiny.edit_index(d, drop=["_class_name"]), "names no class"),
        (lambda d: tiny.edit_index(d, _class_name="FluxPipeline"), "names FluxPipeline; known are Marigold"),
        (lambda d: tiny.edit_index(d, drop=["unet"]), "names no unet"),
        (lambda d: tiny.edit_index(d, _class_name="MarigoldIntrinsicsPipeline"), "no target_properties.target_names"),
        (lambda d: tiny.edit_index(d, prediction_type="normals"), "prediction_type is 'normals'"),
        (lambda d: tiny.edit_index(d, scale_invariant=False), "scale_invariant is false"),
        (lambda d: tiny.edit_index(d, default_denoising_steps="four"), "default_denoising_steps is 'four'"),
    ],
)  # fmt: skip
def test_damaged_folders(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pickle_is_not_loaded_and_not_run(folder: Path, tmp_path: Path, part: str) -> None:
    mark = tmp_path / "it-ran"
    (safe,) = (folder / part).glob("*.safetensors")
    safe.unlink()
    pickled = folder / part / ("pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin")
    torch.save({"x": Trap(mark)}, pickled)
    with pytest.raises(UsageError, match=rf"{part}: the weights are pickled \({pickled.name}\)"):
        load(folder)
    shutil.copy(pickled, safe)  # the same pickle under the other name
    with pytest.raises(UsageError, match="not a safetensors file"):
        load(folder)
    assert not mark.exists()
    torch.load(pickled, weights_only=False)
    assert mark.exists()  # it would have run


def test_weights_that_do_not_fill_the_network(folder: Path) -> None:
    weights = load_file(folder / UNET)
    del weights["conv_out.bias"], weights["conv_in.weight"]
    save_file(weights, folder / UNET)
    with pytest.raises(UsageError, match=r"lack 2 of the network's tensors|can't be loaded"):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights["conv_out.weight"] = weights["conv_out.weight"][:2].contiguous()
    save_file(weights, folder / UNET)
    with pytest.raises(UsageError, match=r"can't be loaded: .*conv_out"):
        load(folder)


def test_channels_for_another_number_of_maps(tmp_path: Path) -> None:
    folder = tiny.intrinsics(tmp_path / "i")
    tiny.edit_index(folder, target_properties=dict(tiny.APPEARANCE))
    with pytest.raises(UsageError, match="16 input and 12 output channels; 2 maps of 4 latent channels need 12 and 8"):
        load(folder)


def test_maps_of_which_none_can_be_evaluated(tmp_path: Path) -> None:
    folder = tiny.intrinsics(tmp_path / "i", {**tiny.APPEARANCE, "target_names": ["roughness", "material"]})
    with pytest.raises(UsageError, match="its maps are roughness, material; none is an albedo"):
        load(folder)


def own_pipeline(folder: Path, mark: Path, base: str) -> None:
    (folder / "mine.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        f"from diffusers import {base}\nclass Mine({base}):\n    pass\n"
    )
    tiny.edit_index(folder, _class_name=["mine", "Mine"])


def test_code_of_a_checkpoint_runs_only_when_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = value(load(folder))
    mark = tmp_path / "it-ran"
    own_pipeline(folder, mark, "MarigoldDepthPipeline")
    with pytest.raises(UsageError, match=r"Python code of its own \(the pipeline: mine.Mine\), which is not run"):
        load(folder)
    assert not mark.exists()

    import diffusers.utils.dynamic_modules_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    trusted = load(folder, trust_remote_code=True)
    assert mark.exists()
    assert np.array_equal(value(trusted), expected)
    assert trusted.info.options["trust_remote_code"] is True


def test_trusted_code_must_still_be_of_this_family(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers.utils.dynamic_modules_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    own_pipeline(folder, tmp_path / "it-ran", "MarigoldDepthPipeline")
    tiny.edit_index(folder, drop=["prediction_type", "scale_invariant", "shift_invariant"])
    with pytest.raises(UsageError, match="its pipeline, Mine, is not a MarigoldNormalsPipeline"):
        Marigold(Checkpoint(folder, "f"), runtime=Runtime(device="cpu", trust_remote_code=True), kind="normal").load()


def test_a_part_with_code_of_its_own(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (folder / "unet" / "my_unet.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    tiny.edit_index(folder, unet=["my_unet", "MyUNet"])
    with pytest.raises(UsageError, match=r"Python code of its own \(unet: my_unet.MyUNet\)"):
        load(folder)
    assert not mark.exists()


def test_half_precision_files_where_there_are_no_others(folder: Path) -> None:
    expected = value(load(folder))
    for path in folder.rglob("*.safetensors"):
        half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    assert np.array_equal(value(load(folder)), expected)  # full precision is preferred
    for path in folder.rglob("*.safetensors"):
        if not path.name.endswith(".fp16.safetensors"):
            path.unlink()
    found = value(load(folder))
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_weights_in_shards(folder: Path) -> None:
    expected = value(load(folder))
    weights = load_file(folder / UNET)
    names = sorted(weights)
    stem = "diffusion_pytorch_model"
    shards = {f"{stem}-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, keys in shards.items():
        save_file({k: weights[k] for k in keys}, folder / "unet" / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": {k: shard for shard, keys in shards.items() for k in keys}}
    (folder / "unet" / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    (folder / UNET).unlink()
    assert find_weights(folder / "unet", stem).parameters == sum(w.numel() for w in weights.values())
    assert np.array_equal(value(load(folder)), expected)
    (folder / "unet" / next(iter(shards))).unlink()
    with pytest.raises(UsageError, match=r"shard diffusion_pytorch_model-00001-of-00002.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("shift", range(8, 64, 8))
def test_the_place_of_tensors_in_a_file_changes_no_bit(folder: Path, shift: int) -> None:
    """Kernels read the same numbers in another order where their memory starts elsewhere."""
    expected = value(load(folder))
    for path in folder.rglob("*.safetensors"):
        moved(path, shift)
    model = load(folder)
    assert np.array_equal(value(model), expected)
    parts = [getattr(model.network, part) for part in ("unet", "vae", "text_encoder")]
    assert {t.data_ptr() % 64 for part in parts for t in part.state_dict().values() if t.numel()} == {0}


def test_shapes_of_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(()), "c": torch.zeros(0, 4)}, tmp_path / "x.safetensors")
    assert tensor_shapes(tmp_path / "x.safetensors") == {"a": (2, 3), "b": (), "c": (0, 4)}


def test_which_folders_are_handled(folder: Path) -> None:
    checkpoint = Checkpoint(folder, "x")
    assert handles(checkpoint)
    tiny.edit_index(folder, _class_name="StableDiffusionPipeline")
    assert not handles(Checkpoint(folder, "x"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local hub cache, offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def test_from_the_local_hub_cache(whole: Path, cache: Path) -> None:
    tiny.in_cache(cache, "someone/tiny-depth", whole)
    model = Marigold(find_checkpoint("someone/tiny-depth"), runtime=CPU)
    assert np.array_equal(value(model), value(load(whole)))
    info = model.info
    assert (info.name, info.source, info.licence) == ("tiny-depth", "someone/tiny-depth", None)
    assert info.notes == (f"revision {tiny.COMMIT}",)
    assert info.weights_sha256 == load(whole).info.weights_sha256


def test_the_family_takes_the_checkpoint_of_the_task(tmp_path: Path, cache: Path, whole: Path) -> None:
    folders = {
        "marigold-depth-v1-1": whole,
        "marigold-normals-v1-1": tiny.normals(tmp_path / "n"),
        "marigold-iid-lighting-v1-1": tiny.intrinsics(tmp_path / "l"),
        "marigold-iid-appearance-v1-1": tiny.intrinsics(tmp_path / "a", tiny.APPEARANCE),
    }
    for name, made in folders.items():
        tiny.in_cache(cache, f"prs-eth/{name}", made)
    family = MarigoldFamily(runtime=CPU, steps=1)
    assert family.info.name == "marigold"
    assert family.kinds == {
        "depth": ("depth_affine",), "normals": ("normal",), "albedo": ("albedo_linear", "albedo_srgb"),
        "irradiance": ("irradiance",),
    }  # fmt: skip
    for task, accepts, kind, name in [
        ("depth", ["depth_metric", "depth_affine"], "depth_affine", "marigold-depth-v1-1"),
        ("normals", ["normal"], "normal", "marigold-normals-v1-1"),
        ("albedo", ["albedo_srgb", "albedo_linear"], "albedo_linear", "marigold-iid-lighting-v1-1"),
        ("albedo", ["albedo_srgb"], "albedo_srgb", "marigold-iid-appearance-v1-1"),
        ("irradiance", ["irradiance"], "irradiance", "marigold-iid-lighting-v1-1"),
    ]:
        assert family.kind_for(task, accepts) == kind
        info = family.info
        assert (info.name, info.source, info.options["steps"]) == ("marigold", f"prs-eth/{name}", 1)
        assert info.licence == "OpenRAIL++-M"
        assert info.trained_on == tuple(catalogue()[name].trained_on)
        alone = Marigold(Checkpoint(folders[name], name), runtime=CPU, steps=1)
        assert np.array_equal(value(family, kind), value(alone, kind))
    family.close()


def test_the_family_without_a_checkpoint_says_how_to_get_it(cache: Path) -> None:
    family = MarigoldFamily(runtime=CPU)
    assert family.kind_for("depth", ["depth_affine"]) == "depth_affine"
    with pytest.raises(UsageError, match=r"prs-eth/marigold-depth-v1-1: not in the local cache(.|\n)*hf download"):
        _ = family.info
    with pytest.raises(UsageError, match="marigold: model gives depth_affine, but the protocol accepts only depth_me"):
        MarigoldFamily(runtime=CPU).kind_for("depth", ["depth_metric"])


def test_the_catalogue_agrees_with_the_family() -> None:
    for kind, name in MEMBERS.items():
        entry = catalogue()[name]
        assert entry.hub == f"prs-eth/{name}"
        assert kind in entry.kind
        assert TASK_OF_KIND[kind] in entry.task
    ours = [e for e in catalogue().values() if e.adapter == "reasonx_eval.models.adapters.marigold:Marigold"]
    assert len(ours) == 8
    assert all(e.hub == f"prs-eth/{e.name}" for e in ours)


def test_names_of_a_wrapped_network_are_refused_with_the_cause(folder: Path) -> None:
    weights = {f"module.{name}": value for name, value in load_file(folder / UNET).items()}
    save_file(weights, folder / UNET, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"begin as in module\..*: saved from a wrapped network"):
        Marigold(Checkpoint(folder, "f"), runtime=Runtime(device="cpu"))
