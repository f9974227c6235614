"""Measurements of a policy at one step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Check:
    """Measurements after `step` steps; NaN where there is nothing to measure on.

    agreement : modality -> share of held-out pairs, in [0, 1], mean over photos
    photos : modality -> how many photos that is
    spread, edges : modality -> mean standard deviation of the codes over a photo, and mean step between neighbours
    saturated : modality -> share of the codes' values beyond the range that decoding cuts to, where there is one
    away : share of pixels whose normals point away from the camera, in [0, 1]; NaN where no normals are tuned
    canaries : label -> value; signatures : label (or modality) -> by what rules
    """

    step: int
    agreement: Mapping[str, float]
    photos: Mapping[str, int]
    spread: Mapping[str, float]
    edges: Mapping[str, float]
    canaries: Mapping[str, float] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    saturated: Mapping[str, float] = field(default_factory=dict)
    away: float = math.nan

    @property
    def mean_agreement(self) -> float:
        """Over the modalities that have one; NaN without any."""
        known = [v for v in self.agreement.values() if not np.isnan(v)]
        return float(np.mean(known)) if known else float("nan")
