"""Digests of ground truth that are kept: taken only while the files are exactly what they were, and never wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reasonx_eval.datasets.eth3d import ETH3D
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import Selection
from reasonx_eval.models.embedded.baselines import Constant
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run import kept_digests, provenance
from reasonx_eval.run.kept_digests import KeptDigests, reader_digest
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.scoring import array_digest
from reasonx_eval.selftest.writers import eth3d_names, write_eth3d
from reasonx_eval.types import Target
from tests.helpers.fakes import Fake

ID, OTHER = "courtyard/DSC_0286", "relief_2/DSC_0487"
SHAPE = (6, 8)


def metres(value: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.full(SHAPE, value, dtype=np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "eth3d"
    for sample_id, value in ((ID, 2.0), (OTHER, 3.0)):
        write_eth3d(root, sample_id, metres(value), np.zeros((*SHAPE, 3), dtype=np.uint8))
    return root


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were computed, not taken from what is kept."""
    found: list[str] = []

    def counting(target: Target) -> str:
        found.append(array_digest(target))
        return found[-1]

    monkeypatch.setattr(kept_digests, "array_digest", counting)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock that digests are dated by to so many seconds from now."""

    def at(seconds: float) -> None:
        clock = SimpleNamespace(time_ns=lambda: time.time_ns() + int(seconds * 1e9))
        monkeypatch.setattr(kept_digests, "time", clock)

    at(60)
    return at


def opened(root: Path, *, fresh: bool = False) -> KeptDigests:
    found = kept_digests.kept_digests(ETH3D(root, "train-dslr"), "depth", root.parent / "kept", fresh=fresh)
    assert found is not None
    return found


def digest(root: Path, sample_id: str = ID, *, fresh: bool = False) -> str:
    """One run over one sample."""
    kept = opened(root, fresh=fresh)
    after = kept.before(sample_id)
    found = after(ETH3D(root, "train-dslr").load(sample_id, {"depth"}).targets["depth"])
    kept.save()
    return found


def truth(root: Path, sample_id: str = ID) -> str:
    return array_digest(ETH3D(root, "train-dslr").load(sample_id, {"depth"}).targets["depth"])


def depth_file(root: Path, sample_id: str = ID) -> Path:
    return root / eth3d_names(sample_id)[1]


def test_files_as_they_were_are_not_hashed_again(root: Path, hashed: list[str], later: object) -> None:
    assert digest(root) == digest(root) == truth(root)
    assert hashed == [truth(root)]
    assert digest(root, OTHER) == truth(root, OTHER) != truth(root)
    assert digest(root) == truth(root)  # a run over one sample leaves the others' digests
    assert len(hashed) == 2


def test_file_changed_in_place_with_size_and_time_restored(root: Path, hashed: list[str], later: object) -> None:
    path = depth_file(root)
    before = digest(root)
    state = path.stat()
    with path.open("r+b") as handle:
        handle.write(metres(7.0).tobytes())
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert digest(root) == truth(root) != before
    assert digest(root) == truth(root)
    assert len(hashed) == 2


def test_file_replaced_by_another_of_the_same_size_and_time(root: Path, hashed: list[str], later: object) -> None:
    path = depth_file(root)
    before = digest(root)
    state = path.stat()
    other = path.with_name("other")
    other.write_bytes(metres(7.0).tobytes())
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(path)
    assert digest(root) == truth(root) != before


def test_photo_is_among_the_files(root: Path, hashed: list[str], later: object) -> None:
    digest(root)
    photo = root / eth3d_names(ID)[0]
    photo.write_bytes(photo.read_bytes())
    digest(root)
    assert len(hashed) == 2


@pytest.mark.parametrize("seconds", [0.0, -3600.0])
def test_what_has_just_changed_is_not_kept(
    root: Path, hashed: list[str], later: Callable[[float], None], seconds: float
) -> None:
    """Nor what is dated later than the clock."""
    later(seconds)
    assert digest(root) == digest(root) == truth(root)
    assert len(hashed) == 2
    later(60)
    digest(root)
    digest(root)
    assert len(hashed) == 3


def test_change_while_it_is_read(root: Path, hashed: list[str], later: object) -> None:
    """Neither is a digest of other bytes taken, nor one kept for them."""
    digest(root)
    kept = opened(root)
    after = kept.before(ID)
    depth_file(root).write_bytes(metres(7.0).tobytes())
    target = ETH3D(root, "train-dslr").load(ID, {"depth"}).targets["depth"]
    assert after(target) == array_digest(target)
    depth_file(root).write_bytes(metres(2.0).tobytes())
    kept.save()
    assert digest(root) == truth(root)
    assert len(hashed) == 3


def test_fresh_hashes_again_and_keeps_that(root: Path, hashed: list[str], later: object) -> None:
    digest(root)
    (file,) = (root.parent / "kept").iterdir()
    file.write_text(file.read_text().replace(truth(root), "0" * 16))
    assert digest(root) == "0" * 16  # what decays under the file system's feet is not seen
    assert digest(root, fresh=True) == truth(root)
    assert digest(root) == truth(root)
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2, "reader": "", "entries": {}}',
                                     '{"version": 1, "reader": "", "entries": {"a": {"stamp": [], "digest": "x"}}}'])
def test_damaged_file_costs_one_hashing(root: Path, hashed: list[str], later: object, content: str) -> None:
    digest(root)
    (file,) = (root.parent / "kept").iterdir()
    file.write_text(content)
    assert digest(root) == digest(root) == truth(root)
    assert len(hashed) == 2


def test_another_version_of_the_package_starts_afresh(
    root: Path, hashed: list[str], later: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest(root)
    (file,) = (root.parent / "kept").iterdir()
    assert json.loads(file.read_text())["reader"] == reader_digest()
    monkeypatch.setattr(kept_digests, "reader_digest", lambda: "another")
    digest(root)
    assert len(hashed) == 2
    assert json.loads(file.read_text())["reader"] == "another"


def test_reader_is_the_source_and_the_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def of(source: str, version: str) -> str | None:
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / "a.py").write_text(source)
        monkeypatch.setattr(kept_digests.reasonx_eval, "__file__", str(tmp_path / "__init__.py"))
        monkeypatch.setattr(kept_digests, "package_versions", lambda: {"numpy": version})
        return reader_digest.__wrapped__()

    assert of("a = 1", "2.0") == of("a = 1", "2.0")
    assert len({of("a = 1", "2.0"), of("a = 2", "2.0"), of("a = 1", "2.1")}) == 3
    (tmp_path / "sub" / "a.py").unlink()
    assert reader_digest.__wrapped__() is None


def test_options_have_digests_of_their_own(root: Path, hashed: list[str], later: object) -> None:
    digest(root)
    dataset = ETH3D(root, "train-dslr", {"layout": "folders"})
    kept = kept_digests.kept_digests(dataset, "depth", root.parent / "kept")
    assert kept is not None
    kept.before(ID)(dataset.load(ID, {"depth"}).targets["depth"])
    assert len(hashed) == 2


def test_nothing_is_kept_of_what_has_no_files_or_small_targets_or_unknown_readers(root: Path) -> None:
    from reasonx_eval.datasets.scenes.dataset import ScenesWild

    class PlugIn(ETH3D):
        pass

    folder = root.parent / "kept"
    assert kept_digests.kept_digests(ScenesWild(None, "val"), "depth", folder) is None
    assert kept_digests.kept_digests(ETH3D(root, "train-dslr"), "judgements", folder) is None
    assert kept_digests.kept_digests(PlugIn(root, "train-dslr"), "depth", folder) is None
    assert kept_digests.kept_digests(Fake(), "depth", folder) is None


def test_missing_file_is_left_to_the_reader(root: Path, hashed: list[str]) -> None:
    depth_file(root).unlink()
    assert opened(root).before(ID) is kept_digests.array_digest


def test_folder_that_can_not_be_written_costs_nothing_else(root: Path, hashed: list[str], later: object) -> None:
    (root.parent / "kept").touch()
    assert digest(root) == digest(root) == truth(root)


@pytest.mark.parametrize("workers", [1, 3])
def test_runs_give_the_same_bytes_with_and_without(
    root: Path, tmp_path: Path, hashed: list[str], later: object, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    selection = Selection(samples=[ID, OTHER])
    results = {}
    for name, kept, rehash in (("without", None, False), ("first", tmp_path / "kept", False),
                               ("second", tmp_path / "kept", False), ("again", tmp_path / "kept", True)):  # fmt: skip
        hashed.clear()
        run(Constant(), ETH3D(root, "train-dslr"), get_protocol("depth/eth3d-metric"), tmp_path / name,
            RunOptions(selection=selection, workers=workers, digests=kept, rehash=rehash))  # fmt: skip
        records = read_records(tmp_path / name / "records.jsonl")
        assert [r.data for r in records] == [truth(root, r.sample_id) for r in records]
        results[name] = [(tmp_path / name / file).read_bytes() for file in ("records.jsonl", "result.json", "run.json")]
        assert len(hashed) == {"without": 0, "first": 2, "second": 0, "again": 2}[name]
    assert all(found == results["without"] for found in results.values())
