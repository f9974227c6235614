"""A disk that is full: one clear error with the path, whatever a library makes of it, and no half-written file."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reasonx_eval.io.files import NO_SPACE, needing_space, replacing, write_bytes


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB: the system refuses to write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match="File too large") as caught:
        write_bytes(path, bytes(10_000))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.usefixtures("small_files")
def test_torch_hides_the_reason_and_it_is_found(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"), replacing(tmp_path / "state.pt") as handle:
        torch.save({"weights": torch.zeros(10_000)}, handle)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_every_form_of_the_same_error(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space left|quota") as caught, needing_space(tmp_path):
        raise error
    assert caught.value.filename == str(tmp_path)
    assert caught.value.errno in NO_SPACE


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), needing_space(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "a"):
        raise ValueError("mine")
