"""The shipped id lists against digests and counts published elsewhere, and against the real files if present."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets import splits
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.errors import DataError
from reasonx_eval.io.digests import sha256_lines
from reasonx_eval.protocols.lock import locked
from tests.helpers.shared import SHARED

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="REASONX_SHARED: no folder with real sample data")


def test_every_list_reads_and_every_file_is_listed() -> None:
    folder = Path(splits.__file__).parents[1] / "protocols" / "data" / "splits"
    names = {p.stem for p in folder.glob("*.txt")}
    assert {n for n in locked() if n.startswith("splits/")} == {f"splits/{n}" for n in names}
    for name in names:
        lines = split_lines(name)
        assert len(set(lines)) == len(lines)


def test_an_edited_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "locked", lambda: {"splits/iiw_test": "0" * 64})
    with pytest.raises(DataError, match="not the official ones"):
        split_lines.__wrapped__("iiw_test")


def test_a_missing_list_is_refused() -> None:
    with pytest.raises(DataError, match="can't be read"):
        split_lines.__wrapped__("nowhere")


def test_iiw() -> None:
    everything, test = split_lines("iiw_all"), split_lines("iiw_test")
    assert (len(everything), len(test)) == (5230, 1046)
    assert list(everything) == sorted(everything)  # as strings: 100010 before 54
    assert test == everything[::5]
    assert test[:6] == ("100010", "100091", "100162", "100303", "100347", "100370")
    assert test[-4:] == ("99823", "99880", "99909", "99972")
    assert sha256_lines(test) == "22965c79f0d77b7e96ea0ad4659bc65f5889a6f66f726aaed649f0b803ae39d9"


def test_nyuv2() -> None:
    train, test = (list(map(int, split_lines(f"nyuv2_{s}"))) for s in ("train", "test"))
    assert (len(train), len(test)) == (795, 654)
    assert sorted(train + test) == list(range(1, 1450))
    assert sha256_lines(map(str, test)) == "d29392361b1bd7f626fa67fdc1d0ca34c944a07cb58dda863cd217f46fd1c698"
    assert [int(line.split()[0]) for line in split_lines("nyuv2_test_scenes")] == test


def test_eth3d_scene_counts() -> None:
    counts = Counter(i.split("/")[0] for i in split_lines("eth3d_dslr"))
    assert counts == {
        "facade": 76, "electro": 45, "delivery_area": 44, "terrains": 42, "courtyard": 38, "playground": 38,
        "relief": 31, "relief_2": 31, "kicker": 31, "office": 26, "terrace": 23, "meadow": 15, "pipes": 14,
    }  # fmt: skip


def test_diode_scene_counts() -> None:
    indoor, outdoor = split_lines("diode_val_indoor"), split_lines("diode_val_outdoor")
    assert Counter(i.split("/")[1] for i in indoor) == {"scene_00019": 73, "scene_00020": 137, "scene_00021": 115}
    assert {i.split("/")[1] for i in outdoor} == {"scene_00022", "scene_00023", "scene_00024"}
    assert len(outdoor) == 446
    assert all(i.startswith("indoors/") for i in indoor)
    assert all(i.startswith("outdoor/") for i in outdoor)


def _first_column(path: str) -> list[str]:
    return [line.split()[0] for line in (SHARED / path).read_text().splitlines() if line.strip()]


@needs_shared
def test_real_nyuv2_lists_agree_whatever_they_count_from() -> None:
    from scipy.io import loadmat

    official = loadmat(SHARED / "nyuv2/splits/splits.mat")
    test = [int(n) for n in split_lines("nyuv2_test")]
    assert official["testNdxs"].ravel().tolist() == test
    assert official["trainNdxs"].ravel().tolist() == [int(n) for n in split_lines("nyuv2_train")]
    assert [int(p[-8:-4]) for p in _first_column("nyuv2/splits/marigold_nyu_filename_list_test.txt")] == test
    bts = _first_column("nyuv2/splits/bts_nyudepthv2_test_files_with_gt.txt")
    assert sorted(int(p[-9:-4]) + 1 for p in bts) == test
    assert [int(Path(p).name[:6]) + 1 for p in _first_column("nyuv2/splits/dsine_nyuv2_test.txt")] == test
    normals = _first_column("nyuv2/splits/marigold_nyuv2_normals_test.txt")
    assert sorted(int(p[:6]) + 1 for p in normals) == test


@needs_shared
def test_real_iiw_eth3d_and_diode_lists_agree() -> None:
    iiw = {s: np.load(SHARED / f"iiw/splits/narihira_iiw_{s}_ids.npy") for s in ("train", "test")}
    assert set(map(str, iiw["test"].tolist())) == set(split_lines("iiw_test"))
    assert set(map(str, [*iiw["train"].tolist(), *iiw["test"].tolist()])) == set(split_lines("iiw_all"))
    eth3d = _first_column("eth3d/marigold_eth3d_filename_list.txt")
    assert tuple(f"{p.split('/')[1]}/{Path(p).stem}" for p in eth3d) == split_lines("eth3d_dslr")
    for part in ("indoor", "outdoor"):
        names = _first_column(f"diode/marigold_diode_val_{part}_filename_list.txt")
        assert tuple(n.removesuffix(".png") for n in names) == split_lines(f"diode_val_{part}")
    both = {*split_lines("diode_val_indoor"), *split_lines("diode_val_outdoor")}
    assert {n.removesuffix(".png") for n in _first_column("diode/marigold_diode_normals_test.txt")} == both
