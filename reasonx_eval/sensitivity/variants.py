"""The protocols that a set of saved predictions could plausibly be scored under: registered ones, and variations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reasonx_eval.errors import unknown
from reasonx_eval.io.files import canonical_json
from reasonx_eval.protocols.protocol import Protocol, all_protocols

#: of a rule, what decides no number of one run: names, and what else would be accepted or reported
_NAMES: Final = ("name", "version", "accepts", "metrics", "n", "default_for")
_DEPTH: Final = "depth_affine"


@dataclass(frozen=True)
class Variant:
    """One set of rules.

    label : how it differs from the first: a registered protocol's name, or ``crop=none``
    as_depth : disparities are taken for depths known up to scale and shift, the mistake of fitting them in depth
    """

    label: str
    protocol: Protocol
    as_depth: bool = False

    def kind(self, kind: str) -> str:
        """What predictions of `kind` are scored as."""
        return _DEPTH if self.as_depth and kind == "disparity_affine" else kind


Change = tuple[str, Mapping[str, Any]]


def _depth(protocol: Protocol, **changes: Any) -> Protocol:
    assert protocol.depth is not None
    return protocol.model_copy(update={"depth": protocol.depth.model_copy(update=changes)})


def _table(name: str, field: str, values: Sequence[Any]) -> Callable[[Protocol], Iterator[tuple[str, Protocol]]]:
    """Each value of one field of a protocol's table."""

    def vary(protocol: Protocol) -> Iterator[tuple[str, Protocol]]:
        rules = getattr(protocol, name)
        for value in values:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            yield shown, protocol.model_copy(update={name: rules.model_copy(update={field: value})})

    return vary


def _align_space(protocol: Protocol) -> Iterator[tuple[str, Protocol]]:
    assert protocol.depth is not None
    if protocol.depth.align.mode == "none":
        return  # nothing is fitted, in whatever space
    for space in ("own", "depth", "disparity"):
        yield space, _depth(protocol, align=protocol.depth.align.model_copy(update={"space": space}))


def _range(protocol: Protocol) -> Iterator[tuple[str, Protocol]]:
    for label, span in (("mask", None), ("0.001-10m", (0.001, 10.0)), ("0.001-80m", (0.001, 80.0))):
        yield label, _depth(protocol, range_m=span, clip_m=span)


def _pool(protocol: Protocol) -> Iterator[tuple[str, Protocol]]:
    for pool in ("image", "pixel"):
        # a copy is not validated: only normals have a registered protocol that pools, but means of pixels always can
        yield pool, protocol.model_copy(update={"pool": pool})


#: target -> axis -> its values as protocols
AXES: Final[Mapping[str, Mapping[str, Callable[[Protocol], Iterator[tuple[str, Protocol]]]]]] = {
    "depth": {"align_space": _align_space, "crop": _table("depth", "crop", ("none", "eigen", "garg", "eigen-kitti")),
              "range": _range, "pool": _pool},
    "normals": {"pool": _pool, "resize": _table("normals", "resize", ("bilinear", "nearest"))},
    "judgements": {"space": _table("whdr", "space", ("linear", "gamma", "srgb", "stored")),
                   "transfer": _table("whdr", "transfer", ("srgb", "gamma2.2")),
                   "rescale": _table("whdr", "rescale", ("none", "half-one")),
                   "resize": _table("whdr", "resize", ("none", "image"))},
    "albedo": {"space": _table("map", "space", ("linear", "srgb", "gamma")),
               "transfer": _table("map", "transfer", ("srgb", "gamma2.2")),
               "scale": _table("map", "scale", ("lsq", "none")), "clip": _table("map", "clip01", (True, False)),
               "lmse": _table("map", "lmse", ("grosse", "luo"))},
    "irradiance": {"space": _table("map", "space", ("linear", "srgb", "gamma")),
                   "scale": _table("map", "scale", ("lsq", "none")),
                   "exposure": _table("map", "exposure", ("none", "p90")),
                   "lmse": _table("map", "lmse", ("grosse", "luo"))},
    "pairs": {"same_distance": _table("pairs", "same_distance", (0.025, 0.05, 0.1))},
}  # fmt: skip


def axes(target: str, wanted: Sequence[str] | None) -> list[str]:
    """The axes to vary, in their order.

    Parameters
    ----------
    wanted : names, of any target; None takes all of this one. Those of another target are passed over.

    Raises
    ------
    UsageError
        A name that is no axis of any target.
    """
    own = AXES.get(target, {})
    if wanted is None:
        return list(own)
    every = {name for table in AXES.values() for name in table}
    for name in wanted:
        if name not in every:
            raise unknown("rule to vary", name, sorted(every))
    return [name for name in own if name in wanted]


def variants(base: Protocol, metrics: Sequence[str], wanted: Sequence[str] | None = None) -> list[Variant]:
    """The run's own rules first, then the registered protocols of the same data, then one rule changed at a time.

    Parameters
    ----------
    base : the run's protocol
    metrics : what will be shown; a registered protocol must report all of it
    wanted : see `axes`

    Returns
    -------
    list of Variant
        No two with the same rules.
    """
    found = [Variant("as run", base)]
    seen = {_rules(found[0])}
    for candidate in (*_registered(base, metrics), *_changed(base, axes(base.target, wanted))):
        key = _rules(candidate)
        if key not in seen:
            seen.add(key)
            found.append(candidate)
    return found


def _registered(base: Protocol, metrics: Sequence[str]) -> Iterator[Variant]:
    latest: dict[str, Protocol] = {}
    for protocol in all_protocols().values():
        same = (protocol.dataset, protocol.target) == (base.dataset, base.target)
        if same and set(metrics) <= set(protocol.metrics) and protocol.version >= 1:
            known = latest.get(protocol.name)
            latest[protocol.name] = protocol if known is None or known.version < protocol.version else known
    for protocol in latest.values():
        yield Variant(protocol.ref, protocol)


def _changed(base: Protocol, names: Sequence[str]) -> Iterator[Variant]:
    for axis in names:
        for value, protocol in AXES[base.target][axis](base):
            # a name of its own: the signature must never say that these are the registered rules
            renamed = protocol.model_copy(update={"name": f"{base.name}.{axis.replace('_', '-')}-{value}"})
            as_depth = (axis, value) == ("align_space", "depth") and "disparity_affine" in base.accepts
            if as_depth:
                accepts = tuple(dict.fromkeys([*base.accepts, _DEPTH]))
                renamed = renamed.model_copy(update={"accepts": accepts})
            yield Variant(f"{axis}={value}", renamed, as_depth=as_depth)


def _rules(variant: Variant) -> str:
    rules = {k: v for k, v in variant.protocol.rules.items() if k not in _NAMES}
    return canonical_json([rules, variant.as_depth])
