"""The table of checks: which prediction, for which protocols, and what must come out.

To add one, write a function of a case that raises `Failed` or returns the number it saw, and a row in CHECKS.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np

from reasonx_eval.errors import SampleError, UndefinedScore, UsageError
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.embedded.oracle import Oracle
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.scoring import Scored
from reasonx_eval.scoring.depth import evaluation_mask as depth_mask
from reasonx_eval.scoring.normals import evaluation_mask as normals_mask
from reasonx_eval.selftest import expect
from reasonx_eval.selftest.case import Case, Failed, SurfaceOracle, without_truth
from reasonx_eval.types import DepthTarget, Kind, NormalTarget, Prediction

FACTOR: Final = 3.7
OFFSET: Final = 0.2
SIGMA: Final = 0.05
#: standard errors that a closed form may be missed by; the noise is seeded, so a pass stays one
LIMIT: Final = 4.0

Rule = Callable[[Case], bool]


@dataclass(frozen=True)
class OracleCheck:
    """One row.

    oracle, expected : as printed
    applies : which protocols and kinds it is for
    look : applies it; returns what it saw, if that is a number, or raises Failed
    shown : how the worst number of many is printed, and whether the worst is the smallest
    every_source : also on further layouts of a dataset; own_data : also on files the user has
    """

    oracle: str
    expected: str
    applies: Rule
    look: Callable[[Case], float | None]
    shown: str = "{:.1g}"
    smallest: bool = False
    every_source: bool = False
    own_data: bool = False


def absorbs(case: Case) -> str | None:
    """What the protocol's alignment or metrics don't see: nothing, a scale, or an affine map; None: undecided.

    An encoded albedo times a factor is no longer a multiple of the linear one, and two albedos called the same
    or different by a fixed distance may or may not change: those say nothing.
    """
    protocol = case.protocol
    if case.agreement:
        return "affine"
    if protocol.depth:
        if protocol.depth.align.mode == "none":
            return "nothing"
        return "affine" if protocol.depth.align.mode == "affine" and not case.inverted else "scale"
    if protocol.pairs:
        return {"depth": "affine", "irradiance": "affine"}.get(protocol.pairs.modality)
    if case.kind == "albedo_srgb" or protocol.normals:
        return None
    if protocol.map:
        return "nothing" if protocol.map.scale == "none" else "scale"
    return "scale"


def fits_affine(case: Case) -> bool:
    return case.protocol.depth is not None and case.protocol.depth.align.mode == "affine"


def _always(case: Case) -> bool:
    return True


def _absorbs(*what: str) -> Rule:
    return lambda case: absorbs(case) in what


def _score(predict: Callable[[Case], Prediction], judge: Callable[[Scored], float]) -> Callable[[Case], float]:
    return lambda case: judge(case.score(predict(case)))


def _as_is(case: Case) -> float:
    return max(_perfect_or_best(case, k) for k in range(len(case.samples)))


def _perfect_or_best(case: Case, k: int) -> float:
    sample = case.samples[k]
    try:
        scored = case.score(case.oracle(sample), sample)
        if case.written or case.protocol.target != "judgements" or "albedo" in sample.targets:
            return expect.perfect(scored)
        # what people say contradicts itself, so no map is perfect; the one solved for it beats chance
        shuffled = case.score(case.oracle(sample, shuffle=True), sample)
    except UndefinedScore:
        if case.written:
            raise
        return 0.0  # the user's file has nothing to score, and says so
    whdr = case.protocol.metrics[0]
    if not scored.metrics[whdr] < shuffled.metrics[whdr]:
        raise Failed(f"{whdr} {scored.metrics[whdr]:.4g}, shuffled {shuffled.metrics[whdr]:.4g}")
    return 0.0


def _through_the_runner(case: Case) -> float:
    """A whole run: records, aggregation (pooled where the protocol pools) and result.json."""
    with tempfile.TemporaryDirectory(prefix="reasonx-selftest-run-") as folder:
        model = SurfaceOracle() if case.agreement else Oracle(kind=case.kind)
        result = run(model, case.dataset, case.protocol, Path(folder) / "run",
                     RunOptions(selection=Selection(samples=case.ids), workers=1))  # fmt: skip
    if result.failed or result.n_scored != len(case.ids):
        raise Failed(f"{result.n_scored} of {len(case.ids)} scored; {dict(result.failed)}")
    values = {name: math.nan if v.value is None else v.value for name, v in result.aggregate.items()}
    return expect.perfect_metrics(values)


def _twice_as_large(case: Case) -> Prediction:
    """Each pixel as a block of 2 x 2, which half-pixel bilinear, nearest and fractional points all undo."""
    predicted = case.oracle()
    return replace(predicted, value=predicted.value.repeat(2, axis=0).repeat(2, axis=1))


def _resizes(case: Case) -> bool:
    spec = case.protocol.depth or case.protocol.normals or case.protocol.map
    return spec is None or spec.resize != "none"


def _inverse_as_depth(case: Case) -> Prediction:
    inverse = Oracle(kind="disparity_affine").predict([case.sample], "disparity_affine", seed=0)[0]
    return Prediction(case.kind, inverse.value)


def _shuffled(case: Case) -> float:
    return expect.bad(case.score(case.oracle(shuffle=True)), without=_untelling(case))


def _untelling(case: Case) -> set[str]:
    """Shares that a constant depth reaches too, because the sample has nothing much nearer or farther."""
    target, spec = case.sample.targets[case.protocol.reads], case.protocol.depth
    if spec is None or not isinstance(target, DepthTarget):
        return set()
    depth = target.depth[depth_mask(target, spec)]
    ratio = depth / np.median(depth)
    spread = np.maximum(ratio, 1 / ratio)
    return {f"delta{k}" for k in (1, 2, 3) if np.mean(spread < 1.25**k) > 0.9}


def _y_flipped(case: Case) -> Prediction:
    predicted = case.oracle()
    return replace(predicted, value=predicted.value * np.array([1, -1, 1], dtype=np.float32))


def _has_frame(case: Case) -> bool:
    """Where vectors are compared; an order of "facing" does not change when y is flipped."""
    return case.protocol.normals is not None or case.agreement


def _has_sign(case: Case) -> bool:
    """Where the opposite sign means the opposite answer everywhere."""
    pairs = case.protocol.pairs
    return _has_frame(case) or (pairs is not None and pairs.modality != "albedo")


def _constant(case: Case) -> Prediction:
    return replace(case.oracle(), value=case.blank(case.kind))


def _constant_refused(case: Case) -> None:
    expect.refuses(lambda: case.score(_constant(case)), SampleError, "undetermined")


def _constant_imperfect(case: Case) -> float:
    whdr = case.protocol.whdr
    if whdr is not None and whdr.rescale == "half-one":
        expect.refuses(lambda: case.score(_constant(case)), SampleError, "constant")
        return 1.0
    return expect.imperfect(case.score(_constant(case)))


def _half_nan(case: Case) -> None:
    predicted = case.oracle()
    value = predicted.value.copy()
    value[:, : value.shape[1] // 2] = np.nan
    expect.refuses(lambda: case.score(replace(predicted, value=value)), SampleError)


def _no_truth(case: Case) -> None:
    empty = without_truth(case.sample, case.protocol.reads)
    expect.refuses(lambda: case.score(case.oracle(), empty), SampleError)


def _other_kinds(case: Case) -> None:
    protocol = case.protocol
    for kind in get_args(Kind):
        if kind not in protocol.accepts:
            expect.refuses(partial(case.score, Prediction(kind, case.blank(kind))), UsageError, kind)
            expect.refuses(partial(Oracle(kind=kind).kind_for, protocol.task, protocol.accepts), UsageError)


def _depth_noise(case: Case) -> float:
    """depth (1 + sigma z): AbsRel is the mean of |sigma z|, sigma sqrt(2 / pi), whatever the depth."""
    target, spec = case.sample.targets["depth"], case.protocol.depth
    assert isinstance(target, DepthTarget)
    assert spec is not None
    n = np.count_nonzero(depth_mask(target, spec))
    scored = case.score(case.oracle(noise=SIGMA, noise_mode="relative"))
    return _within(scored.metrics["abs_rel"], SIGMA * math.sqrt(2 / math.pi), SIGMA * math.sqrt((1 - 2 / math.pi) / n))


def _normal_noise(case: Case) -> float:
    """n + sigma z: the angle is that of a Rayleigh distribution; its mean is sigma sqrt(pi / 2) / |n| radians.

    The next terms of the mean are of order sigma^4: those of order sigma^2 cancel.
    """
    target, spec = case.sample.targets["normals"], case.protocol.normals
    assert isinstance(target, NormalTarget)
    assert spec is not None
    length = np.linalg.norm(target.normal[normals_mask(target, spec)].astype(np.float64), axis=1)
    scale = math.degrees(SIGMA) * float((1 / length).mean())
    scored = case.score(case.oracle(noise=SIGMA))
    return _within(scored.metrics["mean_deg"], scale * math.sqrt(math.pi / 2),
                   scale * math.sqrt((2 - math.pi / 2) / len(length)))  # fmt: skip


def _within(value: float, expected: float, error: float) -> float:
    off = abs(value - expected) / error
    if not off <= LIMIT:
        raise Failed(f"{value:.6g}, the closed form is {expected:.6g} with a standard error of {error:.2g}: "
                     f"off by {off:.1f} of them")  # fmt: skip
    return off


def _unaligned_depth(case: Case) -> bool:
    return case.protocol.depth is not None and case.protocol.depth.align.mode == "none"


_SCALED = f"oracle x {FACTOR}"
_SHIFTED = f"oracle x {FACTOR} + {OFFSET}"
CHECKS: Final = (
    OracleCheck("oracle", "perfect", _always, _as_is, every_source=True, own_data=True),
    OracleCheck("oracle, whole run", "perfect", lambda c: c.first_kind, _through_the_runner, every_source=True),
    OracleCheck("oracle, twice the size", "perfect", _resizes, _score(_twice_as_large, expect.perfect)),
    OracleCheck(_SCALED, "perfect", _absorbs("scale", "affine"),
                _score(lambda c: c.oracle(scale=FACTOR), expect.perfect)),
    OracleCheck(_SCALED, "not perfect", _absorbs("nothing"),
                _score(lambda c: c.oracle(scale=FACTOR), expect.imperfect), "{:.2g}", smallest=True, own_data=True),
    OracleCheck(_SHIFTED, "perfect", _absorbs("affine"),
                _score(lambda c: c.oracle(scale=FACTOR, shift=OFFSET), expect.perfect), own_data=True),
    OracleCheck(_SHIFTED, "not perfect",
                lambda c: c.protocol.whdr is None and absorbs(c) in ("nothing", "scale"),
                _score(lambda c: c.oracle(scale=FACTOR, shift=OFFSET), expect.imperfect), "{:.2g}", smallest=True),
    OracleCheck("oracle x 0.05", "not perfect",
                lambda c: c.protocol.pairs is not None and c.protocol.pairs.modality == "albedo",
                _score(lambda c: c.oracle(scale=0.05), expect.imperfect), "{:.2g}", smallest=True),
    OracleCheck("1 / oracle", "perfect", lambda c: c.kind == "disparity_affine",
                _score(lambda c: c.oracle(invert=True), expect.perfect), own_data=True),
    OracleCheck("1 / oracle as depth", "not perfect, noted",
                lambda c: c.kind == "depth_affine" and fits_affine(c) and not c.inverted,
                _score(_inverse_as_depth, expect.reversed_order), "{:.2g}", smallest=True, own_data=True),
    OracleCheck("- oracle", "the opposite", _has_sign, _score(lambda c: c.oracle(negate=True), expect.opposite)),
    OracleCheck("oracle, y flipped", "not perfect", _has_frame,
                _score(_y_flipped, expect.imperfect), "{:.2g}", smallest=True, own_data=True),
    OracleCheck("shuffled pixels", "bad on every metric", _always, _shuffled, "{:.2g} x limit", smallest=True),
    OracleCheck("constant", "refused", fits_affine, _constant_refused, own_data=True),
    OracleCheck("constant", "not perfect", lambda c: not fits_affine(c), _constant_imperfect, "{:.2g}", smallest=True),
    OracleCheck("NaN in one half", "refused", _always, _half_nan, own_data=True),
    OracleCheck("no ground truth", "refused", _always, _no_truth, own_data=True),
    OracleCheck("another kind", "refused", lambda c: c.first_kind, _other_kinds, own_data=True),
    OracleCheck(f"oracle x (1 + {SIGMA} z)", "closed form", _unaligned_depth, _depth_noise, "{:.1f} SE"),
    OracleCheck(f"oracle + {SIGMA} z", "closed form", lambda c: c.protocol.normals is not None, _normal_noise,
                "{:.1f} SE"),
)  # fmt: skip
