"""User code as a model: what works, and how each mistake is reported."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.base import Model
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.types import Sample

PHOTO = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
SAMPLES = [Sample("a", PHOTO), Sample("b", PHOTO[:2])]

Load = Callable[..., Model]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write_and_load(code: str, name: str = "Net", **arguments: Any) -> Model:
        path = tmp_path / "net.py"
        path.write_text("import numpy as np\n" + textwrap.dedent(code))
        return load_model(f"{path}:{name}", **arguments)

    yield write_and_load
    for module in set(sys.modules) - before:
        if module.startswith(("reasonx_user_", "user_pkg")):
            del sys.modules[module]


SIMPLE = """
class Net:
    kind = "depth_metric"
    licence = "MIT"
    trained_on = "NYUv2"
    def __init__(self, scale: float = 1.0, name: str = "red"):
        self.scale, self.name = scale, name
    def predict(self, images):
        return [self.scale * i[..., 0] / 255 for i in images]
"""


def test_simple_class(load: Load, tmp_path: Path) -> None:
    model = load(SIMPLE, options={"scale": "2"})
    assert model.kinds == {"depth": ("depth_metric",)}
    for sample, prediction in zip(SAMPLES, model.predict(SAMPLES, "depth_metric", 0), strict=True):
        assert prediction.kind == "depth_metric"
        np.testing.assert_array_equal(prediction.value, 2 * sample.image[..., 0] / 255)
    info = model.info
    assert (info.name, info.licence, info.trained_on, info.options) == ("red", "MIT", ("NYUv2",), {"scale": 2.0})
    assert info.weights_sha256 == sha256_file(tmp_path / "net.py")
    assert "digest of the code" in info.notes[0]


def test_weight_files_are_digested_too(load: Load, tmp_path: Path) -> None:
    weights = tmp_path / "net.pt"
    weights.write_bytes(b"weights")
    model = load(SIMPLE.replace('licence = "MIT"', f"weights = {str(weights)!r}"))
    assert model.info.weights_sha256 == sha256_lines([sha256_file(tmp_path / "net.py"), sha256_file(weights)])


#: place of the file in a class -> lines; the name is put together, so that no text in the code is the name
USES_OF_A_FILE = {
    "opened at import": ("W = (FOLDER / ('weights' + '.bin')).read_bytes()", "pass", "pass"),
    "opened when constructed": ("", "self.w = (FOLDER / ('weights' + '.bin')).read_bytes()", "pass"),
    "opened when it predicts": ("", "pass", "(FOLDER / ('weights' + '.bin')).read_bytes()"),
    "named in the code": ("", "pass", "'weights.bin'"),
    "named by an attribute": ("", "self.where = [FOLDER / ('weights' + '.bin')]", "pass"),
    "imported": ("", "pass", "import user_pkg_helper"),
}


@pytest.mark.parametrize("place", USES_OF_A_FILE)
def test_every_file_that_a_class_opens_or_names_is_digested(load: Load, tmp_path: Path, place: str) -> None:
    changed = tmp_path / ("user_pkg_helper.py" if place == "imported" else "weights.bin")
    changed.write_bytes(b"A = 1")
    at_import, constructed, predicting = USES_OF_A_FILE[place]
    code = f"""
    from pathlib import Path
    FOLDER = Path(__file__).parent
    {at_import}
    class Net:
        kind = "depth_metric"
        def __init__(self):
            {constructed}
        def predict(self, images):
            {predicting}
            return [np.ones(i.shape[:2], "f4") for i in images]
    """
    model = load(code)
    model.predict(SAMPLES[:1], "depth_metric", 0)
    before, digest = model.files(), model.info.weights_sha256
    assert set(before) == {str(changed), str(tmp_path / "net.py")}
    assert load(code).info.weights_sha256 == digest
    changed.write_bytes(b"A = 2")
    assert {k for k, v in model.files().items() if v != before[k]} == {str(changed)}
    # a file that is opened later is not known when the model is made
    assert (load(code).info.weights_sha256 == digest) == (place == "opened when it predicts")


def test_folders_that_an_attribute_names(load: Load, tmp_path: Path) -> None:
    """A checkpoint's files count, two levels deep; other folders, such as a home, are not searched."""
    for name in ("net/model.safetensors", "net/unet/config.json", "net/a/b/c.pt", "data/0001.json", "data/x/y.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    model = load("""
    from pathlib import Path
    class Net:
        kind = "depth_metric"
        texts = ["\\0", "~nobody/x", "\u00e9" * 200, "/", ""]
        def __init__(self):
            self.where = [Path(__file__).parent / "net", Path(__file__).parent / "data", *self.texts]
        def predict(self, images): ...
    """)
    assert set(model.files()) == {str(tmp_path / name) for name in ("net.py", "net/model.safetensors",
                                                                    "net/unet/config.json")}  # fmt: skip


def test_files_of_a_model_class_are_known_too(load: Load, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"one")
    model = load("""
    from pathlib import Path
    from reasonx_eval.models.base import Model, ModelInfo
    class Net(Model):
        kinds = {"depth": ("depth_metric",)}
        info = ModelInfo("mine", "here")
        def __init__(self):
            self.w = Path(__file__).with_name("weights" + ".bin").read_bytes()
        def predict(self, samples, kind, seed): ...
    """)
    assert set(model.files()) == {str(tmp_path / "net.py"), str(tmp_path / "weights.bin")}


def test_asks_for_kind_and_gives_seeds(load: Load) -> None:
    model = load("""
    class Net:
        kind = ["depth_metric", "normal"]
        batch_size = 2
        thread_safe = True
        def predict(self, images, kind, seeds):
            self.seen = kind, seeds
            return [np.zeros(i.shape[:2] if kind == "depth_metric" else i.shape, "f4") for i in images]
    """)
    assert model.kinds == {"depth": ("depth_metric",), "normals": ("normal",)}
    assert (model.batch_size, model.thread_safe) == (2, True)
    assert model.predict(SAMPLES, "normal", 7)[1].value.shape == (2, 5, 3)
    seeds = [stream_seed(7, s.id) % 2**63 for s in SAMPLES]
    assert vars(vars(model)["_user"])["seen"] == ("normal", seeds)


def test_predictions_carry_their_kind_and_time(load: Load) -> None:
    model = load("""
    from reasonx_eval.types import Prediction
    class Net:
        kind = ["depth_metric", "depth_scale"]
        def predict(self, images):
            return [Prediction("depth_scale", np.ones(i.shape[:2], "f4"), 0.5) for i in images]
    """)
    assert model.predict(SAMPLES[:1], "depth_scale", 0)[0].seconds == 0.5
    with pytest.raises(SampleError, match="asked for depth_metric, predict gave depth_scale"):
        model.predict(SAMPLES[:1], "depth_metric", 0)


def test_subclass_of_model_and_factory_function(load: Load) -> None:
    code = """
    from reasonx_eval.models.base import Model, ModelInfo
    from reasonx_eval.types import Prediction
    class Net(Model):
        kinds = {"depth": ("depth_metric", "depth_scale")}
        info = ModelInfo("mine", "here")
        def predict(self, samples, kind, seed):
            return [Prediction(kind, np.ones((2, 2), "f4")) for s in samples]
    def make(*, device="auto"):
        net = Net()
        net.device = device
        return net
    """
    assert load(code).info.name == "mine"
    assert vars(load(code, name="make", device="cuda"))["device"] == "cuda"
    narrowed = load(code, kind="depth_scale")
    assert narrowed.kinds == {"depth": ("depth_scale",)}
    assert narrowed.predict(SAMPLES, "depth_scale", 0)[0].kind == "depth_scale"
    with pytest.raises(UsageError, match="--kind is normal, but the model gives depth_metric, depth_scale"):
        load(code, kind="normal")


def test_imports_its_neighbours(load: Load, tmp_path: Path) -> None:
    (tmp_path / "user_pkg_neighbour.py").write_text("KIND = 'normal'\n")
    model = load("""
    from user_pkg_neighbour import KIND
    class Net:
        kind = KIND
        def predict(self, images):
            return [i.astype("f4") for i in images]
    """)
    assert model.kinds == {"normals": ("normal",)}


def test_installed_module(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "user_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(SIMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("user_pkg.net:Net")
    assert model.info.weights_sha256 == sha256_file(package / "net.py")
    with pytest.raises(UsageError, match="unknown class 'Nett'; did you mean 'Net'"):
        load_model("user_pkg.net:Nett")
    (package / "bad.py").write_text("x = 1\nimport not_there_at_all\n")
    with pytest.raises(UsageError, match=r"No module named 'not_there_at_all' \(bad\.py, line 2\)"):
        load_model("user_pkg.bad:Net")
    with pytest.raises(UsageError, match=r"No module named 'no_such_pkg'\n  try: install it in this environment"):
        load_model("no_such_pkg.net:Net")


def test_kind_from_the_command_line(load: Load) -> None:
    code = """
    class Net:
        def predict(self, images):
            return [i[..., 0] / 1.0 for i in images]
    """
    with pytest.raises(UsageError, match="kind is not stated"):
        load(code)
    assert load(code, kind="depth_affine").kinds == {"depth": ("depth_affine",)}
    with pytest.raises(UsageError, match="--kind is depth_affine, but the class says depth_metric"):
        load(SIMPLE, kind="depth_affine")
    takes_it = """
    class Net:
        def __init__(self, kind):
            self.kind = kind
        def predict(self, images):
            return [i[..., 0] / 1.0 for i in images]
    """
    assert load(takes_it, kind="depth_scale").kinds == {"depth": ("depth_scale",)}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Net(:\n    pass\n", r"can't be imported: SyntaxError: .*\(net\.py, line 2\)"),
        ("import torchh\n", r"can't be imported: .*No module named 'torchh' \(net\.py, line 2\)"),
        ("x = 1 / 0\n", r"can't be imported: ZeroDivisionError: division by zero \(net\.py, line 2\)"),
        ("raise SystemExit(3)\n", r"can't be imported: SystemExit: 3 \(net\.py, line 2\)"),
        ("class Nett:\n    pass\n", "unknown class 'Net'; did you mean 'Nett'"),
        ("Net = 3\n", "not a class or a function that gives a model, but a value of type int"),
        ("class Net:\n    def __init__(self):\n        open('/nowhere/w.pt')\n",
         r"can't be constructed: FileNotFoundError: .*w\.pt.* \(net\.py, line 4\)"),
        ("class Net:\n    kind = 'normal'\n", r"has no method predict\(images\)"),
        ("class Net:\n    kind = 'depht'\n    def predict(self, images): ...\n", "unknown kind 'depht'"),
        ("class Net:\n    kind, batch_size = 'normal', 0\n    def predict(self, images): ...\n", "batch_size is 0"),
        ("class Net:\n    kind, batch_size = 'normal', '8'\n    def predict(self, images): ...\n", "needs int"),
    ],
)  # fmt: skip
def test_broken_code_is_one_clear_error(load: Load, code: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(code)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("[i[..., 0] for i in images]", "dtype uint8"),
        ("[i / 1.0 for i in images]", r"shape \[4, 5, 3\]"),
        ("[i[..., 0] / 1.0 for i in images] * 2", "gave 2 maps for 1 photos"),
        ("None", "gave a NoneType, not a list"),
        ("{'depth': 1}", "gave a dict, not a list"),
        ("[np.full((4, 5), np.nan)]", "20 of 20 values are NaN"),
        ("[object()]", "dtype object"),
        ("[1 / 0]", r"predict raised ZeroDivisionError: .* \(net\.py, line 5\)"),
    ],
)
def test_wrong_predictions_name_the_class_and_the_sample(load: Load, result: str, message: str) -> None:
    model = load(f"""
    class Net:
        kind = "depth_metric"
        def predict(self, images): return {result}
    """)
    with pytest.raises(SampleError, match=message) as caught:
        model.predict(SAMPLES[:1], "depth_metric", 0)
    assert str(caught.value.where).endswith("net.py:Net: sample a")


def test_arrays_of_several_kinds_are_ambiguous(load: Load) -> None:
    model = load("""
    class Net:
        kind = ("depth_metric", "depth_scale")
        def predict(self, images): return [i[..., 0] / 1.0 for i in images]
    """)
    with pytest.raises(SampleError, match="several kinds"):
        model.predict(SAMPLES[:1], "depth_scale", 0)
    # narrowed to one, nothing is ambiguous any more
    assert load_model(model.info.source, kind="depth_scale").predict(SAMPLES, "depth_scale", 0)[0].kind == "depth_scale"


def test_channels_first_says_so(load: Load) -> None:
    model = load("""
    class Net:
        kind = "normal"
        def predict(self, images): return [i.transpose(2, 0, 1) / 255 for i in images]
    """)
    with pytest.raises(SampleError, match="channels come first"):
        model.predict(SAMPLES[:1], "normal", 0)


def test_wrong_options_of_a_class(load: Load) -> None:
    with pytest.raises(UsageError, match="unknown option 'scal'; did you mean 'scale'"):
        load(SIMPLE, options={"scal": "2"})
    with pytest.raises(UsageError, match="option scale is 'two'; expected a finite number"):
        load(SIMPLE, options={"scale": "two"})
