"""Unpacking: nothing outside the folder, whole files only, and going on after an interruption."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.doctor import archives as module
from reasonx_eval.doctor import unpack as writing
from reasonx_eval.doctor.archives import safe_member
from reasonx_eval.doctor.manifest import Archive, archive_problems
from reasonx_eval.doctor.prepare import prepare
from reasonx_eval.doctor.unpack import unpack
from reasonx_eval.errors import DataError, UsageError

CONTENT = {"set/data/1.txt": b"one" * 1000, "set/data/2.txt": b"two", "set/readme": b""}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(params=["zip", "tar", "tar.gz"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"set.{request.param}"
    if request.param == "zip":
        return make_zip(path, CONTENT)
    return make_tar(path, CONTENT, "w" if request.param == "tar" else "w:gz")


def test_all_files_arrive_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = unpack(archive, root)
    assert tree(root) == CONTENT
    assert (done.written, done.kept, done.bytes) == (3, 0, sum(map(len, CONTENT.values())))


def test_goes_on_where_it_stopped(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack(archive, root)
    (root / "set/data/1.txt").unlink()
    (root / "set/data/.1.txt.part").write_bytes(b"half")
    before = (root / "set/data/2.txt").stat().st_mtime_ns
    done = unpack(archive, root)
    assert (done.written, done.kept) == (1, 2)
    assert tree(root) == CONTENT
    assert (root / "set/data/2.txt").stat().st_mtime_ns == before


def test_an_interruption_leaves_no_half_file(archive: Path, tmp_path: Path) -> None:
    def interrupt(_: int, name: str) -> None:
        if name.endswith("2.txt"):
            raise KeyboardInterrupt

    root = tmp_path / "root"
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, root, progress=interrupt)
    assert tree(root) == {"set/data/1.txt": CONTENT["set/data/1.txt"]}
    unpack(archive, root)
    assert tree(root) == CONTENT


def test_progress_counts_every_byte_once(archive: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    unpack(archive, tmp_path / "root", progress=lambda n, _: seen.append(n))
    assert sum(seen) == sum(map(len, CONTENT.values()))


def test_a_file_with_another_content_is_not_overwritten(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack(archive, root)
    mine = root / "set/data/1.txt"
    mine.write_bytes(b"my own notes")
    with pytest.raises(DataError, match="another content"):
        unpack(archive, root)
    assert mine.read_bytes() == b"my own notes"
    unpack(archive, root, force=True)
    assert tree(root) == CONTENT


def test_the_checksum_of_a_zip_finds_a_changed_byte(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "set.zip", CONTENT)
    unpack(archive, tmp_path / "root")
    (tmp_path / "root/set/data/2.txt").write_bytes(b"tw0")
    with pytest.raises(DataError, match=r"2\.txt"):
        unpack(archive, tmp_path / "root")


BAD_NAMES = ["/etc/passwd", "../up", "a/../../up", "a\\..\\..\\up", "C:/x", "", ".", "..", "a\0b", "./..", "//x"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: str) -> None:
    with pytest.raises(DataError):
        safe_member(name, Path("a.zip"))


@pytest.mark.parametrize(("name", "path"), [("./a/b", "a/b"), ("a//b", "a/b"), ("a..b/c", "a..b/c"), ("...", "...")])
def test_good_names(name: str, path: str) -> None:
    assert safe_member(name, Path("a.zip")).as_posix() == path


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil-reasonx.txt", "good/../../evil.txt"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_nothing_is_written_outside(tmp_path: Path, name: str, make: object) -> None:
    assert callable(make)
    suffix = "zip" if make is make_zip else "tar.gz"
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = make(inner / f"evil.{suffix}", {name: b"evil"})
    root = inner / "root"
    with pytest.raises(DataError, match="outside the folder"):
        unpack(archive, root)
    assert tree(tmp_path) == {f"inner/evil.{suffix}": archive.read_bytes()}
    assert not Path("/tmp/evil-reasonx.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("out")
        info.type = kind
        info.linkname = "/etc"
        archive.addfile(info)
    with pytest.raises(DataError, match="link or a device"):
        unpack(path, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_links_of_a_zip_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo("out")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(DataError, match="link or a device"):
        unpack(path, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_link_that_lies_in_the_folder_is_not_followed(archive: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "set").mkdir(parents=True)
    os.symlink(outside, root / "set" / "data")
    with pytest.raises(DataError, match="through the link"):
        unpack(archive, root)
    assert list(outside.iterdir()) == []
    (root / "set" / "data").unlink()
    (root / "set" / "data").mkdir()
    os.symlink(outside / "victim", root / "set" / "data" / "1.txt")
    os.symlink(outside / "victim", root / "set" / "data" / ".2.txt.part")
    with pytest.raises(DataError, match="through the link"):
        unpack(archive, root)
    (root / "set" / "data" / "1.txt").unlink()
    unpack(archive, root)
    assert list(outside.iterdir()) == []


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (module, writing):
        monkeypatch.setattr(where, "RESERVE", 0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))


@pytest.mark.usefixtures("small_disk")
def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    files = {f"{i}.bin": bytes(40_000) for i in range(3)}
    with pytest.raises(DataError, match="declares 120000 bytes"):
        unpack(make_zip(tmp_path / "bomb.zip", files), tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
    with pytest.raises(DataError, match="200000 bytes"):
        unpack(make_tar(tmp_path / "bomb.tar.gz", {"a": bytes(200_000)}), tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.usefixtures("small_disk")
def test_what_lies_there_already_needs_no_room(tmp_path: Path) -> None:
    files = {f"{i}.bin": bytes([i]) * 40_000 for i in range(3)}
    for i in range(2):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / f"{i}.bin").write_bytes(files[f"{i}.bin"])
    done = unpack(make_zip(tmp_path / "set.zip", files), tmp_path / "root")
    assert (done.written, done.kept) == (1, 2)


def _sparse_tar(path: Path, size: int) -> Path:
    """A few bytes that declare a file of `size` zeros, in the form of GNU tar."""
    info = tarfile.TarInfo("a")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with gzip.open(path, "wb") as archive:
        archive.write(bytes(block) + bytes(1024))
    return path


def test_few_bytes_that_become_many_are_refused_unless_the_limit_is_raised(tmp_path: Path) -> None:
    size = 3 << 30
    bomb = _sparse_tar(tmp_path / "bomb.tar.gz", size)
    assert bomb.stat().st_size < 200
    with pytest.raises(DataError, match=f"unpacks to {size} bytes or more, the limit is {256 << 20}") as caught:
        unpack(bomb, tmp_path / "root")
    assert "--max-bytes" in str(caught.value)
    assert tree(tmp_path / "root") == {}
    zeros = make_zip(tmp_path / "zeros.zip", {"a": bytes(100_000)})
    with pytest.raises(DataError, match="the limit is 99999"):
        unpack(zeros, tmp_path / "root", max_bytes=99_999)
    many = make_tar(tmp_path / "many.tar.gz", {f"{i}": bytes(40_000) for i in range(3)})
    with pytest.raises(DataError, match="unpacks to 120000 bytes or more"):
        unpack(many, tmp_path / "root", max_bytes=100_000)
    assert unpack(zeros, tmp_path / "other", max_bytes=100_000).bytes == 100_000


def test_the_flag_raises_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(module, "FREE_BYTES", 1000)
    archive = make_zip(tmp_path / "set.zip", {"a": bytes(1_000_000)})
    args = ["doctor", "flat", "--root", str(tmp_path / "root"), "--prepare", "--archive", str(archive)]
    assert run_cli(cli, args) == 4
    assert "--max-bytes" in capsys.readouterr().err
    assert run_cli(cli, [*args, "--max-bytes", "1000000"]) == 0
    assert (tmp_path / "root/a").stat().st_size == 1_000_000


def test_a_header_of_a_tar_is_not_read_whole_whatever_it_says(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "head.tar.gz", "wb") as archive:
        archive.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DataError, match="a header of 1073741824 bytes"):
        unpack(tmp_path / "head.tar.gz", tmp_path / "root")


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "lie.zip", {"a.txt": b"x" * 5000})
    raw = path.read_bytes()
    assert raw.count((5000).to_bytes(4, "little")) == 2
    path.write_bytes(raw.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "root")
    assert tree(tmp_path / "root") == {}


def test_damage(tmp_path: Path) -> None:
    cut = make_tar(tmp_path / "cut.tar.gz", {"a.bin": os.urandom(100_000)})
    cut.write_bytes(cut.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"truncated|damaged|interrupted"):
        unpack(cut, tmp_path / "root")
    assert tree(tmp_path / "root") == {}
    broken = tmp_path / "no.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="interrupted download"):
        unpack(broken, tmp_path / "root")
    flipped = make_zip(tmp_path / "flip.zip", {"a.bin": b"y" * 100})
    raw = bytearray(flipped.read_bytes())
    raw[35] ^= 0xFF
    flipped.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"a\.bin"):
        unpack(flipped, tmp_path / "root")
    assert tree(tmp_path / "root") == {}


def test_a_name_twice_and_a_file_in_the_way(tmp_path: Path) -> None:
    twice = tmp_path / "twice.tar"
    with tarfile.open(twice, "w") as archive:
        for data in (b"a", b"b"):
            info = tarfile.TarInfo("x")
            info.size = 1
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="twice"):
        unpack(twice, tmp_path / "root")
    nested = make_zip(tmp_path / "nested.zip", {"x/y": b"1"})
    with pytest.raises(DataError, match="a file lies where the folder"):
        unpack(nested, tmp_path / "root")


def test_unknown_types_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(UsageError, match=r"\.tar\.gz"):
        unpack(tmp_path / "a.rar", tmp_path / "root")
    with pytest.raises(UsageError, match="no such file"):
        unpack(tmp_path / "b.zip", tmp_path / "root")


def test_seven_zip_without_its_package_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "py7zr", None)
    (tmp_path / "a.7z").write_bytes(b"7z")
    with pytest.raises(UsageError, match="py7zr") as caught:
        unpack(tmp_path / "a.7z", tmp_path / "root")
    assert "pip install py7zr" in str(caught.value)
    assert f"7z x {tmp_path / 'a.7z'}" in str(caught.value)


def test_seven_zip(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr", reason="py7zr is optional")
    path = tmp_path / "set.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, data in CONTENT.items():
            archive.writestr(data, name)
    root = tmp_path / "root"
    assert unpack(path, root).written == 3
    assert tree(root) == CONTENT
    (root / "set/data/2.txt").unlink()
    done = unpack(path, root)
    assert (done.written, done.kept) == (1, 2)
    assert tree(root) == CONTENT


def test_published_digests(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example "abc"
    md5 = "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, example "abc"
    assert archive_problems(path, Archive(name="x", bytes=3, sha256=sha, md5=md5)) == []
    assert "4" in archive_problems(path, Archive(name="x", bytes=4))[0]
    assert "md5" in archive_problems(path, Archive(name="x", md5="0" * 32))[0]
    assert archive_problems(path, Archive(name="x", md5="0" * 32), hashes=False) == []


def test_prepare_verifies_first(tmp_path: Path) -> None:
    from reasonx_eval.doctor.manifest import Manifest

    archive = make_zip(tmp_path / "set.zip", CONTENT)
    good = Archive(name="set.zip", bytes=archive.stat().st_size)
    manifest = Manifest(schema=1, kind="official", dataset="x", archives=(good,))
    findings = prepare([archive], tmp_path / "root", manifest)
    assert [f.status for f in findings] == ["ok", "ok"]
    bad = manifest.model_copy(update={"archives": (Archive(name="set.zip", bytes=1),)})
    with pytest.raises(DataError, match="interrupted download"):
        prepare([archive], tmp_path / "other", bad)
    assert not (tmp_path / "other").exists()
    assert prepare([archive], tmp_path / "third", None)[0].status == "warn"
