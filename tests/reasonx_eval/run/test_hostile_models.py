"""Models that print, exit, reuse buffers or lie about themselves: the answer stays clean, the message is one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.run import stages
from tests.reasonx_eval.models.tiny_onnx import channel_sum

GOOD = "return [i.astype('f4').mean(-1) / 50 + 1 for i in images]"


def write(folder: Path, *, predict: str = GOOD, body: str = "", top: str = "", name: str = "net") -> str:
    lines = ["import os, sys", "import numpy as np", top, "class Net:", "    kind = 'depth_affine'",
             f"    name = {name!r}", *(f"    {line}" for line in body.splitlines()),
             "    def predict(self, images):", *(f"        {line}" for line in predict.splitlines())]  # fmt: skip
    path = folder / "net.py"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{path}:Net"


def evaluate(spec: str, out: Path, *more: str) -> int:
    return run_cli(cli, ["run", "--model", spec, "--protocol", "depth/scenes-synthetic", "--limit", "3",
                         "--out", str(out), *more])  # fmt: skip


def value(printed: str) -> Any:
    return json.loads(printed)["aggregate"]["abs_rel"]["value"]


def test_what_a_model_prints_does_not_mix_with_the_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = "print('noise'); os.write(1, b'more noise')\n"
    spec = write(tmp_path, top=noise, body=f"def __init__(self):\n    {noise}", predict=noise + GOOD)
    assert evaluate(spec, tmp_path / "out", "--json") == 0
    printed = capfd.readouterr()
    assert value(printed.out) > 0
    assert printed.err.count("noise") >= 2 * (1 + 1 + 3)


@pytest.mark.parametrize("thread_safe", [False, True])
def test_a_model_that_exits_ends_its_sample_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], thread_safe: bool
) -> None:
    spec = write(tmp_path, body=f"thread_safe = {thread_safe}", predict="sys.exit(0)")
    assert evaluate(spec, tmp_path / "out", "--json") == 6
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert len(failed) == 3
    assert all("SystemExit" in reason for reason in failed.values())


def test_a_buffer_that_is_filled_again_changes_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = "images[0].astype('f4').mean(-1) / np.float32(50) + 1"
    assert evaluate(write(tmp_path, predict=f"return [{mean}]"), tmp_path / "a", "--json") == 0
    fresh = value(capsys.readouterr().out)
    again = f"if not hasattr(self, 'b'):\n    self.b = np.empty((96, 128), 'f4')\nself.b[:] = {mean}\nreturn [self.b]"
    original = stages.score_sample

    def late(**given: Any) -> Any:
        time.sleep(0.05)  # until the model has gone on
        return original(**given)

    monkeypatch.setattr(stages, "score_sample", late)
    assert evaluate(write(tmp_path, predict=again), tmp_path / "b", "--json", "--workers", "4") == 0
    assert value(capsys.readouterr().out) == fresh


def test_a_model_that_writes_into_its_photos_is_retried_with_clean_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(write(tmp_path), tmp_path / "a", "--json") == 0
    clean = value(capsys.readouterr().out)
    spoil = "if len(images) > 1:\n    for i in images:\n        i[:, ::2] = 0\n    raise RuntimeError('no memory')\n"
    spec = write(tmp_path, body="batch_size = 3", predict=spoil + GOOD)
    assert evaluate(spec, tmp_path / "b", "--json") == 0
    assert value(capsys.readouterr().out) == clean


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("trained_on = 5", "trained_on is 5"),
        ("@property\ndef licence(self): raise ValueError('oh')", "ValueError: oh"),
        ("def __init__(self): raise SystemExit(0)", "SystemExit"),
    ],
)
def test_what_a_class_says_wrongly_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, words: str
) -> None:
    assert evaluate(write(tmp_path, body=body), tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out


@pytest.mark.parametrize(
    ("given", "words"),
    [("5", "gave a int, not a Prediction"),
     ("Prediction('depth_affine', np.ones((9, 9)), float('nan'))", "gave nan as the seconds"),
     ("Prediction('depth_affine', np.ones((9, 9)), 'abc')", "gave 'abc' as the seconds")],
)  # fmt: skip
def test_a_model_class_that_gives_no_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, words: str
) -> None:
    (tmp_path / "net.py").write_text(
        "import numpy as np\nfrom reasonx_eval.models.base import Model, ModelInfo\n"
        "from reasonx_eval.types import Prediction\n"
        "class Net(Model):\n    info = ModelInfo('d', 'd')\n    kinds = {'depth': ('depth_affine',)}\n"
        f"    def predict(self, samples, kind, seed): return [{given}]\n", encoding="utf-8")  # fmt: skip
    assert evaluate(f"{tmp_path / 'net.py'}:Net", tmp_path / "out", "--json") == 6
    assert words in next(iter(json.loads(capsys.readouterr().out)["failed"].values()))


def test_options_that_json_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "from reasonx_eval.models.base import Model, ModelInfo\n"
        "class Net(Model):\n    info = ModelInfo('d', 'd', options={'a': object()})\n"
        "    kinds = {'depth': ('depth_affine',)}\n    def predict(self, samples, kind, seed): return []\n",
        encoding="utf-8")  # fmt: skip
    assert evaluate(f"{tmp_path / 'net.py'}:Net", tmp_path / "out") == 2
    assert "ModelInfo can't be stored" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["[/red]x[red]", "<script>alert(1)</script>", "a\n\x1b[31m\0b", "модель ☃",
                                  "../../../evil", "n" * 5000, "a\udcffb", "", "."])  # fmt: skip
def test_any_model_name_gets_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert evaluate(write(tmp_path, name=name), tmp_path / "out" / "deep", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == name
    (run,) = (tmp_path / "out/deep/depth/scenes-synthetic@1").iterdir()
    assert (run / "result.json").is_file()
    assert run_cli(cli, ["show", str(run), "--json", "--verify"]) == 0
    assert {p.name for p in tmp_path.iterdir()} <= {"net.py", "out", "__pycache__"}


def test_long_names_that_begin_alike_differ(tmp_path: Path) -> None:
    for name in ("n" * 400 + "1", "n" * 400 + "2"):
        assert evaluate(write(tmp_path, name=name), tmp_path / "out") == 0
    assert len(list((tmp_path / "out/depth/scenes-synthetic@1").iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [100_000, 100_000]}, "larger than any photo"),
        ({"size": {"short_side": 100_000}}, "less than or equal"),
        ({"multiple_of": 100_000}, "less than or equal"),
        ({"mean": [float("nan"), 0, 0]}, "finite"),
        ({"std": [1, 1, float("inf")]}, "finite"),
    ],
)
def test_card_that_would_fill_the_memory_or_give_only_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    (tmp_path / "net.onnx").write_bytes(channel_sum([0.3, 0.5, 0.2]))
    card = {"name": "net", "input": {"range": "0-1", "channels": "RGB", **change}, "output": {"kind": "depth_affine"}}
    (tmp_path / "net.json").write_text(json.dumps(card), encoding="utf-8")
    assert evaluate(str(tmp_path / "net.onnx"), tmp_path / "out") == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("value", ["five", "Plain"])
def test_data_set_plug_in_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    module = f"plug_in_{value.lower()}"
    (tmp_path / f"{module}.py").write_text("five = 5\nclass Plain: pass\n", encoding="utf-8")
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[reasonx_eval.datasets]\nodd = {module}:{value}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for command in (["doctor", "odd"], ["info", "odd"],
                    ["run", "--model", "oracle", "--protocol", "depth/generic", "--dataset", "odd"]):  # fmt: skip
        assert run_cli(cli, command) == 2
        assert "not a class derived from" in capsys.readouterr().err
    assert run_cli(cli, ["list", "datasets"]) == 0
    assert "unavailable: the plug-in is not a class" in capsys.readouterr().out
