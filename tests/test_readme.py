"""Every README command runs, in order, with the files it speaks of; its table is what comes out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from torch import Tensor

from benchmarks.full_size.__main__ import command as full_size
from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.datasets.scenes.dataset import ScenesSynthetic, ScenesWild
from reasonx_eval.datasets.splits import split_lines
from reasonx_eval.io.files import write_json
from reasonx_eval.io.images import write_png
from reasonx_eval.models.embedded.tiny_net import TinyNet
from reasonx_eval.types import Sample
from reasonx_ft.cli.main import cli as ft
from tests.helpers.readme_table import README, table
from tests.reasonx_eval.models import tiny_marigold

TEXT = README.read_text(encoding="utf-8")
#: first commands of the parts that need no files of an earlier one, so that two workers share them
STARTS = ("reasonx-eval list models", "reasonx-eval doctor iiw --prepare", "reasonx-ft annotate dataset:scenes-wild ")

PROGRAMS = {"reasonx-eval": cli, "reasonx-ft": ft, "python -m benchmarks.full_size": full_size}


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.M | re.S)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def parts() -> list[list[str]]:
    """The commands but make's, in order, cut where a part starts."""
    ran = [line for line in commands() if not line.startswith("make ")]
    starts = [k for k, line in enumerate(ran) if line.startswith(STARTS)]
    return [ran[a:b] for a, b in zip(starts, [*starts[1:], len(ran)], strict=True)]


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    targets = [c.split()[1] for c in commands() if c.startswith("make ")]
    assert targets == ["demo", "test", "bench"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def _write_iiw(root: Path) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    points = [{"id": k, "x": 0.1 + 0.2 * k, "y": 0.5, "opaque": True} for k in range(4)]
    compared = [{"point1": a, "point2": a + 1, "darker": d, "darker_score": 1.0} for a, d in enumerate("1E2")]
    for name in split_lines("iiw_test"):
        write_json(root / "data" / f"{name}.json", {"intrinsic_points": points, "intrinsic_comparisons": compared})
    write_png(root / "data" / "first.png", photo)
    for name in split_lines("iiw_test"):
        (root / "data" / f"{name}.png").hardlink_to(root / "data" / "first.png")


def _write_own(root: Path) -> None:
    rng = np.random.default_rng(1)
    for k in range(4):
        write_png(root / "rgb" / f"{k}.png", rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        write_png(root / "depth" / f"{k}.png", rng.integers(500, 5000, (24, 32), dtype=np.uint16))


def test_parts_are_all_commands() -> None:
    assert len(parts()) == len(STARTS)
    assert list(chain(*parts())) == [c for c in commands() if not c.startswith("make ")]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(STARTS)))
def test_every_command_runs(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # a pipeline of random weights in the place of the one that the README names
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny_marigold.in_cache(tmp_path / "hub", "prs-eth/marigold-iid-lighting-v1-1",
                           tiny_marigold.intrinsics(tmp_path / "hub" / "lighting"))  # fmt: skip
    _write_iiw(tmp_path / "iiw")
    _write_own(tmp_path / "my-set")
    for language in ("python", "toml"):
        for block in blocks(language):
            first = block.splitlines()[0]
            if first.startswith("# "):
                (tmp_path / first.removeprefix("# ")).write_text(block, encoding="utf-8")
    assert len(parts()[part]) > 3
    for line in parts()[part]:
        words = shlex.split(line.replace("/data/iiw", str(tmp_path / "iiw")))
        if words[:2] == ["reasonx-ft", "tune"]:
            # threads that wait for each other while another test has the core take 30 times as long
            words += ["--set", "machine.threads=1"]
        program = " ".join(words[:3]) if words[0] == "python" else words[0]
        code = run_cli(PROGRAMS[program], words[len(program.split()):])
        printed = capsys.readouterr()
        assert code == 0, f"{line}\n{printed.out}{printed.err}"
        assert printed.out, line


@pytest.fixture
def done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene is rendered once, and its photo goes through `tiny` once, instead of once for every protocol."""
    render, forward = ScenesWild.load, TinyNet.forward
    samples: dict[tuple[str, str], Sample] = {}
    codes: dict[bytes, dict[str, Tensor]] = {}

    def load(self: Any, sample_id: str, want: Collection[str] | None = None) -> Sample:
        key = str(self.size), sample_id
        if key not in samples:
            samples[key] = render(self, sample_id)
        whole = samples[key]
        return whole if want is None else replace(whole, targets={name: whole.targets[name] for name in want})

    def through(self: TinyNet, images: Tensor) -> dict[str, Tensor]:
        key = sha256(images.numpy().tobytes()).digest()
        if key not in codes:
            codes[key] = forward(self, images)
        return codes[key]

    for dataset in (ScenesSynthetic, ScenesWild):
        monkeypatch.setattr(dataset, "load", load)
    monkeypatch.setattr(TinyNet, "forward", through)


@pytest.mark.slow
@pytest.mark.usefixtures("done_once")
def test_demo_prints_signatures_and_draws_and_the_readme_has_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(cli, ["demo", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "depth/scenes-synthetic@1|n:100|acc:disparity_affine|align:affine.disparity" in out
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert table(tmp_path) in TEXT, "run: reasonx-eval demo --out demo && python -m tests.helpers.readme_table demo"
