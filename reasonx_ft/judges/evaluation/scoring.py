"""From a judge's answers to figures with intervals: accuracy, consistency, calibration, right on disagreements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.judge_results import CalibrationBin, Disagreements, ModalityResult
from reasonx_eval.statistics.bootstrap import bootstrap_statistic_ci
from reasonx_eval.types import LEFT_OUT
from reasonx_ft.annotation.pairs import BAND_NAMES
from reasonx_ft.judges.evaluation.records import EvalPlan, PhotoAnswers, is_true, mean_of_orders

BINS: Final = 10



class Pooled:
    """All decided pairs of one modality: photo number, band, truth, the judge's probability, the base's answer.

    photo, band : int64 [n]; true : bool [n]; p : float64 [n], NaN without an answer; both : float64 [orders, n]
    base_right : bool [n], or None
    """

    def __init__(self, found: Sequence[PhotoAnswers], modality: str) -> None:
        parts: dict[str, list[NDArray[Any]]] = {k: [] for k in ("photo", "band", "true", "p", "base")}
        both: list[NDArray[np.float64]] = []
        for number, one in enumerate(found):
            if modality not in one.relation:
                continue
            relation = one.relation[modality]
            kept = relation != LEFT_OUT
            parts["photo"].append(np.full(int(kept.sum()), number))
            parts["band"].append(one.band[kept])
            parts["true"].append(is_true(relation[kept], modality))
            parts["p"].append(mean_of_orders(one.probability[modality][:, kept]))
            both.append(one.probability[modality][:, kept])
            if modality in one.base:
                parts["base"].append(one.base[modality][kept] == relation[kept])
        joined = {k: np.concatenate(v) if v else np.zeros(0) for k, v in parts.items()}
        self.photo, self.band = joined["photo"].astype(np.int64), joined["band"].astype(np.int64)
        self.true, self.p = joined["true"].astype(np.bool_), joined["p"].astype(np.float64)
        self.both = np.concatenate(both, axis=1) if both else np.zeros((1, 0))
        self.base_right = joined["base"].astype(np.bool_) if parts["base"] else None
        self.answered = ~np.isnan(self.p)
        with np.errstate(invalid="ignore"):
            # exactly one half is no answer to which of two: wrong
            self.right = np.where(self.true, self.p > 0.5, self.p < 0.5) & self.answered
        self.photos = len(found)

    def classes(self, modality: str) -> list[NDArray[np.bool_]]:
        """What balanced accuracy averages over: same and different, or everything."""
        return [self.true, ~self.true] if modality == "albedo" else [np.ones_like(self.true)]

    def share(self, right: NDArray[np.bool_], among: Sequence[NDArray[np.bool_]], plan: EvalPlan) -> Value:
        """The mean over classes of the share `right`, with an interval from resampled photos."""
        n = int(sum(int(a.sum()) for a in among))
        if any(not a.any() for a in among):
            return Value(value=None, n=n, reason="no pair of some kind" if n else "no pair")
        counts = np.zeros((self.photos, len(among), 2))
        for k, kept in enumerate(among):
            np.add.at(counts[:, k, 0], self.photo[kept], 1)
            np.add.at(counts[:, k, 1], self.photo[kept], right[kept])
        counts = counts[counts[..., 0].sum(axis=1) > 0]
        sums = counts.reshape(len(counts), -1)
        # photos are resampled: pairs of one photo are not independent
        ends = bootstrap_statistic_ci(sums, _mean_share, confidence=plan.confidence, resamples=plan.resamples,
                                      seed=plan.seed)  # fmt: skip
        low, high = (None, None) if ends is None else (max(float(ends[0][0]), 0.0), min(float(ends[1][0]), 1.0))
        return Value(value=float(_mean_share(sums.sum(axis=0))[0]), ci_low=low, ci_high=high, n=n)


def _mean_share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes of right / all, [..., 1] from [..., 2 classes]: all and right of each; NaN if one is empty."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (pairs[..., 1] / pairs[..., 0]).mean(axis=-1, keepdims=True)
    return found


def calibration(p: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float | None, list[CalibrationBin]]:
    """Expected calibration error and curve of answers with probability p [n] of FIRST or SAME.

    Confidence is max(p, 1 - p), in ten equal bins of [0.5, 1]; the error is the mean over answers of the distance
    between a bin's mean confidence and its share right (Naeini et al. 2015).
    """
    if not len(p):
        return None, []
    confidence = np.maximum(p, 1 - p)
    number = np.minimum((2 * BINS * (confidence - 0.5)).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for k in range(BINS):
        inside = number == k
        count = int(inside.sum())
        if not count:
            continue
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        error += count / len(p) * abs(mean - share)
        bins.append(CalibrationBin(low=0.5 + k / (2 * BINS), high=0.5 + (k + 1) / (2 * BINS), n=count,
                                   confidence=mean, right=share))  # fmt: skip
    return error, bins


def modality_result(
    found: Sequence[PhotoAnswers], modality: str, plan: EvalPlan, base_name: str | None
) -> ModalityResult:  # fmt: skip
    """All figures of one modality."""
    data = Pooled(found, modality)
    answered = [data.answered & c for c in data.classes(modality)]
    accuracy = data.share(data.right, [data.answered], plan)
    balanced = data.share(data.right, answered, plan) if modality == "albedo" else None
    by_band = {name: data.share(data.right, [a & (data.band == k) for a in answered], plan)
               for k, name in enumerate(BAND_NAMES)}  # fmt: skip
    error, bins = calibration(data.p[data.answered], data.right[data.answered])
    consistency = gap = None
    if len(data.both) > 1:
        both = ~np.isnan(data.both).any(axis=0)
        first, second = data.both[0], data.both[1]
        with np.errstate(invalid="ignore"):
            alike: NDArray[np.bool_] = np.equal(np.sign(first - 0.5), np.sign(second - 0.5)) & both
        consistency = data.share(alike, [np.asarray(both, dtype=np.bool_)], plan)
        gap = float(np.abs(first - second)[both].mean()) if both.any() else None
    flags: Counter[str] = Counter()
    for one in found:
        flags.update(one.flags.get(modality, {}))
    return ModalityResult(
        accuracy=accuracy, balanced=balanced, by_band=by_band, consistency=consistency, order_gap=gap,
        calibration_error=error, bins=bins, disagreements=_disagreements(data, modality, plan, base_name),
        n_asked=len(data.p), n_answered=int(data.answered.sum()), flags=dict(flags),
    )  # fmt: skip


def _disagreements(data: Pooled, modality: str, plan: EvalPlan, name: str | None) -> Disagreements | None:
    if name is None or data.base_right is None:
        return None
    # with two possible answers, they differ where one of them is right
    differ: NDArray[np.bool_] = data.answered & np.not_equal(data.right, data.base_right)
    among = [data.answered & c for c in data.classes(modality)]
    return Disagreements(base=name, right=data.share(data.right, [differ], plan),
                         base_accuracy=data.share(data.base_right, among, plan))  # fmt: skip
