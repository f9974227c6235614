"""Depth: crop and range make the mask, the fit runs in the prediction's own space, metrics run in metres."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.io.blocks import row_blocks
from reasonx_eval.io.resize import resize
from reasonx_eval.metrics import align
from reasonx_eval.metrics.depth_sums import measure_depth
from reasonx_eval.metrics.valid_pixels import ValidPixels
from reasonx_eval.protocols.protocol import DepthSpec, Protocol, align_space
from reasonx_eval.scoring import readings
from reasonx_eval.scoring.scored import Scored
from reasonx_eval.types import Alignment, DepthTarget, Prediction, Sample, Target

# Eigen et al. 2014, for 480 x 640 frames: the border of the depth camera's projection is left out
EIGEN_NYU = (slice(45, 471), slice(41, 601))


def crop_window(crop: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that a named crop keeps.

    Raises
    ------
    SampleError
        The crop is defined for another image size.
    """
    if crop == "none":
        return slice(0, height), slice(0, width)
    if crop == "eigen":
        if (height, width) != (480, 640):
            raise SampleError(f"the Eigen crop is defined for 480x640 images, this one is {height}x{width}",
                              fix="a protocol without crop: reasonx-eval list protocols")  # fmt: skip
        return EIGEN_NYU
    if crop == "garg":
        top, bottom, left, right = 0.40810811, 0.99189189, 0.03594771, 0.96405229
    elif crop == "eigen-kitti":
        top, bottom, left, right = 0.3324324, 0.91351351, 0.0359477, 0.96405229
    else:
        raise AssertionError(crop)
    return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))


def evaluation_mask(target: DepthTarget, spec: DepthSpec) -> NDArray[np.bool_]:
    """Pixels that count, bool [H, W]: the dataset's mask, min < depth < max (strict), inside the crop."""
    height, width = target.depth.shape
    rows, columns = crop_window(spec.crop, height, width)
    if spec.crop == "none" and spec.range_m is None:
        return target.valid
    mask = np.zeros((height, width), dtype=bool)
    inside, valid, depth = mask[rows, columns], target.valid[rows, columns], target.depth[rows, columns]
    if spec.range_m is None:
        inside[...] = valid
        return mask
    # compared in the file's float32, as the published scripts do: 0.001 m as stored is not > 0.001
    low, high = map(np.float32, spec.range_m)
    # block by block, so that no whole array lies between a comparison and the next
    with np.errstate(invalid="ignore"):
        for block in row_blocks(*depth.shape):
            np.logical_and(valid[block], depth[block] > low, out=inside[block])
            inside[block] &= depth[block] < high
    return mask


def score_depth(sample: Sample, target: Target, prediction: Prediction, protocol: Protocol) -> Scored:
    assert isinstance(target, DepthTarget)
    spec = protocol.depth
    assert spec is not None
    mask = evaluation_mask(target, spec)
    n_valid = int(np.count_nonzero(mask))
    if n_valid == 0:
        raise SampleError(_empty_reason(target, spec))
    pairs, alignment = fit_depth(prediction, target, mask, spec, scored=True)
    metrics = measure_depth(pairs, alignment=alignment, clip_m=spec.clip_m, floor_m=spec.floor_m,
                          disparity_floor=spec.align.disparity_floor, names=protocol.metrics)  # fmt: skip
    notes = [*align.alignment_notes(alignment), *_range_notes(target, spec, n_valid)]
    if spec.align.mode != "affine" and alignment.space == "depth" and prediction.kind != "disparity_affine":
        pred, truth = readings.sampled(mask, pairs.pred, pairs.target)
        notes += readings.depth_readings(pred, truth, metric=spec.align.mode == "none")
    return Scored(metrics=metrics, n_valid=n_valid, alignment=alignment, notes=tuple(notes))


def _range_notes(target: DepthTarget, spec: DepthSpec, n_valid: int) -> list[str]:
    """A note where the protocol's range leaves out most of what was measured inside its crop."""
    if spec.range_m is None:
        return []
    measured = int(np.count_nonzero(target.valid[crop_window(spec.crop, *target.depth.shape)]))
    if 2 * n_valid >= measured:
        return []
    return [f"the protocol's range, {spec.range_m[0]:g} to {spec.range_m[1]:g} m, leaves out more than half of the "
            "measured pixels: is the ground truth in metres? (reasonx-eval doctor)"]  # fmt: skip


def fit_depth(
    prediction: Prediction, target: DepthTarget, mask: NDArray[np.bool_], spec: DepthSpec, *, scored: bool = False
) -> tuple[ValidPixels, Alignment]:
    """The prediction at the ground truth's size, in the space it is fitted in, beside the ground truth; and the fit.

    Parameters
    ----------
    scored : `measure_depth` comes next, which looks at every value: where nothing is fitted, none is read here

    Raises
    ------
    SampleError
        The fit is undetermined; says why.
    """
    value = match_size(prediction.value, target.depth.shape, spec.resize)
    space = align_space(spec.align, prediction.kind)
    value = align.to_space(pred=value, kind=prediction.kind, space=space)
    pairs = ValidPixels(pred=value, target=target.depth, mask=mask)
    if scored and spec.align.mode == "none" and space == "depth" and spec.align.subsample == "all":
        return pairs, Alignment("none", space, 1.0, 0.0, int(np.count_nonzero(mask)))
    alignment = align.fit_pixels(pairs, mode=spec.align.mode, space=space, subsample=spec.align.subsample)
    if not alignment.determined:
        raise SampleError(f"the {spec.align.mode} alignment is undetermined: {alignment.reason}")
    return pairs, alignment


def match_size(value: NDArray[Any], shape: tuple[int, ...], how: str) -> NDArray[Any]:
    """The prediction at the ground truth's size, by the protocol's rule."""
    if value.shape[:2] == shape[:2]:
        return value
    if how == "none":
        raise SampleError(f"the prediction is {value.shape[0]}x{value.shape[1]}, the ground truth "
                          f"{shape[0]}x{shape[1]}, and the protocol does not resize")  # fmt: skip
    return resize(value, (shape[0], shape[1]), how)


def _empty_reason(target: DepthTarget, spec: DepthSpec) -> str:
    """Why nothing is left to score, with the guess that is nearly always right."""
    seen = target.depth[target.valid]
    if seen.size == 0:
        return "the ground truth has no valid pixel"
    middle = float(np.median(seen))
    low, high = spec.range_m or (0.0, float("inf"))
    guess = ": millimetres?" if middle > high and low < middle / 1000 < high else ""
    return (f"no valid pixel lies in {low:g}-{high:g} m inside crop '{spec.crop}'; "
            f"the median depth is {middle:.4g}{guess}")  # fmt: skip
