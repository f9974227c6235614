"""A model that asks another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.models.loading.options import check_kind
from reasonx_eval.types import TASK_OF_KIND, Kind, Prediction, Sample


class Wrapped(Model):
    """Passes on what another model needs and is; subclasses change what it gives."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.batch_size = model.batch_size
        self.needs_image = model.needs_image
        self.needs_targets = model.needs_targets
        self.thread_safe = model.thread_safe

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def load(self) -> None:
        self._model.load()

    def close(self) -> None:
        self._model.close()


class OneKind(Wrapped):
    """A model that could give several kinds, held to the one that was asked for."""

    def __init__(self, model: Model, kind: Kind) -> None:
        model.kind_for(TASK_OF_KIND[kind], (kind,))
        super().__init__(model)
        self._kind = kind

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {TASK_OF_KIND[self._kind]: (self._kind,)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self._kind,), where=self.info.name)
        return self._model.predict(samples, kind, seed)
