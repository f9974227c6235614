"""kill -9 at any moment, then resume: the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reasonx_eval.io.records import read_records

KILLS = 6


def _start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "reasonx_eval.cli.main", "run", "--model", "mean-normal", "--dataset",
               "scenes-synthetic", "--out", str(out), "--limit", "40", "--save-predictions", *more]  # fmt: skip
    # a shell ignores Ctrl-C in what it starts in the background, and what that starts does too
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip


def _names(folder: Path) -> list[Path]:
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if not p.name.startswith("timing"))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    began = time.monotonic()
    with _start(tmp_path / "whole") as whole:
        _, err = whole.communicate()
    assert whole.returncode == 0, err.decode()
    seconds = time.monotonic() - began
    draw = random.Random(0)
    run = tmp_path / "cut/normals/scenes-synthetic@1/mean-normal"
    kept = 0
    for _ in range(KILLS):
        with _start(tmp_path / "cut") as process:
            time.sleep(draw.uniform(0.3, 0.9) * seconds)
            os.kill(process.pid, signal.SIGKILL)
        if (run / "records.jsonl").is_file():
            now = len(read_records(run / "records.jsonl", repair=True))
            assert now >= kept, "a finished sample was lost"
            kept = now
    with _start(tmp_path / "cut") as last:
        out, err = last.communicate()
    assert last.returncode == 0, err.decode()
    assert b"40/100" in out
    reference = tmp_path / "whole/normals/scenes-synthetic@1/mean-normal"
    for name in ("records.jsonl", "result.json", "run.json"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    assert _names(run) == _names(reference), "a killed process left files behind"


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    for attempt in range(5):
        out = tmp_path / str(attempt)
        records = out / "normals/scenes-synthetic@1/mean-normal/records.jsonl"
        with _start(out) as process:
            while process.poll() is None and not (records.is_file() and records.stat().st_size):
                time.sleep(0.002)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        if process.returncode != 0:  # else the run was quicker than the signal
            break
    assert process.returncode == 6, err.decode()
    assert b"goes on from there" in err
    assert b"Traceback" not in err
    assert read_records(records)
