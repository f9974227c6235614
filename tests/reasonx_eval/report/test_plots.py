"""show: values per image as a line, a histogram, and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.images import read_rgb
from reasonx_eval.protocols.protocol import get_protocol
from tests.reasonx_eval.statistics.planted import depth_records, edit_lines, planted, write_run


def show(*arguments: object) -> int:
    return run_cli(cli, ["show", *(str(a) for a in arguments)])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    a, b = planted(40, 0.02, 0.8, 0)
    return (write_run(tmp_path / "a", depth_records({"abs_rel": a}), name="_first$"),
            write_run(tmp_path / "b", depth_records({"abs_rel": b}), name="second"))  # fmt: skip


def test_show_has_a_line_per_metric(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert show(pair[0]) == 0
    out = capsys.readouterr().out
    values, _ = planted(40, 0.02, 0.8, 0)
    line = next(x for x in out.splitlines() if x.startswith("abs_rel ↓") and "▁" in x)
    best, median, worst, sample = line.split()[3:]
    assert (best, median, worst) == (f"{values.min():.4g}", f"{np.median(values):.4g}", f"{values.max():.4g}")
    assert sample == f"room/{values.argmax():04d}"
    assert out.index("|align:") < out.index("best to worst")


def test_plot_without_a_file_is_text(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((pair[0], "--plot"), ("--plot", pair[0])):
        assert show(*arguments) == 0
        out = capsys.readouterr().out
        start = out.index("AbsRel ↓ per image, 40 images, _first$")
        assert "█" in out[start:]
        assert "|align:" in out[start:]
    assert show(pair[0], "--plot", "--metric", "delta1") == 0
    assert "δ1 ↑ per image" in capsys.readouterr().out


def test_plot_with_a_file_is_a_picture_of_all_runs(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        assert show(*pair, "--plot", tmp_path / f"{name}.png", "--metric", "abs_rel") == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert f"-> {tmp_path / 'a.png'}" in capsys.readouterr().out
    assert show(*pair, "--plot", tmp_path / "whole.png") == 0
    whole, one = read_rgb(tmp_path / "whole.png"), read_rgb(tmp_path / "a.png")
    assert whole.shape[0] > one.shape[0]
    # both lines are there: the colours of the first two styles
    for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):
        assert (np.abs(whole.astype(int) - colour).sum(axis=-1) < 30).any()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--plot", "x.gif"], 2, ".png"),
        (["--plot", "there.png"], 2, "already there"),
        (["--plot", "--metric", "absrel"], 2, "did you mean 'abs_rel'"),
        (["--metric", "abs_rel"], 2, "belong to --plot"),
        (["--plot", "new.png", "--metric", "mean_deg"], 2, "unknown metric"),
    ],
)
def test_mistakes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: list[str], code: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there.png").write_text("mine")
    assert show(pair[0], *more) == code
    assert words in capsys.readouterr().err
    assert Path("there.png").read_text() == "mine"
    assert not Path("new.png").exists()


def test_a_picture_does_not_mix_protocols(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    metric = get_protocol("depth/generic-metric")
    other = write_run(tmp_path / "c", depth_records({"abs_rel": np.ones(40)}, protocol=metric), protocol=metric)
    assert show(pair[0], other, "--plot", tmp_path / "x.png") == 4
    assert not (tmp_path / "x.png").exists()


def test_edited_records_are_not_shown(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    edit_lines(pair[0], lambda lines: lines[1:])
    assert show(pair[0]) == 0
    printed = capsys.readouterr()
    assert "best to worst" not in printed.out
    assert "records.jsonl is not what" in printed.err
    assert show(pair[0], "--plot") == 4


def test_a_result_without_records_is_shown(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (pair[0] / "records.jsonl").unlink()
    assert show(pair[0] / "result.json") == 0
    assert "best to worst" not in capsys.readouterr().out


def test_a_terminal_without_blocks_gets_plain_characters(pair: tuple[Path, Path]) -> None:
    done = subprocess.run([sys.executable, "-m", "reasonx_eval.cli.main", "show", str(pair[0]), "--plot"],
                          capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})  # fmt: skip
    text = done.stdout.decode()
    assert "####" in text
    assert not set("█▁▏") & set(text)
