"""Core types: what a dataset gives, what a model gives, what the runner keeps.

Everything here is numpy only and frozen; arrays inside are treated as read-only.

Conventions
-----------
Images are uint8 [H, W, 3], sRGB. Depth is float32 metres along the optical axis (z, not ray length).
Normals are unit vectors in the camera frame x right, y down, z forward: a visible surface has
``n . view < 0``, so a wall that faces the camera is (0, 0, -1). Albedo and irradiance are linear.
Point coordinates are (x, y) fractions of width and height in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal[
    "depth_metric", "depth_scale", "depth_affine", "disparity_affine",
    "normal", "albedo_linear", "albedo_srgb", "irradiance",
]  # fmt: skip
Task: TypeAlias = Literal["depth", "normals", "albedo", "irradiance"]
TargetName: TypeAlias = Literal["depth", "normals", "judgements", "albedo", "irradiance", "pairs"]
Modality: TypeAlias = Literal["depth", "normals", "irradiance", "albedo"]

#: called after every sample with (done, total, failed)
Progress: TypeAlias = Callable[[int, int, int], None]

KINDS: Final[tuple[str, ...]] = get_args(Kind)
TASKS: Final[tuple[str, ...]] = get_args(Task)
TARGETS: Final[tuple[str, ...]] = get_args(TargetName)

TASK_OF_KIND: Final[Mapping[str, str]] = {
    "depth_metric": "depth",
    "depth_scale": "depth",
    "depth_affine": "depth",
    "disparity_affine": "depth",
    "normal": "normals",
    "albedo_linear": "albedo",
    "albedo_srgb": "albedo",
    "irradiance": "irradiance",
}

#: signs that turn a frame's vectors into ours (x right, y down, z forward, a wall that faces the camera is (0, 0, -1)).
#: opengl: x right, y up, z to the viewer; dsine: our axes, but vectors that point away from the camera
NORMAL_FRAMES: Final[Mapping[str, tuple[int, int, int]]] = {
    "opencv": (1, 1, 1),
    "opengl": (1, -1, -1),
    "dsine": (-1, -1, -1),
}

# Codes of a relation between two points, shared by WHDR judgements and by ordinal pairs.
SAME: Final = 0  # WHDR "E" (equally dark); albedo pairs: same base colour
FIRST: Final = 1  # WHDR: point 1 darker; pairs: point 1 closer, facing more, more light
SECOND: Final = 2  # the same for point 2
DIFFERENT: Final = 3  # albedo pairs: different base colours
LEFT_OUT: Final = -1  # too close to call: the pair does not count


@dataclass(frozen=True)
class DepthTarget:
    """Depth ground truth.

    depth : float32 [H, W], metres, as in the file (invalid pixels keep the file's value)
    valid : bool [H, W], what the dataset itself calls measured; ranges and crops are the protocol's
    intrinsics : float64 [3, 3] in pixels of this image, or None
    """

    depth: NDArray[np.float32]
    valid: NDArray[np.bool_]
    intrinsics: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class NormalTarget:
    """Surface normals: float32 [H, W, 3] in the camera frame x right, y down, z forward.

    Vectors are as stored (8-bit files are not exactly unit length); valid is bool [H, W].
    """

    normal: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class JudgementTarget:
    """Human (or exact) judgements of relative reflectance, as WHDR counts them.

    points : float64 [P, 2], (x, y) in [0, 1]
    pairs : int64 [J, 2], rows of `points`
    darker : int8 [J], FIRST, SECOND or SAME: which point's surface is darker
    weight : float64 [J], > 0
    """

    points: NDArray[np.float64]
    pairs: NDArray[np.int64]
    darker: NDArray[np.int8]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class MapTarget:
    """Albedo or irradiance: float32 [H, W, 3], linear; valid is bool [H, W]."""

    value: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class PairTarget:
    """Ordinal relations at point pairs, per modality.

    points : float64 [P, 2], (x, y) in [0, 1]
    pairs : int64 [J, 2], rows of `points`
    relation : modality -> int8 [J]; FIRST, SECOND, SAME, DIFFERENT or LEFT_OUT
    """

    points: NDArray[np.float64]
    pairs: NDArray[np.int64]
    relation: Mapping[str, NDArray[np.int8]]


Target: TypeAlias = DepthTarget | NormalTarget | JudgementTarget | MapTarget | PairTarget
ImageSource: TypeAlias = NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Sample:
    """One photo with its ground truth.

    id : stable and path-like; the key of records, predictions, random streams and pairing
    source : the image, or a function that decodes it on first use (scoring saved predictions never does)
    targets : by target name; only those that the caller wanted
    group : what repeats between samples (the scene), for clustered statistics; None if nothing does
    meta : anything else that is worth knowing, JSON-able
    intrinsics : float64 [3, 3], pixels of the photo, where the dataset gives them
    """

    id: str
    source: ImageSource = field(repr=False)
    targets: Mapping[str, Target] = field(default_factory=dict, repr=False)
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)
    intrinsics: NDArray[np.float64] | None = field(default=None, repr=False)

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The photo, uint8 [H, W, 3], sRGB."""
        return self.source() if callable(self.source) else self.source


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image, before any alignment.

    kind : what the values mean; the runner, never the model, aligns
    value : float32 or float64 [H, W] for depth and disparity, [H, W, 3] for the rest; metrics never round it
    seconds : time spent on this image, if measured
    beside : the same model's depth, where a protocol asks whether normals and depth agree
    """

    kind: Kind
    value: NDArray[np.floating[Any]]
    seconds: float | None = None
    beside: Prediction | None = None


@dataclass(frozen=True)
class Alignment:
    """The transform a protocol fitted: aligned = scale * pred + shift, in `space`.

    scale and shift are NaN when undetermined, never 1 and 0; `reason` then says why.
    """

    mode: Literal["none", "median", "scale", "affine"]
    space: Literal["depth", "disparity"]
    scale: float
    shift: float
    n_valid: int
    reason: str | None = None

    @property
    def determined(self) -> bool:
        return bool(np.isfinite(self.scale) and np.isfinite(self.shift))


@dataclass(frozen=True)
class Record:
    """One scored (or failed) sample: one line of records.jsonl.

    metrics : name -> value; a metric that is undefined for this sample is None (null), never 0
    stats : sufficient statistics that pooled metrics aggregate (name -> number)
    data : digest of the ground truth it was scored against (see io/digests)
    prediction : digest of the predicted values
    undefined : why this sample has no value although nothing failed (WHDR without judgements)
    error : why it failed; then metrics is empty
    """

    sample_id: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    n_valid: int = 0
    alignment: Mapping[str, Any] | None = None
    group: str | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    data: str | None = None
    prediction: str | None = None
    notes: tuple[str, ...] = ()
    undefined: str | None = None
    error: str | None = None
