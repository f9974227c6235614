"""The figures on a small judge's card, by judge-eval's own scoring of the weights as stored."""

from __future__ import annotations

from pathlib import Path

from reasonx_eval.errors import DataError
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.registry import load_dataset
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.judges.evaluation.evaluate import evaluate_judge, wanted_targets
from reasonx_ft.judges.evaluation.records import EvalPlan
from reasonx_ft.judges.tiny import TinyJudge
from reasonx_ft.judges.tiny_files import JudgeScore
from reasonx_ft.judges.training.config import Source


def scores(weights: Path, source: Source, base: str | None) -> list[JudgeScore]:
    """Accuracy, calibration and, with a base model, "right on disagreements" of every modality on a split.

    Raises
    ------
    UsageError, DataError
        A split without known answers, an unknown base model, an answer missing.
    """
    dataset = load_dataset(source.dataset, split=source.split)
    judge, model = TinyJudge(weights=weights), None if base is None else load_model(base)
    plan = EvalPlan(selection=Selection(limit=source.scenes), resamples=100)
    result = evaluate_judge(judge, Recent(dataset, wanted_targets(dataset, None, ())), plan, base=model)
    found = []
    for modality, one in result.modalities.items():
        value, error = one.headline.value, one.calibration_error
        if value is None or error is None or one.n_answered < one.n_asked:
            raise DataError(f"{one.n_answered} of {one.n_asked} questions about {modality} have an answer",
                            where=f"{source.dataset}/{source.split}")  # fmt: skip
        differ = one.disagreements
        found.append(JudgeScore(
            dataset=source.dataset, split=source.split, modality=modality, n=one.n_answered, accuracy=value,
            calibration_error=error, base=base if differ else None,
            right_on_disagreements=differ.right.value if differ else None,
            n_disagreements=differ.right.n if differ else None,
        ))  # fmt: skip
    return found
