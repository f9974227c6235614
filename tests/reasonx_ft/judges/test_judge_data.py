"""Training data for judges: right answers, balance, three files of the same rows, going on after a stop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from reasonx_eval.cli.main import run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.images import read_rgb
from reasonx_eval.io.selection import Selection
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import FIRST, LEFT_OUT, SAME, SECOND
from reasonx_ft.annotation.markers import GREEN, RED
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import MODALITIES, read_questions
from reasonx_ft.cli.main import cli
from reasonx_ft.judges.evaluation.truth import map_relation, photo_of
from reasonx_ft.judges.training.data import choose, read_data, write_data


@pytest.fixture(scope="module")
def data() -> Recent:
    return Recent(load_dataset("scenes-broad", split="val"), MODALITIES)


def write(data: Recent, out: Path, **how):
    given = {"pairs": 4, "picture": "png", "selection": Selection(limit=2), **how}
    return write_data(data, out, read_questions(), **given)


@pytest.fixture(scope="module")
def written(data: Recent, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write(data, out)
    return out


def test_rows_say_what_the_ground_truth_says(data: Recent, written: Path):
    card, rows = read_data(written)
    assert len(rows) == card.rows == 2 * 4 * 4
    questions = read_questions()
    for row in rows:
        about = row["metadata"]
        points = np.array([[about["first"], about["second"]]])
        [code] = map_relation(data.load(about["sample"]), about["modality"], points)
        assert code != LEFT_OUT
        if about["modality"] == "albedo":
            assert about["answer"] == ("same" if code == SAME else "different")
        else:
            red_first = about["order"] == "red-first"
            assert about["answer"] == ("red" if (code == FIRST) == red_first else "green")
            assert code in (FIRST, SECOND)
        template = questions[about["modality"]]
        asked, said = (turn["value"] for turn in row["conversations"])
        assert asked == "<image>\n" + template.question
        assert said == template.prefix + template.answers[about["answer"]]
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]


def test_pictures_have_both_points_in_their_colours(written: Path):
    _, rows = read_data(written)
    for row in rows[::5]:
        about, picture = row["metadata"], read_rgb(written / row["image"])
        assert picture.shape == (512, 512, 3)
        colours = (RED, GREEN) if about["order"] == "red-first" else (GREEN, RED)
        for (x, y), colour in zip((about["first"], about["second"]), colours, strict=True):
            assert tuple(picture[y, x]) == colour


def test_parquet_has_the_rows_of_the_jsonl(written: Path):
    _, rows = read_data(written)
    table = pq.read_table(written / "pairs.parquet").to_pylist()
    assert [t["id"] for t in table] == [r["id"] for r in rows]
    for t, r in zip(table, rows, strict=True):
        assert t["answer"] == r["conversations"][1]["value"]
        assert t["meaning"] == r["metadata"]["answer"]
        assert t["first"] == r["metadata"]["first"]


def test_answers_are_balanced(data: Recent):
    counts: Counter[str] = Counter()
    bands: Counter[str] = Counter()
    for sample_id in data.dataset.ids[:6]:
        sample = data.load(sample_id)
        for modality in MODALITIES:
            chosen = choose(sample, photo_of(sample), modality, pairs=20, same=0.5, seed=0)
            assert len(chosen.relation) == 20
            assert (chosen.relation == map_relation(sample, modality, chosen.points)).all()
            if modality == "albedo":
                counts["same"] += int((chosen.relation == SAME).sum())
            else:
                assert (chosen.relation == FIRST).sum() == 10
            length = np.sqrt(((chosen.points[:, 0] - chosen.points[:, 1]) ** 2).sum(axis=1))
            bands.update(np.digitize(length, [40, 80, 150, 280]).tolist())
    assert counts["same"] >= 0.4 * 6 * 20
    assert min(bands.values()) > 0.1 * sum(bands.values())


def test_rows_of_a_photo_depend_on_seed_and_photo_alone(data: Recent, tmp_path: Path, written: Path):
    _, rows = read_data(written)
    write(data, tmp_path / "one", selection=Selection(samples=[data.dataset.ids[0]]))
    _, alone = read_data(tmp_path / "one")
    assert alone == [r for r in rows if r["metadata"]["sample"] == data.dataset.ids[0]]
    write(data, tmp_path / "other", seed=1)
    assert read_data(tmp_path / "other")[1] != rows


def test_an_interrupted_run_goes_on(data: Recent, tmp_path: Path, written: Path):
    def stop(done: int, _total: int, _failed: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(data, tmp_path / "d", progress=stop)
    with pytest.raises(UsageError, match="unfinished"):
        read_data(tmp_path / "d")
    first = next((tmp_path / "d" / "images").rglob("*.png"))
    stamp = first.stat().st_mtime_ns
    write(data, tmp_path / "d")
    assert first.stat().st_mtime_ns == stamp
    assert (tmp_path / "d" / "pairs.jsonl").read_bytes() == (written / "pairs.jsonl").read_bytes()
    with pytest.raises(UsageError, match="other settings"):
        write(data, tmp_path / "d", seed=3)


def test_edited_rows_are_refused(data: Recent, tmp_path: Path):
    write(data, tmp_path / "d", selection=Selection(limit=1), pairs=1)
    rows = tmp_path / "d" / "pairs.jsonl"
    rows.write_text(rows.read_text().replace('"answer":"', '"answer":"x'))
    with pytest.raises(DataError, match="not the rows"):
        read_data(tmp_path / "d")


def test_only_datasets_with_maps(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UsageError, match="not an empty folder"):
        write(Recent(load_dataset("scenes-broad", split="val"), MODALITIES), tmp_path / "full")


def test_the_command(tmp_path: Path, capsys):
    line = ["judge-data", "--dataset", "scenes-synthetic", "--split", "val", "--limit", "1", "--pairs", "2", "--out",
            str(tmp_path / "d"), "--modalities", "albedo,depth", "-q"]  # fmt: skip
    assert run_cli(cli, [*line, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["rows"], card["photos"], set(card["answers"])) == (4, 1, {"albedo", "depth"})
    assert run_cli(cli, line) == 0  # all there
    assert "4 questions about 1 photos" in capsys.readouterr().out
    assert run_cli(cli, [*line[:-3], "--modalities", "albdo", "-q"]) == 2
