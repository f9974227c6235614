"""Pass, regressed, or cannot tell: paired non-inferiority of one metric, with a margin.

Let w be how much worse the run is than the baseline (in the metric's unit, positive is worse), [good, bad] its paired
interval, and m the margin.

* pass: bad < m, and the one-sided test of w >= m says so too (p below half of 1 - confidence). Whatever the truth in
  the interval, it is good enough. Also where no sample is worse.
* regressed: good > m, and the one-sided test of w <= m says so too after Holm's correction over all metrics of the
  gate. Whatever the truth in the interval, it is worse than allowed.
* cannot tell: anything else.

The tests hold for skewed differences too, see `statistics.skewed_test`. The pass rule needs no correction: all metrics
must pass for the gate to pass. The regressed rule does: any of many metrics may look worse by chance. With the
correction, a gate whose runs are all within their margins calls one of them regressed with a chance of at most
1 - confidence, however many metrics it has. (That good > 0 and w > m would not do: a run that is worse by half the
margin would be called regressed up to one time in six.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from reasonx_eval.gate.policy import Rule
from reasonx_eval.statistics.bootstrap import standard_error
from reasonx_eval.statistics.columns import Column
from reasonx_eval.statistics.paired import Paired, SampleChange, Settings, paired, worse_left_out
from reasonx_eval.statistics.permutation import holm
from reasonx_eval.statistics.skewed_test import p_above, p_below, widening

GateOutcome = Literal["pass", "regressed", "cannot tell"]
#: chance that `samples_needed` samples settle it
POWER = 0.8
#: beyond so many times the samples that there are, nobody collects them
_MOST = 100


@dataclass(frozen=True)
class GateCheck:
    """One metric of one run against its baseline.

    result : the paired comparison, baseline first
    rule : of the policy;  margin : how much worse is allowed, in the metric's unit
    within_p : one-sided, of being worse by the margin or more;  worse_p : of being worse by no more than the margin;
        both NaN for an exact rule
    worse_p_adjusted : after Holm's correction over the gate
    error : standard error of how much worse the run is; NaN with fewer than two clusters
    outcome : see the module;  needed : samples (or scenes) that would settle it, None if none would or it is settled
    beyond : for an exact rule, the samples that are worse by more than the tolerance
    """

    result: Paired
    rule: Rule
    margin: float
    within_p: float
    worse_p: float
    worse_p_adjusted: float
    error: float
    outcome: GateOutcome
    needed: int | None = None
    beyond: tuple[SampleChange, ...] = ()


def check(column: Column, rule: Rule, settings: Settings) -> GateCheck:
    """Compare one metric; its outcome is for `settle`, which sees all metrics.

    Parameters
    ----------
    column : a metric of (baseline, run), with an aggregate
    rule : of the policy
    settings : confidence, resamples and seed
    """
    # the gate has a test of its own, against the margin
    result = paired(column, settings=settings, tested=False)
    margin = rule.allowed(result.base)
    if rule.exact:
        beyond = tuple(w for w in result.worst if w.worse_by > margin)
        return GateCheck(result, rule, margin, math.nan, math.nan, math.nan, math.nan,
                         "regressed" if beyond else "pass", beyond=beyond)  # fmt: skip
    left_out = worse_left_out(column)
    p = p_above(result.worse_by, left_out, margin)
    error = standard_error(left_out) if len(left_out) > 1 else math.nan
    return GateCheck(result, rule, margin, p_below(result.worse_by, left_out, margin), p, p, error, "cannot tell")


def settle(checks: list[GateCheck], confidence: float) -> list[GateCheck]:
    """The outcomes of all metrics of a gate.

    Parameters
    ----------
    confidence : in (0, 1); 1 - confidence is the chance of a false "regressed" anywhere in the gate
    """
    adjusted = holm([c.worse_p for c in checks])
    tests = sum(not math.isnan(p) for p in adjusted)
    settled = []
    for c, p in zip(checks, adjusted, strict=True):
        if c.rule.exact:
            settled.append(c)
            continue
        outcome = _outcome(c, p, 1 - confidence)
        needed = samples_needed(c, confidence, tests) if outcome == "cannot tell" else None
        settled.append(replace(c, worse_p_adjusted=p, outcome=outcome, needed=needed))
    return settled


def _outcome(c: GateCheck, worse_p: float, alpha: float) -> GateOutcome:
    if c.result.losses == 0:
        return "pass"
    ends = c.result.worse_interval
    if ends is None:
        return "cannot tell"
    good, bad = ends
    if bad < c.margin and c.within_p < alpha / 2:
        return "pass"
    return "regressed" if good > c.margin and worse_p < alpha else "cannot tell"


def samples_needed(c: GateCheck, confidence: float, tests: int = 1) -> int | None:
    """How many samples (scenes, where scenes repeat) would settle it with a chance of 80 %.

    ``n = clusters * ((w z + z_power) * error / d)^2``, with z the normal quantile of the gate's test, w its widening at
    n, z_power the quantile of 0.8, and d the way from the estimate to the margin. If the estimate is beyond the
    margin, so that the run would be called regressed, z is that of Bonferroni's correction.

    Parameters
    ----------
    tests : number of tests that Holm's correction counts

    Returns
    -------
    int, to two significant digits, more than there are now; or None where nothing is known about the spread, or where
    it would take more than a hundred times as many as now: the run is as much worse as the margin allows.

    Notes
    -----
    The usual normal approximation of a paired non-inferiority trial (Julious, Sample sizes for clinical trials with
    normal data, 2004), with the measured values taken for the truth.
    """
    from scipy.special import ndtri

    above = c.result.worse_by > c.margin
    distance = abs(c.result.worse_by - c.margin)
    clusters = c.result.clusters
    if not (c.error > 0 and distance > c.error / _MOST):
        return None
    z = float(ndtri(1 - (1 - confidence) / max(tests, 1))) if above else float(ndtri(0.5 + confidence / 2))
    n = float(clusters)
    for _ in range(8):  # the widening falls as n rises
        n = max(2.0, clusters * ((widening(n) * z + float(ndtri(POWER))) * c.error / distance) ** 2)
    if n > _MOST * clusters:
        return None
    digits = 1 - math.floor(math.log10(n))
    rounded = math.ceil(round(n * 10.0**digits, 6)) / 10.0**digits
    return max(clusters + 1, math.ceil(rounded))
