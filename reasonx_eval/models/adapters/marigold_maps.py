"""The outputs of a Marigold-type checkpoint, read from its configuration alone (no torch), and their conventions.

Depth is 0 at the nearest and 1 at the farthest point, free in scale and shift. Normals have x right, y up, z to the
viewer. Which maps of an intrinsic decomposition are linear and which sRGB is in ``target_properties``, map by map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.pipelines import class_name, part_config
from reasonx_eval.models.base import check_kind
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.types import NORMAL_FRAMES, TASK_OF_KIND, Kind

DEPTH: Final = "MarigoldDepthPipeline"
NORMALS: Final = "MarigoldNormalsPipeline"
INTRINSICS: Final = "MarigoldIntrinsicsPipeline"
PIPELINES: Final = (DEPTH, NORMALS, INTRINSICS)
#: the class that checkpoints name which are older than those above, for depth and normals alike
OLD_NAME: Final = "MarigoldPipeline"


@dataclass(frozen=True)
class Description:
    """The outputs of a checkpoint.

    pipeline : class of diffusers that runs it
    kinds : task -> kinds, as `Model.kinds`
    target : kind -> which of the maps of one prediction
    n_targets : maps of one prediction
    steps, resolution : the checkpoint's defaults; None where it states none
    """

    pipeline: str
    kinds: Mapping[str, tuple[Kind, ...]]
    target: Mapping[Kind, int]
    n_targets: int = 1
    steps: int | None = None
    resolution: int | None = None


def handles(checkpoint: Checkpoint) -> bool:
    """Whether ``model_index.json`` names a Marigold pipeline."""
    return class_name(checkpoint) in (*PIPELINES, OLD_NAME)


def describe(checkpoint: Checkpoint, kind: Kind | None = None) -> Description:
    """Tasks, kinds and defaults of a checkpoint, from ``model_index.json`` and the configuration of its U-Net.

    Parameters
    ----------
    kind : the only kind that is wanted; also the output of an old checkpoint that does not state it

    Raises
    ------
    UsageError
        Another pipeline, one that does not state its output, or one that does not predict `kind`.
    """
    where = str(checkpoint.folder)
    pipeline = _pipeline(checkpoint, kind)
    index = checkpoint.index or {}
    target = {DEPTH: _depth, NORMALS: _normals, INTRINSICS: _intrinsics}[pipeline](index, where)
    if kind is not None:
        check_kind(kind, tuple(target), where=checkpoint.source)
        target = {kind: target[kind]}
    kinds: dict[str, tuple[Kind, ...]] = {}
    for k in target:
        kinds[TASK_OF_KIND[k]] = (*kinds.get(TASK_OF_KIND[k], ()), k)
    n_targets = len(_properties(index, where)["target_names"]) if pipeline == INTRINSICS else 1
    _check_channels(checkpoint, n_targets)
    return Description(pipeline, kinds, target, n_targets, _default(index, "default_denoising_steps", where),
                       _default(index, "default_processing_resolution", where))  # fmt: skip


def to_kind(value: NDArray[np.float32], kind: Kind) -> NDArray[np.float32]:
    """One map as the pipeline gives it, in this program's conventions.

    Parameters
    ----------
    value : float32 [H, W, 1] (depth) or [H, W, 3]

    Returns
    -------
    float32 [H, W] or [H, W, 3]; normals as x right, y down, z forward
    """
    if TASK_OF_KIND[kind] == "depth":
        return value[..., 0]
    if kind == "normal":
        return value * np.array(NORMAL_FRAMES["opengl"], dtype=np.float32)
    return value


def _pipeline(checkpoint: Checkpoint, kind: Kind | None) -> str:
    name = class_name(checkpoint)
    if name in PIPELINES:
        return name
    if name not in (None, OLD_NAME):
        raise UsageError(f"model_index.json names {name}; known are {', '.join((*PIPELINES, OLD_NAME))}",
                         where=str(checkpoint.folder))  # fmt: skip
    return _unnamed(checkpoint, kind)


def _unnamed(checkpoint: Checkpoint, kind: Kind | None) -> str:
    """The pipeline of a checkpoint whose class does not tell, from other keys of its index, or from the user."""
    index = checkpoint.index or {}
    said = index.get("prediction_type")
    if "target_properties" in index:
        return INTRINSICS
    if said == "normals" or "use_full_z_range" in index:
        return NORMALS
    if said in ("depth", "disparity") or "scale_invariant" in index:
        return DEPTH
    if kind is not None and TASK_OF_KIND[kind] in ("depth", "normals"):
        return DEPTH if TASK_OF_KIND[kind] == "depth" else NORMALS
    raise UsageError("model_index.json does not say what this pipeline predicts", where=str(checkpoint.folder),
                     fix="--kind depth_affine, or --kind normal")  # fmt: skip


def _depth(index: Mapping[str, Any], where: str) -> dict[Kind, int]:
    said = index.get("prediction_type") or "depth"
    if said == "disparity":
        return {"disparity_affine": 0}
    if said != "depth":
        raise UsageError(f"prediction_type is '{said}'; a depth pipeline gives depth or disparity", where=where)
    if not index.get("scale_invariant", True):
        # the pipeline's values lie in [0, 1]: they can't be metres
        raise UsageError("scale_invariant is false, but the values of this pipeline are between 0 and 1", where=where)
    return {"depth_affine": 0} if index.get("shift_invariant", True) else {"depth_scale": 0}


def _normals(index: Mapping[str, Any], where: str) -> dict[Kind, int]:
    return {"normal": 0}


def _properties(index: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = index.get("target_properties")
    names = found.get("target_names") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UsageError("model_index.json has no target_properties.target_names: which maps are these?", where=where)
    return found


def _intrinsics(index: Mapping[str, Any], where: str) -> dict[Kind, int]:
    properties = _properties(index, where)
    names: Sequence[str] = properties["target_names"]
    found: dict[Kind, int] = {}
    for i, name in enumerate(names):
        of_map = properties.get(name)
        # the library's own default for a map that does not say it
        space = of_map.get("prediction_space", "srgb") if isinstance(of_map, dict) else "srgb"
        if name == "albedo" and space in ("linear", "srgb"):
            found["albedo_linear" if space == "linear" else "albedo_srgb"] = i
        elif name in ("shading", "irradiance") and space == "linear":
            found["irradiance"] = i
    if not found:
        raise UsageError(f"its maps are {', '.join(names) or 'none'}; none is an albedo or a linear shading",
                         where=where)  # fmt: skip
    return found


def _check_channels(checkpoint: Checkpoint, n_targets: int) -> None:
    """The U-Net takes the latents of the photo and of every map, and gives those of every map."""
    unet, vae = part_config(checkpoint, "unet"), part_config(checkpoint, "vae")
    latent = vae.get("latent_channels", 4)
    have = (unet.get("in_channels"), unet.get("out_channels"))
    need = (latent * (n_targets + 1), latent * n_targets)
    if have != need:
        raise UsageError(f"the U-Net has {have[0]} input and {have[1]} output channels; {n_targets} maps of {latent} "
                         f"latent channels need {need[0]} and {need[1]}",
                         where=str(checkpoint.folder / "unet"))  # fmt: skip


def _default(index: Mapping[str, Any], key: str, where: str) -> int | None:
    value = index.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UsageError(f"{key} is {value!r}, not a number", where=where)
    return value
