"""A deterministic predictor as a policy of one step: its codes are the mean, noise of the policy's own explores.

All four maps come from one pass and all samples of an image share it: a rollout is a forward pass of B images, a replay
a forward and a backward pass of the same, whatever G is. What is answered in the end is the mean, without noise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from reasonx_eval.errors import UsageError, unknown
from reasonx_ft.policies.adapters import without_adapters
from reasonx_ft.policies.base import Judged, Piece, Policy, Rollout, Saved, Transition, Visit
from reasonx_ft.policies.noise import Noise
from reasonx_ft.policies.predictor import Predictor

#: root mean square of the noise at a pixel, in units of the codes (normals: about radians)
SIGMA: Final[Mapping[str, float]] = {"depth": 0.1, "normals": 0.15, "albedo": 0.03, "irradiance": 0.1}


class FeedForward(Policy):
    """A network that answers at once, with noise around its codes.

    Parameters
    ----------
    network : in any mode; it is put in evaluation mode, in which tuning keeps it
    base : name of the model that it starts as
    sigma : of the noise, one for all modalities or one each; default `SIGMA`
    micro : images in one pass
    dtype : in which the network computes where it may (autocast); codes are float32 in any case
    adapted : the network has adapters, and is its base without them; otherwise a copy is kept

    Raises
    ------
    UsageError
        A sigma that is not above 0, or of a modality that the network does not predict.
    """

    def __init__(
        self, predictor: Predictor, network: nn.Module, noise: Noise, *, base: str, licence: str | None = None,
        sigma: float | Mapping[str, float] | None = None, micro: int | None = None,
        dtype: torch.dtype = torch.float32, adapted: bool = False,
    ) -> None:  # fmt: skip
        self.predictor, self.noise = predictor, noise
        self.base, self.licence, self.micro = base, licence, micro
        self.modalities, self.local_noise = predictor.modalities, noise.local
        self.sigma = sigmas(sigma, predictor.modalities)
        self.network = network.eval()
        self._base_network = None if adapted else copy.deepcopy(network).requires_grad_(False)
        self._dtype = dtype

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        return self.predictor.working_size(height, width)

    def rollout(self, visit: Visit, group: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        with torch.no_grad():
            return self.rollout_of(self._codes(visit.images), visit, group, reference=reference)

    def rollout_of(
        self, codes: Mapping[str, Tensor], visit: Visit, group: int, *, reference: bool
    ) -> dict[str, Rollout]:
        """`rollout`, of photos whose codes are there already; they may have a gradient, the samples have none."""
        with torch.no_grad():
            with self.as_base():
                frozen = self._codes(visit.images) if reference else None
            return {m: self._sampled(codes[m], None if frozen is None else frozen[m], judged, visit, group)
                    for m, judged in visit.judged.items()}  # fmt: skip

    def _sampled(self, code: Tensor, frozen: Tensor | None, judged: Judged, visit: Visit, group: int) -> Rollout:
        modality, noise = judged.modality, self.noise
        drawn = noise.sample(code, judged, self.sigma[modality], visit.seeds, group)
        transition = Transition(
            index=0, state=None, after=drawn.after, mean=drawn.mean, std=drawn.std,
            reference=None if frozen is None else noise.coordinates(frozen, judged), at_points=noise.local,
        )  # fmt: skip
        spread = drawn.codes.std(dim=1, correction=0).mean()
        return Rollout(modality, self.predictor.decode_points(drawn.codes, modality), (transition,), float(spread))

    def pieces(self, rollouts: Mapping[str, Rollout], micro: int | None) -> list[list[Piece]]:
        """One portion is up to `micro` images with all their modalities and samples: one pass."""
        first = next(iter(rollouts.values()))
        images, group = first.values.shape[:2]
        return [[Piece(m, 0, part, slice(0, group)) for m in rollouts] for part in portions(images, micro)]

    def replay(self, visit: Visit, rollouts: Mapping[str, Rollout], portion: Sequence[Piece]) -> list[Tensor]:
        part = portion[0].images
        codes = self._pass(visit.images[part])
        return [self.noise.coordinates(codes[p.modality], visit.judged[p.modality].of(part)) for p in portion]

    def means_of(self, codes: Mapping[str, Tensor], judged: Judged) -> Tensor:
        """What `replay` gives for all samples of photos whose codes are there already."""
        return self.noise.coordinates(codes[judged.modality], judged)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        codes = self._codes(images)
        return {m: codes[m] for m in modalities}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self.predictor.decode(code, modality)

    def values(self, code: Tensor, judged: Judged) -> Tensor:
        return self.predictor.decode_points(judged.at_points(code), judged.modality)

    def as_base(self) -> AbstractContextManager[None]:
        frozen = self._base_network
        return without_adapters(self.network) if frozen is None else self.exchanged(frozen)

    def save(self, folder: Path) -> Saved:
        return self.predictor.save(self.network, folder)

    def _codes(self, images: Tensor) -> dict[str, Tensor]:
        parts = [self._pass(images[part]) for part in portions(len(images), self.micro)]
        return parts[0] if len(parts) == 1 else {m: torch.cat([p[m] for p in parts]) for m in parts[0]}

    def _pass(self, images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(images.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self.predictor.codes(self.network, images)


def portions(count: int, micro: int | None) -> list[slice]:
    """0 to `count` in slices of `micro`, the last may be shorter."""
    step = micro or max(count, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def sigmas(given: float | Mapping[str, float] | None, modalities: Sequence[str]) -> dict[str, float]:
    """A noise level for each modality, from one for all, some of them, or the defaults."""
    named = dict(given) if isinstance(given, Mapping) else {}
    for modality in named:
        if modality not in modalities:
            raise unknown("modality", modality, modalities, where="sigma")
    found = {m: float(given) if isinstance(given, (int, float)) else named.get(m, SIGMA[m]) for m in modalities}
    for modality, level in found.items():
        if not level > 0:
            raise UsageError(f"the noise level of {modality} is {level}; needs a number above 0", where="sigma")
    return found
