"""A predictor that can be tuned: it draws G samples for a photo, replays them with a gradient, and answers once.

A policy explores in one of two places. In its *output*, it is Gaussian around the answer: samples are the answer plus
noise at the judged points (`reasonx_ft.policies.noise`), one pass of the network serves all of them, and a network that
answers at once has no other place. In its *steps*, a sampler of many steps takes some of them at random
(`reasonx_ft.policies.chain`), as Flow-GRPO publishes it; each sample is then a chain of passes of its own.

GRPO needs three things either way: a *rollout* without gradient, of which the values at the judged points are kept; a
*replay*, the means of the same transitions by the present weights; and the means of the frozen base. Rewards,
advantages, ratio and loss are the same for all policies and know no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.grpo.batch import Batch, Judged, Microbatch, Rollout, Transition
from reasonx_ft.grpo.expected import Covariance
from reasonx_ft.policies.adapters import without_adapters
from reasonx_ft.policies.frozen import one_path
from reasonx_ft.policies.noise import Noise, sigmas


@dataclass(frozen=True)
class Saved:
    """Weights in a folder.

    architecture : what runs them, as `reasonx_eval.models.embedded.tuned.TunedCard` names it
    path : of the weights, relative to the folder
    """

    architecture: str
    path: str


@dataclass(frozen=True)
class Compute:
    """How a network is called.

    dtype : in which it computes where it may (autocast); codes, states, means and densities are float32 in any case
    microbatch : network inputs in one pass, None is all at once; rollouts and replays agree on it, because a batch of
        another size may round differently
    """

    dtype: torch.dtype = torch.float32
    microbatch: int | None = None

    def autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class Source:
    """Where a policy's weights come from.

    name : of the model, as a card names its base
    microbatch : network inputs in one pass, None is all at once
    path : a weights file of an embedded network
    checkpoint : a transformers or diffusers folder
    """

    name: str
    runtime: Runtime
    microbatch: int | None
    path: Path | None = None
    checkpoint: Checkpoint | None = None

    @property
    def compute(self) -> Compute:
        return Compute(self.runtime.torch_dtype, self.microbatch)


class Policy(ABC):
    """A predictor that can be tuned.

    Parameters
    ----------
    network : in any mode; it is put in evaluation mode, in which tuning keeps it. The module with the trained
        parameters, as an optimiser and a checkpoint see them
    frozen : a copy of it that stays the base, or None where the network has adapters, and is its base without them
    base : name or hub id of the model that it starts as; licence : of its weights, None if unknown
    noise : around the answer; None explores in the steps of a chain
    sigma : of the noise, one for all modalities or one each; default `noise.SIGMA`

    Attributes
    ----------
    modalities : that it predicts, in a fixed order
    code_range : where decoding cuts the values of codes off, (least, greatest); None where it does not
    log_slope : modality -> d log(map) / d code, where that is a constant
    is_base : whether the network is the base just now
    """

    modalities: tuple[str, ...]
    code_range: tuple[float, float] | None = None
    log_slope: Mapping[str, float] = {}

    def __init__(
        self, network: nn.Module, frozen: nn.Module | None, *, base: str, licence: str | None = None,
        noise: Noise | None = None, sigma: float | Mapping[str, float] | None = None, compute: Compute | None = None,
    ) -> None:  # fmt: skip
        self.network, self.frozen = one_path(network).eval(), frozen
        self.base, self.licence, self.compute = base, licence, compute or Compute()
        self.noise, self.sigma = noise, sigmas(sigma, self.modalities)
        self.is_base = False

    @property
    def local_noise(self) -> bool:
        """Whether the sampled value at a point depends on noise of its own: pair-level credit is exact then."""
        return self.noise is not None and self.noise.local

    @abstractmethod
    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which the policy sees photos of a size and writes maps."""

    @abstractmethod
    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        """The deterministic answer that is evaluated afterwards, with gradient: codes [B, C, H, W].

        Policies that answer in many steps give their answer of fewest steps.
        """

    @abstractmethod
    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W], pixel by pixel: metres or any positive depth unit, unit vectors, linear RGB."""

    @abstractmethod
    def save(self, folder: Path) -> Saved:
        """Write the present weights into a folder, as `reasonx_eval` runs them; same weights, same bytes."""

    def decode_points(self, codes: Tensor, modality: str) -> Tensor:
        """Values [..., N, 2, C] of codes at points: pairs are rows of a map two pixels wide."""
        return self.decode(codes.movedim(-1, -3), modality).movedim(-3, -1)

    def values(self, code: Tensor, judged: Judged) -> Tensor:
        """Values [B, N, 2, C], in the units of the map, of an answer's codes [B, C, H, W] at the judged points."""
        return self.decode_points(judged.at_points(code), judged.modality)

    def covariance(self, code: Tensor, judged: Judged) -> Covariance:
        """Of the output's noise at the judged points, as `expected_agreement` takes it.

        Raises
        ------
        UsageError
            The noise is not in the output, or not in the logarithm of the map: there is no closed form.
        """
        slope = 1.0 if judged.modality == "normals" else self.log_slope.get(judged.modality)
        if self.noise is None or slope is None:
            raise UsageError("the expected agreement has a closed form for noise in the output of codes that are "
                             "logarithms", where=self.base, fix="weights of grpo or ranking instead")  # fmt: skip
        found = self.noise.covariance(code.shape[-2], code.shape[-1], judged)
        found = found.times((self.sigma[judged.modality] * slope) ** 2)
        if judged.modality != "normals":
            return found
        # noise turns a long vector less than a short one
        first, second = judged.at_points(code).norm(dim=-1).unbind(-1)
        return Covariance(found.first / first**2, found.second / second**2, found.both / (first * second))

    def rollout(self, batch: Batch, num_generations: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        """Sample `num_generations` answers per photo for each modality of the batch; no gradient.

        Parameters
        ----------
        step : optimiser step, which decides the window of scored steps of a chain (the same for all samples)
        reference : also compute the frozen base's means
        """
        with torch.no_grad():
            codes = self.answer(batch.images, list(batch.judged))
        return self.rollout_around(codes, batch, num_generations, reference=reference)

    def rollout_around(
        self, codes: Mapping[str, Tensor], batch: Batch, num_generations: int, *, reference: bool
    ) -> dict[str, Rollout]:
        """`rollout` around an answer that is there already; it may have a gradient, the samples have none."""
        noise = self.noise
        assert noise is not None
        found = {}
        with torch.no_grad():
            with self.as_base():
                frozen = self.answer(batch.images, list(batch.judged)) if reference else {}
            for modality, judged in batch.judged.items():
                drawn = noise.sample(codes[modality], judged, self.sigma[modality], batch.seeds, num_generations)
                base = noise.coordinates(frozen[modality], judged) if reference else None
                found[modality] = Rollout(
                    modality, self.decode_points(drawn.codes, modality),
                    (Transition(0, None, drawn.after, drawn.mean, drawn.std, base),),
                    float(drawn.codes.std(dim=1, correction=0).mean()),
                )  # fmt: skip
        return found

    def microbatches(self, rollouts: Mapping[str, Rollout], size: int | None) -> list[Microbatch]:
        """All transitions in parts of at most `size` inputs of the network, each replayed by one pass."""
        photos, samples = next(iter(rollouts.values())).values.shape[:2]
        return [Microbatch(tuple(rollouts), 0, part, slice(0, samples)) for part in portions(photos, size)]

    def replay(self, batch: Batch, rollouts: Mapping[str, Rollout], part: Microbatch) -> dict[str, Tensor]:
        """Means by the present weights, with gradient, by modality: [b, g or 1, ...]; arithmetic of the rollout's."""
        # the very tensor where it is whole: a policy knows by it what it has encoded
        whole = part.photos == slice(0, len(batch.images))
        codes = self.answer(batch.images if whole else batch.images[part.photos], part.modalities)
        return {m: self.means_of(codes, batch.judged[m].of(part.photos)) for m in part.modalities}

    def means_of(self, codes: Mapping[str, Tensor], judged: Judged) -> Tensor:
        """What `replay` gives for all samples around an answer that is there already."""
        assert self.noise is not None
        return self.noise.coordinates(codes[judged.modality], judged)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside, the network is the frozen base; put back afterwards, also after an exception."""
        self.is_base = True
        try:
            if self.frozen is None:
                with without_adapters(self.network):
                    yield
            else:
                with self.exchanged(self.frozen):
                    yield
        finally:
            self.is_base = False

    @contextmanager
    def exchanged(self, network: nn.Module) -> Iterator[None]:
        """Inside, another network stands in the place of the tuned one; put back also after an exception."""
        tuned, self.network = self.network, network
        try:
            yield
        finally:
            self.network = tuned


def portions(count: int, size: int | None) -> list[slice]:
    """0 to `count` in slices of `size`, the last may be shorter."""
    step = size or max(count, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
