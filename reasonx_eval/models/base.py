"""The interface of all models: the kinds they can predict, and predictions without alignment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.types import TASK_OF_KIND, Kind, Prediction, Sample


@dataclass(frozen=True)
class ModelInfo:
    """Who made a prediction: stored in every result.

    name : shown in tables
    source : registered name, path or hub id it came from
    weights_sha256 : digest of the weights (or of the saved predictions), None for weightless baselines
    options : resolved options that change the output
    """

    name: str
    source: str
    weights_sha256: str | None = None
    licence: str | None = None
    parameters: int | None = None
    base: str | None = None
    trained_on: tuple[str, ...] = ()
    reward: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Model(ABC):
    """A predictor. It states the kind of its output and never aligns, crops or clips to ground truth."""

    #: largest number of samples that one call of `predict` takes
    batch_size: int = 1
    #: whether predict looks at Sample.image (scoring saved predictions doesn't: no decoding then)
    needs_image: bool = True
    #: targets it reads from the sample (only oracles and target-sized baselines do)
    needs_targets: tuple[str, ...] = ()
    #: whether `predict` may be called from several threads at once
    thread_safe: bool = False

    @property
    def fully_described(self) -> bool:
        """Whether `info` says all that decides a prediction; of a user's own code nobody knows what else it reads."""
        return type(self).__module__.startswith("reasonx_eval.")

    @property
    @abstractmethod
    def info(self) -> ModelInfo: ...

    @property
    @abstractmethod
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        """Task -> the kinds it can give, preferred first."""

    @abstractmethod
    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        """Predict one map per sample, in order, independent of the batch they come in.

        Any randomness comes from ``seeding.rng(seed, sample.id)``. Values are float32, [H, W] or
        [H, W, 3], of any size; the runner resizes, aligns and scores.
        """

    def kind_for(self, task: str, accepts: Sequence[str]) -> Kind:
        """The preferred kind of this model that a protocol accepts.

        Raises
        ------
        UsageError
            The model has no such output; lists its outputs and the accepted kinds.
        """
        have = self.kinds.get(task, ())
        for kind in have:
            if kind in accepts:
                return kind
        if have:
            raise UsageError(f"model gives {', '.join(have)}, but the protocol accepts only {', '.join(accepts)}",
                             where=self.info.name, fix="reasonx-eval list protocols")  # fmt: skip
        raise UsageError(f"model predicts {', '.join(self.kinds) or 'nothing'}, not {task}", where=self.info.name)

    def files(self) -> Mapping[str, str]:
        """Path -> digest, taken now, of the files that decide the predictions and may change unseen.

        Of a plug-in: its code, and the files that it opened or names. Models of this package have none, because
        `info` states the digest of their weights.
        """
        return {}

    def load(self) -> None:  # noqa: B027  # nothing to load is the rule for baselines
        """Read the weights, if `predict` needs any; the runner calls it while the first samples are decoded."""

    def close(self) -> None:  # noqa: B027
        """Free the memory that `predict` uses."""


class Wrapped(Model):
    """A model around another one, with its needs and its description; subclasses change the predictions."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.batch_size = model.batch_size
        self.needs_image = model.needs_image
        self.needs_targets = model.needs_targets
        self.thread_safe = model.thread_safe

    @property
    def fully_described(self) -> bool:
        return self._model.fully_described

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def files(self) -> Mapping[str, str]:
        return self._model.files()

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


def check_kind(kind: str, allowed: Collection[str], *, where: str) -> None:
    """Refuse a kind that is not one of `allowed`.

    Raises
    ------
    UsageError
        It is not; lists the allowed ones and the nearest match.
    """
    if kind not in allowed:
        raise unknown("kind", kind, allowed, where=where)
