"""Pass, regressed, or cannot tell: paired non-inferiority of one metric, with a margin.

Let w be how much worse the run is than the baseline (in the metric's unit, positive is worse), [good, bad] its paired
interval, and m the margin.

* pass: bad < m. Whatever the truth in the interval, it is good enough. Also where no sample is worse.
* regressed: good > m, and the one-sided exchange test of w <= m says so too after Holm's correction over all metrics
  of the gate. Whatever the truth in the interval, it is worse than allowed.
* cannot tell: anything else.

The pass rule needs no correction: all metrics must pass for the gate to pass. The regressed rule does: any of many
metrics may look worse by chance. With the correction, a gate whose runs are all within their margins calls one of them
regressed with a chance of at most 1 - confidence, however many metrics it has. (That good > 0 and w > m would not do:
a run that is worse by half the margin would be called regressed up to one time in six.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from reasonx_eval.gate.policy import Rule
from reasonx_eval.statistics.columns import Column, Floats
from reasonx_eval.statistics.paired import Paired, SampleChange, Settings, paired
from reasonx_eval.statistics.permutation import holm, permutation_test

GateOutcome = Literal["pass", "regressed", "cannot tell"]
#: chance that `samples_needed` samples settle it
POWER = 0.8


@dataclass(frozen=True)
class GateCheck:
    """One metric of one run against its baseline.

    result : the paired comparison, baseline first
    rule : what it is held to;  margin : how much worse is allowed, in the metric's unit
    worse_p : one-sided, of being worse by no more than the margin; NaN for an exact rule
    worse_p_adjusted : after Holm's correction over the gate
    outcome : see the module;  needed : samples (or scenes) that would settle it, None if none would or it is settled
    beyond : for an exact rule, the samples that are worse by more than the tolerance
    """

    result: Paired
    rule: Rule
    margin: float
    worse_p: float
    worse_p_adjusted: float
    outcome: GateOutcome
    needed: int | None = None
    beyond: tuple[SampleChange, ...] = ()


def check(column: Column, rule: Rule, settings: Settings) -> GateCheck:
    """Compare one metric; what it comes to is for `settle`, which sees all metrics.

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
        return GateCheck(result, rule, margin, math.nan, math.nan, "regressed" if beyond else "pass", beyond=beyond)
    top, weight = column.cluster_sums(0, 1)
    worse, better = (top[0], top[1]) if column.info.higher_is_better else (top[1], top[0])
    p = permutation_test(_shifted(better, weight, margin, column.root), worse, weight, seed=settings.seed,
                      root=column.root, permutations=settings.permutations, alternative="greater")  # fmt: skip
    return GateCheck(result, rule, margin, p, p, "cannot tell")


def _shifted(top: Floats, weight: Floats, margin: float, root: bool) -> Floats:
    """Sums per unit whose pooled value is larger by the margin, the same in every image or pixel."""
    if not root:
        return top + margin * weight
    value = math.sqrt(top.sum() / weight.sum())
    return top + ((value + margin) ** 2 - value**2) * weight


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
        outcome = _outcome(c.result, c.margin, p, 1 - confidence)
        needed = samples_needed(c.result, c.margin, confidence, tests) if outcome == "cannot tell" else None
        settled.append(replace(c, worse_p_adjusted=p, outcome=outcome, needed=needed))
    return settled


def _outcome(result: Paired, margin: float, p: float, alpha: float) -> GateOutcome:
    if result.losses == 0:
        return "pass"
    ends = result.worse_interval
    if ends is None:
        return "cannot tell"
    good, bad = ends
    if bad < margin:
        return "pass"
    return "regressed" if good > margin and p < alpha else "cannot tell"


def samples_needed(result: Paired, margin: float, confidence: float, tests: int = 1) -> int | None:
    """How many samples (scenes, where scenes repeat) would settle it with a chance of 80 %.

    ``n = clusters * ((z + z_power) * se / d)^2``, with se half the interval's width over z, both as measured now, z the
    normal quantile of the interval's confidence, z_power that of 0.8, and d the way from the estimate to the margin.
    If the estimate is beyond the margin, so that the run would be called regressed, z is at least the one-sided
    quantile that Bonferroni's correction asks for.

    Parameters
    ----------
    margin : in the metric's unit
    tests : number of tests that Holm's correction counts

    Returns
    -------
    int, more than there are now; or None where no number would do, or nothing is known about the spread.

    Notes
    -----
    The usual normal approximation of a paired non-inferiority trial (Julious, Sample sizes for clinical trials with
    normal data, 2004), with what was measured taken for the truth.
    """
    from scipy.special import ndtri

    ends = result.worse_interval
    if ends is None:
        return None
    z = float(ndtri(0.5 + confidence / 2))
    error = (ends[1] - ends[0]) / 2 / z
    above = result.worse_by > margin
    distance = abs(result.worse_by - margin)
    if not (error > 0 and distance > 0):
        return None
    if above:
        z = max(z, float(ndtri(1 - (1 - confidence) / max(tests, 1))))
    n = result.clusters * ((z + float(ndtri(POWER))) * error / distance) ** 2
    return max(result.clusters + 1, math.ceil(n)) if np.isfinite(n) else None
