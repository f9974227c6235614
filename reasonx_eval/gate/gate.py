"""Runs against a baseline under a policy: every metric judged, everything that can't be compared named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reasonx_eval.errors import (
    EXIT_CANNOT_TELL,
    EXIT_NOT_COMPARABLE,
    EXIT_OK,
    EXIT_REGRESSION,
    NotComparable,
    ReasonXError,
    UsageError,
)
from reasonx_eval.gate.baseline import UPDATE, baseline_runs, load_baseline
from reasonx_eval.gate.decision import GateCheck, check, settle
from reasonx_eval.gate.policy import Policy, load_policy
from reasonx_eval.io.results import Result
from reasonx_eval.statistics.columns import column
from reasonx_eval.statistics.join import join, unlike_digests
from reasonx_eval.statistics.paired import Settings
from reasonx_eval.statistics.pairing import pair_up
from reasonx_eval.statistics.runs import Run, find_runs, folder_of

Inconclusive = Literal["report", "fail", "pass"]
_SHOWN = 5


@dataclass(frozen=True)
class GatedMetric:
    """One metric of one run, with the two signatures that its numbers are printed with."""

    baseline: Run
    run: Run
    check: GateCheck

    @property
    def name(self) -> str:
        return f"{self.run.protocol.ref} {self.run.name} {self.check.result.name}"


@dataclass(frozen=True)
class GateResult:
    """The answer of a gate.

    judged : every gated metric, in the order of the runs
    refused : runs and metrics that could not be compared, a line each; any of them makes the gate fail
    notes : remarks that change nothing
    inconclusive : exit code of "cannot tell": report 5, fail 3, pass 0
    """

    judged: tuple[GatedMetric, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    settings: Settings
    inconclusive: Inconclusive

    @property
    def outcome(self) -> Literal["pass", "regressed", "cannot tell", "not comparable"]:
        """The worst of all: a gate that could not compare everything has not judged."""
        outcomes = {j.check.outcome for j in self.judged}
        if self.refused or not self.judged:
            return "not comparable"
        if "regressed" in outcomes:
            return "regressed"
        return "cannot tell" if "cannot tell" in outcomes else "pass"

    @property
    def exit_code(self) -> int:
        """4, 3, 5 or 0; see `outcome` and `inconclusive`."""
        undecided = {"report": EXIT_CANNOT_TELL, "fail": EXIT_REGRESSION, "pass": EXIT_OK}[self.inconclusive]
        return {"not comparable": EXIT_NOT_COMPARABLE, "regressed": EXIT_REGRESSION, "cannot tell": undecided,
                "pass": EXIT_OK}[self.outcome]  # fmt: skip


def gate(
    runs: str | Path | Result | Sequence[str | Path | Result], *, baseline: str | Path, policy: str | Path,
    inconclusive: Inconclusive = "report", seed: int = 0,
) -> GateResult:  # fmt: skip
    """Hold runs against a stored baseline, with the margins of a policy.

    Parameters
    ----------
    runs : one or several: run folders, folders that hold many, or results that lie in one
    baseline, policy : files, JSON and TOML
    inconclusive : exit code of "cannot tell": "report" 5, "fail" 3, "pass" 0
    seed : of the bootstrap

    Returns
    -------
    GateResult
        ``outcome`` is "pass", "regressed", "cannot tell" or "not comparable"; ``exit_code`` that of the command.

    Raises
    ------
    UsageError
        No run, a policy with an unknown key, protocol or metric.
    NotComparable, DataError
        No baseline, or one that was edited; a run whose records are not those of its result.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from reasonx_eval import evaluate
    >>> from reasonx_eval.gate.baseline import update_baseline
    >>> from reasonx_eval.statistics.runs import load_run
    >>> folder = Path(tempfile.mkdtemp())
    >>> run = evaluate(model="retinex", dataset="scenes-wild", task="albedo", limit=5, out=folder)
    >>> changes = update_baseline(folder / "baseline.json", [load_run(run.folder)], "first release")
    >>> policy = folder / "policy.toml"
    >>> _ = policy.write_text('[protocol."albedo/scenes-wild@1"]\\nsi_mse = { margin = 0.001 }')
    >>> gate(run, baseline=folder / "baseline.json", policy=policy).outcome
    'pass'
    """
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    stored = baseline_runs(load_baseline(Path(baseline)), Path(baseline))
    found_runs = [run for one in several for run in find_runs(folder_of(one))]
    rules = load_policy(Path(policy), also=[run.protocol.ref for run in [*stored, *found_runs]])
    settings = Settings(confidence=rules.confidence, seed=seed)
    pairs, refused = _paired_up(stored, found_runs)
    notes: list[str] = []
    found: list[tuple[Run, Run, GateCheck]] = []
    for old, new in pairs:
        who = f"{new.protocol.ref} {new.name}"
        notes += [f"{who}: {line}" for line in _remarks(old, new)]
        try:
            found += [(old, new, c) for c in _checks(old, new, rules, settings)]
        except UsageError:
            raise  # the policy is wrong, not the run
        except ReasonXError as error:
            refused.append(f"{who}: {error}")
    settled = settle([c for _, _, c in found], rules.confidence)
    judged = tuple(GatedMetric(old, new, c) for (old, new, _), c in zip(found, settled, strict=True))
    return GateResult(judged, tuple(refused), (*notes, *_ungated(judged)), settings, inconclusive)


def _paired_up(stored: list[Run], runs: list[Run]) -> tuple[list[tuple[Run, ...]], list[str]]:
    try:
        pairs, left = pair_up([stored, runs])
    except NotComparable as error:
        return [], [f"no run has a baseline: {error.what}\n  try: {UPDATE}"]
    return pairs, [f"{line}: nothing to compare with" for line in left]


def _checks(baseline: Run, run: Run, policy: Policy, settings: Settings) -> list[GateCheck]:
    """Every gated metric of one run, not yet settled.

    Raises
    ------
    UsageError
        The policy names a metric that the protocol does not report.
    NotComparable, DataError
        No margin; another signature; a sample missing on either side; a metric without a value.
    """
    rules = policy.rules(run.protocol)
    joined = join([baseline, run])
    if not rules:
        raise NotComparable("the policy has no margin for this protocol",
                            fix=f'[protocol."{run.protocol.ref}"] in the policy')  # fmt: skip
    different = _signature_difference(baseline.signature, run.signature)
    if different and joined.whole:
        raise NotComparable(f"another signature than the baseline's: {different}",
                            fix=f"run it as the baseline was, or: {UPDATE}")  # fmt: skip
    for side, missing in zip(("the baseline", "the run"), joined.missing, strict=True):
        if missing:
            shown = "; ".join(f"{sample}: {why}" for sample, why in list(missing.items())[:_SHOWN])
            more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise NotComparable(f"{len(missing)} samples have no score in {side}: {shown}{more}",
                                fix="run it as the baseline was; --retry-failed scores failed samples")  # fmt: skip
    checks = []
    for name, rule in rules.items():
        data = column(joined, name)
        if data.reason is not None:
            raise NotComparable(f"{name} has no value: {data.reason}", fix="take it out of the policy")
        checks.append(check(data, rule, settings))
    return checks


def _signature_difference(old: str, new: str) -> str:
    """What differs but for the program's version, part by part; the number of samples is told sample by sample."""
    parts = [dict(_named_parts(signature)) for signature in (old, new)]
    return ", ".join(f"{key}{parts[0].get(key, '(absent)')} -> {key}{parts[1].get(key, '(absent)')}"
                     for key in dict.fromkeys([*parts[0], *parts[1]])
                     if key != "reasonx:" and parts[0].get(key) != parts[1].get(key))  # fmt: skip


def _named_parts(signature: str) -> list[tuple[str, str]]:
    """``align:none`` to ("align:", "none"); the protocol itself has no key."""
    return [(key + colon, value) if colon else ("", key)
            for key, colon, value in (part.partition(":") for part in signature.split("|"))]  # fmt: skip


def _remarks(baseline: Run, run: Run) -> list[str]:
    lines = unlike_digests([baseline, run])
    if baseline.name != run.name:
        lines.append(f"held against the baseline of {baseline.name}, the only one under this protocol")
    if baseline.reasonx != run.reasonx:
        lines.append(f"the baseline was made by version {baseline.reasonx}, the run by {run.reasonx}")
    return lines


def _ungated(judged: Sequence[GatedMetric]) -> list[str]:
    """Metrics without a margin, a line a protocol."""
    gated: dict[str, set[str]] = {}
    for j in judged:
        gated.setdefault(j.run.protocol.ref, set()).add(j.check.result.name)
    free = {ref: [m for j in judged if j.run.protocol.ref == ref for m in j.run.protocol.metrics if m not in names]
            for ref, names in gated.items()}  # fmt: skip
    return [f"{ref}: not gated: {', '.join(dict.fromkeys(names))}" for ref, names in free.items() if names]
