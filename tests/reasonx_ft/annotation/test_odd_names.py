"""Names of photos and judges in another encoding are kept as they are, and no command fails because of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reasonx_eval.cli.main import run_cli
from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.annotate import Plan, annotate
from reasonx_ft.annotation.judgements import Store, merge
from reasonx_ft.annotation.photos import open_photos
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.annotation.store.schema import original_text, stored_text
from reasonx_ft.cli.main import cli
from reasonx_ft.types import Answer, Judge, JudgeInfo, Question

QUESTIONS = read_questions()
#: a name in Latin-1, as Python names it
ODD = os.fsdecode(b"caf\xe9.png")


class OddlyNamed(Judge):
    """Says 0.75 to everything; its name and its notes hold half a character."""

    batch_size = 16

    @property
    def info(self) -> JudgeInfo:
        return JudgeInfo("jud\udce9ge", "1", notes=("\ud83d",), options={"folder": os.fsdecode(b"mod\xe8le")})

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(0.75) for _ in questions]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for k, name in enumerate(["a.png", ODD, "z.png"]):
        try:
            Image.fromarray(rng(k, "p").integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path / name)
        except OSError:
            pytest.skip("this file system holds no names in another encoding")
    return path


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Path:
    annotate(open_photos(str(folder)), OddlyNamed(), tmp_path / "s", QUESTIONS, Plan(pairs=5, workers=1))
    return tmp_path / "s"


@pytest.mark.parametrize("name", [
    "a.png", "", "é", ODD, "\udcff", "\ud83d\ude00", r"\udcff", "\\\udcff", r"\\udcff", "\\\\\udcff.png", r"\u00e9",
    "\\", "\\\udcff" + r"\\\ud800", r"a\b", "\udcffudcff", r"\uDCFF",
])  # fmt: skip
def test_a_name_is_stored_as_text_and_read_back_as_it_was(name: str) -> None:
    stored_text(name).encode()
    assert original_text(stored_text(name)) == name


def test_usual_names_are_stored_as_they_are() -> None:
    for name in ("a.png", "rooms/é 1.jpg", r"a\b.png", r"\u00e9"):
        assert stored_text(name) == name


def test_every_photo_is_asked_about_and_named(store: Path) -> None:
    opened = Store.open(store)
    assert not opened.damaged
    assert set(opened.columns.names) == {"a.png", ODD, "z.png"}
    assert len(opened) == 3 * 5 * 2 * 4
    assert opened.judges() == {OddlyNamed().info.revision: "jud\udce9ge"}
    assert opened.about.judges[OddlyNamed().info.revision]["notes"] == ["\ud83d"]


def test_nothing_is_asked_again(folder: Path, store: Path) -> None:
    again = annotate(open_photos(str(folder)), OddlyNamed(), store, QUESTIONS, Plan(pairs=5, workers=1))
    assert (again.asked, again.known, again.damaged) == (0, 120, [])


def test_stores_are_joined(store: Path, tmp_path: Path) -> None:
    merge([Store.open(store)], tmp_path / "all")
    assert set(Store.open(tmp_path / "all").columns.names) == {"a.png", ODD, "z.png"}


@pytest.mark.parametrize("arguments", [
    ["stats"], ["stats", "--json"], ["verify"], ["verify", "--json"], ["show"], ["show", "--json"],
    ["show", "--photo", ODD], ["show", "--photo", ODD, "--json"], ["show", "--judge", "jud\udce9ge"], ["merge"],
    ["merge", "--json"],
])  # fmt: skip
def test_commands(store: Path, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    verb, *more = arguments
    assert run_cli(cli, ["judgements", verb, str(store), *more]) == 0
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    if "--photo" in more and "--json" in more:
        assert {row["name"] for row in json.loads(out)} == {ODD}
    elif "--json" not in more and verb == "show" and "--photo" in more:
        assert r"caf\xdce9.png" in out


def test_an_unknown_judge_is_named(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["judgements", "show", str(store), "--judge", "other\udcff"]) == 2
    assert "other" in capfd.readouterr().err


def test_annotate_on_the_command_line(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / os.fsdecode(b"bad\xe9.png")).write_bytes(b"no picture")
    arguments = ["annotate", str(folder), "--judge", "tiny", "--out", str(tmp_path / os.fsdecode(b"st\xf6re")),
                 "--pairs", "2", "-q"]  # fmt: skip
    for more in ([], ["--json"]):
        assert run_cli(cli, [*arguments, *more]) == 6
        out, err = capfd.readouterr()
        assert r"bad\xdce9.png" in err
        assert "1 of 4 photos" in err
        assert not more or json.loads(out)["photos"] == 3


def test_tuning_reads_it(folder: Path, tmp_path: Path) -> None:
    from reasonx_ft import tune

    odd = tmp_path / os.fsdecode(b"st\xf6re")
    annotate(open_photos(str(folder)), OddlyNamed(), odd, QUESTIONS, Plan(pairs=10, workers=1))
    (folder / os.fsdecode(b"bad\xe9.png")).write_bytes(b"no picture")
    quick = {"optimiser.steps": 1, "objective.rehearsal": 0, "guard.unrewarded_metrics": [], "watch.export": "last",
             "data.held_out": 0.4}  # fmt: skip
    done = tune("tiny", photos=folder, judgements=odd, out=tmp_path / os.fsdecode(b"r\xfcn"), method="grpo",
                settings=quick)  # fmt: skip
    assert done.step == 1


def test_training_data_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reasonx_eval.registry import load_dataset
    from reasonx_ft.annotation.photos import Recent
    from reasonx_ft.judges.training.data import read_data, write_data

    dataset = load_dataset("scenes-wild", split="test")
    first, load = dataset.ids[0], dataset.load
    monkeypatch.setattr(type(dataset), "ids", (ODD,))
    monkeypatch.setattr(dataset, "load", lambda _id, want=(): replace(load(first, want), id=ODD))
    for _ in range(2):
        write_data(Recent(dataset, ("depth",)), tmp_path / "d", QUESTIONS, modalities=("depth",), pairs=2)
    _, rows = read_data(tmp_path / "d")
    assert {row["metadata"]["sample"] for row in rows} == {ODD}
    assert all((tmp_path / "d" / row["image"]).is_file() for row in rows)
