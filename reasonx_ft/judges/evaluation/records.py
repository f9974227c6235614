"""What judge-eval asks, and the answers about one photo beside what is true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.files import canonical_json
from reasonx_eval.io.selection import Selection
from reasonx_eval.types import FIRST, SAME
from reasonx_ft.types import ORDERS, Order


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

    points : int64 [J, 2, 2]; band : int8 [J]
    relation, base : modality -> int8 [J], codes of reasonx_eval.types (base: {} without one)
    probability : modality -> float64 [orders, J], NaN where there is none; flags : modality -> flag -> count
    """

    sample_id: str
    points: NDArray[np.int64]
    band: NDArray[np.int8]
    relation: Mapping[str, NDArray[np.int8]]
    probability: Mapping[str, NDArray[np.float64]]
    base: Mapping[str, NDArray[np.int8]]
    flags: Mapping[str, Counter[str]]
    error: str | None = None

    @classmethod
    def failed(cls, sample_id: str, error: str) -> PhotoAnswers:
        return cls(sample_id, np.zeros((0, 2, 2), np.int64), np.zeros(0, np.int8), {}, {}, {}, {}, error)

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


def mean_of_orders(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """The judge's answer, 1 for FIRST or SAME, 0 for the other, 0.5 undecided, NaN without one; float64 [J].

    probability : float64 [orders, J]; an order without a probability is left to the other
    """
    answered = ~np.isnan(probability)
    total = np.where(answered, probability, 0).sum(axis=0)
    count = answered.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def is_true(relation: NDArray[np.int8], modality: str) -> NDArray[np.bool_]:
    """Whether a relation is FIRST, or for albedo SAME."""
    found: NDArray[np.bool_] = relation == (SAME if modality == "albedo" else FIRST)
    return found
