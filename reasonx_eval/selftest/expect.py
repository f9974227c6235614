"""What a score must be: perfect, not perfect, bad on every metric, the opposite, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final

from reasonx_eval.errors import ReasonXError
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.scoring import Scored
from reasonx_eval.scoring.maps import PSNR_CEILING
from reasonx_eval.selftest.case import Failed

#: what is not perfect misses by this, on some metric at least
_CLEARLY: Final = 1e-3


def ideal(name: str) -> float:
    """The perfect value as it is stored."""
    value = metric_info(name).perfect
    return PSNR_CEILING if math.isinf(value) else value


def distances(metrics: Mapping[str, float]) -> dict[str, float]:
    """How far each metric is from perfect; a part of WHDR that nobody judged is left out.

    Raises
    ------
    Failed
        Any other metric is NaN, or there is none.
    """
    found = {}
    for name, value in metrics.items():
        if math.isnan(value) and name.endswith(("_eq", "_ineq")):
            continue
        if not math.isfinite(value):
            raise Failed(f"{name} is {value}")
        found[name] = abs(value - ideal(name))
    if not found:
        raise Failed("no metric has a value")
    return found


def listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())


def perfect(scored: Scored) -> float:
    return perfect_metrics(scored.metrics)


def perfect_metrics(metrics: Mapping[str, float]) -> float:
    """Every metric at its perfect value; the largest distance from it."""
    found = distances(metrics)
    wrong = {n: metrics[n] for n, distance in found.items() if distance > metric_info(n).rounding}
    if wrong:
        raise Failed(f"not perfect: {listed(wrong)}")
    return max(found.values())


def imperfect(scored: Scored) -> float:
    """Some metric clearly off; the largest distance."""
    worst = max(distances(scored.metrics).values())
    if not worst > _CLEARLY:
        raise Failed(f"passes for perfect: {listed(scored.metrics)}")
    return worst


def bad(scored: Scored, *, without: Collection[str] = ()) -> float:
    """Every metric (but those `without`) far off; the smallest distance, as a multiple of what is asked for."""
    far = distances(scored.metrics)
    found = {n: distance / metric_info(n).chance for n, distance in far.items() if n not in without}
    good = {n: scored.metrics[n] for n, times in found.items() if times < 1}
    if good:
        raise Failed(f"too good: {listed(good)}")
    return min(found.values())


def opposite(scored: Scored) -> float:
    """Angles of 180 degrees, shares of 0; the largest distance from that."""
    found = {}
    for name, value in scored.metrics.items():
        high = metric_info(name).bounds[1]
        found[name] = abs(value - (0.0 if metric_info(name).higher_is_better else high))
    wrong = {n: scored.metrics[n] for n, distance in found.items() if not distance <= metric_info(n).rounding}
    if wrong:
        raise Failed(f"not the opposite: {listed(wrong)}")
    return max(found.values())


def reversed_order(scored: Scored) -> float:
    """Not perfect, and a note says that the fitted scale is negative."""
    fit = scored.alignment
    if fit is None or not fit.scale < 0:
        raise Failed(f"the fitted scale is not negative: {fit}")
    if not any("negative" in note for note in scored.notes):
        raise Failed(f"no note says that the scale is negative ({fit.scale:.3g}): {scored.notes}")
    return imperfect(scored)


def refuses(attempt: Callable[[], object], error: type[ReasonXError], words: str = "") -> None:
    """`attempt` must raise `error` with `words` in its message."""
    try:
        result = attempt()
    except error as refusal:
        if words not in str(refusal):
            raise Failed(f"refused, but not because of '{words}': {refusal}") from None
        return
    except Exception as other:
        raise Failed(f"{type(other).__name__} instead of {error.__name__}: {other}") from None
    shown = listed(result.metrics) if isinstance(result, Scored) else "accepted"
    raise Failed(f"not refused: {shown}")
