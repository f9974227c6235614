"""WHDR: weighted human disagreement rate of a reflectance map (Bell, Bala and Snavely 2014, section 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore, unknown
from reasonx_eval.metrics.arrays import Scores, like, to_numpy
from reasonx_eval.metrics.points import check_pairs, pixels
from reasonx_eval.types import FIRST, SAME, SECOND, JudgementTarget

Decode: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

# Darker than this counts as this, so that ratios stay finite.
_DARKEST = 1e-10


@dataclass(frozen=True)
class CompiledJudgements:
    """Judgements at the pixels of a map of one size: all that is left to do is to gather and compare.

    rows, cols : int64 [P], the judged points (only those that some pair uses)
    pairs : int64 [J, 2], rows of these points
    darker : int8 [J], FIRST, SECOND or SAME
    weight : float64 [J], >= 0
    """

    height: int
    width: int
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    pairs: NDArray[np.int64]
    darker: NDArray[np.int8]
    weight: NDArray[np.float64]


Judgements: TypeAlias = JudgementTarget | CompiledJudgements


def compile_judgements(*, target: JudgementTarget, height: int, width: int) -> CompiledJudgements:
    """Judgements for maps of height x width; do it once per image and score many maps.

    Raises
    ------
    SampleError
        A judged point outside the image, a pair of unknown points, an unknown answer, or a weight that
        is negative or not finite.
    """
    pairs = np.asarray(target.pairs, dtype=np.int64)
    check_pairs(pairs=pairs, n_points=len(target.points))
    darker, weight = np.asarray(target.darker), np.asarray(target.weight, dtype=np.float64)
    if darker.shape != (len(pairs),) or weight.shape != (len(pairs),):
        raise SampleError(f"{len(pairs)} pairs, {darker.size} answers and {weight.size} weights: all must be as many")
    if not ((darker == SAME) | (darker == FIRST) | (darker == SECOND)).all():
        raise SampleError(f"judgements hold answers {np.unique(darker).tolist()}, expected only 0, 1 and 2")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise SampleError("judgements hold weights that are negative or not finite")
    points = np.asarray(target.points, dtype=np.float64)
    used = np.zeros(len(points), dtype=np.bool_)
    used[pairs] = True
    rows, cols = pixels(points=points[used], height=height, width=width)
    return CompiledJudgements(height, width, rows, cols, (np.cumsum(used) - 1)[pairs], darker, weight)


def lightness(
    *, reflectance: NDArray[Any], judgements: CompiledJudgements, decode: Decode | None = None
) -> NDArray[np.float64]:
    """Channel mean of linear reflectance at the judged points, at least 1e-10, float64 [P].

    Parameters
    ----------
    reflectance : [H, W] or [H, W, 3]; linear, or whatever `decode` turns into linear
    judgements : compiled for the same H and W
    decode : callable, optional
        Applied to the gathered values [P] or [P, 3] only (a table for 8-bit codes, say), not to the map.

    Raises
    ------
    SampleError
        Another size or shape, or a value at a judged point that isn't finite.
    """
    if reflectance.ndim not in (2, 3) or reflectance.shape[:2] != (judgements.height, judgements.width):
        raise SampleError(f"reflectance has shape {reflectance.shape}, expected [{judgements.height}, "
                          f"{judgements.width}] or [{judgements.height}, {judgements.width}, 3]")  # fmt: skip
    gathered = reflectance[judgements.rows, judgements.cols]
    values = np.asarray(gathered if decode is None else decode(gathered), dtype=np.float64)
    grey = values if values.ndim == 1 else values.sum(axis=1) / values.shape[1]
    finite = np.isfinite(grey)
    if not finite.all():
        raise SampleError(f"reflectance is NaN or infinite at {np.count_nonzero(~finite)} of {grey.size} judged points")
    return np.maximum(grey, _DARKEST)


def darker_point(*, light: NDArray[np.float64], pairs: NDArray[np.int64], delta: float) -> NDArray[np.int8]:
    """Which point of each pair is the darker one: FIRST, SECOND or SAME, int8 [J].

    Where l2 / l1 > 1 + delta, point 1 is the darker one; where l1 / l2 > 1 + delta, point 2; otherwise
    they are the same. Strict, in float64 and in this ratio form: the product form rounds differently
    at the threshold.

    Parameters
    ----------
    light : float64 [P], from `lightness`
    pairs : int64 [J, 2], rows of `light`
    delta : threshold > 0
    """
    first, second = light[pairs[:, 0]], light[pairs[:, 1]]
    limit = 1.0 + delta
    # FIRST is 1 and SECOND is 2; both ratios can't exceed a limit above 1
    return ((second / first > limit) + 2 * (first / second > limit)).astype(np.int8)


def disagreement(
    *, light: NDArray[np.float64], judgements: CompiledJudgements, delta: float = 0.10
) -> dict[str, float]:
    """WHDR, all and by kind of judgement, fractions in [0, 1], lower is better.

    Parameters
    ----------
    light : float64 [P], from `lightness`: gathered once, it serves any number of deltas
    judgements : the same
    delta : threshold > 0; 0.10 is the authors'

    Returns
    -------
    dict
        whdr, and whdr_eq / whdr_ineq over the judgements "same" / "one is darker" alone; these two are
        NaN where no such judgement has weight.

    Raises
    ------
    UndefinedScore
        No judgement with weight: such an image has no score and stays out of the mean.
    """
    wrong = _wrong(light, judgements, delta)
    same = judgements.darker == SAME
    return {
        "whdr": _rate(wrong, judgements.weight),
        "whdr_eq": _rate(wrong[same], judgements.weight[same]),
        "whdr_ineq": _rate(wrong[~same], judgements.weight[~same]),
    }


def whdr(
    pred: Any, target: Judgements | Sequence[Judgements], delta: float = 0.10, *, judged: str = "all"
) -> Scores:
    """Weighted human disagreement rate, a fraction in [0, 1]; lower is better.

    The score of a data set is the plain mean over images, not over judgements.

    Ties are decided by the float64 ratio of the values as given: 1.1 to 1 is the same lightness in float64 and a
    darker point in float32, whose 1.1 is 1.10000002.

    Parameters
    ----------
    pred : [H, W] or [H, W, 3], linear reflectance of any size, since points are fractions; numpy or torch. A batch
        [B, H, W, 3] goes with B targets
    target : the judgements of the image, or of each image
    delta : threshold > 0 of the ratio that people see; 0.10 is the authors'
    judged : all judgements, or only those that say "same" (eq) or "one is darker" (ineq)

    Returns
    -------
    float
        For a batch float64 [B], as the input is. NaN for `eq` and `ineq` where no such judgement has weight.

    Raises
    ------
    SampleError
        A judged point outside the image, a value that isn't finite at one, or judgements that contradict themselves.
    UndefinedScore
        No judgement with weight: such an image stays out of the mean.

    References
    ----------
    Bell, Bala and Snavely 2014, section 3.5.

    Examples
    --------
    Point 1 (left) is darker, say the judges, and so says the map:

    >>> points = np.array([[0.25, 0.5], [0.75, 0.5]])
    >>> judged = JudgementTarget(points, np.array([[0, 1]]), np.array([FIRST]), np.array([1.0]))
    >>> whdr(np.array([[0.1, 0.9]]), judged), whdr(np.array([[0.9, 0.1]]), judged)
    (0.0, 1.0)
    >>> whdr(np.array([[1.0, 1.1]]), judged), whdr(np.array([[1.0, 1.1]], dtype=np.float32), judged)
    (1.0, 0.0)
    """
    if judged not in _PARTS:
        raise unknown("kind of judgements", judged, _PARTS)
    maps = to_numpy(pred)
    if isinstance(target, JudgementTarget | CompiledJudgements):
        return _whdr(maps, target, delta, judged)
    if maps.ndim < 3 or len(maps) != len(target):
        raise SampleError(f"predictions of shape {maps.shape} and judgements of {len(target)} images don't match")
    return like(pred, None, [_whdr(one, t, delta, judged) for one, t in zip(maps, target, strict=True)], (len(maps),))


_PARTS = ("all", "eq", "ineq")


def _whdr(pred: NDArray[Any], target: Judgements, delta: float, judged: str) -> float:
    if pred.ndim < 2:
        raise SampleError(f"reflectance has shape {pred.shape}, expected [H, W] or [H, W, 3]")
    if isinstance(target, JudgementTarget):
        target = compile_judgements(target=target, height=pred.shape[0], width=pred.shape[1])
    light = lightness(reflectance=pred, judgements=target)
    wrong = _wrong(light, target, delta)
    if judged == "all":
        return _rate(wrong, target.weight)
    chosen = (target.darker == SAME) == (judged == "eq")
    return _rate(wrong[chosen], target.weight[chosen])


def _wrong(light: NDArray[np.float64], judgements: CompiledJudgements, delta: float) -> NDArray[np.float64]:
    """Weights of the judgements that the map contradicts, 0 for the others, float64 [J]."""
    if not judgements.weight.sum() > 0:
        raise UndefinedScore("no judgement with weight")
    answer = darker_point(light=light, pairs=judgements.pairs, delta=delta)
    return np.where(answer == judgements.darker, 0.0, judgements.weight)


def _rate(wrong: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    total = float(weight.sum())
    return float(wrong.sum()) / total if total > 0 else math.nan
