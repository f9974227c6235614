"""A finished or half-finished run never answers for other inputs: all that decides its records is compared anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval import evaluate, load_result
from reasonx_eval.cli.main import main
from reasonx_eval.io.digests import array_digest
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.io.records import read_records, write_records
from reasonx_eval.registry import load_dataset

NET = """
from pathlib import Path
import numpy as np
W = np.load(Path(__file__).with_name("w.npy"))
class Net:
    kind = "depth_metric"
    def predict(self, images):
        return [W * (1.0 + im[..., 1].astype("f4") / 100) for im in images]
"""


def make(root: Path, n: int = 3, seed: int = 0) -> Path:
    """A folder of photos and depth maps with its dataset.toml."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    (root / "rgb").mkdir()
    (root / "depth").mkdir()
    for k in range(n):
        write_png(root / "rgb" / f"{k}.png", rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        write_npy(root / "depth" / f"{k}.npy", rng.uniform(1, 4, (24, 32)).astype(np.float32))
    (root / "dataset.toml").write_text('name = "mine"\nimages = "rgb/{id}.png"\n[depth]\npath = "depth/{id}.npy"\n')
    return root


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(map(str, arguments)))
    return int(done.value.code or 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make(tmp_path / "set")


@pytest.fixture
def again(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The same command once more: exit code, stdout, stderr."""

    def command(*more: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run("run", "--model", "plane-depth", "--dataset", data, "--out", tmp_path / "out", "-q", *more)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    assert command()[0] == 0
    return command


def test_the_same_command_prints_again_and_says_what_it_compared(again: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = again()
    assert code == 0
    assert "abs_rel" in out
    assert "finished on " in err
    assert "ground truth and photos are the same for its 3 scored samples" in err


@pytest.mark.parametrize("change", ["truth in place", "truth mirrored", "another root", "gone"])
def test_other_ground_truth_is_refused(
    data: Path, tmp_path: Path, again: Callable[..., tuple[int, str, str]], change: str
) -> None:
    more: tuple[object, ...] = ()
    path = data / "depth" / "1.npy"
    if change == "truth in place":
        write_npy(path, np.load(path) / 2)
    elif change == "truth mirrored":
        write_npy(path, np.load(path)[:, ::-1].copy())
    elif change == "gone":
        path.unlink()
    else:
        more = ("--root", make(tmp_path / "other", seed=1))
    code, out, err = again(*more)
    assert code == 4
    assert out == ""
    assert "the data changed since the run" in err
    assert "--force" in err
    assert again("--force", *more)[0] == (6 if change == "gone" else 0)


def test_the_same_data_at_another_place_is_the_same_run(
    data: Path, tmp_path: Path, again: Callable[..., tuple[int, str, str]]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    code, out, _ = again("--root", moved)
    assert code == 0
    assert "abs_rel" in out


def test_a_photo_that_was_replaced_is_noticed_by_models_that_look_at_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", "--model", "tiny", "--dataset", data, "--out", tmp_path / "out", "-q")
    assert run(*command) == 0
    capsys.readouterr()
    assert run(*command) == 0
    assert "ground truth and photos are the same for its 3" in capsys.readouterr().err
    photo = data / "rgb" / "2.png"
    pixels = np.asarray(Image.open(photo)).copy()
    pixels[3, 4, 1] ^= 1
    write_png(photo, pixels)
    assert run(*command) == 4
    assert "sample 2 has another photo" in capsys.readouterr().err


def test_a_half_finished_run_is_compared_too(data: Path, tmp_path: Path) -> None:
    class StopError(Exception): ...

    def stop(done: int, total: int, failed: int) -> None:
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        evaluate(model="plane-depth", dataset=data, out=tmp_path / "out", progress=stop, workers=1)
    write_npy(data / "depth" / "0.npy", np.full((24, 32), 2, np.float32))
    from reasonx_eval.errors import NotComparable

    with pytest.raises(NotComparable, match="sample 0 has other ground truth"):
        evaluate(model="plane-depth", dataset=data, out=tmp_path / "out")


@pytest.mark.parametrize("change", ["weights", "code", "weights that nothing names"])
def test_a_plug_in_whose_weights_or_code_changed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    net = tmp_path / "net.py"
    text = NET
    if change == "weights that nothing names":  # read by a name that is put together, outside of Python's open
        text = NET.replace('np.load(Path(__file__).with_name("w.npy"))',
                           'np.fromfile(Path(__file__).parent / ("w." + "np" + "y"), "f4", offset=128)[0]')  # fmt: skip
    net.write_text(text)
    write_npy(tmp_path / "w.npy", np.float32([1.0]) if "nothing" in change else np.float32(1.0))
    command = ("run", "--model", f"{net}:Net", "--dataset", data, "--out", tmp_path / "out", "-q", "--json")
    assert run(*command) == 0
    first = json.loads(capsys.readouterr().out)["aggregate"]["abs_rel"]["value"]
    assert run(*command) == 0
    assert json.loads(capsys.readouterr().out)["aggregate"]["abs_rel"]["value"] == first
    if change == "code":
        net.write_text(text.replace("1.0 +", "3.0 +"))
    else:
        write_npy(tmp_path / "w.npy", np.float32([3.0]) if "nothing" in change else np.float32(3.0))
    assert run(*command) == 4
    assert capsys.readouterr().out == ""
    assert run(*command, "--force") == 0
    assert json.loads(capsys.readouterr().out)["aggregate"]["abs_rel"]["value"] != first


def test_saved_predictions_that_changed_are_another_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "preds"
    for k in range(3):
        write_npy(folder / f"{k}.npy", np.full((240, 320), 2.0 + k, np.float32))  # above 192 KiB
    command = ("score", folder, "--kind", "depth_metric", "--dataset", data, "--protocol", "depth/generic-metric",
               "--out", tmp_path / "out", "-q")  # fmt: skip
    assert run(*command) == 0
    value = np.load(folder / "1.npy")
    value[100, 17] += 1
    write_npy(folder / "1.npy", value)
    capsys.readouterr()
    assert run(*command) == 4
    assert "weights_sha256" in capsys.readouterr().err


def test_predictions_are_saved_of_a_finished_run_too(
    tmp_path: Path, again: Callable[..., tuple[int, str, str]]
) -> None:
    before = read_records(next(tmp_path.glob("out/**/records.jsonl")))
    assert again("--save-predictions")[0] == 0
    (records,) = tmp_path.glob("out/**/records.jsonl")
    assert sorted(p.name for p in (records.parent / "predictions").glob("*.npy")) == ["0.npy", "1.npy", "2.npy"]
    assert read_records(records) == before


def test_a_run_that_scored_nothing_blocks_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "preds"
    for k in range(3):
        write_npy(folder / f"prefix_{k}.npy", np.full((24, 32), 2.0, np.float32))
    command = ("score", folder, "--kind", "depth_metric", "--dataset", data, "--protocol", "depth/generic-metric",
               "--out", tmp_path / "out", "-q")  # fmt: skip
    assert run(*command) == 6
    assert run(*command, "-O", "pattern=prefix_{id}") == 0
    assert "abs_rel" in capsys.readouterr().out


def test_records_of_an_older_version_are_compared_by_their_own_digests(
    data: Path, tmp_path: Path, again: Callable[..., tuple[int, str, str]]
) -> None:
    """Before BLAKE3 a record had 16 digits of a SHA-256, and nothing said which photo was looked at."""
    from dataclasses import replace

    from reasonx_eval.io.digests import sha256_file, sha256_lines

    (path,) = tmp_path.glob("out/**/records.jsonl")
    dataset = load_dataset(data)
    target = {i: dataset.load(i).targets["depth"] for i in dataset.ids}
    old = [replace(r, data=array_digest(target[r.sample_id], "sha256"), prediction="0" * 16)
           for r in read_records(path)]  # fmt: skip
    write_records(path, old)
    result = load_result(path.parent)
    stored = result.model_dump(mode="json", by_alias=True)
    stored |= {"records_sha256": sha256_file(path),
               "data_sha256": sha256_lines(f"{r.sample_id} {r.data}" for r in old),
               "predictions_sha256": sha256_lines(f"{r.sample_id} {r.prediction}" for r in old)}  # fmt: skip
    (path.parent / "result.json").write_text(json.dumps(stored))
    (path.parent / "photos.jsonl").unlink(missing_ok=True)
    assert again()[0] == 0
    write_npy(data / "depth" / "1.npy", np.load(data / "depth" / "1.npy") / 2)
    assert again()[0] == 4


def test_verify_says_what_it_did_not_look_at(
    tmp_path: Path, again: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = tmp_path.glob("out/**/result.json")
    assert run("show", "--verify", path.parent) == 0
    out = capsys.readouterr().out
    assert "ok    records sha256" in out
    assert "not looked at: the data set's files and the model" in out
