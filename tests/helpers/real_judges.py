"""Judges on real photos and renders, and the page's tables: of what comes out, and of the small judge's card.

``python -m tests.helpers.real_judges OUT`` runs them and writes the tables into reasonx_ft/README.md;
tests/reasonx_eval/run/test_real.py compares. Photos, maps and the network are read from the folder that REASONX_SHARED
names (default ../shared).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasonx_eval.cli.main import run_cli
from reasonx_eval.io.files import write_bytes, write_text
from reasonx_eval.io.images import read_png, read_rgb, write_npy, write_png
from reasonx_eval.leaderboard.judge_results import FILE, JudgeResult, load_judge_result
from reasonx_eval.registry import load_dataset
from reasonx_ft.cli.main import cli
from reasonx_ft.judges.evaluation.evaluate import signature
from reasonx_ft.judges.evaluation.records import EvalPlan
from reasonx_ft.judges.tiny_files import WEIGHTS, read_card
from tests.helpers.pages import FT, fill
from tests.helpers.real_pairs import build
from tests.helpers.shared import SHARED

START, END = "<!-- real judges -->", "<!-- end of real judges -->"
CARD_START, CARD_END = "<!-- small judge -->", "<!-- end of small judge -->"
RREF = f"{Path(__file__).with_name('rref_judge.py')}:RelativeReflectance"


@dataclass(frozen=True)
class Asked:
    """One call of judge-eval: the judge, a data set's name and folder, further options."""

    judge: str
    dataset: str
    root: Path
    options: tuple[str, ...]


def hypersim(folder: Path) -> Path:
    """Three HyperSim renders with a card: their depth has no unit, which is enough to order points by."""
    for path in sorted((SHARED / "hypersim").glob("*.png")):
        write_bytes(folder / path.name, path.read_bytes())
    card = """name = "hypersim-three"
images = "{id}_rgb.png"

[depth]
path = "{id}_depth.png"
invalid = []

[normals]
path = "{id}_normal.png"
frame = "opengl"

[albedo]
path = "{id}_albedo.png"

[irradiance]
path = "{id}_irradiance.png"
"""
    write_text(folder / "dataset.toml", card)
    return folder


def normals(folder: Path) -> Path:
    """The one NYUv2 photo with measured normals: a byte is (n + 1) / 2 of (x, z, -y), and grey is no direction."""
    stored = read_png(SHARED / "nyuv2" / "pairs" / "nyud_000433.normal_gt.png")
    x, z, up = np.moveaxis(stored[..., :3].astype(np.float32) / 127.5 - 1, -1, 0)
    write_npy(folder / "normal" / "nyud_000433.npy", np.stack([x, -up, z], axis=-1))
    write_png(folder / "rgb" / "nyud_000433.png", read_rgb(SHARED / "nyuv2" / "pairs" / "nyud_000433.rgb.png"))
    card = """name = "nyuv2-normals-one"
images = "rgb/{id}.png"

[normals]
path = "normal/{id}.npy"
encoding = "float"
"""
    write_text(folder / "dataset.toml", card)
    return folder


def asked(folder: Path) -> list[Asked]:
    small = [
        Asked("tiny", "folder", build(folder / "nyuv2"), ()),
        Asked("tiny", "folder", normals(folder / "normals"), ()),
        Asked("tiny", "folder", hypersim(folder / "hypersim"), ()),
        Asked("tiny", "mit-intrinsic", SHARED / "mit_intrinsic", ("--split", "present")),
    ]
    weights = f"weights={SHARED / 'weights' / 'zhou2015_rref.onnx'}"
    other = [Asked(RREF, a.dataset, a.root, (*a.options, "-O", weights, "--modalities", "albedo")) for a in small[2:]]
    return [*small, *other]


def evaluate(out: Path) -> list[JudgeResult]:
    """Each judge through the command line."""
    results = []
    for k, one in enumerate(asked(out)):
        command = ["judge-eval", "--judge", one.judge, "--dataset", one.dataset, "--root", str(one.root),
                   "--base", "tiny", "--pairs", "300", "--out", str(out / f"judged-{k}"), "-q",
                   *one.options]  # fmt: skip
        code = run_cli(cli, command)
        assert code == 0, (one, code)
        (file,) = (out / f"judged-{k}").rglob(FILE)
        results.append(load_judge_result(file))
    return results


def table(results: list[JudgeResult]) -> str:
    lines = ["| data | question | judge | pairs | right | 95 % interval | right on disagreements with `tiny` |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for result in results:
        for modality, one in result.modalities.items():
            differ = "-" if one.disagreements is None else f"{one.disagreements.right.value:.3f}"
            if one.disagreements is not None:
                differ += f" of {one.disagreements.right.n}"
            right = one.headline
            spread = "-" if right.ci_low is None else f"{right.ci_low:.3f} to {right.ci_high:.3f}"
            lines.append(f"| {result.dataset.name} ({result.n_scored}) | {modality} | `{result.judge.name}` | "
                         f"{one.n_answered:,} | {right.value:.3f} | {spread} | {differ} |")  # fmt: skip
    signatures = dict.fromkeys(r.signature for r in results)
    return "\n".join([START, *lines, "", "```", *signatures, "```", END])


def card_table() -> str:
    """The small judge's figures on held-out rooms, from its card; judge-eval gives the same."""
    dataset = load_dataset("scenes-wild", split="test")
    lines = ["| question | pairs | right | calibration error | right on disagreements with `tiny` |",
             "|---|---|---|---|---|"]  # fmt: skip
    for s in read_card(WEIGHTS).scores:
        if (s.dataset, s.split) == (dataset.name, dataset.split):
            lines.append(f"| {s.modality} | {s.n:,} | {s.accuracy:.3f} | {s.calibration_error:.3f} | "
                         f"{s.right_on_disagreements:.3f} of {s.n_disagreements:,} |")  # fmt: skip
    named = signature(dataset, EvalPlan(), own=True, n=len(dataset))
    return "\n".join([CARD_START, *lines, "", "```", named, "```", CARD_END])


def main() -> None:
    fill(FT, START, END, table(evaluate(Path(sys.argv[1]))))
    fill(FT, CARD_START, CARD_END, card_table())


if __name__ == "__main__":
    main()
