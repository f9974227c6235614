"""How a board's numbers and marks are written, in every format the same."""

from __future__ import annotations

from typing import Final

from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.submissions import JudgeSubmission
from reasonx_eval.leaderboard.tables import Cell, Difference, ModelRow
from reasonx_eval.metrics.table import known_metric
from reasonx_eval.report.contamination import seen
from reasonx_eval.report.tables import decimals, format_value

ABSENT: Final = "-"
#: rounding of a perfect prediction, in any metric's unit
_NOTHING: Final = 1e-9

LEGEND: Final = (
    "↑ higher is better, ↓ lower is better",
    "† trained on this dataset: not ranked",
    "‡ a metric that the model was rewarded for when it was tuned; on a name, a model tuned with a reward",
    "⚠ partial: not every image has a value; not ranked",
    "s/image: time in the model on the machine of that run, which its file names; other machines are faster or slower",
    "◎ the ground truth as the prediction, a check of the protocol; not ranked",
    "intervals hold the mean over further images of the kind in 95 of 100 cases; those of fewer than 10 are rough",
)


def marks(row: ModelRow) -> list[tuple[str, str]]:
    """(mark, what it says of this row)."""
    found = []
    if row.partial:
        result = row.submission.result
        found.append(("⚠", f"partial: {result.n_scored} of {result.n_total} images, not ranked"))
    if row.trained_on is not None:
        found.append(("†", f"trained on this dataset ({row.trained_on}), not ranked"))
    if row.truth:
        found.append(("◎", "the ground truth as the prediction, not ranked"))
    if row.rewarded:
        found.append(("‡", f"tuned with a reward: {row.model.reward}"))
    return found


def judge_marks(judge: JudgeSubmission) -> list[tuple[str, str]]:
    """(mark, what it says of this judge)."""
    result = judge.result
    found = []
    if result.status != "complete":
        found.append(("⚠", f"partial: {result.n_scored} of {result.n_total} photos, or questions without an answer"))
    trained = seen(result.judge.trained_on, result.dataset.name)
    if trained is not None:
        found.append(("†", f"trained on this dataset ({trained})"))
    return found


def metric_head(metric: str) -> str:
    """``AbsRel ↓``, ``RMSE ↓ m``."""
    info = known_metric(metric)
    if info is None:
        return metric
    return f"{info.label} {'↑' if info.higher_is_better else '↓'}{f' {info.unit}' if info.unit else ''}"


def shown_value(value: Value) -> tuple[str, str]:
    """Value and interval; an absent value shows its reason. Perfect scores are not printed to the last bit."""
    ends = [abs(v) for v in (value.value, value.ci_low, value.ci_high) if v is not None]
    if value.value is not None and max(ends) < _NOTHING:
        value = value.model_copy(update={"value": 0.0, "ci_low": 0.0, "ci_high": 0.0})
    return format_value(value)


def shown_difference(cell: Cell) -> tuple[str, str] | None:
    """``("-0.0021 better", "[-0.0030, -0.0012]")``, with as many digits as the value has; None without a base."""
    d = cell.difference
    if d is None:
        return None
    digits = difference_digits(cell, d)
    text = signed(d.value, digits) + ("" if d.finding == "unclear" else f" {d.finding}")
    if d.low is None or d.high is None:
        return text, "no interval"
    return text, f"[{signed(d.low, digits)}, {signed(d.high, digits)}]"


def difference_digits(cell: Cell, difference: Difference) -> int:
    """Digits after the point: those of the value, or more where the interval would be nothing but zeros."""
    digits = decimals(cell.value)
    ends = [abs(e) for e in (difference.low, difference.high) if e]
    while ends and digits < 8 and max(ends) < 5 * 10.0**-digits:
        digits += 1
    return digits


def signed(value: float, digits: int) -> str:
    """With a sign, and none before a zero."""
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", "\N{MINUS SIGN}")


def seconds_text(seconds: float | None) -> str:
    """Two significant digits; a fast baseline shows as below a millisecond."""
    if seconds is None:
        return ABSENT
    return "<0.001" if seconds < 0.001 else f"{seconds:.2g}" if seconds < 100 else f"{seconds:.0f}"


def published_value(value: float | None) -> str:
    """As printed: the shortest form of the number."""
    return ABSENT if value is None else f"{value:g}"
