"""From run folders to reviewed files: real runs of small fake models, verified, and refused where they were touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.images import read_npy, write_npy
from reasonx_eval.io.results import load_result
from reasonx_eval.io.selection import Selection
from reasonx_eval.leaderboard.submissions import Submission, read_all, read_submission
from reasonx_eval.leaderboard.submit import submit, without_folders
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.run.loop import RunOptions, run
from tests.helpers.fakes import Fake, N, Noisy
from tests.reasonx_eval.leaderboard.makers import make


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a complete model, one with a failed sample, and one of five samples."""
    out = tmp_path_factory.mktemp("runs")
    protocol = get_protocol("depth/generic")
    run(Noisy(), Fake(group=True), protocol, out / "whole", RunOptions())
    run(Noisy(name="hurt", fail=["room/03"]), Fake(), protocol, out / "hurt", RunOptions())
    run(Noisy(name="five"), Fake(), protocol, out / "five", RunOptions(selection=Selection(limit=5)))
    return out


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictured")
    for model, protocol in (("plane-depth", "depth/scenes-synthetic"), ("mean-normal", "normals/scenes-synthetic"),
                            ("retinex", "albedo/scenes-synthetic")):  # fmt: skip
        command = ["run", "--model", model, "--protocol", protocol, "--out", str(out), "--limit", "3",
                   "--save-predictions", "-q"]  # fmt: skip
        assert run_cli(cli, command) == 0
    return out


def _one(path: Path) -> Submission:
    found = read_submission(path)
    assert isinstance(found, Submission)
    return found


def test_a_reviewed_file_holds_the_result_and_every_value(runs: Path, tmp_path: Path) -> None:
    (added,) = submit([runs / "whole"], tmp_path)
    assert added.path == tmp_path / "depth/generic@1/noisy.fake.json"
    one = _one(added.path)
    assert one.result == load_result(runs / "whole")
    assert one.timing is not None
    assert one.samples.ids == [f"room/{k:02d}" for k in range(N)]
    assert one.samples.groups == [f"scene{k // 3}" for k in range(N)]
    records = [json.loads(line) for line in (runs / "whole/records.jsonl").read_text().splitlines()]
    for metric in one.result.aggregate:
        assert one.samples.values[metric] == [r["metrics"][metric] for r in records]
    assert added.pictures == 0
    assert added.why_none == "pictures of fake are not this package's to publish"


def test_partial_runs_are_taken_and_stay_partial(runs: Path, tmp_path: Path) -> None:
    submit([runs / "hurt", runs / "five"], tmp_path)
    found = {r.result.model.name: r for r in read_all(tmp_path)[0]}
    assert {k: (r.result.status, len(r.samples.ids)) for k, r in found.items()} == {
        "hurt": ("partial", N - 1), "five": ("partial", 5)}  # fmt: skip
    assert "room/03" not in found["hurt"].samples.ids


def test_an_edited_record_is_refused_and_nothing_is_written(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("result.json", "run.json", "records.jsonl", "timing.json"):
        (copy / name).write_bytes((runs / "whole" / name).read_bytes())
    text = (copy / "records.jsonl").read_text()
    (copy / "records.jsonl").write_text(text.replace('"abs_rel": 0.0', '"abs_rel": 0.00', 1))
    assert (copy / "records.jsonl").read_text() != text
    with pytest.raises(DataError, match="records sha256"):
        submit([runs / "hurt", copy], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_result_that_says_more_than_its_records_is_refused(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "records.jsonl").write_bytes((runs / "whole/records.jsonl").read_bytes())
    document = json.loads((runs / "whole/result.json").read_text())
    document["aggregate"]["abs_rel"]["value"] *= 0.9
    (copy / "result.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="abs_rel"):
        submit([copy], tmp_path / "to")


def test_nothing_is_replaced_unasked(runs: Path, tmp_path: Path) -> None:
    submit([runs / "whole"], tmp_path)
    with pytest.raises(UsageError, match="there already"):
        submit([runs / "hurt", runs / "whole"], tmp_path)
    assert not list(tmp_path.glob("*/*/hurt*"))
    submit([runs / "whole"], tmp_path, force=True)
    with pytest.raises(UsageError, match="two of the runs"):
        submit([runs / "whole", runs / "whole"], tmp_path, force=True)


@pytest.mark.parametrize("name", ["nowhere", "whole/result.json"])
def test_a_run_is_a_folder(runs: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        submit([runs / name], tmp_path)
    with pytest.raises(UsageError, match="name the runs"):
        submit([], tmp_path)


def test_pictures_are_small_webp_strips_of_rendered_scenes(pictured: Path, tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    folders = sorted(p.parent for p in pictured.glob("*/*/*/result.json"))
    for added in submit(folders, tmp_path):
        one = _one(added.path)
        metric = next(iter(one.result.aggregate))
        values = one.samples.values[metric]
        assert {p.why: p.value for p in one.pictures} == {"best": min(map(float, values)),  # type: ignore[arg-type]
                                                          "worst": max(map(float, values))}  # fmt: skip  # type: ignore[arg-type]
        for picture in one.pictures:
            assert picture.panels == ["photo", "ground truth", one.result.model.name]
            image = Image.open(io.BytesIO(base64.b64decode(picture.webp)))
            assert (image.format, image.size) == ("WEBP", (picture.width, picture.height))
            assert len(picture.webp) < 6000
    again = tmp_path / "again"
    first = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.json")}
    submit(folders, again)
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*.json")} == first


def test_the_most_changed_images_show_base_and_tuned(pictured: Path, tmp_path: Path) -> None:
    base = pictured / "depth/scenes-synthetic@1/plane-depth"
    changed = tmp_path / "predictions"
    shutil.copytree(base / "predictions", changed)
    ids = [json.loads(line)["sample_id"] for line in (base / "records.jsonl").read_text().splitlines()]
    path = changed / f"{ids[0]}.npy"
    write_npy(path, read_npy(path)[::-1].copy())  # a floor above and a ceiling below: surely worse
    command = ["score", str(changed), "--name", "tuned", "--protocol", "depth/scenes-synthetic", "--out",
               str(tmp_path / "runs"), "--samples", ",".join(ids), "--save-predictions", "-q"]  # fmt: skip
    assert run_cli(cli, command) == 0
    tuned = tmp_path / "runs/depth/scenes-synthetic@1/tuned"
    document = json.loads((tuned / "result.json").read_text())
    document["model"]["base"] = "plane-depth"
    (tuned / "result.json").write_text(json.dumps(document))
    pictures = {p.why: p for p in _one(submit([tuned, base], tmp_path / "to")[0].path).pictures}
    assert set(pictures) == {"best", "worst", "worse"}, "the other images are the same, so none is better"
    worse = pictures["worse"]
    assert worse.sample_id == ids[0]
    assert worse.panels == ["photo", "ground truth", "plane-depth", "tuned"]
    assert worse.base_value is not None
    assert worse.value > worse.base_value
    alone = tmp_path / "plane-depth"
    shutil.copytree(base, alone, ignore=shutil.ignore_patterns("predictions"))
    pictures = {p.why: p for p in _one(submit([tuned, alone], tmp_path / "alone")[0].path).pictures}
    assert pictures["worse"].panels == ["photo", "ground truth", "tuned"], "the base's predictions were not kept"
    assert pictures["worse"].base_value == worse.base_value


def test_a_picture_is_never_of_another_prediction_than_the_scored_one(pictured: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pictured / "normals/scenes-synthetic@1/mean-normal", run)
    for path in sorted((run / "predictions").rglob("*.npy")):
        write_npy(path, -read_npy(path))
    with pytest.raises(DataError, match="not the one that was scored"):
        submit([run], tmp_path / "to")
    assert not (tmp_path / "to").exists()
    assert submit([run], tmp_path / "to", pictures=False)[0].pictures == 0


def test_pictures_of_judged_pairs_show_the_map(tmp_path: Path) -> None:
    for protocol in ("albedo/scenes-synthetic-whdr", "ordinal/scenes-synthetic-albedo"):
        command = ["run", "--model", "retinex", "--protocol", protocol, "--out", str(tmp_path / "runs"), "--limit", "2",
                   "--save-predictions", "-q"]  # fmt: skip
        assert run_cli(cli, command) == 0
        (added,) = submit([tmp_path / f"runs/{protocol}@1/retinex"], tmp_path / "to")
        assert added.pictures == 2


def test_folders_of_absolute_paths_are_nobodys_business(tmp_path: Path) -> None:
    values = {"abs_rel": [0.1, 0.2]}
    result = make("net", values, source="/home/ann/nets/net.onnx", options={"card": "C:\\nets\\card.json"},
                  notes=["see https://example.org/a/b, ratio 1/2"]).result  # fmt: skip
    public = without_folders(result)
    assert (public.model.source, public.model.options["card"]) == ("net.onnx", "card.json")
    assert public.model.notes == result.model.notes
    assert public.protocol == result.protocol
    assert without_folders(make("owner/net", values).result) == make("owner/net", values).result
