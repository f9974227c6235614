"""How often a judge is right: its answers to every pair of a dataset against the ground truth.

Every pair is asked in both colour orders; the mean of the two probabilities is the judge's answer. Where a base model
is named, its maps answer the same pairs: a judge can only improve a model on the pairs on which the two disagree, and
only if it is right on more than half of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.io.files import canonical_json, write_bytes
from reasonx_eval.io.results import Selection
from reasonx_eval.leaderboard.judge_results import JudgeResult
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.models.base import Model
from reasonx_eval.run.loop import select
from reasonx_eval.types import FIRST, KINDS, LEFT_OUT, SAME, Prediction, Sample
from reasonx_ft.annotation.coordinates import fractions
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.judges.base import ORDERS, Judge, Order, Photo, Question
from reasonx_ft.judges.evaluation.scoring import summarise
from reasonx_ft.judges.evaluation.truth import Truth, judged_modalities, own_target, photo_of, truth_of

RECORDS: Final = "records.jsonl"

#: (photos done, photos in all, photos that failed)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class EvalPlan:
    """What is asked.

    modalities : None is all that the dataset has answers to
    orders : both colour orders, or the first alone
    pairs : drawn for each photo where the dataset has none of its own
    seed : of those pairs, of the base model, and of the intervals
    resamples, confidence : of the intervals
    """

    modalities: tuple[str, ...] | None = None
    orders: tuple[Order, ...] = ORDERS
    pairs: int = 80
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    resamples: int = 2000
    confidence: float = 0.95
    passed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PhotoAnswers:
    """One photo's line of records.jsonl, or why it has none.

    band : int8 [J]; relation, base : modality -> int8 [J], codes of reasonx_eval.types (base: {} without one)
    probability : modality -> float64 [orders, J], NaN where there is none; flags : modality -> flag -> count
    """

    sample_id: str
    points: NDArray[np.int64]
    band: NDArray[np.int8]
    relation: Mapping[str, NDArray[np.int8]]
    probability: Mapping[str, NDArray[np.float64]]
    base: Mapping[str, NDArray[np.int8]]
    flags: Mapping[str, Mapping[str, int]]
    error: str | None = None

    def line(self) -> str:
        """Canonical JSON: null for an answer without a probability."""
        if self.error is not None:
            return canonical_json({"id": self.sample_id, "error": self.error})
        return canonical_json({
            "id": self.sample_id, "points": self.points.reshape(-1, 4).tolist(), "band": self.band.tolist(),
            "relation": {m: r.tolist() for m, r in self.relation.items()},
            "probability": {m: [[None if math.isnan(v) else round(v, 6) for v in row] for row in p.tolist()]
                            for m, p in self.probability.items()},
            "base": {m: r.tolist() for m, r in self.base.items()},
            "flags": {m: dict(f) for m, f in self.flags.items() if set(f) - {"ok"}},
        })  # fmt: skip


def evaluate_judge(
    judge: Judge, data: Recent, plan: EvalPlan, *, base: Model | None = None, questions: Questions | None = None,
    out: Path | None = None, progress: Progress | None = None,
) -> JudgeResult:  # fmt: skip
    """Ask about every pair and compare with the ground truth.

    Parameters
    ----------
    data : the dataset; a judge that knows the ground truth shares it
    base : a model whose maps answer the same pairs
    questions : the wording, of which the result keeps the digests
    out : gets records.jsonl

    Raises
    ------
    UsageError
        A dataset without answers, a base model without maps.
    """
    dataset = data.dataset
    modalities, own = judged_modalities(dataset, plan.modalities)
    if base is not None:
        modalities_of_base = [m for m in modalities if m in base.kinds]
        if not modalities_of_base:
            raise UsageError(f"predicts none of {', '.join(modalities)}", where=f"--base {base.info.name}")
    found: list[PhotoAnswers] = []
    ids = select(dataset.ids, plan.selection)
    for answers in _all(judge, data, ids, modalities, own, plan, base):
        found.append(answers)
        if progress:
            progress(len(found), len(ids), sum(f.error is not None for f in found))
    lines = "".join(f.line() + "\n" for f in found).encode()
    if out is not None:
        write_bytes(out / RECORDS, lines)
    return summarise(judge, dataset, found, plan, own=own, modalities=modalities, base=base, questions=questions,
                     lines=lines)  # fmt: skip


def wanted_targets(dataset: Dataset, modalities: Sequence[str] | None, judge_needs: Sequence[str]) -> tuple[str, ...]:
    """The targets that samples have to come with."""
    asked, own = judged_modalities(dataset, tuple(modalities) if modalities else None)
    answers = (own_target(dataset),) if own else asked
    return tuple(dict.fromkeys([*answers, *(t for t in judge_needs if t in dataset.targets)]))


def _all(
    judge: Judge, data: Recent, ids: Sequence[str], modalities: Sequence[str], own: bool, plan: EvalPlan,
    base: Model | None,
) -> Iterator[PhotoAnswers]:  # fmt: skip
    for sample_id in ids:
        try:
            sample = data.load(sample_id)
            photo = photo_of(sample)
            truth = truth_of(sample, photo, modalities, own=own, pairs=plan.pairs, seed=plan.seed)
            said = {} if base is None else _base_relations(base, sample, truth, modalities, plan.seed)
        except SampleError as error:
            none = np.zeros((0, 2, 2), dtype=np.int64)
            yield PhotoAnswers(sample_id, none, np.zeros(0, np.int8), {}, {}, {}, {}, str(error))
            continue
        probability, flags = _ask(judge, photo, truth, plan.orders)
        yield PhotoAnswers(sample_id, truth.points, truth.band, truth.relation, probability, said, flags)


def _ask(
    judge: Judge, photo: Photo, truth: Truth, orders: Sequence[Order]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, int]]]:
    """Probabilities [orders, J] by modality; only of pairs that count. Questions about one picture stay together."""
    points = [((int(a[0]), int(a[1])), (int(b[0]), int(b[1]))) for a, b in truth.points]
    where = [(o, k, m) for k in range(len(points)) for o in range(len(orders)) for m in truth.relation
             if truth.relation[m][k] != LEFT_OUT]  # fmt: skip
    asked = [Question(photo, *points[k], m, orders[o]) for o, k, m in where]
    found = {m: np.full((len(orders), len(points)), np.nan) for m in truth.relation}
    flags: dict[str, dict[str, int]] = {m: {} for m in truth.relation}
    size = max(judge.batch_size, 1)
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        answers = judge.ask(part)
        if len(answers) != len(part):
            raise UsageError(f"gave {len(answers)} answers to {len(part)} questions", where=judge.info.name)
        for (o, k, m), answer in zip(where[start : start + size], answers, strict=True):
            found[m][o, k] = answer.probability
            flags[m][answer.flag] = flags[m].get(answer.flag, 0) + 1
    return found, flags


def _base_relations(
    base: Model, sample: Sample, truth: Truth, modalities: Sequence[str], seed: int
) -> dict[str, NDArray[np.int8]]:
    """What the base model's maps say about the pairs, without a margin: it always has to choose."""
    found = {}
    flat = fractions(truth.points.reshape(-1, 2))
    index = np.arange(len(flat), dtype=np.int64).reshape(-1, 2)
    for modality in modalities:
        if modality not in base.kinds:
            continue
        [prediction] = base.predict([sample], base.kind_for(modality, list(KINDS)), seed)
        found[modality] = relation(value=_comparable(prediction), points=flat, pairs=index, modality=modality,
                                   margin=0.0, larger_is_closer=prediction.kind == "disparity_affine")  # fmt: skip
    return found


def _comparable(prediction: Prediction) -> NDArray[Any]:
    value: NDArray[Any] = prediction.value
    return srgb_to_linear(value) if prediction.kind == "albedo_srgb" else value


def says(probability: NDArray[np.float64], modality: str) -> NDArray[np.float64]:
    """The judge's answer, 1 for FIRST or SAME, 0 for the other, 0.5 undecided, NaN without one; orders are averaged.

    probability : float64 [orders, J]; an order without a probability is left to the other
    """
    answered = ~np.isnan(probability)
    total = np.where(answered, probability, 0).sum(axis=0)
    count = answered.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def is_true(relation: NDArray[np.int8], modality: str) -> NDArray[np.bool_]:
    """Whether FIRST, or for albedo SAME, is what a relation says."""
    found: NDArray[np.bool_] = relation == (SAME if modality == "albedo" else FIRST)
    return found
