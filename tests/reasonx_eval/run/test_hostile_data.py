"""Damaged data sets, end to end: one message, the designed exit code, and the rest of the samples goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.datasets.nyuv2 import check_splits
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.io.images import write_png
from reasonx_eval.selftest import writers
from tests.reasonx_eval.datasets.makers import nyu_images, photo

MAT = "nyu_depth_v2_labeled.mat"


def run(*arguments: object) -> int:
    return run_cli(cli, [str(a) for a in arguments])


def evaluate(name: str, root: Path, out: Path, *more: str) -> int:
    return run("run", "--model", "plane-depth", "--dataset", name, "--root", root, "--out", out, "--json", *more)


def _without_target(file: h5py.File) -> None:
    del file["rawDepths"]
    file["rawDepths"] = h5py.ExternalLink("/nonexistent.h5", "x")


def _circle(file: h5py.File) -> None:
    del file["rawDepths"]
    file["rawDepths"] = h5py.SoftLink("/rawDepths")


@pytest.mark.parametrize("damage", [_without_target, _circle])
def test_mat_whose_array_leads_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[h5py.File], None]
) -> None:
    writers.write_nyuv2_mat(tmp_path / MAT, {}, {1: "kitchen_0001"})
    with h5py.File(tmp_path / MAT, "r+") as file:
        damage(file)
    assert evaluate("nyuv2", tmp_path, tmp_path / "out") == 4
    printed = capsys.readouterr()
    assert "'rawDepths' can't be opened" in printed.err
    assert MAT in printed.err
    assert run("doctor", "nyuv2", "--root", tmp_path) == 4


def _scenes_are_a_group(file: h5py.File) -> None:
    del file["scenes"]
    file.create_group("scenes")


def _scene_is_a_group(file: h5py.File) -> None:
    file["scenes"][0, 0] = file.create_group("other").ref


@pytest.mark.parametrize("damage", [_scenes_are_a_group, _scene_is_a_group])
def test_mat_with_damaged_scenes_names_the_file_and_the_doctor_survives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[h5py.File], None]
) -> None:
    writers.write_nyuv2_mat(tmp_path / MAT, nyu_images((1,)), {1: "kitchen_0001"})
    with h5py.File(tmp_path / MAT, "r+") as file:
        damage(file)
    assert evaluate("nyuv2", tmp_path, tmp_path / "out", "--samples", "0001") == 6
    (reason,) = json.loads(capsys.readouterr().out)["failed"].values()
    assert MAT in reason
    assert "scene of image 1" in reason
    assert run("doctor", "nyuv2", "--root", tmp_path) == 4
    assert "scene of image 1" in capsys.readouterr().out


def test_a_link_to_itself_among_the_scenes_is_passed_over(tmp_path: Path) -> None:
    for number, image in nyu_images((1,)).items():
        writers.write_nyuv2_extracted(tmp_path / "test", number, "kitchen_0001", image)
    for folder in (tmp_path, tmp_path / "test"):
        (folder / "loop").symlink_to(folder / "loop")
    assert evaluate("nyuv2", tmp_path, tmp_path / "out", "--samples", "0001") == 0


def test_splits_saved_as_float64_are_the_same_splits(tmp_path: Path) -> None:
    from scipy.io import savemat

    columns = {f"{s}Ndxs": np.array([[float(n)] for n in split_lines(f"nyuv2_{s}")]) for s in ("train", "test")}
    savemat(tmp_path / "splits.mat", columns)
    check_splits(tmp_path / "splits.mat")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0" * 700])
def test_archive_that_is_no_archive_is_one_message_and_not_454_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "eth3d.tar").write_bytes(content)
    assert evaluate("eth3d", tmp_path, tmp_path / "out") == 4
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {tmp_path / 'eth3d.tar'}: ")
    assert printed.err.count("eth3d.tar") == 1
    assert run("doctor", "eth3d", "--root", tmp_path) == 4


def test_damaged_exr_leaves_json_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import OpenEXR

    card = 'name = "mine"\nimages = "{id}.png"\n[depth]\npath = "{id}.exr"\n'
    (tmp_path / "dataset.toml").write_text(card, encoding="utf-8")
    random = np.random.default_rng(0)
    for name in "ab":
        write_png(tmp_path / f"{name}.png", photo(random, 60, 80))
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"Z": random.uniform(1, 5, (60, 80)).astype(np.float32)}) as file:
            file.write(str(tmp_path / f"{name}.exr"))
    whole = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "a.exr").write_bytes(whole[: len(whole) // 2])
    assert evaluate("folder", tmp_path, tmp_path / "out") == 6
    result = json.loads(capfd.readouterr().out)
    assert list(result["failed"]) == ["a"]
    assert "a.exr" in result["failed"]["a"]
    assert run("doctor", "folder", "--root", tmp_path, "--json") == 4
    json.loads(capfd.readouterr().out)


def test_own_folder_is_measured_by_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = 'name = "mine"\nimages = "{id}.png"\n[depth]\npath = "{id}.npy"\n'
    (tmp_path / "dataset.toml").write_text(card, encoding="utf-8")
    random = np.random.default_rng(0)
    write_png(tmp_path / "a.png", photo(random, 60, 80))
    np.save(tmp_path / "a.npy", random.uniform(1, 5, (60, 80)))
    base = ("--dataset", "folder", "--root", tmp_path, "--out", tmp_path / "out", "--json")
    assert run("run", "--model", "constant", *base) in (0, 6)
    assert json.loads(capsys.readouterr().out)["protocol"]["name"] == "depth/generic"
    assert run("run", "--model", "retinex", *base) == 2
    assert "it has depth, and nothing to measure albedo, irradiance with" in capsys.readouterr().err


CARD = 'name = "mine"\nimages = "{id}.png"\n[depth]\npath = "{id}.npy"\n[splits]\ntest = "%s"\n'


def own_folder(root: Path, rule: str = "ids.txt", ids: bytes = b"a\nb\n", encoding: str = "utf-8") -> None:
    (root / "dataset.toml").write_text(CARD % rule, encoding=encoding)
    (root / "ids.txt").write_bytes(ids)
    random = np.random.default_rng(0)
    for name in "ab":
        write_png(root / f"{name}.png", photo(random, 60, 80))
        np.save(root / f"{name}.npy", random.uniform(1, 5, (60, 80)))


def test_card_and_list_that_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    own_folder(tmp_path, ids=b"\xef\xbb\xbfa\r\nb\r\n", encoding="utf-8-sig")
    assert evaluate("folder", tmp_path, tmp_path / "out", "--split", "test") == 0


def test_list_of_ids_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_folder(tmp_path, ids=b"caf\xe9\n")
    assert evaluate("folder", tmp_path, tmp_path / "out", "--split", "test") == 4
    assert "ids.txt" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["/etc/passwd", "../ids.txt", "~/ids.txt"])
def test_list_of_ids_that_leaves_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str) -> None:
    own_folder(tmp_path, rule)
    assert evaluate("folder", tmp_path, tmp_path / "out", "--split", "test") == 2
    assert "must be a path inside" in capsys.readouterr().err


def test_photo_that_is_a_dead_link_stays_in_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_folder(tmp_path)
    (tmp_path / "c.png").symlink_to("/nonexistent.png")
    assert evaluate("folder", tmp_path, tmp_path / "out") == 6
    result = json.loads(capsys.readouterr().out)
    assert result["n_total"] == 3
    assert list(result["failed"]) == ["c"]


def test_half_a_data_set_under_another_suffix_is_said_first_and_kept_in_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    for k in range(4):
        write_png(root / "rgb" / f"{k}.png", np.full((24, 32, 3), 90, np.uint8))
        write_png(root / "depth" / f"{k}.png", np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) + 1000)
    (root / "rgb/2.png").rename(root / "rgb/2.PNG")
    (root / "rgb/3.png").rename(root / "rgb/3.jpeg")
    (root / "rgb/._0.png").write_bytes(b"Mac OS X")
    (root / "dataset.toml").write_text(
        'name = "mine"\nimages = "rgb/{id}.png"\n[depth]\npath = "depth/{id}.png"\nscale = 0.001\n', encoding="utf-8")
    args = ["run", "--model", "plane-depth", "--dataset", str(root), "--out", str(tmp_path / "out")]
    assert run_cli(cli, [*args, "-q"]) == 0
    printed = capsys.readouterr()
    said = 'photos not read, as letter case or suffix is not that of images = "rgb/{id}.png": 2 (rgb/2.PNG, rgb/3.jpeg)'
    assert printed.err.splitlines()[0] == f"note: {said}"
    [stored] = (tmp_path / "out").rglob("result.json")
    assert json.loads(stored.read_text())["notes"][0] == said


def test_ids_that_file_systems_refuse_cost_one_sample_each(tmp_path: Path) -> None:
    from reasonx_eval.protocols.protocol import get_protocol
    from reasonx_eval.run.loop import RunOptions, run
    from reasonx_eval.types import Sample
    from tests.helpers.fakes import Fake, Noisy

    names = ["a" * 246, "b" * 300, "half \ud800", "latin \udce9", "plain"]

    class Named(Fake):
        @property
        def ids(self) -> list[str]:
            return names

        @property
        def ids_digest(self) -> str:
            return "0" * 64

        def load(self, sample_id: str, want: object = None) -> Sample:
            return replace(super().load(f"room/{names.index(sample_id):02d}"), id=sample_id)

    result = run(Noisy(), Named(), get_protocol("depth/generic"), tmp_path / "out", RunOptions(save_predictions=True))
    assert list(result.failed) == ["half \ud800"]
    assert result.n_scored == 4
    assert "no file's name" in result.failed["half \ud800"]
    again = run(Noisy(), Named(), get_protocol("depth/generic"), tmp_path / "out", RunOptions(save_predictions=True))
    assert again == result
