"""The class of a depth network in transformers' format and the meaning of its output, from config.json alone.

The kind follows from the configuration. Where that leaves it open, nothing is guessed: the user names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.catalogue import CatalogueEntry
from reasonx_eval.types import TASK_OF_KIND, Kind

DEPTH_KINDS: Final[tuple[Kind, ...]] = tuple(k for k in get_args(Kind) if TASK_OF_KIND[k] == "depth")

#: model_type -> class, of transformers' AutoModelForDepthEstimation
CLASSES: Final[Mapping[str, str]] = {
    "chmv2": "CHMv2ForDepthEstimation",
    "depth_anything": "DepthAnythingForDepthEstimation",
    "depth_pro": "DepthProForDepthEstimation",
    "dpt": "DPTForDepthEstimation",
    "glpn": "GLPNForDepthEstimation",
    "prompt_depth_anything": "PromptDepthAnythingForDepthEstimation",
    "tipsv2_dpt": "Tipsv2DptForDepthEstimation",
    "zoedepth": "ZoeDepthForDepthEstimation",
}
#: backbones on which MiDaS trains a DPT head; "vit" is DPT's own
_MIDAS_BACKBONES: Final = ("vit", "bit", "beit", "swin", "swinv2", "levit")


@dataclass(frozen=True)
class Meaning:
    """The meaning of a network's output.

    kind : None where the configuration does not tell
    why : the fact it follows from
    stated : the configuration itself says so, so another kind would be wrong; else it is the family's convention
    """

    kind: Kind | None
    why: str
    stated: bool = False


def class_name(config: Mapping[str, Any]) -> str | None:
    """The depth class that a config.json names, or None."""
    architectures = config.get("architectures")
    named = [a for a in architectures if isinstance(a, str)] if isinstance(architectures, list) else []
    known = CLASSES.get(str(config.get("model_type")))
    for architecture in named:
        if architecture.endswith("ForDepthEstimation"):
            return architecture
    # TIPSv2's checkpoints hold the heads of all its tasks in one file
    return known if not named or any(a.endswith("ForDensePrediction") for a in named) else None


def meaning_of(config: Mapping[str, Any], facts: CatalogueEntry | None = None) -> Meaning:
    """The meaning of the output, from config.json and, where that leaves it open, the catalogue."""
    rule = _RULES.get(str(config.get("model_type")))
    meaning = rule(config) if rule else Meaning(None, "its model_type is not known")
    if meaning.kind is None and facts is not None and facts.kind:
        return Meaning(facts.kind[0], f"the catalogue lists it as {facts.name}")
    return meaning


def decide_kind(config: Mapping[str, Any], source: str, asked: str | None, facts: CatalogueEntry | None = None) -> Kind:
    """The kind of a checkpoint's output, or the one that was asked for where the configuration leaves it open.

    Raises
    ------
    UsageError
        Nothing tells the kind and none was named, or the named one contradicts the configuration.
    """
    meaning = meaning_of(config, facts)
    listed = ", ".join(DEPTH_KINDS)
    if asked is None:
        if meaning.kind is None:
            raise UsageError(f"config.json does not tell the kind of its output: {meaning.why}", where=source,
                             fix=f"--kind KIND, one of {listed}")  # fmt: skip
        return meaning.kind
    if meaning.stated and meaning.kind != asked:
        raise UsageError(f"kind is {asked}, but config.json says {meaning.kind}: {meaning.why}", where=source,
                         fix="leave out --kind")  # fmt: skip
    for kind in DEPTH_KINDS:
        if kind == asked:
            return kind
    raise UsageError(f"kind is '{asked}'; a depth network gives one of {listed}", where=source)


def _depth_anything(config: Mapping[str, Any]) -> Meaning:
    # absent in V1, whose networks are relative
    found = config.get("depth_estimation_type", "relative")
    if found == "metric":
        return Meaning("depth_metric", f"depth_estimation_type is metric, max_depth {config.get('max_depth')}", True)
    return Meaning("disparity_affine", "depth_estimation_type is relative", True)


def _dpt(config: Mapping[str, Any]) -> Meaning:
    backbone = config.get("backbone_config")
    backbone_type = str(backbone.get("model_type")) if isinstance(backbone, dict) else "vit"
    if backbone_type in _MIDAS_BACKBONES:
        return Meaning("disparity_affine", "DPT as MiDaS trains it: relative inverse depth")
    return Meaning(None, f"a DPT head on a {backbone_type} backbone may be trained on metric depth or on disparity")


def _depth_pro(config: Mapping[str, Any]) -> Meaning:
    if config.get("use_fov_model", False):
        return Meaning("depth_metric", "it predicts the field of view, which fixes the scale", True)
    return Meaning("depth_scale", "without its field-of-view head (use_fov_model) the scale is unknown", True)


def _always(kind: Kind, why: str) -> Callable[[Mapping[str, Any]], Meaning]:
    return lambda config: Meaning(kind, why, True)


_RULES: Final[Mapping[str, Callable[[Mapping[str, Any]], Meaning]]] = {
    "depth_anything": _depth_anything,
    "dpt": _dpt,
    "depth_pro": _depth_pro,
    "glpn": _always("depth_metric", "GLPN gives metres up to max_depth"),
    "zoedepth": _always("depth_metric", "ZoeDepth's bins are metres"),
    "tipsv2_dpt": _always("depth_metric", "TIPSv2's bins are metres between min_depth and max_depth"),
    "prompt_depth_anything": _always("depth_metric", "it completes a metric depth measurement"),
    "chmv2": lambda config: Meaning(None, "CHMv2 gives heights in aerial images, which are not depth"),
}
