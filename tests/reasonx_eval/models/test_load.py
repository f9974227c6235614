"""What a user writes after --model, and the list of models."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io import plugins
from reasonx_eval.models.adapters.onnx import OnnxModel
from reasonx_eval.models.embedded.oracle import Oracle
from reasonx_eval.models.loading import load as load_module
from reasonx_eval.models.loading.catalogue import catalogue, list_models
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.models.saved.predictions import Saved
from reasonx_eval.types import KINDS, Sample
from tests.reasonx_eval.models.tiny_onnx import identity

BUILT_IN = tuple(name for name, entry in catalogue().items() if entry.built_in)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    folder = tmp_path / "preds"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((2, 2), np.float32))
    return folder


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_registered_name_loads(name: str) -> None:
    model = load_model(name)
    assert model.info.name == name
    assert {k for kinds in model.kinds.values() for k in kinds} <= set(KINDS)


def test_options_reach_the_factory() -> None:
    model = load_model("oracle", kind="depth_affine", options={"scale": "2", "shuffle": "true"})
    assert isinstance(model, Oracle)
    assert model.info.options == {"kind": "depth_affine", "scale": 2.0, "shuffle": True}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("oracel", "unknown model 'oracel'; did you mean 'oracle'"),
        ("no/such/folder", "no such file or folder"),
        ("net.pth", "no such file or folder"),
        ("net.py:Net", "no such file"),
        ("net.onnx", "no such file"),
        ("no_such_package:Net", "No module named 'no_such_package'"),
    ],
)
def test_what_does_not_exist(spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_model(spec)


def test_near_path_is_suggested(predictions: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean .*preds\?"):
        load_model(str(predictions.with_name("pred")))


def test_saved_predictions_by_prefix_folder_and_run(predictions: Path) -> None:
    for spec in (f"preds:{predictions}", str(predictions)):
        model = load_model(spec, kind="depth_scale")
        assert isinstance(model, Saved)
        assert model.info.options["kind"] == "depth_scale"
    (predictions / "meta.json").write_text(json.dumps({"kind": "depth_metric", "model": "net"}))
    assert load_model(str(predictions)).info.name == "net"
    run = predictions.with_name("run")
    run.mkdir()
    predictions.rename(run / "predictions")
    assert load_model(str(run)).info.name == "net"
    assert load_model(f"preds:{run}", options={"name": "other"}).info.name == "other"


def test_folders_that_are_not_predictions(tmp_path: Path, predictions: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a network .* nor predictions"):
        load_model(str(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty"))
    with pytest.raises(DataError, match="no such folder"):
        load_model(f"preds:{tmp_path / 'missing'}", kind="normal")
    with pytest.raises(UsageError, match="kind is not stated"):
        load_model(f"preds:{predictions}")
    with pytest.raises(UsageError, match="unknown option 'png_scal'; did you mean 'png_scale'"):
        load_model(f"preds:{predictions}", kind="normal", options={"png_scal": "1"})
    with pytest.raises(UsageError, match="differ"):
        load_model(f"preds:{predictions}", kind="normal", options={"kind": "depth_scale"})


def test_onnx_with_card_and_kind(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(identity())
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "n", "input": {"range": "0-1", "channels": "RGB"},
                                "output": {"kind": "normal"}}))  # fmt: skip
    model = load_model(str(tmp_path / "net.onnx"), card=card, options={"threads": "2"})
    assert isinstance(model, OnnxModel)
    assert model.info.options["threads"] == 2
    with pytest.raises(UsageError, match="--kind is depth_metric, but the model gives normal"):
        load_model(str(tmp_path / "net.onnx"), card=card, kind="depth_metric")
    with pytest.raises(UsageError, match="--card is for"):
        load_model("oracle", card=card)


def test_python_file_without_a_class_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text("class Net: ...\nclass Other: ...\n")
    with pytest.raises(UsageError, match=r"defines Net, Other; write .*nets\.py:Net"):
        load_model(str(path))
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a \.pt file is not a model"):
        load_model(str(tmp_path / "w.pt"))


def test_kind_holds_a_model_to_one() -> None:
    model = load_model("image-as-albedo", kind="albedo_linear")
    assert model.kinds == {"albedo": ("albedo_linear",)}
    (prediction,) = model.predict([Sample("a", np.full((1, 1, 3), 255, np.uint8))], "albedo_linear", 0)
    np.testing.assert_array_equal(prediction.value, 1)
    with pytest.raises(UsageError, match="--kind is normal, but the model gives albedo_srgb, albedo_linear"):
        load_model("image-as-albedo", kind="normal")
    with pytest.raises(UsageError, match="unknown kind 'albedo'"):
        load_model("image-as-albedo", kind="albedo")


def test_device_is_not_ignored() -> None:
    assert load_model("retinex", device="cpu").info.name == "retinex"
    with pytest.raises(UsageError, match="computes on the CPU only"):
        load_model("retinex", device="cuda")


# ---- entry points


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plug_good_model.py").write_text(
        "class Net:\n    kind = 'normal'\n    licence = 'MIT'\n"
        "    def __init__(self): raise RuntimeError('must not be constructed by list')\n"
        "    def predict(self, images): ...\n"
    )
    (tmp_path / "plug_bad_model.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [EntryPoint(n, f"plug_{n}_model:Net", "reasonx_eval.models") for n in ("good", "bad")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)


@pytest.mark.usefixtures("plugged")
def test_list_survives_a_broken_plugin() -> None:
    rows = {r.name: r for r in list_models()}
    assert set(rows) == {*catalogue(), "good", "bad"}
    assert all(rows[n].available and rows[n].kinds for n in BUILT_IN)
    assert (rows["good"].available, rows["good"].tasks, rows["good"].licence) == (True, ("normals",), "MIT")
    assert not rows["bad"].available
    assert "not_installed_here" in str(rows["bad"].why_not)


@pytest.mark.usefixtures("plugged")
def test_plugins_load_by_name_and_a_broken_one_stops_only_itself() -> None:
    with pytest.raises(UsageError, match="must not be constructed by list"):
        load_model("good")
    with pytest.raises(UsageError, match="not_installed_here"):
        load_model("bad")
    assert load_model("oracle").info.name == "oracle"
    with pytest.raises(UsageError, match="did you mean 'good'"):
        load_model("goood")


def test_a_hub_id_is_looked_for_on_the_hub_whatever_it_resembles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find(spec: str, **_: object) -> None:
        asked.append(spec)
        raise UsageError("asked")

    monkeypatch.setattr(load_module, "find_checkpoint", find)
    for spec in ("prs-eth/marigold-normals-v1-1", "someone/retinex@main"):
        with pytest.raises(UsageError, match="asked"):
            load_model(spec)
    assert asked == ["prs-eth/marigold-normals-v1-1", "someone/retinex@main"]


def test_naming_tiny_imports_no_other_network() -> None:
    script = ("import sys\nfrom reasonx_eval.models.loading.load import load_model\n"
              "import reasonx_eval.cli.evaluate\nload_model('tiny').network\n"
              "heavy = ('diffusers', 'transformers', 'onnxruntime', 'peft', 'torch.distributed.fsdp', 'matplotlib')\n"
              "print([m for m in heavy if m in sys.modules])\n"
              "print(sorted(m for m in sys.modules if m.startswith('reasonx_eval.models.') and m.count('.') > 2))\n"
             )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    heavy, own = done.stdout.splitlines()
    assert heavy == "[]"
    embedded = ["card", "tiny", "tiny_net"]
    loading = ["catalogue", "checkpoint", "load", "options", "runtime"]
    assert own == str([f"reasonx_eval.models.embedded.{m}" for m in embedded]
                      + [f"reasonx_eval.models.loading.{m}" for m in loading])  # fmt: skip
