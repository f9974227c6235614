"""The main job on what ships with the package: built-in models on procedural scenes, a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.io.images import read_npy
from reasonx_eval.io.resize import resize
from reasonx_eval.io.results import Result
from reasonx_eval.metrics import align
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.image import lsq_scale
from reasonx_eval.registry import load_dataset
from reasonx_eval.report.pictures import Panel, draw_rows
from reasonx_eval.run.evaluate import evaluate
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample

DATASETS = ("scenes-synthetic", "scenes-wild")
#: model and the protocol it is evaluated under
RUNS = (
    ("plane-depth", "depth/{}"),
    ("tiny", "depth/{}"),
    ("mean-normal", "normals/{}"),
    ("tiny", "normals/{}"),
    ("image-as-albedo", "albedo/{}-whdr"),
    ("retinex", "albedo/{}-whdr"),
    ("tiny", "albedo/{}-whdr"),
    ("retinex", "irradiance/{}"),
    ("tiny", "irradiance/{}"),
)
#: what the picture shows: the task's protocol, of this model
PICTURED = "tiny"
SHOWN = {"depth": "depth/{}", "normals": "normals/{}", "albedo": "albedo/{}-whdr"}


def run_demo(out: Path, progress: Callable[[str], Any]) -> list[tuple[Result, Path]]:
    """Do RUNS on DATASETS and draw ``OUT/demo.png``.

    Parameters
    ----------
    progress : gives, for a label, a context manager with the runner's progress callback

    Returns
    -------
    list of (result, run folder)
    """
    finished = []
    folders: dict[tuple[str, str], Path] = {}
    for dataset_name in DATASETS:
        for model_name, protocol_name in RUNS:
            protocol = protocol_name.format(dataset_name)
            with progress(f"{protocol} {model_name}") as callback:
                result = evaluate(model=model_name, protocol=protocol, out=out / "results", save_predictions=True,
                                  progress=callback)  # fmt: skip
            assert result.folder is not None
            finished.append((result, result.folder))
            folders[model_name, protocol] = result.folder
    draw(out / "demo.png", {name: load_dataset(name, split="test") for name in DATASETS}, folders)
    return finished


def draw(path: Path, datasets: Mapping[str, Dataset], folders: Mapping[tuple[str, str], Path]) -> None:
    """Two samples of each dataset: photo, and ground truth, prediction and error of each task."""
    rows = []
    for name, dataset in datasets.items():
        for k in (0, len(dataset) // 2):
            sample = dataset.load(dataset.ids[k])
            row = [Panel("photo", sample.image, "rgb", caption=sample.id)]
            for task, protocol in SHOWN.items():
                saved = read_npy(folders[PICTURED, protocol.format(name)] / "predictions" / f"{sample.id}.npy")
                row += _panels(task, sample, resize(saved, sample.image.shape[:2], "bilinear"))
            rows.append(row)
    draw_rows(path, rows, title="ground truth, prediction after the protocol's alignment, error")


def _panels(task: str, sample: Sample, saved: NDArray[Any]) -> list[Panel]:
    target, model = sample.targets[task], PICTURED
    if isinstance(target, DepthTarget):
        # as the default protocol does with the disparity that this network prefers to give
        fitted = align.fit(pred=saved, target=target.depth, mask=target.valid, mode="affine", space="disparity")
        depth = align.apply(pred=saved, alignment=fitted)
        error = np.where(target.valid, np.abs(depth - target.depth) / target.depth, np.nan)
        return [Panel("depth", np.where(target.valid, target.depth, np.nan), "depth", "m"),
                Panel(model, depth, "depth", "m"),
                Panel("error", error, "error", "|p-g|/g", f"AbsRel {np.nanmean(error):.3f}")]  # fmt: skip
    if isinstance(target, NormalTarget):
        angle = np.full(target.valid.shape, np.nan)
        angle[target.valid] = angular_errors(pred=saved, target=target.normal, mask=target.valid)
        return [Panel("normals", target.normal, "normal"), Panel(model, saved, "normal"),
                Panel("error", angle, "error", "degrees", f"mean {np.nanmean(angle):.1f} degrees")]  # fmt: skip
    assert isinstance(target, MapTarget)
    truth = target.value.astype(np.float64)
    scaled = saved * lsq_scale(pred=saved, target=truth, mask=target.valid)
    distance = np.sqrt(((scaled - truth) ** 2).mean(axis=-1))
    return [Panel("albedo", truth, "linear"), Panel(model, scaled, "linear"),
            Panel("error", distance, "error", "linear RMS", f"RMSE {np.sqrt((distance**2).mean()):.3f}")]  # fmt: skip

