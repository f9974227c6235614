"""How often a judge is right: its answers to every pair of a dataset against the ground truth.

Every pair is asked in both colour orders; the mean of the two probabilities is the judge's answer. Where a base model
is named, its maps answer the same pairs: a judge can only improve a model on the pairs on which the two disagree, and
only if it is right on more than half of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.color import srgb_to_linear
from reasonx_eval.io.files import write_bytes
from reasonx_eval.io.results import DatasetRef, ModelRef
from reasonx_eval.io.selection import select
from reasonx_eval.leaderboard.judge_results import JudgeRef, JudgeResult
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.models.base import Model
from reasonx_eval.run.provenance import collect
from reasonx_eval.types import KINDS, LEFT_OUT, Prediction, Sample
from reasonx_ft.annotation.coordinates import fractions
from reasonx_ft.annotation.one_sided import OneSided
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.judges.evaluation.records import EvalPlan, PhotoAnswers
from reasonx_ft.judges.evaluation.scoring import modality_result
from reasonx_ft.judges.evaluation.truth import (
    JUDGEMENTS,
    Truth,
    judged_modalities,
    own_target,
    photo_of,
    truth_of,
)
from reasonx_ft.types import FLAGS, AnswerBatch, Judge, QuestionBatch

RECORDS: Final = "records.jsonl"

#: (photos done, photos in all, photos that failed)
Progress = Callable[[int, int, int], None]


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
    for answers in _asked(judge, data, ids, modalities, own, plan, base):
        found.append(answers)
        if progress:
            progress(len(found), len(ids), sum(f.error is not None for f in found))
    lines = "".join(f.line() + "\n" for f in found).encode()
    if out is not None:
        write_bytes(out / RECORDS, lines)
    return _summarised(judge, dataset, found, plan, own=own, modalities=modalities, base=base, questions=questions,
                       lines=lines)  # fmt: skip


def wanted_targets(dataset: Dataset, modalities: Sequence[str] | None, judge_needs: Sequence[str]) -> tuple[str, ...]:
    """The targets that samples have to come with."""
    asked, own = judged_modalities(dataset, tuple(modalities) if modalities else None)
    answers = (own_target(dataset),) if own else asked
    return tuple(dict.fromkeys([*answers, *(t for t in judge_needs if t in dataset.targets)]))


def _asked(
    judge: Judge, data: Recent, ids: Sequence[str], modalities: Sequence[str], own: bool, plan: EvalPlan,
    base: Model | None,
) -> Iterator[PhotoAnswers]:  # fmt: skip
    """The answers about each photo, in order; a judge may work on later photos meanwhile."""
    begun: deque[PhotoAnswers] = deque()
    size = max(judge.batch_size, 1)

    def calls() -> Iterator[list[QuestionBatch]]:
        for sample_id in ids:
            try:
                record, batch = _begun(data.load(sample_id), modalities, own, plan, base)
            except SampleError as error:
                begun.append(PhotoAnswers.failed(sample_id, str(error)))
                continue
            begun.append(record)
            for start in range(0, len(batch), size):
                yield [batch.part(slice(start, start + size))]

    for [batch], answers in judge.answers(calls()):
        if len(answers) != len(batch):
            raise UsageError(f"gave {len(answers)} answers to {len(batch)} questions", where=judge.info.name)
        while begun[0].sample_id != batch.photo.sample_id:
            yield begun.popleft()
        _fill(begun[0], batch, answers)
    yield from begun


def _begun(
    sample: Sample, modalities: Sequence[str], own: bool, plan: EvalPlan, base: Model | None
) -> tuple[PhotoAnswers, QuestionBatch]:
    """A record without answers yet, and the questions: of pairs that count, those about one picture together."""
    photo = photo_of(sample)
    truth = truth_of(sample, photo, modalities, own=own, pairs=plan.pairs, seed=plan.seed)
    says = {} if base is None else _base_relations(base, sample, truth, modalities, plan.seed)
    shape = (len(truth.points), len(plan.orders), len(truth.relation))
    pair, order, modality = (axis.ravel() for axis in np.indices(shape))
    counts = np.stack([relation != LEFT_OUT for relation in truth.relation.values()])[modality, pair]
    batch = QuestionBatch(photo, truth.points.astype(np.int16), tuple(truth.relation), pair.astype(np.int32),
                          modality.astype(np.int8), order.astype(np.int8)).part(counts)  # fmt: skip
    unanswered = {m: np.full(shape[1::-1], np.nan) for m in truth.relation}
    return PhotoAnswers(sample.id, truth.points, truth.band, truth.relation, unanswered, says,
                        {m: Counter() for m in truth.relation}), batch  # fmt: skip


def _fill(record: PhotoAnswers, batch: QuestionBatch, answers: AnswerBatch) -> None:
    for k, modality in enumerate(batch.modalities):
        rows = batch.modality == k
        record.probability[modality][batch.order[rows], batch.pair[rows]] = answers.probability[rows]
        record.flags[modality].update(FLAGS[flag] for flag in answers.flag[rows].tolist())


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


def _summarised(
    judge: Judge, dataset: Dataset, found: Sequence[PhotoAnswers], plan: EvalPlan, *, own: bool,
    modalities: Sequence[str], base: Model | None, questions: Questions | None, lines: bytes,
) -> JudgeResult:  # fmt: skip
    """The result of all photos."""
    info = judge.info
    scored = [f for f in found if f.error is None]
    failed = {f.sample_id: f.error for f in found if f.error is not None}
    name = None if base is None else base.info.name
    results = {m: modality_result(scored, m, plan, name) for m in modalities}
    asked = sum(r.n_asked for r in results.values())
    whole = len(scored) == len(dataset) and all(r.n_answered == r.n_asked for r in results.values())
    return JudgeResult(
        schema=1,
        status="failed" if not scored or not asked else "complete" if whole else "partial",
        signature=signature(dataset, plan, own=own, n=len(scored)),
        judge=JudgeRef(name=info.name, revision=info.revision, licence=info.licence, parameters=info.parameters,
                       trained_on=list(info.trained_on), options=_plain(info.options, info.name),
                       notes=list(info.notes), reading=info.reading),
        dataset=DatasetRef(name=dataset.name, split=dataset.split,
                           options={k: str(v) for k, v in dataset.options.items()}, n=len(dataset),
                           ids_sha256=dataset.ids_digest),
        selection=plan.selection,
        base=None if base is None else _model_ref(base),
        questions={} if questions is None else {m: t.digest for m, t in questions.templates.items()},
        modalities=results, confidence=plan.confidence, resamples=plan.resamples,
        n_total=len(dataset), n_scored=len(scored), failed=failed, warnings=_warnings(scored),
        records_sha256=hashlib.sha256(lines).hexdigest(),
        provenance=collect(seed=plan.seed, passed=dict(plan.passed)),
    )  # fmt: skip


def _warnings(scored: Sequence[PhotoAnswers]) -> list[str]:
    sides = OneSided()
    for photo in scored:
        for modality, probability in photo.probability.items():
            order = np.broadcast_to(np.arange(len(probability))[:, None], probability.shape)
            sides.add(modality, order.ravel(), probability.ravel())
    return sides.warnings()


def signature(dataset: Dataset, plan: EvalPlan, *, own: bool, n: int) -> str:
    """Everything that decides what the figures mean, in one line."""
    from reasonx_eval import __version__

    whole = "" if n == len(dataset) else f"/{len(dataset)}"
    pairs = f"{plan.pairs}.stratified.seed{plan.seed}|margin:0.02|same:0.05"
    if own:
        # people say what is the same by eye, not by a margin
        pairs = "human" if own_target(dataset) == JUDGEMENTS else "own|margin:0.02|same:0.05"
    orders = "both" if len(plan.orders) > 1 else plan.orders[0]
    return (f"judge/{dataset.name}@1|split:{dataset.split}|n:{n}{whole}|pairs:{pairs}"
            f"|orders:{orders}|reasonx:{__version__}")  # fmt: skip


def _model_ref(base: Model) -> ModelRef:
    info = base.info
    return ModelRef(
        name=info.name, source=info.source, kind="maps", weights_sha256=info.weights_sha256, licence=info.licence,
        parameters=info.parameters, base=info.base, trained_on=list(info.trained_on), reward=info.reward,
        options=_plain(info.options, info.name), notes=list(info.notes),
    )  # fmt: skip


def _plain(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options as JSON."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(options), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"its options can't be stored: {' '.join(str(error).split())[:200]}", where=where) from None
    return found

