"""Run folders, terminals and environments that are not as hoped: one message, nothing lost, nothing made up."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.files import write_json
from reasonx_eval.io.results import run_folder
from reasonx_eval.run import stages

MODEL = ["run", "--model", "mean-normal", "--dataset", "scenes-synthetic", "--limit", "3", "-q"]
PROGRAM = [sys.executable, "-m", "reasonx_eval.cli.main"]


def run(*arguments: object) -> int:
    return run_cli(cli, [str(a) for a in arguments])


def folder(out: Path, shard: str | None = None) -> Path:
    return run_folder(out, "normals/scenes-synthetic@1", "mean-normal", shard)


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert run(*MODEL, "--out", tmp_path / out) == 2
    assert "results can't be written here" in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_full_disk_is_one_message_and_the_run_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*MODEL, "--save-predictions", "--workers", "1", "--out"]
    assert run(*command, tmp_path / "whole") == 0
    original = stages.write_prediction
    written = []

    def full(target: Path, *rest: Any) -> Path:
        written.append(target)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(target, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_prediction", full)
        capsys.readouterr()
        assert run(*command, tmp_path / "cut") == 6
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No space left on device" in printed.err
    assert "finished are kept" in printed.err
    assert len((folder(tmp_path / "cut") / "records.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert run(*command, tmp_path / "cut") == 0
    for name in ("records.jsonl", "run.json"):
        assert (folder(tmp_path / "cut") / name).read_bytes() == (folder(tmp_path / "whole") / name).read_bytes()


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    assert run(*MODEL, "--out", tmp_path) == 0
    left = folder(tmp_path) / "predictions" / ".x.npy.123.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert run(*MODEL, "--out", tmp_path) == 0
    assert not left.exists()


def test_pixels_that_a_killed_process_left_are_cleared_away(tmp_path: Path) -> None:
    from reasonx_eval.run.loop import run as evaluate
    from tests.helpers.fakes import Fake, Noisy
    from tests.reasonx_eval.run.test_loop import POOLED

    evaluate(Noisy(), Fake(), POOLED, tmp_path)
    (tmp_path / "pixels").mkdir()
    evaluate(Noisy(), Fake(), POOLED, tmp_path)
    assert not (tmp_path / "pixels").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "\0"])
def test_damaged_result_is_made_again_from_the_records(tmp_path: Path, content: str) -> None:
    assert run(*MODEL, "--out", tmp_path) == 0
    path = folder(tmp_path) / "result.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(content, encoding="utf-8")
    assert run(*MODEL, "--out", tmp_path) == 0
    assert json.loads(path.read_text(encoding="utf-8"))["aggregate"] == before["aggregate"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}"])
def test_damaged_run_json_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    assert run(*MODEL, "--out", tmp_path) == 0
    (folder(tmp_path) / "run.json").write_text(content, encoding="utf-8")
    assert run(*MODEL, "--out", tmp_path) == 4
    assert "--force" in capsys.readouterr().err
    assert run(*MODEL, "--out", tmp_path, "--force") == 0


def _edit(path: Path, change: dict[str, Any]) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **change})


def test_result_of_somebody_else_cannot_steer_the_terminal_or_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*MODEL, "--out", tmp_path) == 0
    path = folder(tmp_path) / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    model = {**result["model"], "name": "\x1b[31mred\x07", "source": "a\nb"}
    _edit(path, {"model": model, "aggregate": {"metric_of_2031": result["aggregate"]["mean_deg"]},
                 "notes": ["\x1b]0;title\x07"]})  # fmt: skip
    capsys.readouterr()
    assert run("show", path.parent) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[31mred\\x07" in printed
    assert "metric_of_2031" in printed
    _edit(path, {"protocol": {**result["protocol"], "rules": {"a": 1}}})
    assert run("show", path.parent, "--verify") == 4
    assert "not the rules of a protocol" in capsys.readouterr().err


def test_schema_needs_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--schema") == 0
    assert "properties" in json.loads(capsys.readouterr().out)
    assert run("show") == 2


def test_shards_that_were_edited_or_are_the_output_do_not_merge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in (1, 2):
        assert run(*MODEL, "--shard", f"{k}/2", "--out", tmp_path) == 0
    shards = [folder(tmp_path, f"{k}/2") for k in (1, 2)]
    assert run("merge", *shards, "--out", shards[0], "--force") == 2
    assert run("merge", *shards, "--out", tmp_path / "merged") == 0
    records = shards[0] / "records.jsonl"
    records.write_text("".join(records.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")
    capsys.readouterr()
    assert run("merge", *shards, "--out", tmp_path / "again") == 4
    assert "not those of the shard's result" in capsys.readouterr().err
    shutil.rmtree(shards[0])
    assert run("merge", *shards, "--out", tmp_path / "again") == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--shard", "4/9"], "is empty"), (["--shard", "²/3"], "1 <= i <= n"), (["--samples", ",,"], "names none")],
)
def test_selections_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str) -> None:
    assert run(*MODEL, *more, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_home_of_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONX_DATA", "~nobody-of-this-name/data")
    assert run("run", "--model", "plane-depth", "--dataset", "nyuv2") == 2
    assert "does not exist" in capsys.readouterr().err


def test_terminal_without_arrows(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "20", "TERM": "dumb"}
    done = subprocess.run([*PROGRAM, *MODEL, "--out", tmp_path], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"mean_deg" in done.stdout


def test_nobody_reads_stdout(tmp_path: Path) -> None:
    closed = f"{' '.join([*PROGRAM, *MODEL])} --out {tmp_path} >&-"
    assert subprocess.run(closed, shell=True, capture_output=True, check=False).returncode == 0
    assert (folder(tmp_path) / "result.json").is_file()
    # far more than a pipe holds, so that the writer meets its end
    (tmp_path / "long.py").write_text(
        "import click\nfrom reasonx_eval.cli.main import exit_with\n"
        "exit_with(click.Command('x', callback=lambda: [click.echo('x' * 99) for _ in range(9999)]), [])\n",
        encoding="utf-8")  # fmt: skip
    command = f"set -o pipefail; {sys.executable} {tmp_path / 'long.py'} | head -1"
    head = subprocess.run(command, shell=True, executable="/bin/bash", capture_output=True, check=False)
    assert head.returncode == 0, head.stderr
    assert head.stderr == b""


def test_a_request_to_terminate_keeps_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import time\nclass Net:\n    kind = 'normal'\n    name = 'mean-normal'\n    def predict(self, images):\n"
        "        time.sleep(0.05)\n        return [(i / 255.0).astype('f4') - 2 for i in images]\n",
        encoding="utf-8")  # fmt: skip
    command = [*PROGRAM, "run", "--model", f"{tmp_path / 'net.py'}:Net", "--dataset", "scenes-synthetic",
               "--out", str(tmp_path / "out")]  # fmt: skip
    records = folder(tmp_path / "out") / "records.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (records.is_file() and records.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
    assert process.returncode == 6, error
    assert b"goes on from there" in error
    assert 0 < len(records.read_text(encoding="utf-8").splitlines()) < 100
