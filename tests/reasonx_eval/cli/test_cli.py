from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import VERBS, cli, run_cli

SCENES = ["run", "--model", "plane-depth", "--dataset", "scenes-synthetic"]


def run(*arguments: str) -> int:
    return run_cli(cli, arguments)


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from reasonx_eval.cli.main import run_cli, cli\n"
        "assert run_cli(cli, ['--help']) == 0\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'scipy', 'h5py', 'rich', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb, (_, text) in VERBS.items():
        assert verb in done.stdout
        assert text.split(":")[0][:30] in done.stdout


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_each_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert verb in capsys.readouterr().out


def test_import_of_the_package_is_light() -> None:
    code = (
        "import sys, reasonx_eval\n"
        "reasonx_eval.__version__\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "reasonx_eval.get_protocol('depth/nyuv2')\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_run_prints_numbers_with_their_signature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SCENES, "--out", str(tmp_path), "--limit", "6") == 0
    out = capsys.readouterr().out
    assert "depth/scenes-synthetic@1|n:6/100|acc:disparity_affine|align:affine.disparity|" in out
    assert "abs_rel ↓" in out
    assert "partial: 6/100 scored, a selection of the split" in out
    folder = tmp_path / "depth/scenes-synthetic@1/plane-depth"
    assert (folder / "result.json").is_file()
    assert run("show", str(folder), "--verify") == 0
    assert "recomputed from 6 records" in capsys.readouterr().out


def test_json_is_the_result_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SCENES, "--out", str(tmp_path), "--limit", "3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((tmp_path / "depth/scenes-synthetic@1/plane-depth/result.json").read_text())
    assert printed == stored
    passed = printed["provenance"]["passed"]
    assert passed == {"datasets": "scenes-synthetic", "limit": 3, "model": "plane-depth"}
    assert printed["provenance"]["defaulted"]["seed"] == 0


def test_two_runs_of_one_command_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        assert run(*SCENES, "--out", str(tmp_path / name), "--limit", "3") == 0
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.json*")) for n in "ab"]
    assert files[0] == files[1]
    for name in files[0]:
        if not name.name.startswith("timing"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_dataset_name_means_its_default_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--model", "oracle", "--dataset", "scenes-wild", "--out", str(tmp_path), "--limit", "2",
               "--json") == 0  # fmt: skip
    results = json.loads(capsys.readouterr().out)
    assert [r["protocol"]["name"] for r in results] == [
        "depth/scenes-wild", "normals/scenes-wild", "albedo/scenes-wild", "irradiance/scenes-wild",
    ]  # fmt: skip
    assert results[0]["aggregate"]["abs_rel"]["value"] == pytest.approx(0, abs=1e-6)
    assert results[1]["aggregate"]["mean_deg"]["value"] == pytest.approx(0, abs=1e-3)


def test_score_reads_saved_predictions_and_a_missing_one_is_partial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SCENES, "--out", str(tmp_path / "a"), "--limit", "4", "--save-predictions") == 0
    run_a = tmp_path / "a/depth/scenes-synthetic@1/plane-depth"
    again = ["score", str(run_a / "predictions"), "--dataset", "scenes-synthetic", "--name", "again"]
    assert run(*again, "--out", str(tmp_path / "b"), "--limit", "4") == 0
    run_b = tmp_path / "b/depth/scenes-synthetic@1/again"
    assert (run_a / "records.jsonl").read_bytes() == (run_b / "records.jsonl").read_bytes()
    sorted((run_a / "predictions").rglob("*.npy"))[1].unlink()
    capsys.readouterr()
    assert run(*again, "--out", str(tmp_path / "c"), "--limit", "4") == 6
    printed = capsys.readouterr()
    assert "n:3/100" in printed.out
    assert "failed: synthetic/test/00025" in printed.out
    assert "1 samples failed" in printed.err


def test_score_names_the_array_of_npz_files(tmp_path: Path) -> None:
    file = tmp_path / "preds/synthetic/test/00000.npz"
    file.parent.mkdir(parents=True)
    ramp = np.linspace(1, 2, 96 * 128, dtype=np.float32).reshape(96, 128)
    np.savez(file, depth=ramp, other=ramp)
    score = ["score", str(tmp_path / "preds"), "--kind", "depth_affine", "--dataset", "scenes-synthetic",
             "--samples", "synthetic/test/00000", "--out", str(tmp_path / "out")]  # fmt: skip
    assert run(*score) == 6
    assert run(*score, "--h5-key", "depth", "--force") == 0


def test_score_without_kind_says_which_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 4), np.float32))
    assert run("score", str(tmp_path), "--dataset", "scenes-wild") == 2
    error = capsys.readouterr().err
    assert "kind" in error
    assert "disparity_affine" in error


def test_score_takes_every_reading_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in (0, 25):
        path = tmp_path / "p" / "synthetic" / "test" / f"{k:05d}_pred.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.tile(np.linspace(1, 2, 128, dtype=np.float32), (96, 1)))
    command = ["score", str(tmp_path / "p"), "--kind", "depth_scale", "--dataset", "scenes-synthetic", "--limit", "4",
               "--out", str(tmp_path / "o")]  # fmt: skip
    assert run(*command, "-O", "pattern={id}_pred") == 6
    assert "n:2/100" in capsys.readouterr().out
    assert run(*command, "-O", "patern={id}_pred") == 2
    assert "did you mean 'pattern'" in capsys.readouterr().err
    assert run(*command, "-O", "kind=depth_metric") == 2
    assert "given twice" in capsys.readouterr().err


def test_shards_and_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ",".join(f"synthetic/test/0000{k}" for k in (1, 2, 3))
    for k in (1, 2):
        assert run(*SCENES, "--out", str(tmp_path), "--samples", chosen, "--shard", f"{k}/2") == 0
    shards = sorted(str(p) for p in (tmp_path / "depth/scenes-synthetic@1").glob("*.shard-*"))
    assert run("merge", *shards, "--out", str(tmp_path / "merged")) == 0
    assert "n:3/100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rnu"], 2, "did you mean 'run'"),
        (["run", "--model", "retinx", "--dataset", "scenes-wild"], 2, "did you mean 'retinex'"),
        (["run", "--model", "retinex", "--dataset", "scenes-wlid"], 2, "did you mean 'scenes-wild'"),
        (["run", "--model", "retinex", "--protocol", "albedo/iwi"], 2, "did you mean 'albedo/iiw'"),
        (["run", "--model", "retinex", "--protocol", "depth/nyuv2"], 2, "not depth"),
        (["run", "--model", "retinex"], 2, "say what to evaluate on"),
        (["run", "--model", "retinex", "--dataset", "iiw"], 2, "--root DIR"),
        (["run", "--model", "retinex", "--dataset", "iiw", "--root", "/nonexistent"], 4, "no such folder"),
        (["run", "--model", "retinex", "--dataset", "scenes-wild", "--shard", "3/2"], 2, "1 <= i <= n"),
        (["run", "--model", "retinex", "--dataset", "scenes-wild", "-O", "sgima=1"], 2, "sgima"),
        (["run", "--model", "retinex", "--dataset", "scenes-wild", "--samples", "nope"], 2, "no such sample"),
        (["run", "--model", "no.onnx", "--dataset", "scenes-wild"], 2, "no.onnx"),
        (["run", "--model", "no.py:Net", "--dataset", "scenes-wild"], 2, "no.py"),
        (["run", "--dataset", "scenes-wild"], 2, "Missing option '--model'"),
        (["show", "/nonexistent"], 4, "no such file"),
        (["info", "nyuv3"], 2, "did you mean 'nyuv2'"),
        (["merge", "/nonexistent", "--out", "x"], 4, "no such file"),
    ],
)
def test_mistakes_are_one_message_with_the_designed_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REASONX_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(*arguments) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not list(tmp_path.iterdir()), "a refused command left files behind"


def test_force_and_changed_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = [*SCENES, "--out", str(tmp_path)]
    assert run(*base, "--limit", "2") == 0
    assert run(*base, "--limit", "3") == 4
    assert "selection.limit: 2 -> 3" in capsys.readouterr().err
    assert run(*base, "--limit", "3", "--force") == 0


def test_listings(capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in (("models", "retinex"), ("datasets", "eth3d"), ("protocols", "depth/nyuv2@1"),
                       ("metrics", "abs_rel")):  # fmt: skip
        assert run("list", what) == 0
        assert name in capsys.readouterr().out
        assert run("list", what, "--json") == 0
        assert name in {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert "0.1.0" in capsys.readouterr().out
