"""Rehearsal: what an embedded network learnt from rendered scenes is practised beside the tuning, so that it stays.

The scenes and maps are those of a domain that the network was pretrained on, and the loss is that of its pretraining
(`reasonx_ft.pretrain`): no label of the photos that are tuned on goes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError
from reasonx_eval.models.tiny_net import CODES
from reasonx_ft.config import PretrainConfig
from reasonx_ft.map_losses import code_loss, normals_loss
from reasonx_ft.photos import DATASET, open_dataset
from reasonx_ft.policies.base import Policy
from reasonx_ft.scenes_batches import Batch, batch_at, load_scenes
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.photo_set import Progress
from reasonx_ft.tuning.processes import Processes


class Rehearsal:
    """Scenes in memory, and a few of them for each step.

    ids : of the scenes

    Raises
    ------
    UsageError
        A network whose answers are not the codes of the embedded ones, a dataset without complete maps.
    """

    def __init__(
        self, policy: Policy, config: TuneConfig, processes: Processes, progress: Progress | None = None
    ) -> None:  # fmt: skip
        if policy.base not in ("tiny", "tiny-flow") and not set(policy.modalities) == set(CODES):
            raise UsageError("rehearsal is for the embedded networks, whose pretraining is known", where=policy.base,
                             fix="--set objective.rehearsal=0 --set objective.distance=1")
        objective = config.objective
        self._images, self._seed, self._processes = objective.rehearsal_images, config.seed, processes
        self._device = next(policy.network.parameters()).device
        dataset = open_dataset(DATASET + objective.rehearsal_data)
        self.ids = list(dataset.ids)[: objective.rehearsal_scenes]
        # rendered here: starting other processes takes as long
        say = None if progress is None else lambda done, total: progress("rehearsal", done, total)
        self._scenes = load_scenes(dataset, self.ids, 1, say)

    def at(self, step: int) -> Batch | None:
        """This process's part of a step's scenes, mirrored or not; None where it has none."""
        mine = list(range(self._processes.rank, self._images, self._processes.world))
        if not mine:
            return None
        batch = batch_at(self._scenes, seed=self._seed, step=step, images=self._images, flip=True)
        return Batch(batch.images[mine].to(self._device), {m: c[mine].to(self._device) for m, c in batch.codes.items()})


def rehearsal_loss(codes: Mapping[str, Tensor], batch: Batch, modalities: Sequence[str]) -> Tensor:
    """Mean over modalities of how far codes [B, C, H, W] are from the true ones, as pretraining measures it."""
    fields = PretrainConfig.model_fields
    differences, weight = fields["differences"].default, fields["difference_weight"].default
    losses = [normals_loss(codes[m], batch.codes[m], of_unit_length=True) if m == "normals"
              else code_loss(codes[m], batch.codes[m], differences=differences, weight=weight)
              for m in modalities]  # fmt: skip
    return torch.stack(losses).mean()
