"""A judge that knows the ground truth, with errors at set rates: for studies and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.files import canonical_json
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.types import FIRST, LEFT_OUT, SAME, Sample
from reasonx_ft.annotation.coordinates import View, fractions
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.true_map import true_map
from reasonx_ft.types import Answer, Judge, JudgeInfo, Question

#: shares of wrong answers: one minus the published held-out accuracies .962 .935 .894 .876
PRESETS: Final[Mapping[str, Mapping[str, float]]] = {
    "paper": {"depth": 0.038, "normals": 0.065, "albedo": 0.106, "irradiance": 0.124},
    "perfect": {"depth": 0.0, "normals": 0.0, "albedo": 0.0, "irradiance": 0.0},
}
TARGETS: Final = ("depth", "normals", "irradiance", "albedo")


class Oracle(Judge):
    """Answers from the maps of the dataset that a photo came from.

    The relation is that of `reasonx_eval.metrics.ordinal.relation` with its margins. A share of the answers, by
    modality, is wrong; which ones is keyed by (seed, photo, the two points, modality), so neither batches nor the
    direction of a pair change it, and both colour orders make the same error. Pairs too close to call are coin flips:
    a probability within .05 of one half, keyed alike. Where a point isn't measured the answer is NaN, "refused".

    Parameters
    ----------
    dataset : where samples come from; None only to read `info`
    preset : paper (published error rates) or perfect
    depth, normals, irradiance, albedo : shares of wrong answers in [0, 1], before the preset's
    hard : probabilities 0 and 1 instead of the rate at which answers are right
    independent_orders : an error of its own for each colour order
    seed : of the errors

    Raises
    ------
    UsageError
        A rate outside [0, 1], a modality that the dataset has no maps of.
    """

    batch_size = 4096
    #: a photo's sample is loaded with these
    needs_targets: tuple[str, ...] = TARGETS

    def __init__(
        self, *, dataset: Recent | None = None, preset: Literal["paper", "perfect"] = "paper",
        depth: float | None = None, normals: float | None = None, irradiance: float | None = None,
        albedo: float | None = None, hard: bool = False, independent_orders: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        given = {"depth": depth, "normals": normals, "irradiance": irradiance, "albedo": albedo}
        self.errors = {m: PRESETS[preset][m] if rate is None else rate for m, rate in given.items()}
        for modality, rate in self.errors.items():
            if not 0 <= rate <= 1:
                raise UsageError(f"{modality} is {rate}; an error rate is 0 to 1", where="oracle")
        self._dataset, self._hard, self._independent, self._seed = dataset, hard, independent_orders, seed

    @property
    def info(self) -> JudgeInfo:
        options: dict[str, Any] = {"errors": self.errors, "hard": self._hard, "seed": self._seed,
                                   "independent_orders": self._independent}  # fmt: skip
        if self._dataset is not None:
            options |= {"dataset": self._dataset.dataset.name,
                        "dataset_options": {k: str(v) for k, v in self._dataset.dataset.options.items()}}  # fmt: skip
        revision = sha256_text(canonical_json({"judge": "oracle", "version": 1, **options}))[:16]
        return JudgeInfo("oracle", revision, options=options, notes=("answers come from ground truth",))

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question; see the class.

        Raises
        ------
        UsageError
            A photo that is of no dataset, or a modality that the dataset has no maps of.
        """
        groups: dict[tuple[str, str], list[int]] = {}
        for k, q in enumerate(questions):
            groups.setdefault((q.photo.digest, q.modality), []).append(k)
        answers: list[Answer | None] = [None] * len(questions)
        for (_, modality), rows in groups.items():
            group = [questions[k] for k in rows]
            for k, answer in zip(rows, self._answers(group, modality), strict=True):
                answers[k] = answer
        return [a for a in answers if a is not None]

    def _answers(self, group: Sequence[Question], modality: str) -> list[Answer]:
        """Answers about one photo and modality."""
        try:
            sample = self._sample(group[0])
            points = np.array([(q.first, q.second) for q in group], dtype=np.int64).reshape(-1, 2)
            found, measured = _relations(sample, modality, points)
        except SampleError:
            return [Answer(math.nan, "failed")] * len(group)
        return [self._answer(q, int(r)) if known else Answer(math.nan, "refused")
                for q, r, known in zip(group, found, measured, strict=True)]  # fmt: skip

    def _sample(self, question: Question) -> Sample:
        dataset, name = self._dataset, question.photo.sample_id
        if dataset is None or name is None:
            raise UsageError("this judge reads the ground truth of a dataset, and a photo is of none",
                             where=f"oracle: {question.photo.id}",
                             fix="dataset:NAME instead of a folder, e.g. dataset:scenes-wild/train")  # fmt: skip
        if question.modality not in dataset.dataset.targets:
            have = [m for m in TARGETS if m in dataset.dataset.targets]
            raise UsageError(f"the dataset has no {question.modality}", where=f"oracle: {dataset.dataset.name}",
                             fix=f"--modalities {','.join(have)}" if have else None)  # fmt: skip
        return dataset.load(name)

    def _answer(self, question: Question, code: int) -> Answer:
        """The answer to a question whose true relation is `code`."""
        ends = sorted([question.first, question.second])
        keys = (question.photo.digest, question.modality, str(ends), *([question.order] if self._independent else []))
        draw = stream_seed(self._seed, "oracle", *keys) / 2.0**128
        if code == LEFT_OUT:
            # the draw is about the pair, whichever of its points comes first
            p = 0.45 + 0.1 * draw if question.first == ends[0] else 0.55 - 0.1 * draw
            return Answer(float(p >= 0.5) if self._hard else p)
        rate = self.errors[question.modality]
        side = (code in (FIRST, SAME)) != (draw < rate)
        sure = 1.0 if self._hard else 1.0 - rate
        return Answer(sure if side else 1.0 - sure)


def _relations(
    sample: Sample, modality: str, points: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:  # fmt: skip
    """Relation of every pair, int8 [J], and whether both its points are measured, bool [J].

    Parameters
    ----------
    points : int64 [2 J, 2], canonical; a pair is two rows
    """
    value, valid = true_map(sample, modality)
    pairs = np.arange(len(points), dtype=np.int64).reshape(-1, 2)
    found = relation(value=value, points=fractions(points), pairs=pairs, modality=modality, valid=valid)
    where = View(*value.shape[:2]).locate(points)
    measured = valid[where.rows, where.cols][pairs]
    return found, measured[:, 0] & measured[:, 1]
