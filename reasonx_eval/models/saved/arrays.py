"""Predictions that are in memory already, as a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from reasonx_eval.errors import SampleError
from reasonx_eval.io.digests import array_digest, sha256_lines
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.saved.formats import as_map
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Prediction, Sample


class Arrays(Model):
    """One array a sample id.

    Parameters
    ----------
    predictions : sample id -> float [H, W], or [H, W, 3]
    kind : what they are, one of types.KINDS
    name : shown in tables

    Raises
    ------
    UsageError
        An unknown kind.
    SampleError
        An array of the wrong shape or type.
    """

    needs_image = False
    thread_safe = True

    def __init__(self, predictions: Mapping[str, ArrayLike], *, kind: str, name: str = "arrays") -> None:
        check_kind(kind, KINDS, where=name)
        self._kind = cast("Kind", kind)
        self._predictions = {i: Prediction(self._kind, as_map(np.asarray(a), kind, f"{name}: sample {i}"))
                             for i, a in predictions.items()}  # fmt: skip
        digest = sha256_lines(f"{i} {array_digest(p)}" for i, p in sorted(self._predictions.items()))
        self._info = ModelInfo(name=name, source="arrays", weights_sha256=digest)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {TASK_OF_KIND[self._kind]: (self._kind,)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self._kind,), where=self._info.name)
        absent = [s.id for s in samples if s.id not in self._predictions]
        if absent:
            raise SampleError("no prediction for this sample", where=absent[0])
        return [self._predictions[s.id] for s in samples]
