"""What a gallery shows of one sample: photo, ground truth, predictions as the protocol compared them, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.resize import resize
from reasonx_eval.metrics import align, image
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.protocols.protocol import DepthSpec, MapSpec, NormalsSpec
from reasonx_eval.report.gallery_pairs import judgement_panels, relation_panels
from reasonx_eval.report.pictures import Panel
from reasonx_eval.run.saved_runs import SavedRun
from reasonx_eval.scoring.depth import evaluation_mask, match_size
from reasonx_eval.scoring.maps import OWN_SCALE, compared_maps, linear_map
from reasonx_eval.scoring.normals import evaluation_mask as normals_mask
from reasonx_eval.types import (
    Alignment,
    DepthTarget,
    JudgementTarget,
    MapTarget,
    NormalTarget,
    PairTarget,
    Prediction,
    Record,
    Sample,
    Target,
)

#: the long side of a panel, pixels: maps of 24 megapixels are drawn by their nearest pixels
LONG_SIDE = 384

_RELATIVE = "|p - g| / g"
#: depth metric -> what of each pixel its error panel shows, with its unit; all others: |p - g| / g
_DEPTH_UNITS = {"mae": "|p - g|, m", "rmse": "|p - g|, m", "irmse": "|1/p - 1/g|, 1/m", "rmse_log": "|ln p/g|",
                "log10": "|ln p/g|", "silog": "|ln p/g|"}  # fmt: skip


def panels(sample: Sample, runs: Sequence[SavedRun], metric: str) -> list[Panel]:
    """Panels of one sample: photo, ground truth, a prediction of each run, an error of each run.

    Parameters
    ----------
    sample : with the target of the runs' protocol
    runs : one or two, under the same protocol; labelled A and B where there are two
    metric : what the samples were chosen by; error panels show the pixel error that it averages

    Returns
    -------
    list of Panel
        At most `LONG_SIDE` pixels on the long side. Error panels are NaN where the protocol does not look.

    Raises
    ------
    SampleError, DataError
        A file that can't be read, or another prediction than the one that was scored.
    """
    protocol = runs[0].protocol
    target = sample.targets[protocol.reads]
    predictions = [run.load(sample) for run in runs]
    if isinstance(target, JudgementTarget):
        drawn = judgement_panels(sample, target, predictions, protocol, metric)
    elif isinstance(target, PairTarget):
        drawn = relation_panels(sample, target, predictions, protocol)
    else:
        drawn = _maps(target, runs, predictions, sample.id, metric)
    titled = [Panel("photo", sample.image, "rgb"), *_titled(drawn, len(runs))]
    return [_small(panel) for panel in titled]


def _titled(drawn: Sequence[Panel], runs: int) -> list[Panel]:
    """Ground truth, predictions, errors: named after the run they show."""
    names = ["A", "B"] if runs == 2 else ["prediction"]
    last = "error" if drawn[-1].style == "error" else "answers"
    titles = ["ground truth", *names, *([f"{last} of {name}" for name in names] if runs == 2 else [last])]
    return [replace(panel, title=title) for panel, title in zip(drawn, titles, strict=True)]


def _maps(
    target: Target, runs: Sequence[SavedRun], predictions: Sequence[Prediction], sample_id: str, metric: str
) -> list[Panel]:
    if isinstance(target, DepthTarget):
        depth = runs[0].protocol.depth
        assert depth is not None
        truth = Panel("", np.where(target.valid, target.depth, np.nan), "depth", "m")
        shown = [_depth(target, prediction, run.records[sample_id], depth, metric)
                 for run, prediction in zip(runs, predictions, strict=True)]  # fmt: skip
    elif isinstance(target, NormalTarget):
        normals = runs[0].protocol.normals
        assert normals is not None
        truth = Panel("", np.where(target.valid[..., None], target.normal, np.nan), "normal")
        shown = [_normals(target, prediction, normals) for prediction in predictions]
    else:
        assert isinstance(target, MapTarget)
        maps, level = runs[0].protocol.map, display_level(target)
        assert maps is not None
        truth = Panel("", np.where(target.valid[..., None], target.value / level, np.nan), "linear")
        shown = [_map(target, prediction, maps, metric, level) for prediction in predictions]
    return [truth, *(p for p, _ in shown), *(e for _, e in shown)]


def aligned_depth(prediction: Prediction, target: DepthTarget, record: Record, spec: DepthSpec) -> NDArray[np.float64]:
    """The prediction in metres at the ground truth's size, by the alignment that the record holds, float64 [H, W].

    Raises
    ------
    SampleError
        The record has no alignment: the sample was not scored.
    """
    if record.alignment is None:
        raise SampleError("the record has no alignment", where=record.sample_id)
    fitted = Alignment(**record.alignment)
    value = match_size(prediction.value, target.depth.shape, spec.resize)
    value = align.to_space(pred=value, kind=prediction.kind, space=fitted.space)
    depth = align.apply(pred=value, alignment=fitted, disparity_floor=spec.align.disparity_floor)
    if spec.clip_m is not None:
        np.clip(depth, *spec.clip_m, out=depth)
    return np.maximum(depth, spec.floor_m, out=depth)


def depth_error(depth: NDArray[np.float64], target: DepthTarget, spec: DepthSpec, metric: str) -> NDArray[np.float64]:
    """The error of each pixel that `metric` averages, float64 [H, W]; NaN where the protocol does not look."""
    mask = evaluation_mask(target, spec)
    p, g = depth[mask], target.depth[mask].astype(np.float64)
    unit = _DEPTH_UNITS.get(metric, _RELATIVE)
    error = np.full(depth.shape, np.nan)
    if unit.startswith("|ln"):
        error[mask] = np.abs(np.log(p / g))
    elif unit.startswith("|1/p"):
        error[mask] = np.abs(1 / p - 1 / g)
    else:
        error[mask] = np.abs(p - g) / (g if unit == _RELATIVE else 1)
    return error


def _depth(
    target: DepthTarget, prediction: Prediction, record: Record, spec: DepthSpec, metric: str
) -> tuple[Panel, Panel]:
    depth = aligned_depth(prediction, target, record, spec)
    unit = _DEPTH_UNITS.get(metric, _RELATIVE)
    return Panel("", depth, "depth", "m"), Panel("", depth_error(depth, target, spec, metric), "error", unit)


def _normals(target: NormalTarget, prediction: Prediction, spec: NormalsSpec) -> tuple[Panel, Panel]:
    mask = normals_mask(target, spec)
    value = match_size(prediction.value, target.normal.shape, spec.resize)
    angle = np.full(mask.shape, np.nan)
    angle[mask] = angular_errors(pred=value, target=target.normal, mask=mask)
    length = np.sqrt((value.astype(np.float64) ** 2).sum(axis=-1, keepdims=True))
    unit = np.divide(value, length, out=np.full(value.shape, np.nan), where=length > 0)
    return Panel("", unit, "normal"), Panel("", angle, "error", "angle, degrees")


def display_level(target: MapTarget) -> float:
    """What is shown as white: 1, or the 99th percentile of the ground truth where that is more (irradiance)."""
    values = target.value[target.valid]
    return max(1.0, float(np.percentile(values, 99))) if values.size else 1.0


def _map(target: MapTarget, prediction: Prediction, spec: MapSpec, metric: str, level: float) -> tuple[Panel, Panel]:
    truth, mask = target.value.astype(np.float64), target.valid
    pred = linear_map(prediction, truth.shape, spec)
    scaled = pred
    if spec.scale == "lsq" or metric in OWN_SCALE:
        scaled = pred * image.lsq_scale(pred=pred, target=truth, mask=mask)
    if metric in OWN_SCALE:
        a, b, unit = scaled, truth, "RMS of linear R, G, B"
    else:
        a, b = compared_maps(pred, truth, mask, spec)
        unit = f"RMS of {spec.space} R, G, B"
    distance = np.full(mask.shape, np.nan)
    distance[mask] = np.sqrt(((a[mask] - b[mask]) ** 2).mean(axis=-1))
    return Panel("", scaled / level, "linear"), Panel("", distance, "error", unit)


def _small(panel: Panel) -> Panel:
    value: NDArray[Any] = panel.value
    height, width = value.shape[:2]
    if max(height, width) <= LONG_SIDE:
        return panel
    factor = LONG_SIDE / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if panel.style != "rgb":
        return replace(panel, value=resize(value, size, "nearest"))
    from PIL import Image

    return replace(panel, value=np.asarray(Image.fromarray(value).resize(size[::-1], Image.Resampling.LANCZOS)))
