"""Files are whole or absent, whoever writes at the same time; ids become safe names."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from reasonx_eval.io.files import replacing, safe_name, write_bytes

SIZE = 200_000


def _write(path: Path, letter: int, times: int) -> None:
    os.getpid = lambda: 1  # as in two containers, whose first process has this number in both
    for _ in range(times):
        write_bytes(path, bytes([letter]) * SIZE)


def test_several_writers_with_one_process_number_never_tear_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.bin"
    write_bytes(path, b"a" * SIZE)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, ord("a") + k, 40)) for k in range(4)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(w.is_alive() for w in writers) or reads < 50:
        data = path.read_bytes()
        assert len(data) == SIZE
        assert len(set(data)) == 1
        reads += 1
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0] * 4
    assert os.listdir(tmp_path) == ["shared.bin"]


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def interrupted() -> None:
        with replacing(path) as handle:
            handle.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["n" * 246, "n" * 251, "é" * 125, "n" * 255])
def test_a_name_as_long_as_file_systems_take(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("sample_id", ["a/../b", "/a", "a//b", ".", "a\\b", "a\0b", "", "x\ud800"])
def test_ids_that_are_no_file_name_are_refused(sample_id: str) -> None:
    with pytest.raises(ValueError, match="sample id"):
        safe_name(sample_id)


def test_long_ids_get_a_name_of_their_own(tmp_path: Path) -> None:
    assert safe_name("room/" + "n" * 250) == "room/" + "n" * 250
    names = {safe_name("n" * 300), safe_name("n" * 301), safe_name("é" * 200), safe_name("é" * 201)}
    assert len(names) == 4
    for name in names:
        write_bytes(tmp_path / f"{name}.npy", b"")
    assert safe_name("caf\udce9") == "caf\udce9"  # a file's name in Latin-1
