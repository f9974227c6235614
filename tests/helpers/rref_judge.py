"""A judge of one's own in one file: the published relative-reflectance network (Zhou, Krahenbuhl, Efros, ICCV 2015).

It learnt from people's judgements of reflectance and answers one kind of question, that about base colour, by its
probability of "equal". The others it refuses. ::

    reasonx-ft judge-eval --judge tests/helpers/rref_judge.py:RelativeReflectance -O weights=zhou2015_rref.onnx \\
        --dataset flat --root FOLDER --modalities albedo
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reasonx_eval.errors import UsageError
from reasonx_eval.io.digests import sha256_file
from reasonx_ft.annotation.coordinates import View
from reasonx_ft.types import Answer, Judge, JudgeInfo, Photo, Question

#: of blue, green and red, subtracted from both patches and context
_MEAN = np.array([104, 117, 123], dtype=np.float32)
_REACH = 31  # a patch is 63 x 63 pixels around its point
_CONTEXT = 150


class RelativeReflectance(Judge):
    """Probability that two points have equal reflectance.

    Parameters
    ----------
    weights : the network in ONNX form

    Raises
    ------
    UsageError
        No such file.
    """

    def __init__(self, *, weights: Path) -> None:
        if not weights.is_file():
            raise UsageError("no such file", where=str(weights))
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._digest = sha256_file(weights)
        self._prepared = lru_cache(maxsize=2)(_prepare)

    @property
    def info(self) -> JudgeInfo:
        # the number after the digest goes up when this file's arithmetic changes
        return JudgeInfo("zhou2015-rref", f"{self._digest[:16]}-1", licence="MIT", trained_on=("iiw",),
                         notes=("learnt from people's judgements of which of two surfaces is darker",))  # fmt: skip

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One pair at a time, so that no answer depends on a batch; the red point is the network's first."""
        return [Answer(self._equal(q)) if q.modality == "albedo" else Answer(math.nan, "refused") for q in questions]

    def _equal(self, question: Question) -> float:
        padded, context = self._prepared(_Same(question.photo))
        height, width = question.photo.image.shape[:2]
        ends = [question.first, question.second][:: 1 if question.order == "red-first" else -1]
        at = View(height, width).locate(np.array(ends, dtype=np.int64))
        patches = [padded[None, :, y : y + 2 * _REACH + 1, x : x + 2 * _REACH + 1]
                   for x, y in zip(at.cols, at.rows, strict=True)]  # fmt: skip
        places = np.stack([(at.cols + _REACH) / (width + 2 * _REACH), (at.rows + _REACH) / (height + 2 * _REACH)], 1)
        given = {"patch1_bgr_minus_mean": patches[0], "patch2_bgr_minus_mean": patches[1], "context": context,
                 "coords_xyxy": places.reshape(1, 4).astype(np.float32)}  # fmt: skip
        [equal_darker_brighter] = self._session.run(None, given)
        return float(np.clip(equal_darker_brighter[0, 0], 0, 1))


class _Same:
    """A photo that is found again by its digest."""

    def __init__(self, photo: Photo) -> None:
        self.photo = photo

    def __hash__(self) -> int:
        return hash(self.photo.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.photo.digest == other.photo.digest


def _prepare(same: _Same) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The photo with a mirrored border, [3, H + 62, W + 62], and the small one, [1, 3, 150, 150] of 0 to 1; no mean."""
    image = same.photo.image
    border = ((_REACH, _REACH), (_REACH, _REACH), (0, 0))
    padded = np.pad(image[..., ::-1].astype(np.float32), border, mode="symmetric") - _MEAN
    small = np.asarray(Image.fromarray(image).resize((_CONTEXT, _CONTEXT), Image.Resampling.BOX))
    context = small[..., ::-1].astype(np.float32) / 255 - _MEAN
    return np.ascontiguousarray(padded.transpose(2, 0, 1)), np.ascontiguousarray(context.transpose(2, 0, 1))[None]
