"""Manifests: freezing, verifying, and what the package says about official files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets.flat import Flat
from reasonx_eval.datasets.folder import Folder
from reasonx_eval.datasets.mit_intrinsic import MITIntrinsic
from reasonx_eval.doctor import diagnose
from reasonx_eval.doctor.findings import Finding
from reasonx_eval.doctor.manifest import (
    freeze,
    official_manifest,
    read_manifest,
    verify_frozen,
    verify_official,
    write_manifest,
)
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.images import write_png
from reasonx_eval.registry import DATASETS, dataset_class

MANIFESTS = resources.files("reasonx_eval") / "protocols" / "data" / "manifests"
OFFICIAL = sorted(p.name.removesuffix(".toml") for p in MANIFESTS.iterdir())
PHOTO = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4


@pytest.fixture
def flat(tmp_path: Path) -> Flat:
    for name in ("a", 'b "quoted" ü'):
        write_png(tmp_path / f"{name}_rgb.png", PHOTO)
        write_png(tmp_path / f"{name}_albedo.png", np.full((4, 5, 3), 120, np.uint8))
    return Flat(tmp_path)


def fails(findings: list[Finding]) -> list[str]:
    return [f.message for f in findings if f.status == "fail"]


def test_a_freeze_reads_back_the_same_and_verifies(flat: Flat, tmp_path: Path) -> None:
    manifest = freeze(flat)
    assert [f.path for f in manifest.files] == sorted(p.name for p in tmp_path.iterdir())
    assert manifest.files[0].sha256 == sha256_file(tmp_path / manifest.files[0].path)
    assert manifest.splits["all"].n == 2
    write_manifest(manifest, tmp_path / "manifest.toml")
    assert read_manifest(tmp_path / "manifest.toml") == manifest
    assert fails(verify_frozen(Flat(tmp_path), manifest)) == []


def test_a_changed_byte_a_missing_and_an_extra_file_are_named(flat: Flat, tmp_path: Path) -> None:
    manifest = freeze(flat)
    raw = bytearray((tmp_path / "a_albedo.png").read_bytes())
    raw[40] ^= 1
    (tmp_path / "a_albedo.png").write_bytes(bytes(raw))
    (tmp_path / 'b "quoted" ü_albedo.png').unlink()
    write_png(tmp_path / "c_rgb.png", PHOTO)
    messages = fails(verify_frozen(Flat(tmp_path), manifest))
    assert any("1 missing" in m and "quoted" in m for m in messages)
    assert any("changed" in m and "a_albedo.png" in m and "c_rgb" not in m for m in messages)
    assert any("not in the manifest" in m and "c_rgb.png" in m for m in messages)
    assert any(m.startswith("3 ids") for m in messages)


def test_the_doctor_verifies_a_manifest_that_lies_there(flat: Flat, tmp_path: Path) -> None:
    write_manifest(freeze(flat), tmp_path / "manifest.toml")
    assert diagnose(Flat(tmp_path)).status == "ok"
    write_png(tmp_path / "a_rgb.png", PHOTO + np.uint8(1))
    report = diagnose(Flat(tmp_path))
    assert report.exit_code == 4
    assert any("a_rgb.png" in m for m in fails(list(report.findings)))


def test_a_manifest_of_another_split_or_dataset_is_not_used(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_png(tmp_path / "rgb" / f"{name}.png", PHOTO)
    (tmp_path / "dataset.toml").write_text('name = "mine"\nimages = "rgb/{id}.png"\n[splits]\none = "1*"\n')
    write_manifest(freeze(Folder(tmp_path)), tmp_path / "manifest.toml")
    report = diagnose(Folder(tmp_path, "one"))
    assert [f.status for f in report.findings if f.check == "manifest"] == ["warn"]
    assert report.exit_code == 0
    text = (tmp_path / "manifest.toml").read_text().replace('"mine"', '"other"')
    (tmp_path / "manifest.toml").write_text(text)
    assert [f.status for f in diagnose(Folder(tmp_path)).findings if f.check == "manifest"] == ["warn"]


def test_freezing_needs_every_file(tmp_path: Path) -> None:
    (tmp_path / "panther").mkdir()
    with pytest.raises(DataError, match=r"4 of 4 files are missing.*panther/mask\.png"):
        freeze(MITIntrinsic(tmp_path, "present"))


def test_an_existing_manifest_is_kept(flat: Flat, tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    write_manifest(freeze(flat), path)
    with pytest.raises(UsageError, match="--force"):
        write_manifest(freeze(flat), path)
    write_manifest(freeze(flat), path, force=True)


@pytest.mark.parametrize("text", ["schema = 2", "not toml", 'schema = 1\nkind = "frozen"\ndataset = "x"\nmd5 = "1"'])
def test_other_files_are_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(DataError, match=r"x\.toml"):
        read_manifest(tmp_path / "x.toml")


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_manifests_agree_with_the_datasets(name: str) -> None:
    assert name in DATASETS
    manifest = official_manifest(name)
    assert manifest is not None
    info = dataset_class(name).info
    assert (manifest.kind, manifest.dataset) == ("official", name)
    for split, entry in manifest.splits.items():
        assert info.splits[split] == entry.n
    for archive in manifest.archives:
        assert archive.url is None or archive.url.startswith(("http://", "https://"))


def test_datasets_with_official_files_have_a_manifest() -> None:
    assert set(OFFICIAL) >= {"iiw", "nyuv2", "nyuv2-normals", "eth3d", "diode", "mit-intrinsic"}


def test_official_ids(tmp_path: Path) -> None:
    from reasonx_eval.doctor.manifest import verify_split

    (tmp_path / "sun").mkdir()
    manifest = official_manifest("mit-intrinsic")
    assert manifest is not None
    data = MITIntrinsic(tmp_path, "all")
    assert verify_split(data, manifest) == []
    data._ids = data._ids[:-1]
    assert "official split has 20" in verify_split(data, manifest)[0].message
    data._ids = (*data._ids, "teapot")
    assert "not the official ones" in verify_split(data, manifest)[0].message


def test_official_files_in_the_root(tmp_path: Path) -> None:
    manifest = official_manifest("nyuv2")
    assert manifest is not None
    assert verify_official(tmp_path, manifest.archives, hashes=True) == []
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"short")
    assert verify_official(tmp_path, manifest.archives, hashes=True)[0].status == "fail"
