"""Real networks on real photos: seven NYUv2 pairs, as a folder of one's own, and the page's table of what comes out.

``python -m tests.helpers.real_pairs OUT`` runs them and writes the table into reasonx_eval/README.md;
tests/reasonx_eval/run/test_real.py compares. The photos, depths and networks are read from the folder that
REASONX_SHARED names (default ../shared).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.io.files import write_text
from reasonx_eval.io.images import read_png, read_rgb, write_npy, write_png
from reasonx_eval.io.results import Result, load_result
from tests.helpers.demo_table import row
from tests.helpers.pages import EVAL, fill
from tests.helpers.shared import SHARED

START, END = "<!-- real networks -->", "<!-- end of real networks -->"
#: name -> file, card, protocol
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fast-depth": (
        "fast_depth_float.onnx",
        {"licence": "MIT", "trained_on": ["NYUv2"],
         "input": {"layout": "NCHW", "size": [224, 224], "range": "0-1", "channels": "RGB"},
         "output": {"layout": "NCHW", "kind": "depth_metric"}},
        "depth/generic-metric",
    ),
    "tcmonodepth-small": (
        "tcmonodepth_small_256x352.onnx",
        {"licence": "MIT", "input": {"layout": "NCHW", "size": [256, 352], "range": "0-255", "channels": "RGB"},
         "output": {"layout": "NCHW", "kind": "disparity_affine"}},
        "depth/generic",
    ),
}  # fmt: skip


def build(folder: Path) -> Path:
    """The seven pairs as a folder with a dataset.toml: photos as PNG, depth as .npy in metres."""
    for photo in sorted((SHARED / "nyuv2" / "pairs").glob("*.rgb.*")):
        name = photo.name.partition(".rgb")[0]
        (stored,) = photo.parent.glob(f"{name}.depth_*.png")
        units = 1000 if stored.stem.endswith("mm") else 5000
        write_png(folder / "rgb" / f"{name}.png", read_rgb(photo))
        write_npy(folder / "depth" / f"{name}.npy", (read_png(stored) / units).astype(np.float32))
    # the names begin with the scene: seven frames of four scenes are four things to resample, not seven
    card = ('name = "nyuv2-pairs"\nimages = "rgb/{id}.png"\ngroup = "^([a-z0-9]+)_"\n\n'
            '[depth]\npath = "depth/{id}.npy"\ninvalid = [0]\n')  # fmt: skip
    write_text(folder / "dataset.toml", card)
    return folder


def evaluate(data: Path, out: Path) -> list[Result]:
    """Each network through the command line, by its ONNX file and a card."""
    results = []
    for name, (file, card, protocol) in NETWORKS.items():
        path = out / f"{name}.json"
        write_text(path, json.dumps({"name": name, **card}))
        command = ["run", "--model", str(SHARED / "weights" / file), "--card", str(path), "--protocol", protocol,
                   "--dataset", str(data), "--out", str(out / "results"), "--quiet"]  # fmt: skip
        assert run_cli(cli, command) == 0, name
        results.append(load_result(out / "results" / f"{protocol}@1" / f"{name}.nyuv2-pairs"))
    return results


def table(results: list[Result]) -> str:
    lines = ["| model | metric | value | 95 % interval |", "|---|---|---|---|"]
    for result in results:
        lines += [row(result, name) for name in ("abs_rel", "delta1", "rmse")]
    return "\n".join([START, *lines, "", "```", *(r.signature for r in results), "```", END])


def main() -> None:
    out = Path(sys.argv[1])
    fill(EVAL, START, END, table(evaluate(build(out / "pairs"), out)))


if __name__ == "__main__":
    main()
