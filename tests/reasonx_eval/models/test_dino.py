"""The model on a frozen Dinov2-type backbone, with small backbones of random weights in transformers' own format."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.models.embedded.card import WEIGHTS, TinyCard, read_card, write_model
from reasonx_eval.models.embedded.dino import Backbone, Dino, load_backbone
from reasonx_eval.models.embedded.dino_net import DinoHead
from reasonx_eval.models.embedded.tiny_net import CODES
from reasonx_eval.models.loading.catalogue import catalogue, list_models
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import TASK_OF_KIND, Sample
from tests.helpers.shared import SHARED
from tests.reasonx_eval.models.tiny_hub import as_hub_cache, moved

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONE = SHARED / "weights" / "dinov2-small"
CHANNELS, LAYERS = 16, (2, 3, 4)
KINDS = ("depth_metric", "depth_affine", "disparity_affine", "normal", "albedo_linear", "irradiance")


def photo(height: int = 60, width: int = 80, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save_backbone(folder: Path, *, registers: int = 0, hidden: int = CHANNELS) -> Path:
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56,
                            "patch_size": 14}  # fmt: skip
    network: Any = Dinov2Model(Dinov2Config(**size))
    if registers:
        network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**size, num_register_tokens=registers))
    network.save_pretrained(folder)
    return folder


def save_head(folder: Path, *, base: str | None = None, layers: Sequence[int] = LAYERS) -> Path:
    """A head with random weights, 8 tokens on the long side, and its card."""
    arguments: dict[str, Any] = {"channels": CHANNELS, "layers": list(layers), "tokens": 8, "widths": [8, 8, 16, 16]}
    torch.manual_seed(1)
    head = DinoHead(**arguments)
    card = TinyCard(model="dino-small", network=arguments, parameters=sum(p.numel() for p in head.parameters()),
                    weights_sha256="", licence="Apache-2.0", base=base, data=[], augmentation=[], training={},
                    versions={})  # fmt: skip
    return write_model(folder, card, head)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("dino")
    return save_backbone(root / "backbone"), save_head(root / "head")


def load(files: tuple[Path, Path], **options: str) -> Any:
    return load_model("dino-small", options={"backbone": str(files[0]), "weights": str(files[1]), **options})


def maps(model: Any, *photos: NDArray[np.uint8], kind: Any = "depth_metric") -> list[NDArray[np.floating[Any]]]:
    return [p.value for p in model.predict([Sample(f"s{i}", p) for i, p in enumerate(photos)], kind, 0)]


def test_the_head_has_about_a_million_weights() -> None:
    assert 0.8e6 < sum(p.numel() for p in DinoHead().parameters()) < 1.2e6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(60, 80), (33, 120), (90, 20), (9, 8)])
def test_maps_have_the_working_size(files: tuple[Path, Path], kind: str, shape: tuple[int, int]) -> None:
    (value,) = maps(load(files), photo(*shape), kind=kind)
    factor = 64 / max(shape)
    size = tuple(max(16, round(side * factor / 8) * 8) for side in shape)
    assert value.shape == (size if TASK_OF_KIND[kind] == "depth" else (*size, 3))
    assert np.isfinite(value).all()
    if kind == "normal":
        np.testing.assert_allclose(np.linalg.norm(value, axis=-1), 1, atol=1e-5)
    else:
        assert (value > 0).all()


def test_disparity_is_the_inverse_of_depth(files: tuple[Path, Path]) -> None:
    model = load(files)
    (depth,), (disparity,) = maps(model, photo()), maps(model, photo(), kind="disparity_affine")
    np.testing.assert_allclose(depth * disparity, 1, rtol=1e-5)


@pytest.mark.parametrize("registers", [0, 3])
def test_tokens_are_those_of_the_library(tmp_path: Path, registers: int) -> None:
    from transformers import AutoModel

    folder = save_backbone(tmp_path, registers=registers)
    images = torch.rand(2, 3, 42, 56)
    tokens = load_backbone(str(folder))(images)
    assert tokens.shape == (2, 3, 1 + 3 * 4, CHANNELS)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(pixel_values=(images - mean) / std).last_hidden_state
    assert torch.equal(tokens[:, -1, 0], expected[:, 0])
    assert torch.equal(tokens[:, -1, 1:], expected[:, 1 + registers :])


def test_patches_lie_where_they_are_in_the_photo(files: tuple[Path, Path]) -> None:
    """A head that hands on one channel of the tokens shows them at their places."""
    head = DinoHead(1, (1,), widths=(8, 8, 16, 16))
    seen: list[torch.Tensor] = []
    head.project.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    head(torch.rand(1, 3, 24, 32), torch.arange(13.0).view(1, 1, 13, 1))
    assert seen[0][0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_no_number_depends_on_the_other_photos(files: tuple[Path, Path]) -> None:
    model = load(files)
    photos = [photo(seed=seed) for seed in range(3)]
    together, alone = maps(model, *photos), [maps(load(files), p)[0] for p in photos]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_backbone_is_frozen(files: tuple[Path, Path]) -> None:
    backbone = load_backbone(str(files[0]))
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone(torch.rand(1, 3, 28, 28)).requires_grad
    head = DinoHead(CHANNELS, LAYERS, 2, (8, 8, 16, 16))
    code = head(torch.rand(1, 3, 16, 16), backbone(torch.rand(1, 3, 28, 28)))
    sum(value.sum() for value in code.values()).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert {name: value.shape[1] for name, value in code.items()} == {n: c.channels for n, c in CODES.items()}


def test_info(files: tuple[Path, Path], tmp_path: Path) -> None:
    info = load(files).info
    assert info.parameters == sum(
        sum(p.numel() for p in part.parameters()) for part in (load(files).network, load(files).backbone.network)
    )
    assert info.options["backbone"] == str(files[0])
    moved(save_backbone(tmp_path / "same") / "model.safetensors", 8)
    other = save_backbone(tmp_path / "other")
    weights = other / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert load((other, files[1])).info.weights_sha256 != info.weights_sha256
    assert load((save_backbone(tmp_path / "again"), files[1])).info.weights_sha256 == info.weights_sha256


def test_the_place_of_tensors_in_a_file_changes_no_bit(files: tuple[Path, Path], tmp_path: Path) -> None:
    (expected,) = maps(load(files), photo())
    folder = save_backbone(tmp_path / "moved")
    for shift in (8, 24, 40):
        moved(folder / "model.safetensors", shift)
        np.testing.assert_array_equal(maps(load((folder, files[1])), photo())[0], expected)


def test_by_hub_id_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_hub_cache(save_backbone(tmp_path / "backbone"), tmp_path / "cache", "someone/dinov2-tiny")
    head = save_head(tmp_path / "head", base="someone/dinov2-tiny")
    script = ("import numpy as np, sys\nfrom reasonx_eval.models.loading.load import load_model\n"
              "from reasonx_eval.types import Sample\n"
              f"m = load_model('dino-small', options={{'weights': {str(head)!r}}})\n"
              "print(m.predict([Sample('a', np.zeros((30, 40, 3), np.uint8))], 'normal', 0)[0].value.shape)\n"
              "print(m.info.options['backbone'])\n")  # fmt: skip
    env = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin",
           "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["(48, 64, 3)", "someone/dinov2-tiny"], done.stderr


def test_backbones_that_do_not_fit(files: tuple[Path, Path], tmp_path: Path) -> None:
    wide = save_backbone(tmp_path / "wide", hidden=32)
    with pytest.raises(UsageError, match="4 layers of 32 channels; the head takes tokens of 16 channels"):
        _ = load((wide, files[1])).backbone
    deep = save_head(tmp_path / "deep", layers=(6, 9, 12))
    with pytest.raises(UsageError, match="from layers 6, 9, 12"):
        _ = load((files[0], deep)).backbone
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(UsageError, match="its model_type is vit; a backbone is one of dinov2"):
        load_backbone(str(wide))
    with pytest.raises(UsageError, match="no such folder"):
        load_backbone(str(tmp_path / "nowhere/at/all"))


def test_a_damaged_backbone_and_head(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UsageError, match="its header says"):
        load_backbone(str(folder))
    head = save_head(tmp_path / "head")
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not the weights that its card describes"):
        _ = load((files[0], head)).info


def test_it_travels_between_processes_and_closes(files: tuple[Path, Path]) -> None:
    model = load(files)
    (expected,) = maps(model, photo())
    np.testing.assert_array_equal(maps(pickle.loads(pickle.dumps(model)), photo())[0], expected)
    model.close()
    assert not {"network", "backbone"} & set(vars(model))
    np.testing.assert_array_equal(maps(model, photo())[0], expected)


def test_listing_loads_nothing() -> None:
    row = next(r for r in list_models() if r.name == "dino-small")
    assert (row.source, set(row.tasks)) == ("facebook/dinov2-small", {"depth", "normals", "albedo", "irradiance"})
    kinds = [k for ks in Dino().kinds.values() for k in ks]
    assert (list(row.kinds), row.tasks) == (kinds, tuple(Dino().kinds))
    assert not catalogue()["dino-small"].built_in


def test_layers_are_counted_from_one(files: tuple[Path, Path]) -> None:
    network = load_backbone(str(files[0])).network
    for layers in ((0,), (5,)):
        with pytest.raises(UsageError, match="the backbone has 4"):
            Backbone(network, layers)


def test_a_tuned_head_runs_with_its_backbone(files: tuple[Path, Path], tmp_path: Path) -> None:
    save_head(tmp_path / "tuned", base=str(files[0]))
    card = {"schema": 1, "name": "dino-x", "architecture": "dino-small", "path": "dino-small.safetensors",
            "base": "dino-small", "method": "grpo", "reward": "agreement", "seed": 0, "steps": 1}  # fmt: skip
    (tmp_path / "tuned" / "reasonx.json").write_text(json.dumps(card))
    (expected,) = maps(load(files), photo())
    for options in ({}, {"backbone": str(files[0])}):
        model = load_model(str(tmp_path / "tuned"), options=options)
        np.testing.assert_array_equal(maps(model, photo())[0], expected)
    assert model.info.options["backbone_sha256"] == load(files).info.options["backbone_sha256"]
    tuned_backbone = save_backbone(tmp_path / "tuned" / "backbone")
    config = tuned_backbone / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 0.5}))
    assert not np.array_equal(maps(load_model(str(tmp_path / "tuned")), photo())[0], expected)
    card |= {"architecture": "tiny"}
    (tmp_path / "tuned" / "reasonx.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match="tiny has no backbone"):
        load_model(str(tmp_path / "tuned"), options={"backbone": str(files[0])})


def test_the_shipped_head_is_what_its_card_says() -> None:
    card = read_card(WEIGHTS / "dino-small.safetensors")
    assert (card.model, card.base) == ("dino-small", "facebook/dinov2-small")
    assert card.parameters == 944_442
    assert {s.protocol for s in card.scores} >= {"depth/scenes-wild@1", "albedo/scenes-wild-whdr@1"}


@pytest.mark.skipif(not BACKBONE.is_dir(), reason=f"no backbone at {BACKBONE}: set REASONX_SHARED")
def test_the_shipped_head_on_its_backbone_beats_tiny_on_furnished_rooms() -> None:
    dataset, protocol = load_dataset("rooms", SHARED / "rooms", "val"), get_protocol("depth/rooms")
    errors = []
    for model in (load_model("dino-small", options={"backbone": str(BACKBONE)}), load_model("tiny")):
        samples = [dataset.load(i, ("depth",)) for i in list(dataset.ids)[:6]]
        kind = model.kind_for("depth", protocol.accepts)
        made = [model.predict([sample], kind, 0)[0] for sample in samples]
        errors.append(np.mean([score_sample(sample=s, prediction=p, protocol=protocol).metrics["abs_rel"]
                               for s, p in zip(samples, made, strict=True)]))  # fmt: skip
    assert errors[0] < errors[1] < 0.2
