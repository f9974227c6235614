"""Files as a user put them there: what systems leave is left out, links are followed, near names are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reasonx_eval.errors import DataError, SampleError
from reasonx_eval.io.images import read_npy
from reasonx_eval.io.walk import from_system, near_names, walk_files

LEFT = ["._0001.png", ".DS_Store", "__MACOSX", "Thumbs.db", "THUMBS.DB", "desktop.ini", "@eaDir",
        ".ipynb_checkpoints", "0001.png.part", "0001.png.crdownload", "0001.png~", ".nfs0000001",
        ".0001.png.swp", "$RECYCLE.BIN"]  # fmt: skip
OWN = ["0001.png", "thumbs.png", "_0001.png", "a.b.png", "part.png", "@1.png", "MACOSX"]


def test_names_of_systems_and_of_users() -> None:
    assert all(map(from_system, LEFT))
    assert not any(map(from_system, OWN))


def test_a_walk_gives_the_users_files_once_and_follows_links(tmp_path: Path) -> None:
    base = tmp_path / "set"
    for name in (*OWN, *LEFT, "__MACOSX2/x.png", "room/@eaDir/1.png", "room/2.png", ".cache/3.png"):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "4.png").write_bytes(b"x")
    os.symlink(tmp_path / "elsewhere", base / "linked")
    os.symlink(base, base / "room" / "loop")
    os.symlink(tmp_path / "gone", base / "dead.png")
    found = [p.relative_to(base).as_posix() for p in walk_files(base)]
    assert sorted(found) == sorted([*OWN, "__MACOSX2/x.png", "room/2.png", "linked/4.png", "dead.png"])


def test_a_folder_that_cant_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("room"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="room: can't be listed: Permission denied"):
        list(walk_files(tmp_path))


def test_near_names(tmp_path: Path) -> None:
    for name in ("0001.PNG", "0001.jpeg", "0001.txt", "0001_depth.png", "._0001.tif", ".0002.png.icloud"):
        (tmp_path / name).write_bytes(b"x")
    assert near_names(tmp_path / "0001.png") == ["0001.PNG", "0001.jpeg"]
    assert near_names(tmp_path / "0001.json") == []
    (tmp_path / "cafe\u0301.png").write_bytes(b"x")  # as macOS writes it
    assert near_names(tmp_path / "caf\u00e9.png") == ["cafe\u0301.png"]
    assert near_names(tmp_path / "0002.png") == [".0002.png.icloud"]
    assert near_names(tmp_path / "nowhere" / "0001.png") == []


def test_a_missing_file_names_what_is_nearly_there(tmp_path: Path) -> None:
    (tmp_path / "a.NPY").write_bytes(b"x")
    with pytest.raises(SampleError, match=r"a\.npy: file is missing; there is a\.NPY"):
        read_npy(tmp_path / "a.npy")
