"""Folders that are wrong, incomplete or hostile: one clear message, and no code runs."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.transformers_depth import TransformersDepth
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_eval.types import Sample
from tests.reasonx_eval.models.tiny_hub import moved, prompt_depth_anything, save_depth

SAMPLE = Sample("s0", np.full((20, 30, 3), 128, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_depth(tmp_path / "net", "depth_anything")


def adapter(folder: Path, **options: Any) -> TransformersDepth:
    return TransformersDepth(Checkpoint(folder, str(folder)), runtime=Runtime(device="cpu"), **options)


def refusal(folder: Path, **options: Any) -> str:
    """The message of a folder that can't be used, by construction or by loading."""
    with pytest.raises(UsageError) as caught:
        adapter(folder, **options).load()
    message = str(caught.value)
    assert len(message) < 700
    assert str(folder) in message
    return message


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


class Evil:
    """A pickle that writes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "ran"))


def test_pickled_weights_load_as_tensors(tmp_path: Path, folder: Path) -> None:
    pickled = save_depth(tmp_path / "pickled", "depth_anything", pickled=True)
    assert not list(pickled.glob("*.safetensors"))
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    (got,) = adapter(pickled).predict([SAMPLE], "disparity_affine", 0)
    assert got.value.tobytes() == expected.value.tobytes()
    assert adapter(pickled).info.parameters is None


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(folder: Path, tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "written"
    weights = folder / "pytorch_model.bin"
    if zipped:
        torch.save({"neck.weight": torch.zeros(2), "evil": Evil(target)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Evil(target)))
    (folder / "model.safetensors").unlink()
    assert "a pickle that holds more than tensors" in refusal(folder)
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target)))  # it would have
    assert target.exists()


def test_a_pickle_beside_safetensors_is_not_read(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(target)))
    adapter(folder).load()
    assert not target.exists()


def test_code_in_a_shard_does_not_run(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    (folder / "model.safetensors").unlink()
    (folder / "part.bin").write_bytes(pickle.dumps(Evil(target)))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": "part.bin"}}))
    refusal(folder)
    assert not target.exists()


def test_text_named_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<html>404 Not Found</html>\n" * 20)
    message = refusal(folder)
    assert "model.safetensors" in message
    assert "not a safetensors file" in message


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_empty_and_pointer_files(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert ("Git LFS" if content else "0 bytes") in refusal(folder)


def test_interrupted_download(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "interrupted" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "depth_anything_v2_vits.pth")
    message = refusal(folder)
    assert "neither model.safetensors nor pytorch_model.bin" in message
    assert "depth_anything_v2_vits.pth" in message


def test_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    message = refusal(folder)
    assert "model-00001.safetensors" in message
    assert "missing" in message


def test_sharded_weights(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    names = sorted(tensors)
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for place in set(places.values()):
        save_file({n: tensors[n] for n in names if places[n] == place}, folder / place, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    parameters = adapter(folder).info.parameters
    (folder / "model.safetensors").unlink()
    (got,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    assert got.value.tobytes() == expected.value.tobytes()
    assert adapter(folder).info.parameters == parameters


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_head_is_never_left_at_random(folder: Path) -> None:
    rewrite(folder, lambda tensors: [tensors.pop(k) for k in list(tensors) if k.startswith("head.")])
    message = refusal(folder)
    assert "the weights lack 6 of the network's tensors (head.conv1.bias, head.conv1.weight" in message
    assert "random" in message


def test_weights_of_another_size(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"head.conv1.weight": torch.zeros(2, 8, 3, 3)}))
    message = refusal(folder)
    assert "don't fit config.json" in message
    assert "head.conv1.weight is [2, 8, 3, 3], the network's is [4, 8, 3, 3]" in message


def test_weights_that_nothing_reads_may_be_missing(tmp_path: Path) -> None:
    """As in Intel/dpt-large: the first fusion layer has nothing to add to its input."""
    folder = save_depth(tmp_path / "dpt", "dpt")
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    unread = "neck.fusion_stage.layers.0.residual_layer1"
    rewrite(folder, lambda tensors: [tensors.pop(k) for k in list(tensors) if k.startswith(unread)])
    (got,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    assert got.value.tobytes() == expected.value.tobytes()
    rewrite(folder, lambda tensors: tensors.pop("neck.fusion_stage.layers.1.residual_layer1.convolution1.weight"))
    assert "the weights lack 1" in refusal(folder)


def test_code_that_came_with_a_checkpoint(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    edit(folder / "config.json", lambda c: c.update(auto_map={"AutoModelForDepthEstimation": "evil.Net"}))
    message = refusal(folder)
    assert "auto_map" in message
    assert "--trust-remote-code" in message
    assert not marker.exists()


REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import DepthEstimatorOutput


class TinyConfig(PretrainedConfig):
    model_type = "tiny_remote"


class Tiny(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def forward(self, pixel_values):
        return DepthEstimatorOutput(predicted_depth=self.scale * pixel_values[:, 0])
"""


def test_code_runs_only_when_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # the library adds that folder
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "tiny_remote.py").write_text(REMOTE)
    auto_map = {"AutoConfig": "tiny_remote.TinyConfig", "AutoModelForDepthEstimation": "tiny_remote.Tiny"}
    config = {"model_type": "tiny_remote", "architectures": ["TinyForDepthEstimation"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_processor_type": "DPTImageProcessor", "do_resize": False, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file({"scale": torch.full((1,), 510.0)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "--trust-remote-code" in refusal(folder, kind="depth_affine")
    trusting = Runtime(device="cpu", trust_remote_code=True)
    model = TransformersDepth(Checkpoint(folder, str(folder)), runtime=trusting, kind="depth_affine")
    (got,) = model.predict([SAMPLE], "depth_affine", 0)
    np.testing.assert_allclose(got.value, 256, rtol=1e-6)
    assert model.info.options["trust_remote_code"] is True


def test_no_image_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in refusal(folder)


def test_processor_beside_others(folder: Path) -> None:
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    inner = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    (got,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    assert got.value.tobytes() == expected.value.tobytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": {"shortest_edge": 70}}, "size"),
        ({"size": {"height": 0, "width": 70}}, "size"),
        ({"ensure_multiple_of": 0}, "ensure_multiple_of is 0"),
        ({"resample": "bicubic"}, "resample is 'bicubic'"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor is not one of a depth network"),
    ],
)
def test_processor_settings_that_make_no_sense(folder: Path, change: dict[str, Any], said: str) -> None:
    edit(folder / "preprocessor_config.json", lambda c: c.update(change))
    assert said in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_damaged_json(folder: Path, name: str) -> None:
    (folder / name).write_text('{"model_type": ')
    assert name in refusal(folder)


def test_no_depth_network(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(architectures=["ViTForImageClassification"], model_type="vit"))
    assert "no config.json of a depth network" in refusal(folder)
    (folder / "config.json").unlink()
    assert "no config.json of a depth network" in refusal(folder)


def test_a_model_type_that_transformers_lacks(folder: Path) -> None:
    change = {"architectures": ["NewNetForDepthEstimation"], "model_type": "new_net"}
    edit(folder / "config.json", lambda c: c.update(change))
    assert "--kind KIND, one of depth_metric" in refusal(folder)
    assert "transformers can't load it" in refusal(folder, kind="depth_affine")


def test_a_network_that_needs_a_measurement(folder: Path) -> None:
    prompt_depth_anything().save_pretrained(folder)
    assert "completes a depth measurement" in refusal(folder)


def test_the_place_of_tensors_in_a_file_changes_no_bit(folder: Path) -> None:
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    for shift in range(8, 64, 8):
        moved(folder / "model.safetensors", shift)
        model = adapter(folder)
        (found,) = model.predict([SAMPLE], "disparity_affine", 0)
        np.testing.assert_array_equal(found.value, expected.value)
        assert {t.data_ptr() % 64 for t in model.network.state_dict().values() if t.numel()} == {0}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("pickled", [False, True])
def test_names_of_a_wrapped_network_are_read(folder: Path, prefix: str, pickled: bool) -> None:
    (expected,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    path = folder / "model.safetensors"
    weights = {prefix + name: value for name, value in load_file(path).items()}
    if pickled:
        path.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, path, metadata={"format": "pt"})
    (found,) = adapter(folder).predict([SAMPLE], "disparity_affine", 0)
    np.testing.assert_array_equal(found.value, expected.value)
