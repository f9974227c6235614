"""Pictures of the same photos as tuning goes on: the photo, the base's maps, the present ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasonx_eval.report.pictures import Panel, Style, draw_rows
from reasonx_ft.policies.base import Policy
from reasonx_ft.tuning.config import TuneConfig
from reasonx_ft.tuning.visits import Visits
from reasonx_ft.tuning.weights import Average

_STYLES: dict[str, Style] = {"depth": "depth", "normals": "normal", "albedo": "linear", "irradiance": "linear"}


class Grids:
    """Draws ``step-00000100.png`` into a folder, of the first held-out photos (of the training ones without any)."""

    def __init__(self, folder: Path, policy: Policy, visits: Visits, config: TuneConfig) -> None:
        self._folder, self._policy, self._visits = folder, policy, visits
        self._photos = config.watch.grid_photos

    def draw(self, step: int, average: Average) -> None:
        """Draw the averaged weights beside the base."""
        modalities = list(self._visits.modalities)
        images = list(self._visits.shown(self._photos))
        with torch.no_grad():
            with self._policy.as_base():
                before = [self._policy.answer(image[None], modalities) for image in images]
            with average.applied():
                after = [self._policy.answer(image[None], modalities) for image in images]
        rows = []
        for image, base, now in zip(images, before, after, strict=True):
            row = [Panel("photo", _pixels(image), "rgb")]
            for m in modalities:
                # a depth's first panel sets the colour scale of both
                row += [Panel(f"{m}, base", self._map(base[m], m), _STYLES[m]),
                        Panel(f"{m}, step {step}", self._map(now[m], m), _STYLES[m])]  # fmt: skip
            rows.append(row)
        draw_rows(self._folder / f"step-{step:08d}.png", rows)

    def _map(self, code: Tensor, modality: str) -> NDArray[np.float32]:
        value = self._policy.decode(code, modality)[0].float().cpu().numpy()
        return value[0] if modality == "depth" else np.ascontiguousarray(value.transpose(1, 2, 0))


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).cpu().numpy().transpose(1, 2, 0))
