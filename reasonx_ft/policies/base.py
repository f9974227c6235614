"""What a predictor must offer to be tuned: sample G answers, replay their transitions with gradient, answer once.

A policy turns a photo into maps by a chain of Gaussian transitions (a flow's or a diffusion's SDE steps; one step for a
feed-forward network with noise of its own). GRPO needs three things of it: a *rollout* without gradient, from which
only the values at the judged points are kept; a *replay*, the means of the same transitions by the present weights; and
the means of the frozen base. Everything else (rewards, advantages, ratio, loss) is the same for all of them and knows
no network.

Shapes: B images, G samples each, N judged pairs an image, C channels of a map. A transition's variable may live where
the policy likes ([B, G, ...]: pixels, latents, coefficients); its log-density sums over all axes but the first two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn


@dataclass(frozen=True)
class Judged:
    """Judged pairs of one modality, at the size of the policy's maps.

    rows, cols : int64 [B, N, 2], pixel of the first and the second point
    probability : float32 [B, N], that FIRST is closer, faces more, has more light; for albedo that both are the SAME
    weight : float32 [B, N], 0 where there is no judgement (images with fewer pairs are filled up)
    """

    modality: str
    rows: Tensor = field(repr=False)
    cols: Tensor = field(repr=False)
    probability: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)

    def at_points(self, maps: Tensor) -> Tensor:
        """Values [B, N, 2, C] of maps [B, C, H, W], or [B, G, N, 2, C] of maps [B, G, C, H, W]."""
        batch = maps.shape[0]
        flat = maps.flatten(-2).movedim(-2, -1)
        index = (self.rows * maps.shape[-1] + self.cols).view(batch, *([1] * (flat.ndim - 3)), -1, 1)
        found = flat.gather(-2, index.expand(*flat.shape[:-2], index.shape[-2], flat.shape[-1]))
        return found.view(*flat.shape[:-2], -1, 2, flat.shape[-1])

    def of(self, images: slice) -> Judged:
        """The pairs of some of the images."""
        return Judged(self.modality, self.rows[images], self.cols[images], self.probability[images],
                      self.weight[images])  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """Images of one optimiser step on one process, with what a judge said of them.

    images : float32 [B, 3, H, W] in [0, 1], sRGB, at the policy's working size, on its device
    judged : modality -> pairs; only modalities that are tuned in this step
    seeds : of each image's noise in this step, keyed by (run seed, step, photo) and nothing else
    """

    images: Tensor = field(repr=False)
    judged: Mapping[str, Judged]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Transition:
    """A scored Gaussian step of a rollout, x' ~ N(mean, std^2), all float32.

    index : place among the scored steps; step : place in the whole chain, from noise
    state : [B, G or 1, ...] what the network saw; None where it saw the photo alone
    after : [B, G, ...] the sample x'
    mean : [B, G or 1, ...] of the policy that made the rollout
    std : of each element, > 0; a number, or a tensor that broadcasts against `after`
    reference : [B, G or 1, ...] mean of the frozen base at the same state; None where nothing asks for it
    at_points : the variable is [B, G, N, 2, C], what was drawn for the points of each judged pair: its log-density can
        be summed by pair
    kl_scale : weight of ||mean - reference||^2 / (2 std^2) in the KL; other than 1 under a named weighting
    weight : of this step in the policy loss; the scored steps average 1
    """

    index: int
    state: Tensor | None = field(repr=False)
    after: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    std: float | Tensor
    reference: Tensor | None = field(default=None, repr=False)
    kl_scale: float = 1.0
    at_points: bool = False
    weight: float = 1.0
    step: int = 0


@dataclass(frozen=True)
class Rollout:
    """G samples for each image, of one modality.

    values : float32 [B, G, N, 2, C], the sampled maps at the judged points, in the units of the map
    transitions : the scored steps; the last step of a chain is never one of them
    spread : float, mean standard deviation over a group of the sampled codes: what exploration there is
    """

    modality: str
    values: Tensor = field(repr=False)
    transitions: tuple[Transition, ...]
    spread: float


@dataclass(frozen=True)
class Piece:
    """A part of a rollout that is replayed at once: images and samples of one transition of one modality."""

    modality: str
    transition: int
    images: slice
    samples: slice

    def of(self, value: Tensor) -> Tensor:
        """Its part of [B, G or 1, ...]."""
        return value[self.images, self.samples if value.shape[1] > 1 else slice(None)]


@dataclass(frozen=True)
class Saved:
    """Weights in a folder.

    architecture : what runs them, as `reasonx_eval.models.embedded.tuned.TunedCard` names it
    path : of the weights, relative to the folder
    """

    architecture: str
    path: str


class Policy(ABC):
    """A predictor that can be tuned.

    Attributes
    ----------
    base : name or hub id of the model that it starts as; licence : of its weights, None if unknown
    modalities : what it predicts, in a fixed order
    network : the module with the trained parameters; what an optimiser, an EMA and a checkpoint see
    local_noise : whether the sampled value at a point depends on noise of its own: pair-level credit is exact then
    code_range : where decoding cuts the values of codes off, (least, greatest); None where it does not
    micro : network inputs in one pass, None is all at once; rollouts and replays must agree on it, because a batch of
        another size may round differently
    """

    base: str
    licence: str | None = None
    modalities: tuple[str, ...]
    network: nn.Module
    local_noise: bool = False
    code_range: tuple[float, float] | None = None
    micro: int | None = None

    @abstractmethod
    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which the policy sees photos of a size and writes maps."""

    @abstractmethod
    def rollout(self, visit: Visit, group: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        """Sample `group` answers per image for each modality of the visit; no gradient, network in evaluation mode.

        Parameters
        ----------
        step : optimiser step, which decides the window of scored steps (the same for all samples)
        reference : also compute the frozen base's means
        """

    @abstractmethod
    def pieces(self, rollouts: Mapping[str, Rollout], micro: int | None) -> list[list[Piece]]:
        """All transitions in portions; one portion is one forward and one backward pass of at most `micro` samples."""

    @abstractmethod
    def replay(self, visit: Visit, rollouts: Mapping[str, Rollout], portion: Sequence[Piece]) -> list[Tensor]:
        """Means by the present weights, with gradient, of each piece: [b, g or 1, ...]; arithmetic of the rollout's."""

    @abstractmethod
    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        """The deterministic answer that is evaluated afterwards, with gradient: codes [B, C, H, W].

        Policies that answer in many steps give their answer of fewest steps.
        """

    @abstractmethod
    def decode(self, code: Tensor, modality: str) -> Tensor:
        """Maps of codes [..., C, H, W]: metres or any positive depth unit, unit vectors, linear RGB."""

    def values(self, code: Tensor, judged: Judged) -> Tensor:
        """Values [B, N, 2, C], in the units of the map, of an answer's codes [B, C, H, W] at the judged points."""
        return judged.at_points(self.decode(code, judged.modality))

    @abstractmethod
    def as_base(self) -> AbstractContextManager[None]:
        """Inside, the network is the frozen base; put back afterwards, also after an exception."""

    @contextmanager
    def exchanged(self, network: nn.Module) -> Iterator[None]:
        """Inside, another network stands in the place of the tuned one; put back also after an exception."""
        tuned, self.network = self.network, network
        try:
            yield
        finally:
            self.network = tuned

    @abstractmethod
    def save(self, folder: Path) -> Saved:
        """Write the present weights into a folder, as `reasonx_eval` runs them; same weights, same bytes."""

    def elements(self, rollout: Rollout) -> int:
        """Number of elements D of a transition's variable: clip ranges convert by it."""
        return int(rollout.transitions[0].after[0, 0].numel())
