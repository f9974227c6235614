"""The configuration of `reasonx-ft tune`: one validated object, from a preset, a TOML file, and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reasonx_ft.grpo.loss import ScaleRewards
from reasonx_ft.grpo.ranking import RankingKind
from reasonx_ft.grpo.rewards import AlbedoThreshold, Space

Method: TypeAlias = Literal["grpo", "ranking", "expected"]
METHODS: Final[tuple[Method, ...]] = ("grpo", "ranking", "expected")
#: modality -> number, or one number for all
PerModality: TypeAlias = float | dict[str, float]


def largest(value: PerModality) -> float:
    """The greatest weight that any modality has."""
    return max(value.values(), default=0.0) if isinstance(value, Mapping) else value


def kind_of(value: RankingKind | Mapping[str, RankingKind], modality: str) -> RankingKind:
    """The ranking loss of a modality."""
    return value.get(modality, "mixture") if isinstance(value, Mapping) else value


def per_modality(value: PerModality, modality: str) -> float:
    """The number of a modality; 0 where a table leaves it out."""
    return value.get(modality, 0.0) if isinstance(value, Mapping) else value


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which photos and pairs a step takes.

    batch_size : photos of a step, over all processes
    pairs : judged pairs of a photo and modality in a step, drawn from the stored ones
    modalities : that are tuned; None is all that the model predicts and the store judges
    modalities_per_step : all of them in every step, or one that is drawn for the step
    flip : mirror half of the photos, with their pairs
    held_out : share of the photos, by their digests, that is never trained on and measures agreement; at least one,
        unless it is 0
    judge, template : the judge and the wording to use; needed where the store has several
    min_confidence : least abs(2 p - 1) of a stored probability
    max_gap : greatest difference between the two colour orders; more is a contradiction, and left out
    limit : only N photos, spread evenly
    """

    batch_size: int = Field(8, ge=1)
    pairs: int = Field(40, ge=1)
    modalities: tuple[str, ...] | None = None
    modalities_per_step: Literal["all", "one"] = "all"
    flip: bool = True
    held_out: float = Field(0.1, ge=0, lt=1)
    judge: str | None = None
    template: str | None = None
    min_confidence: float = Field(0.0, ge=0, lt=1)
    max_gap: float = Field(0.5, gt=0, le=1)
    limit: int | None = Field(None, ge=1)


class Objective(Section):
    """What is made small.

    grpo, ranking, expected : weights of the three ways to use answers, for all modalities or one each; any mixture
        works
    kl : weight of the exact Gaussian KL to the frozen base (samples it needs are those of grpo)
    distance : weight of the distance of the deterministic answer to the base's
    rehearsal : weight of supervision on rendered scenes with known maps, against forgetting
    rehearsal_data, rehearsal_scenes, rehearsal_batch_size : dataset and split of it, how many scenes, how many a step
    num_generations : samples of a photo, G
    num_iterations : optimiser updates on one set of samples; with 1 the ratio is always 1 and nothing is clipped
    scale_rewards : what centred rewards of whole maps are divided by: nothing, the standard deviation of the group, or
        that or `std_floor` if it is larger
    std_floor : least standard deviation under "floored"
    advantage_clip : largest absolute advantage
    credit : one advantage for a whole map, or one for each pair, where the noise is local
    reward : 0 or 1 by the likelier answer, or the judge's probability of what the map says
    balanced : same and different pairs count alike in albedo, however many there are
    albedo_threshold, albedo_space : colour distance below which a map says "same", of linear RGB or of its logarithm:
        see `reasonx_ft.grpo.rewards`
    clip_range_sum : how far a log-ratio, summed over the elements of a step, may go; the range of a mean over D
        elements is this divided by D
    units : the policy gradient of a log-density summed over elements (that of the expected reward), or of their mean
    ranking_kind, temperature : of the ranking loss, see `reasonx_ft.grpo.ranking`, one for all modalities or a table;
        what a table leaves out is mixture, and the default temperature
    """

    grpo: PerModality = 1.0
    ranking: PerModality = 0.0
    expected: PerModality = 0.0
    kl: float = Field(0.0, ge=0)
    distance: PerModality = 0.0
    rehearsal: float = Field(0.0, ge=0)
    rehearsal_data: str = "scenes-synthetic/train"
    rehearsal_scenes: int = Field(500, ge=1)
    rehearsal_batch_size: int = Field(4, ge=1)
    num_generations: int = Field(8, ge=2)
    num_iterations: int = Field(1, ge=1)
    scale_rewards: ScaleRewards = "floored"
    std_floor: float = Field(0.05, ge=0)
    advantage_clip: float = Field(5.0, gt=0)
    credit: Literal["image", "pairs"] = "image"
    reward: Literal["hard", "soft"] = "soft"
    balanced: bool = True
    albedo_threshold: float = Field(0.05, gt=0)
    albedo_space: Space = "linear"
    clip_range_sum: float = Field(1.0, gt=0)
    units: Literal["sum", "mean"] = "sum"
    ranking_kind: RankingKind | dict[str, RankingKind] = "mixture"
    temperature: float | dict[str, float] | None = None

    @property
    def threshold(self) -> AlbedoThreshold:
        """When two base colours of a map are the same."""
        return AlbedoThreshold(self.albedo_threshold, self.albedo_space)

    @model_validator(mode="after")
    def _something(self) -> Objective:
        used = [self.grpo, self.ranking, self.expected, self.distance]
        numbers = [n for w in used for n in (w.values() if isinstance(w, Mapping) else [w])]
        if not all(n >= 0 for n in numbers):
            raise ValueError("a weight is below 0")
        if not any(map(largest, used[:3])):
            raise ValueError("one of grpo, ranking, expected needs a weight above 0")
        if self.kl and not largest(self.grpo):
            raise ValueError("kl is measured on grpo's samples: use distance, or a small weight of grpo")
        if self.credit == "pairs" and self.scale_rewards != "none":
            raise ValueError("credit by pairs needs scale_rewards none: a pair has no deviation of its own")
        return self


class Optimiser(Section):
    """How weights change: AdamW, a linear rise of the learning rate, then half a cosine to 0.

    steps : optimiser steps (of `num_iterations` updates each); None is `epochs` passes over the photos
    learning_rate, warmup_steps : its peak, and the steps of the rise
    max_grad_norm : longest gradient that is taken as it is
    ema : decay of the averaged weights that are evaluated and exported, each step; 0 takes the weights as they are
    interpolate : how much of the way from the base's weights to the tuned (and averaged) ones is evaluated and
        exported. Between the two a network keeps most of what it learned and forgets little (WiSE-FT, Wortsman et al.
        2022), and training may then go further
    """

    steps: int | None = Field(None, ge=1)
    epochs: float = Field(3.0, gt=0)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    interpolate: float = Field(1.0, gt=0, le=1)


class UnrewardedMetric(Section):
    """A metric that is not rewarded, on data with ground truth: the run stops where it gets much worse than the base's.

    dataset : NAME or NAME/SPLIT, of any dataset of reasonx-eval; protocol : that accepts it; metric : of the protocol
    samples : how many, spread evenly
    most : stop where metric / base (or base / metric, where more is better) exceeds it
    """

    dataset: str
    protocol: str
    metric: str
    samples: int = Field(16, ge=1)
    most: float = Field(1.5, gt=1)
    root: str | None = None

    @property
    def label(self) -> str:
        return f"{self.protocol.partition('@')[0]} {self.metric} on {self.dataset}"


class Guard(Section):
    """When a run is stopped, because its reward is being hacked rather than earned; each compares with the base.

    agreement_drop : held-out agreement this far below its best, or below the base, at `patience` checks in a row
    flatness : least and greatest quotient of the maps' contrast (mean deviation, and mean step between neighbours of
        the codes) to the base's
    normals_away : by how much the share of pixels whose normals point away from the camera may exceed the least so far,
        the base's included; some truly do, near the edges of wide views (5 % of the rendered scenes' pixels)
    unrewarded_metrics : by task, among those that are tuned; see UnrewardedMetric
    """

    agreement_drop: float = Field(0.02, gt=0)
    patience: int = Field(3, ge=1)
    flatness: tuple[float, float] = (0.4, 2.5)
    normals_away: float = Field(0.07, gt=0)
    unrewarded_metrics: tuple[UnrewardedMetric, ...] = ()

    @model_validator(mode="after")
    def _range(self) -> Guard:
        if not 0 <= self.flatness[0] < 1 < self.flatness[1]:
            raise ValueError("flatness is a range around 1, e.g. [0.4, 2.5]")
        return self


class Watch(Section):
    """What is kept and shown; changes no weights, and may be changed when a run goes on.

    save_every, keep : steps between checkpoints, and how many of the last are kept; 0 saves only on interrupts
    check_every, check_photos : steps between checks (held-out agreement, unrewarded metrics, shape of maps), photos in
        each
    gradients_every : steps between measurements of each term's gradient, which cost a way back a term; 0 is never
    grid_every, grid_photos : steps between pictures of fixed photos; 0 is never
    report_to : trackers beside the JSON lines, of those that `accelerate.tracking` knows and that are installed:
        tensorboard, wandb, trackio, mlflow
    export : the weights that are exported, those of the best check or the last
    """

    save_every: int = Field(100, ge=0)
    keep: int = Field(2, ge=1)
    check_every: int = Field(50, ge=0)
    check_photos: int = Field(64, ge=1)
    gradients_every: int = Field(25, ge=0)
    grid_every: int = Field(0, ge=0)
    grid_photos: int = Field(3, ge=1)
    report_to: tuple[str, ...] = ()
    export: Literal["best", "last"] = "best"

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("report_to"), str):
            return {**values, "report_to": [values["report_to"]]}
        return values


class Machine(Section):
    """Where and how it is computed; decides last bits only, and may be changed when a run goes on.

    microbatch : samples that go through the network with gradient at a time; None is all
    shard : share the weights out among the processes; None follows `accelerate launch` (--use_fsdp)
    threads : of the arithmetic on a CPU
    workers : threads that read photos; cache_gib : memory for photos at working size
    """

    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    microbatch: int | None = Field(None, ge=1)
    shard: bool | None = None
    threads: int = Field(2, ge=1)
    workers: int = Field(2, ge=1)
    cache_gib: float = Field(2.0, ge=0)


class TuneConfig(Section):
    """Everything that decides a tuned network.

    policy : options of the base as a policy (noise, schedule, adapters), see `reasonx_ft.policies.load.make_policy`
    preset : where the values came from
    """

    preset: str = "default"
    seed: int = Field(0, ge=0)
    data: Data = Data()
    policy: dict[str, Any] = {}
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    guard: Guard = Guard()
    watch: Watch = Watch()
    machine: Machine = Machine()

    @property
    def method(self) -> str:
        """The terms that use answers, the weightiest first: ``grpo``, or ``ranking+grpo``."""
        o = self.objective
        weights: dict[Method, float] = {"grpo": largest(o.grpo), "ranking": largest(o.ranking),
                                        "expected": largest(o.expected)}  # fmt: skip
        used = sorted((m for m in METHODS if weights[m]), key=lambda m: -weights[m])
        return "+".join(used)

    def deciding(self) -> dict[str, Any]:
        """What a run that goes on must not change."""
        return self.model_dump(mode="json", exclude={"preset", "guard", "watch", "machine"})
