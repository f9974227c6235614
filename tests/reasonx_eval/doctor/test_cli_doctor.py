"""The command: exit codes, what goes to stdout, and flags that don't belong together."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.doctor import command
from reasonx_eval.cli.main import run_cli
from reasonx_eval.io.images import write_png

PHOTO = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    for name in ("a", "b"):
        write_png(folder / f"{name}_rgb.png", PHOTO)
        write_png(folder / f"{name}_albedo.png", PHOTO)
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run_cli(command, [str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_clean_dataset(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "flat", "--root", root)
    assert code == 0
    assert err == ""
    assert "files\tok\t4 of 4 present" in out
    assert out.splitlines()[-1] == "flat all: ok"


def test_a_damaged_dataset_exits_with_4(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "b_albedo.png").write_bytes(b"")
    code, out, _ = call(capsys, "flat", "--root", root, "--json")
    assert code == 4
    document = json.loads(out)
    assert document["status"] == "fail"
    assert any("b_albedo.png" in f["message"] for f in document["findings"])


def test_root_from_the_environment(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONX_DATA", str(root.parent))
    assert call(capsys, "flat")[0] == 0


def test_freeze_and_verify(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "flat", "--root", root, "--freeze", "--json")
    assert code == 0
    assert json.loads(out)["files"] == 4
    assert "4 files are as frozen" in call(capsys, "flat", "--root", root)[1]
    code, _, err = call(capsys, "flat", "--root", root, "--freeze")
    assert code == 2
    assert "--force" in err
    assert call(capsys, "flat", "--root", root, "--freeze", "--out", root.parent / "other.toml")[0] == 0
    write_png(root / "a_rgb.png", 255 - PHOTO)
    code, out, _ = call(capsys, "flat", "--root", root)
    assert code == 4
    assert "1 changed since the freeze: a_rgb.png" in out


def test_prepare_explains_without_any_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "diode", "--prepare")
    assert (code, err) == (0, "")
    for expected in ("5c895d09201b88973c8fe4552a67dd85", "2774625282", "MIT", "val/{indoors,outdoor}", "--archive"):
        assert expected in out
    code, out, _ = call(capsys, "diode", "--prepare", "--json")
    assert json.loads(out)["archives"][0]["name"] == "val.tar.gz"


def test_prepare_shows_the_layout_of_own_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'images = "rgb/{id}.png"' in call(capsys, "folder", "--prepare")[1]
    assert "NAME_rgb.png" in call(capsys, "flat", "--prepare")[1]


def test_prepare_unpacks_then_doctor_reads(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        for path in sorted(root.iterdir()):
            handle.write(path, path.name)
    target = tmp_path / "unpacked"
    arguments = ("flat", "--root", target, "--prepare", "--archive", archive)
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "4 files written" in out
    assert "not an official file" in out
    assert "0 files written, 4 lay there already" in call(capsys, *arguments)[1]
    assert call(capsys, "flat", "--root", target)[0] == 0


def test_an_archive_with_another_digest_is_not_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val.tar.gz").write_bytes(b"half of it")
    target = tmp_path / "diode"
    code, _, err = call(capsys, "diode", "--root", target, "--prepare", "--archive", tmp_path / "val.tar.gz")
    assert code == 4
    assert "published are 2774625282" in err
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["flat", "--prepare", "--freeze"], "exclude each other"),
        (["flat", "--archive", "x.zip"], "belongs to --prepare"),
        (["flat", "--out", "x.toml"], "belongs to --freeze"),
        (["flatt", "--prepare"], "did you mean 'flat'"),
        (["flat", "--prepare", "--archive", "x.zip"], "--root"),
        (["flat", "--option", "depth_scale"], "KEY=VALUE"),
    ],
)
def test_usage(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REASONX_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert text in err
