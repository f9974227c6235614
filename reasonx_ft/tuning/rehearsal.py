"""Rehearsal: supervision on rendered scenes with known maps, beside photos without labels.

What is rewarded is the order of points; nothing else in a tuning says what a map looks like. A few images of the domain
that the base was trained on, with the loss of its pretraining (`reasonx_ft.pretraining.pretrain`), keep it from
forgetting that. No label of the photos that are tuned on goes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.models.embedded.tiny_net import TinyFlow, TinyNet
from reasonx_ft.annotation.photos import DATASET, open_dataset
from reasonx_ft.policies.base import Policy
from reasonx_ft.pretraining.batches import Batch, batch_at, load_scenes
from reasonx_ft.pretraining.losses import code_loss, normals_loss
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.photo_set import Progress
from reasonx_ft.tuning.processes import Processes

#: distances over which steps of maps are compared, as in pretraining
_DIFFERENCES: Final = (1, 4, 12)


class Rehearsal:
    """Scenes in memory, and a few of them for each step, keyed by seed and step.

    ids : of the scenes

    Raises
    ------
    UsageError
        A network whose codes are not those of the embedded ones; images that processes can't share; a dataset without
        complete maps.
    """

    def __init__(
        self, policy: Policy, config: TuneConfig, processes: Processes, progress: Progress | None = None
    ) -> None:
        rules = config.objective
        if not isinstance(policy.network, TinyNet | TinyFlow):
            raise UsageError("rehearsal knows the codes of tiny and tiny-flow only", where=policy.base,
                             fix="--set objective.rehearsal=0 and a weight of objective.distance instead")  # fmt: skip
        if rules.rehearsal_images % processes.world:
            raise UsageError(f"objective.rehearsal_images {rules.rehearsal_images} can't be shared evenly among "
                             f"{processes.world} processes")  # fmt: skip
        dataset = open_dataset(DATASET + rules.rehearsal_data)
        self.ids = list(dataset.ids)[: rules.rehearsal_scenes]
        say = progress or (lambda _what, _done, _total: None)
        # rendered here: starting other processes takes as long
        self._scenes = load_scenes(dataset, self.ids, 1, lambda done, total: say("rehearsal scenes", done, total))
        self._seed, self._images = config.seed, rules.rehearsal_images
        self._mirror, self._processes = config.data.mirror, processes
        self._device = next(policy.network.parameters()).device

    def at(self, step: int) -> Batch:
        """What this process rehearses in a step."""
        whole = batch_at(self._scenes, seed=self._seed, step=step, images=self._images, flip=self._mirror)
        mine = slice(self._processes.rank, None, self._processes.world)
        return Batch(whole.images[mine].to(self._device), {m: c[mine].to(self._device) for m, c in whole.codes.items()})


def rehearsal_loss(codes: Mapping[str, Tensor], true: Batch, modalities: Sequence[str]) -> Tensor:
    """Mean over modalities of the losses of pretraining."""
    losses = [
        normals_loss(codes[m], true.codes[m], of_unit_length=True) if m == "normals"
        else code_loss(codes[m], true.codes[m], differences=_DIFFERENCES, weight=1.0)
        for m in modalities
    ]  # fmt: skip
    return torch.stack(losses).mean()
