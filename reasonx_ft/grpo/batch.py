"""What one optimiser step works on: photos with judged pairs, samples drawn for them, and parts that fit the memory.

Shapes: B photos, G samples each (the *generations* of a photo), N judged pairs a photo, C channels of a map. The
variable of a transition may live where a policy likes ([B, G, ...]: pixels, latents, coefficients); its log-density
sums over all axes but the first two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Judged:
    """Judged pairs of one modality, at the size of the policy's maps.

    rows, cols : int64 [B, N, 2], pixel of the first and the second point
    probability : float32 [B, N], that FIRST is closer, faces more, has more light; for albedo that both are the SAME
    weight : float32 [B, N], 0 where there is no judgement (photos with fewer pairs are filled up)
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

    def of(self, photos: slice) -> Judged:
        """The pairs of some of the photos."""
        return Judged(self.modality, self.rows[photos], self.cols[photos], self.probability[photos],
                      self.weight[photos])  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Photos of one optimiser step on one process, with the judge's answers about them.

    images : float32 [B, 3, H, W] in [0, 1], sRGB, at the policy's working size, on its device
    judged : modality -> pairs; only modalities that are tuned in this step
    seeds : of each photo's noise in this step, keyed by (run seed, step, photo) and nothing else
    """

    images: Tensor = field(repr=False)
    judged: Mapping[str, Judged]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Transition:
    """A scored Gaussian step of a rollout, x' ~ N(mean, std^2), all float32.

    index : place among the scored steps; step : place in the whole chain, from noise
    state : [B, G or 1, ...] input of the network; None where its input was the photo alone
    after : [B, G, ...] the sample x'
    mean : [B, G or 1, ...] of the policy that made the rollout
    std : of each element, > 0; a number, or a tensor that broadcasts against `after`
    reference : [B, G or 1, ...] mean of the frozen base at the same state; None where no KL is asked for
    kl_scale : weight of ||mean - reference||^2 / (2 std^2) in the KL; other than 1 under a named weighting
    """

    index: int
    state: Tensor | None = field(repr=False)
    after: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    std: float | Tensor
    reference: Tensor | None = field(default=None, repr=False)
    kl_scale: float = 1.0
    step: int = 0

    @property
    def elements(self) -> int:
        """D, by which clip ranges convert."""
        return int(self.after[0, 0].numel())


@dataclass(frozen=True)
class Rollout:
    """G samples for each photo, of one modality.

    values : float32 [B, G, N, 2, C], the sampled maps at the judged points, in the units of the map
    transitions : the scored steps; the last step of a chain is never one of them
    sample_std : mean standard deviation over a photo's samples, in units of the codes: how much is explored
    """

    modality: str
    values: Tensor = field(repr=False)
    transitions: tuple[Transition, ...]
    sample_std: float


@dataclass(frozen=True)
class Microbatch:
    """A part of the rollouts that is replayed by one forward and one backward pass.

    modalities : that share the pass; transition : index among the scored steps
    photos, samples : slices of the first two axes
    """

    modalities: tuple[str, ...]
    transition: int
    photos: slice
    samples: slice

    def of(self, value: Tensor) -> Tensor:
        """Its part of [B, G or 1, ...]."""
        return value[self.photos, self.samples if value.shape[1] > 1 else slice(None)]
