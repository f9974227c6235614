"""Colours and surface patterns drawn for a domain."""

from __future__ import annotations

from reasonx_eval.datasets.scenes.domains import Domain, Weights
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.exact import Triple, cos_sin
from reasonx_eval.datasets.scenes.textures import Texture

# patterns whose first colour is a joint or ground and whose other two are tones of one material
_JOINTED = frozenset({"tiles", "bricks", "planks", "speckle"})


def hsv(hue: float, saturation: float, value: float) -> Triple:
    """Hue in turns (any number), saturation and value in [0, 1], to linear RGB."""

    def channel(offset: float) -> float:
        k = (offset + 6.0 * hue) % 6.0
        return value - value * saturation * max(0.0, min(k, 4.0 - k, 1.0))

    return channel(5.0), channel(3.0), channel(1.0)


def _hue(draw: Draw) -> float:
    """Any hue, with wood and brick tones nearly as likely as everything else together."""
    return draw.span((0.01, 0.15)) if draw.flag(0.45) else draw.unit()


def light_colour(draw: Draw, saturation: float) -> Triple:
    """A light's colour with largest channel 1: mostly warm or cool, sometimes any hue."""
    kind = draw.unit()
    hue = draw.unit() if kind < 0.25 else draw.span((0.04, 0.12)) if kind < 0.7 else draw.span((0.54, 0.64))
    return hsv(hue, saturation, 1.0)


def _other_value(draw: Draw, domain: Domain, value: float, step: float) -> float:
    """A clearly different value: darker by `step`, or lighter by as much where there is room."""
    lighter = value / (1.0 - 0.8 * step)
    if lighter <= domain.value[1] and draw.flag(0.5):
        return lighter
    return max(value * (1.0 - step), domain.value[0] * 0.8)


def _palette(draw: Draw, domain: Domain, pattern: str) -> tuple[Triple, Triple, Triple]:
    hue, saturation, value = _hue(draw), draw.span(domain.saturation), draw.span(domain.value)
    step = draw.span(domain.palette_step)
    other = _other_value(draw, domain, value, step)
    base = hsv(hue, saturation, value)
    if pattern in _JOINTED:
        tone = hsv(hue + 0.06 * (draw.unit() - 0.5), saturation, value + 0.5 * (other - value))
        return hsv(hue, 0.3 * saturation, other), base, tone
    if draw.flag(0.4):
        hue += step * (draw.unit() - 0.5)
    last = hsv(hue, draw.span(domain.saturation), other)
    middle = (0.5 * (base[0] + last[0]), 0.5 * (base[1] + last[1]), 0.5 * (base[2] + last[2]))
    return base, middle, last


def draw_texture(draw: Draw, domain: Domain, weights: Weights, size: float = 1.0) -> Texture:
    """A pattern with colours, size and grain; `size` scales it (furniture carries smaller patterns than walls)."""
    pattern = draw.weighted(weights)
    palette = _palette(draw, domain, pattern)
    scale = size * draw.inverse_span(domain.scale)
    turn = cos_sin(draw.span(domain.turn))
    if pattern == "bricks":
        turn = (1.0, 0.0)
    grain = draw.span(domain.grain) if draw.flag(domain.grain_chance) else 0.0
    return Texture(
        pattern, palette, scale, turn, (draw.unit(), draw.unit()), draw.key(), draw.span((0.3, 0.7)),
        grain, draw.inverse_span((0.015, 0.12)),
    )  # fmt: skip
