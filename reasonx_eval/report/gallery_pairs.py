"""Judged point pairs drawn on photo and prediction; what is right and wrong differs in shape, not in colour alone.

Right: a thin solid blue line between two dots. Wrong: a thick dashed orange line with a cross in its middle. On the
ground truth an arrow points to the darker (or closer, ...) point and an equals sign says that both are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import color
from reasonx_eval.metrics.judgements import darker_point
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.report.pictures import Panel
from reasonx_eval.scoring.judgements import judged_lightness
from reasonx_eval.scoring.pairs import implied_relation
from reasonx_eval.types import (
    DIFFERENT,
    FIRST,
    LEFT_OUT,
    SAME,
    JudgementTarget,
    PairTarget,
    Prediction,
    Sample,
)

#: blue and vermilion of Okabe and Ito, which readers of any colour vision tell apart
RIGHT, WRONG, NEUTRAL = (0, 114, 178), (213, 94, 0), (255, 255, 255)
#: the long side of the canvas, pixels; lines are drawn on twice as many, and averaged
_CANVAS, _OVER = 384, 2

Points = NDArray[np.float64]
Pairs = NDArray[np.int64]


def judgement_panels(
    sample: Sample, target: JudgementTarget, predictions: Sequence[Prediction], protocol: Protocol, metric: str
) -> list[Panel]:
    """WHDR: the judgements on the photo, the predictions, and each prediction's answers, right and wrong."""
    spec = protocol.whdr
    assert spec is not None
    delta = _threshold(metric)
    counted = target.weight > 0
    maps, answers = [], []
    for prediction in predictions:
        light, compiled = judged_lightness(sample, target, prediction, spec)
        wrong = darker_point(light=light, pairs=compiled.pairs, delta=delta) != target.darker
        maps.append(Panel("", _shown(prediction), "rgb"))
        answers.append(Panel("", draw_answers(sample.image, target.points, target.pairs[counted], wrong[counted]),
                             "rgb", caption=_wrong(wrong[counted])))  # fmt: skip
    truth = draw_relations(sample.image, target.points, target.pairs[counted], target.darker[counted])
    return [Panel("", truth, "rgb", caption=f"{np.count_nonzero(counted)} judgements"), *maps, *answers]


def relation_panels(
    sample: Sample, target: PairTarget, predictions: Sequence[Prediction], protocol: Protocol
) -> list[Panel]:
    """Ordinal pairs: as `judgement_panels`, for the protocol's modality."""
    spec = protocol.pairs
    assert spec is not None
    reference = target.relation[spec.modality]
    counted = reference != LEFT_OUT
    maps, answers = [], []
    for prediction in predictions:
        wrong = (implied_relation(target, prediction, spec) != reference)[counted]
        maps.append(Panel("", _shown(prediction), "rgb"))
        answers.append(Panel("", draw_answers(sample.image, target.points, target.pairs[counted], wrong), "rgb",
                             caption=_wrong(wrong)))  # fmt: skip
    truth = draw_relations(sample.image, target.points, target.pairs[counted], reference[counted])
    return [Panel("", truth, "rgb", caption=f"{np.count_nonzero(counted)} pairs"), *maps, *answers]


def _wrong(wrong: NDArray[np.bool_]) -> str:
    return f"{np.count_nonzero(wrong)} of {len(wrong)} wrong"


def _threshold(metric: str) -> float:
    """The threshold of a WHDR metric: 0.1 for whdr10_eq."""
    match = re.match(r"whdr(\d+(?:_\d+)?)", metric)
    assert match is not None
    return float(match.group(1).replace("_", ".")) / 100


def _shown(prediction: Prediction) -> NDArray[np.uint8]:
    """A prediction that has no ground truth map to share a scale with, uint8 [H, W, 3]."""
    value = np.nan_to_num(prediction.value.astype(np.float64))
    if prediction.kind == "normal":
        picture = value * np.array([1, -1, -1]) / 2 + 0.5
    elif value.ndim == 2:
        low, high = np.percentile(value, [1, 99])
        picture = np.repeat(((value - low) / max(high - low, 1e-12))[..., None], 3, axis=-1)
    else:
        bright = max(float(np.percentile(value, 99)), 1e-12)
        picture = value if prediction.kind == "albedo_srgb" else color.linear_to_srgb(np.clip(value / bright, 0, 1))
    rounded: NDArray[np.uint8] = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return rounded


def draw_answers(photo: NDArray[np.uint8], points: Points, pairs: Pairs, wrong: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photo, dimmed, with right and wrong answers; wrong ones on top, uint8 [H, W, 3]."""
    canvas = _Canvas(photo)
    for pick in (~wrong, wrong):
        for a, b in pairs[pick]:
            start, end = canvas.at(points[a]), canvas.at(points[b])
            if pick is wrong:
                canvas.dashes(start, end, WRONG, 5)
                canvas.cross(start, end, WRONG)
            else:
                canvas.line(start, end, RIGHT, 3)
                canvas.dot(start, RIGHT)
                canvas.dot(end, RIGHT)
    return canvas.picture()


def draw_relations(
    photo: NDArray[np.uint8], points: Points, pairs: Pairs, relations: NDArray[np.int8]
) -> NDArray[np.uint8]:
    """The photo, dimmed, with what holds: an arrow to the point that is darker or closer; dashes where they differ
    in no order; an equals sign where both are the same."""
    canvas = _Canvas(photo)
    for (a, b), holds in zip(pairs, relations, strict=True):
        start, end = canvas.at(points[a]), canvas.at(points[b])
        if holds == SAME:
            canvas.line(start, end, NEUTRAL, 2)
            canvas.equals(start, end, NEUTRAL)
        elif holds == DIFFERENT:
            canvas.dashes(start, end, NEUTRAL, 2)
        else:
            tail, head = (end, start) if holds == FIRST else (start, end)
            canvas.line(tail, head, NEUTRAL, 2)
            canvas.arrow(tail, head, NEUTRAL)
    return canvas.picture()


Place = tuple[float, float]
Colour = tuple[int, int, int]


class _Canvas:
    """A dimmed photo to draw on; sizes are pixels of the doubled canvas."""

    def __init__(self, photo: NDArray[np.uint8]) -> None:
        from PIL import Image, ImageDraw

        height, width = photo.shape[:2]
        factor = _CANVAS / max(height, width)
        self._size = round(width * factor), round(height * factor)
        large = self._size[0] * _OVER, self._size[1] * _OVER
        dimmed = (photo * np.float32(0.45)).astype(np.uint8)
        self._image = Image.fromarray(dimmed).resize(large, Image.Resampling.LANCZOS)
        self._draw = ImageDraw.Draw(self._image)

    def at(self, point: Points) -> Place:
        return float(point[0] * self._image.width), float(point[1] * self._image.height)

    def line(self, start: Place, end: Place, colour: Colour, width: int) -> None:
        self._draw.line([start, end], fill=colour, width=width)

    def dashes(self, start: Place, end: Place, colour: Colour, width: int) -> None:
        length = math.dist(start, end)
        n = max(2, round(length / 20))
        for k in range(n):
            self.line(_between(start, end, k / n), _between(start, end, (k + 0.6) / n), colour, width)

    def dot(self, place: Place, colour: Colour) -> None:
        self._draw.circle(place, 4, fill=colour)

    def cross(self, start: Place, end: Place, colour: Colour) -> None:
        x, y = _between(start, end, 0.5)
        for dy in (-8, 8):
            self.line((x - 8, y - dy), (x + 8, y + dy), NEUTRAL, 9)
        for dy in (-8, 8):
            self.line((x - 8, y - dy), (x + 8, y + dy), colour, 5)

    def equals(self, start: Place, end: Place, colour: Colour) -> None:
        x, y = _between(start, end, 0.5)
        self._draw.circle((x, y), 9, fill=(0, 0, 0))
        for dy in (-3, 3):
            self.line((x - 5, y + dy), (x + 5, y + dy), colour, 2)

    def arrow(self, tail: Place, head: Place, colour: Colour) -> None:
        angle = math.atan2(head[1] - tail[1], head[0] - tail[0])
        wings = [(head[0] - 14 * math.cos(angle + turn), head[1] - 14 * math.sin(angle + turn)) for turn in (0.4, -0.4)]
        self._draw.polygon([head, *wings], fill=colour)

    def picture(self) -> NDArray[np.uint8]:
        from PIL import Image

        return np.asarray(self._image.resize(self._size, Image.Resampling.BOX))


def _between(start: Place, end: Place, share: float) -> Place:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
