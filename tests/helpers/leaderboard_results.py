"""The reviewed results of this repository: built-in models on rendered scenes, small networks on real photos.

``python -m tests.helpers.leaderboard_results OUT [STUDY]`` runs whatever is not finished in OUT and adds all of it to
leaderboards/results, with the tuned networks of a finished `python -m benchmarks.study`; `make page` then makes the
page. Real photos and networks are read from the folder that REASONX_SHARED names; without it their results stay as they
are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.leaderboard.submit import submit
from reasonx_ft.cli.main import cli as ft
from tests.helpers.real_pairs import build, evaluate
from tests.helpers.shared import SHARED

RESULTS = Path(__file__).parents[2] / "leaderboards" / "results"
DATASETS = ("scenes-synthetic", "scenes-wild")
#: the protocols of each domain
PROTOCOLS = ("depth/{}", "normals/{}", "albedo/{}", "albedo/{}-whdr", "irradiance/{}")
#: model -> the tasks it is run for, and options
MODELS = {
    "oracle": ("depth normals albedo irradiance", ("-O", "kind={}")),
    "constant": ("albedo irradiance normals", ()),
    "plane-depth": ("depth", ()),
    "mean-normal": ("normals", ()),
    "image-as-albedo": ("albedo", ("--kind", "{}")),
    "retinex": ("albedo irradiance", ()),
    "tiny": ("depth normals albedo irradiance", ()),
    "tiny-flow": ("depth normals albedo irradiance", ()),
}
#: what the small networks give: reference rows state the same kind, so that all stand in one table
KINDS = {"depth": "disparity_affine", "normals": "normal", "albedo": "albedo_linear", "irradiance": "irradiance"}
#: tuned with the shipped judge, and no label of the photos
TUNED = ("tiny-default-tiny-s0", "tiny-grpo-tiny-s0", "tiny-flow-ranking-tiny-s0")


def scenes(out: Path) -> list[Path]:
    """Run folders of every model on both domains; finished ones are not run again."""
    for dataset in DATASETS:
        for protocol in PROTOCOLS:
            name = protocol.format(dataset)
            task = name.partition("/")[0]
            for model, (tasks, options) in MODELS.items():
                if task not in tasks.split() or (model == "constant" and name.endswith("whdr")):
                    continue
                command = ["run", "--model", model, "--protocol", name, "--out", str(out), "--save-predictions",
                           "--workers", "1", *(o.format(KINDS[task]) for o in options)]  # fmt: skip
                assert run_cli(cli, command) == 0, (model, name)
    return sorted(p.parent for p in out.glob("*/*/*/result.json"))


def judges(out: Path) -> list[Path]:
    """Folders of the embedded judge on both domains, with the share that it adds to the embedded network."""
    for dataset in DATASETS:
        if not list(out.glob(f"{dataset}-*/*/judge.json")):
            command = ["judge-eval", "--judge", "tiny", "--dataset", dataset, "--base", "tiny", "--out", str(out)]
            assert run_cli(ft, command) == 0, dataset
    return sorted(p.parent for p in out.glob("*/*/judge.json"))


def main() -> None:
    out = Path(sys.argv[1])
    runs = [*scenes(out / "scenes"), *judges(out / "judges")]
    if SHARED.is_dir():
        evaluate(build(out / "pairs"), out / "real")
        runs += sorted(p.parent for p in (out / "real").glob("results/*/*/*/result.json"))
    if len(sys.argv) > 2:
        cells = Path(sys.argv[2]) / "cells"
        runs += [p.parent for name in TUNED for p in sorted((cells / name / "results").glob("*/*/*/result.json"))]
    for added in submit(runs, RESULTS, force=True):
        print(added.path)


if __name__ == "__main__":
    main()
