"""Protocols: one TOML file per named, versioned set of evaluation rules; an unknown key is an error.

The signature of a protocol travels with every number that it produced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from reasonx_eval import __version__
from reasonx_eval.errors import DataError, UsageError, unknown
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.documents import parse_toml
from reasonx_eval.io.files import canonical_json
from reasonx_eval.io.validation import explain, near
from reasonx_eval.metrics.table import metrics_of, whdr_name
from reasonx_eval.types import TASK_OF_KIND, TASKS, Kind, Modality, TargetName, Task

#: dataset of a protocol that serves any
ANY: Final = "any"

#: target -> the table with its rules
_TABLE: Final = {"depth": "depth", "normals": "normals", "judgements": "whdr", "albedo": "map", "irradiance": "map",
                 "pairs": "pairs", "agreement": "agreement"}  # fmt: skip

T = TypeVar("T")
# types are strict ("1" is no number), but TOML has lists where Python has tuples
Row = Annotated[tuple[T, ...], Field(min_length=1, strict=False)]
Span = Annotated[tuple[float, float], Field(strict=False)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AlignSpec(_Spec):
    """How a prediction is aligned to ground truth before depth metrics.

    mode : none, median (scale = median(target)/median(pred)), scale (least squares), affine (least squares)
    space : own (a disparity is fitted in disparity, a depth in depth), depth, or disparity (both inverted first)
    subsample : which valid pixels the fit sees. "all"; "nearest-1024" (both axes, long side 1024);
        "width-nearest-1024" (only the width axis: the published ETH3D scripts do this, by accident)
    disparity_floor : an aligned disparity below this is raised to it before it is inverted [1/m]
    """

    mode: Literal["none", "median", "scale", "affine"]
    space: Literal["own", "depth", "disparity"] = "own"
    subsample: Literal["all", "nearest-1024", "width-nearest-1024"] = "all"
    disparity_floor: float = Field(1e-3, gt=0)


class DepthSpec(_Spec):
    """Depth rules.

    range_m : ground truth counts where min < depth < max (strict), metres; null: the dataset's mask alone
    crop : none; eigen (rows 45:471, columns 41:601 of 480x640); garg and eigen-kitti (fractions of the image)
    clip_m : aligned depth is clipped to this, metres; null: only to `floor_m`
    floor_m : aligned depth below this is raised to it (logarithms need it)
    resize : how a prediction of another size meets the ground truth
    """

    align: AlignSpec
    range_m: Span | None = None
    crop: Literal["none", "eigen", "garg", "eigen-kitti"] = "none"
    clip_m: Span | None = None
    floor_m: float = Field(1e-6, gt=0)
    resize: Literal["bilinear", "nearest", "none"] = "bilinear"

    @field_validator("range_m", "clip_m")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"{list(value)} is not 0 <= min < max, in metres")
        return value

    @field_serializer("range_m", "clip_m")
    def _finite_json(self, value: tuple[float, float] | None) -> list[float | str] | None:
        return None if value is None else ["inf" if math.isinf(v) else v for v in value]


class NormalsSpec(_Spec):
    """Normal rules: ground truth counts where min_norm < |n| < max_norm (and the dataset calls it valid)."""

    min_norm: float = Field(0.0, ge=0)
    max_norm: float | None = Field(None, gt=0)
    round_per_image: int | None = Field(None, ge=0, le=12)
    resize: Literal["bilinear", "nearest", "none"] = "bilinear"


class WhdrSpec(_Spec):
    """WHDR rules (Bell et al. 2014).

    deltas : thresholds; each gives a metric, whdr10 for 0.10
    space : reflectance space that ratios are taken in: linear, gamma (power 1/2.2), srgb (piecewise),
        or stored (the values as the model gave them, whatever they are)
    transfer : how encoded albedo becomes linear and back: srgb (piecewise IEC) or gamma2.2
    rescale : none, or half-one (min-max to [0.5, 1], as InverseRenderNet's evaluation does), after the resizing
    resize : none (points are fractions, any size works), image (bilinear to the photo's size first), image-mirror or
        image-zeros (as scikit-image pads, see `reasonx_eval.io.resize`), image-exchanged (bilinear to as many rows as
        the photo has columns, and the reverse, as InverseRenderNet's evaluation does)
    absent : zero, if an image without "same" (or "darker") judgements counts 0 in the mean over these; if not given,
        it stays out of it
    """

    deltas: Row[Annotated[float, Field(gt=0, lt=1)]]
    space: Literal["linear", "gamma", "srgb", "stored"] = "linear"
    transfer: Literal["srgb", "gamma2.2"] = "srgb"
    rescale: Literal["none", "half-one"] = "none"
    resize: Literal["none", "image", "image-mirror", "image-zeros", "image-exchanged"] = "none"
    absent: Literal["zero"] | None = None


class MapSpec(_Spec):
    """Dense albedo or irradiance rules.

    space : where values are compared: linear, srgb (piecewise) or gamma (power 1/2.2)
    transfer : as in WhdrSpec
    scale : none; lsq (one least-squares scalar for all channels, in linear values)
    clip01 : both are clipped to [0, 1], after scale and exposure (p90 always clips)
    exposure : p90 multiplies both by 0.8 / (90th percentile of the target's brightness), for unbounded irradiance
    ssim : crop leaves out 5 pixels at the border, as Wang 2004; whole mirrors the map there, as torchmetrics since
        1.4.2; if not given, crop
    lmse : local MSE as Grosse 2009 (window, shift in pixels; global ratio) or Luo (window = fraction of the long side)
    """

    space: Literal["linear", "srgb", "gamma"] = "linear"
    transfer: Literal["srgb", "gamma2.2"] = "srgb"
    scale: Literal["none", "lsq"] = "lsq"
    exposure: Literal["none", "p90"] = "none"
    clip01: bool = False
    lmse: Literal["grosse", "luo"] = "grosse"
    ssim: Literal["crop", "whole"] | None = None
    resize: Literal["bilinear", "nearest", "none"] = "bilinear"


class PairsSpec(_Spec):
    """Ordinal agreement at point pairs: which modality of the pairs, and the thresholds of a relation.

    margin : a pair whose ground truth differs by less (of the range, or in linear value) is left out; albedo has none
    same_distance : albedo only; two points have the same base colour if linear RGB differs by less (Euclidean)
    """

    modality: Modality
    margin: float = Field(0.02, ge=0)
    same_distance: float = Field(0.05, ge=0)


class Protocol(_Spec):
    """One named set of rules. The fields after `notes` never change a number."""

    name: str = Field(pattern=r"^[a-z]+/[a-z0-9][a-z0-9.-]*$")
    version: int = Field(ge=1)
    task: Task
    target: TargetName | Literal["agreement"]
    dataset: str
    dataset_options: Mapping[str, Any] = {}
    split: str
    n: int | None = Field(None, ge=1)
    accepts: Row[Kind]
    metrics: Row[str]
    pool: Literal["image", "pixel"] = "image"
    depth: DepthSpec | None = None
    normals: NormalsSpec | None = None
    whdr: WhdrSpec | None = None
    map: MapSpec | None = None
    pairs: PairsSpec | None = None
    agreement: DepthSpec | None = None
    title: str
    notes: str = ""
    sources: tuple[str, ...] = Field((), strict=False)
    compat: str | None = None
    default_for: tuple[str, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        needs = _TABLE[self.target]
        given = [k for k in dict.fromkeys(_TABLE.values()) if getattr(self, k) is not None]
        if given != [needs]:
            raise ValueError(f"target '{self.target}' needs the table [{needs}] and no other; found {given}")
        for kind in self.accepts:
            if TASK_OF_KIND[kind] != self.task:
                raise ValueError(f"accepts '{kind}', which is not a kind of task '{self.task}'")
        if self.pool == "pixel" and self.normals is None:
            raise ValueError("pool = 'pixel' is defined for normals only")
        if self.pool == "pixel" and self.normals and self.normals.round_per_image is not None:
            raise ValueError("round_per_image has no meaning with pool = 'pixel'")
        return self

    @model_validator(mode="after")
    def _known_metrics(self) -> Protocol:
        known = metric_names(self.target, self.whdr)
        for name in self.metrics:
            if name not in known:
                raise ValueError(f"unknown metric '{name}' for target '{self.target}'{near(name, known)}")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"a metric is listed twice in {list(self.metrics)}")
        return self

    @property
    def reads(self) -> str:
        """The target of a sample that it needs: agreement of depth and normals needs depth, to fit the depth."""
        return "depth" if self.target == "agreement" else self.target

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def rules(self) -> dict[str, Any]:
        """Every field that can change a number, JSON-able; absent ones are left out, so that a new kind of rule
        that a protocol does not use leaves its digest as it is."""
        return self.model_dump(mode="json", exclude_none=True,
                               exclude={"title", "notes", "sources", "compat", "default_for"})  # fmt: skip

    @classmethod
    def from_rules(cls, rules: Mapping[str, Any]) -> Protocol:
        """The protocol whose rules a result holds, whether or not this installation knows it.

        Raises
        ------
        DataError
            They are no rules of a protocol: the result was edited.
        """
        # JSON has no infinity: rules spell it "inf"
        finite = json.loads(json.dumps(dict(rules)).replace('"inf"', "Infinity"))
        try:
            return cls.model_validate({**finite, "title": str(rules.get("name", ""))})
        except ValidationError as error:
            raise DataError(f"not the rules of a protocol: {explain(error, most=3)}",
                            where="protocol.rules of the result") from None  # fmt: skip

    @property
    def digest(self) -> str:
        """sha256 of the rules: two numbers are comparable only if it is the same."""
        return sha256_text(canonical_json(self.rules))

    def signature(self, *, kind: str, n: int, n_total: int | None = None, data: str | None = None) -> str:
        """The one-line statement of the rules that is printed with every number.

        Parameters
        ----------
        kind : the kind of the predictions.
        n : samples scored.  n_total : samples of the split, if more than n.
        data : dataset name, for protocols that serve any dataset.
        """
        count = f"n:{n}" if n_total is None or n_total == n else f"n:{n}/{n_total}"
        parts = [self.ref, *([f"data:{data}"] if data else []), count, f"acc:{kind}", *self._rule_parts(kind),
                 f"pool:{self.pool}", f"reasonx:{__version__}"]  # fmt: skip
        return "|".join(parts)

    def _rule_parts(self, kind: str) -> list[str]:
        if self.depth:
            return _depth_parts(self.depth, kind)
        if self.normals:
            s = self.normals
            top = "" if s.max_norm is None else f"-{s.max_norm:g}"
            rounded = [] if s.round_per_image is None else [f"round:{s.round_per_image}"]
            return [f"norm:{s.min_norm:g}{top}", f"resize:{_resize(s.resize)}", *rounded]
        if self.whdr:
            w = self.whdr
            space = w.space if w.space == "stored" else f"{w.space}.{w.transfer}"
            scaled = [] if w.rescale == "none" else [f"rescale:{w.rescale}"]
            scaled += [] if w.absent is None else [f"absent:{w.absent}"]
            resize = "none" if w.resize == "none" else "pred->" + w.resize.replace("-", ".")
            return [f"split:{self.split}", "delta:" + ",".join(f"{d:g}" for d in w.deltas), f"space:{space}",
                    f"resize:{resize}", *scaled]  # fmt: skip
        if self.map:
            m = self.map
            exposed = [] if m.exposure == "none" else [f"exposure:{m.exposure}"]
            return [f"space:{m.space}.{m.transfer}", f"scale:{m.scale}", *exposed, *(["clip:0-1"] if m.clip01 else []),
                    f"lmse:{m.lmse}", *([] if m.ssim is None else [f"ssim:{m.ssim}"]),
                    f"resize:{_resize(m.resize)}"]  # fmt: skip
        if self.agreement:
            return _depth_parts(self.agreement, kind)
        assert self.pairs is not None
        o = self.pairs
        limit = f"same:{o.same_distance:g}" if o.modality == "albedo" else f"margin:{o.margin:g}"
        return [f"modality:{o.modality}", limit]


def metric_names(target: str, whdr: WhdrSpec | None = None) -> tuple[str, ...]:
    """The metrics a protocol of this target may name; whdr10, whdr10_eq, whdr10_ineq for threshold 0.10."""
    if whdr is None:
        return metrics_of(target)
    return tuple(whdr_name(d, judged) for d in whdr.deltas for judged in ("", "eq", "ineq"))


def _resize(how: str) -> str:
    return "none" if how == "none" else "pred->gt" if how == "bilinear" else f"pred->gt.{how}"


def align_space(align: AlignSpec, kind: str) -> Literal["depth", "disparity"]:
    """The space a prediction of `kind` is fitted in."""
    if align.space == "own":
        return "disparity" if kind == "disparity_affine" else "depth"
    return align.space


def _depth_parts(spec: DepthSpec, kind: str) -> list[str]:
    align = spec.align
    # of the depth beside normals, the signature does not state the kind
    space = align.space if kind == "normal" else align_space(align, kind)
    fit = "none" if align.mode == "none" else f"{align.mode}.{space}"
    sub = "" if align.subsample == "all" else f".{align.subsample}"
    rng = "mask" if spec.range_m is None else f"{spec.range_m[0]:g}-{spec.range_m[1]:g}m"
    clip = "none" if spec.clip_m is None else f"{spec.clip_m[0]:g}-{spec.clip_m[1]:g}m"
    return [f"align:{fit}{sub}", f"crop:{spec.crop}", f"range:{rng}", *([f"clip:{clip}"] if clip != rng else []),
            f"resize:{_resize(spec.resize)}"]  # fmt: skip


_TABLES: Final[Mapping[tuple[int | str, ...], type[_Spec]]] = {
    (): Protocol, ("depth",): DepthSpec, ("depth", "align"): AlignSpec, ("normals",): NormalsSpec,
    ("whdr",): WhdrSpec, ("map",): MapSpec, ("pairs",): PairsSpec,
}  # fmt: skip


def parse_protocol(text: str, where: str) -> Protocol:
    """A protocol from TOML text.

    Raises
    ------
    UsageError
        Broken TOML, an unknown key, a missing key or a value out of range; names each.
    """
    try:
        return Protocol.model_validate(parse_toml(text, where))
    except ValidationError as error:
        raise UsageError(explain(error, tables=_TABLES), where=where,
                         fix="reasonx-eval info depth/nyuv2  (a complete example)") from None  # fmt: skip


def _toml_files(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for task in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.name):
        if task.name in ("splits", "manifests"):
            continue
        found += sorted((p for p in task.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name)
    return found


@cache
def all_protocols() -> Mapping[str, Protocol]:
    """The protocols in the package, by ``name@version``."""
    found = {}
    for path in _toml_files(resources.files("reasonx_eval") / "protocols" / "data"):
        protocol = parse_protocol(path.read_text(encoding="utf-8"), str(path))
        if protocol.ref in found:
            raise UsageError(f"protocol {protocol.ref} is defined twice", where=str(path))
        found[protocol.ref] = protocol
    return found


def get_protocol(name: str) -> Protocol:
    """A protocol by ``name`` (latest version) or ``name@version``.

    Raises
    ------
    UsageError
        Unknown name, with the nearest match.
    """
    known = all_protocols()
    if name in known:
        return known[name]
    versions = [p for p in known.values() if p.name == name]
    if versions:
        return max(versions, key=lambda p: p.version)
    raise unknown("protocol", name, {p.name for p in known.values()} if "@" not in name else known)


def default_protocols(dataset: str, task: str | None = None) -> list[Protocol]:
    """The default protocol of each task of a dataset (latest version), in the order of types.TASKS."""
    latest: dict[str, Protocol] = {}
    for protocol in all_protocols().values():
        if dataset in protocol.default_for and task in (None, protocol.task):
            known = latest.get(protocol.task)
            if known is None or known.version < protocol.version:
                latest[protocol.task] = protocol
    return [latest[t] for t in TASKS if t in latest]
