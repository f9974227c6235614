"""A Marigold-type pipeline as a policy: latents of all maps of a photo, denoised step by step under its latent.

One chain gives every map of a pipeline (albedo, irradiance and residual of a decomposition, say), so all its modalities
share transitions, and a replay is one pass for all of them. Photo latents and the empty prompt are encoded once and
shared by the group. States and means are float32 and live in the coordinates of `reasonx_ft.grpo.kernels`; only the
network computes in another type.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reasonx_eval.io.files import write_json
from reasonx_eval.models.loading.checkpoint import read_json
from reasonx_eval.models.loading.runtime import quiet
from reasonx_ft.grpo.kernels import Estimate, from_output, to_vp
from reasonx_ft.grpo.schedules import Schedule
from reasonx_ft.policies.adapters import adapted_layers, merged_state, save_adapters, without_adapters
from reasonx_ft.policies.base import Judged, Piece, Policy, Rollout, Saved, Transition, Visit
from reasonx_ft.policies.chain import Chain, Estimator, in_parts, parts_of, photo_seeds
from reasonx_ft.policies.marigold import LatentMaps
from reasonx_ft.policies.noise import standard_normal

#: folder of the pipeline in what is saved, and of the adapters alone
PIPELINE: Final = "pipeline"
ADAPTERS: Final = "adapters"


class Diffusion(Policy):
    """A U-Net between an autoencoder's latents, tuned by its adapters or as a whole.

    Parameters
    ----------
    network : the U-Net, with adapters (see `adapters.add_adapters`) or, if all of it is trained, without; it is put in
        evaluation mode, in which tuning keeps it
    latents : the frozen parts
    chain : how rollouts step and explore
    answer : times of the steps, without noise, of the answer that is evaluated
    base : name or hub id of the model that it starts as
    resolution : long side, in pixels, at which photos are seen; 0 is their own
    micro : samples in one pass of the network
    dtype : in which the network computes where it may (autocast)

    Attributes
    ----------
    frozen : the base's own network; None with adapters, where the base is the network without them
    is_base : whether the network is the base just now, see `as_base`
    """

    code_range = (-1.0, 1.0)

    def __init__(
        self, network: nn.Module, latents: LatentMaps, chain: Chain, answer: Schedule, *, base: str,
        licence: str | None = None, resolution: int = 768, micro: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.network = network.eval()
        self.latents, self.chain, self._answer = latents, chain, answer
        self.base, self.licence, self.micro, self.resolution = base, licence, micro, resolution
        self.modalities = tuple(latents.targets)
        self._dtype = dtype
        latents.pipe.unet = None  # the network is what may be wrapped and sharded; nothing else refers to it
        self._adapted = bool(adapted_layers(network))
        self.frozen = None if self._adapted else _lowered(_own_copy(network), dtype)
        self.is_base = False
        self._encoded: tuple[Tensor, Tensor] | None = None

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        if not self.resolution:
            return height, width
        longest = max(height, width)
        return max(1, height * self.resolution // longest), max(1, width * self.resolution // longest)

    def rollout(self, visit: Visit, group: int, step: int, *, reference: bool) -> dict[str, Rollout]:
        with torch.no_grad():
            condition = self._condition(visit.images)
            estimate = self._estimator(condition, self.chain.schedule)

            def frozen(state: Tensor, place: int) -> Estimate:
                with self.as_base():
                    return estimate(state, place)

            final, transitions = self.chain.sample(
                estimate, (self.latents.channels, *condition.shape[-2:]), visit.seeds, group, step,
                device=condition.device, reference=frozen if reference else None,
            )  # fmt: skip
            final = to_vp(final, self.chain.schedule.times[-1])
            spread = float(final.std(dim=1, correction=0).mean())
            size = (visit.images.shape[-2], visit.images.shape[-1])
            return {m: Rollout(m, self._values(final, judged, size), transitions, spread)
                    for m, judged in visit.judged.items()}  # fmt: skip

    def pieces(self, rollouts: Mapping[str, Rollout], micro: int | None) -> list[list[Piece]]:
        """One portion is a part of the samples of one step, for all modalities: they share it."""
        found: list[list[Piece]] = []
        for number, transition in enumerate(next(iter(rollouts.values())).transitions):
            found += [[Piece(m, number, *part) for m in rollouts] for part in parts_of(transition, micro)]
        return found

    def replay(self, visit: Visit, rollouts: Mapping[str, Rollout], portion: Sequence[Piece]) -> list[Tensor]:
        piece = portion[0]
        transition: Transition = rollouts[piece.modality].transitions[piece.transition]
        assert transition.state is not None
        with torch.no_grad():
            condition = self._condition(visit.images)[piece.images]
        schedule, state = self.chain.schedule, piece.of(transition.state)
        estimate = self._pass(state, condition, schedule.times[transition.step], schedule.told[transition.step])
        return [self.chain.mean(estimate, transition.step)] * len(portion)

    def answer(self, images: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        with torch.no_grad():
            condition = self._condition(images)
        # noise of the photo's own, as it is drawn where the model is run: a loss on answers to one noise for all
        # photos would have the network learn that noise
        noise = standard_normal(photo_seeds(images), (1, self.latents.channels, *condition.shape[-2:]), "answer",
                                device=condition.device)  # fmt: skip
        estimate = self._estimator(condition, self._answer)
        final = to_vp(self.chain.answer(estimate, noise, self._answer)[:, 0], self._answer.times[-1])
        size = (images.shape[-2], images.shape[-1])
        return {m: self.latents.decode(final, m, size) for m in modalities}

    def decode(self, code: Tensor, modality: str) -> Tensor:
        return self.latents.maps(code, modality)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        self.is_base = True
        try:
            with without_adapters(self.network) if self.frozen is None else self.exchanged(self.frozen):
                yield
        finally:
            self.is_base = False

    def save(self, folder: Path) -> Saved:
        """The whole pipeline, adapters merged into it, in float32; beside it, the adapters alone."""
        inner: Any = getattr(self.network, "module", self.network)
        with torch.device("meta"):
            plain = type(inner).from_config(inner.config)
        plain.load_state_dict(merged_state(inner), assign=True)
        pipe, part = self.latents.pipe, folder / f".{PIPELINE}.part"
        shutil.rmtree(part, ignore_errors=True)
        pipe.register_modules(unet=plain)
        try:
            with quiet("diffusers", "transformers"):
                pipe.save_pretrained(str(part), safe_serialization=True)
                if self._adapted:
                    save_adapters(inner, part / ADAPTERS)
        finally:
            pipe.unet = None
        _forget_paths(part)
        shutil.rmtree(folder / PIPELINE, ignore_errors=True)
        part.rename(folder / PIPELINE)
        return Saved("pipeline", PIPELINE)

    def _values(self, final: Tensor, judged: Judged, size: tuple[int, int]) -> Tensor:
        """Sampled maps [B, G, N, 2, C] at the judged points; one photo's maps at a time, never all."""
        found = []
        for i, latents in enumerate(final):
            maps = self.latents.maps(self.latents.decode(latents, judged.modality, size), judged.modality)
            found.append(judged.of(slice(i, i + 1)).at_points(maps[None]))
        return torch.cat(found)

    def _condition(self, images: Tensor) -> Tensor:
        """Latents [B, C, h, w] of photos; kept for the replays of the same visit."""
        if self._encoded is None or self._encoded[0] is not images:
            self._encoded = (images, self.latents.encode(images))
        return self._encoded[1]

    def _estimator(self, condition: Tensor, schedule: Schedule) -> Estimator:
        def estimate(state: Tensor, place: int) -> Estimate:
            t, told = schedule.times[place], schedule.told[place]

            def one(images: slice, samples: slice) -> Estimate:
                return self._pass(state[images, samples], condition[images], t, told)

            return in_parts(one, state, self.micro)

        return estimate

    def _pass(self, state: Tensor, condition: Tensor, t: float, told: float) -> Estimate:
        """The network's estimate for states [b, g, ...] under photo latents [b, ...]: one pass."""
        images, samples = state.shape[:2]
        seen = torch.cat([condition[:, None].expand(-1, samples, *condition.shape[1:]), to_vp(state, t)], dim=2)
        # copies, not a view: torch takes another way through a view where weights are trained, with other last bits
        text = self.latents.text.to(state.device).repeat(images * samples, 1, 1)
        time = torch.full((images * samples,), told, device=state.device)
        with torch.autocast(state.device.type, self._dtype, enabled=self._dtype != torch.float32):
            output = self.network(seen.flatten(0, 1), time, encoder_hidden_states=text, return_dict=False)[0]
        return from_output(state, output.float().unflatten(0, (images, samples)), t, self.latents.prediction)


def _own_copy(network: nn.Module) -> nn.Module:
    """A copy; afterwards both have memory of their own: arithmetic may differ by how a mapped file is aligned."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.data = weight.data.clone()
    return copy.deepcopy(network)


def _lowered(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A frozen network whose layers hold what autocast would make of them anyway: the same output, half the memory."""
    for layer in network.requires_grad_(False).modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.to(dtype)
    return network.eval()


def _forget_paths(folder: Path) -> None:
    """Drop where parts were once loaded from: paths of this machine, and bytes that differ between machines."""
    for path in sorted(folder.rglob("*.json")):
        known = read_json(path) if path.name in ("config.json", "model_index.json", "scheduler_config.json") else None
        if known is not None and "_name_or_path" in known:
            write_json(path, {k: v for k, v in known.items() if k != "_name_or_path"})
