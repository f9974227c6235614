"""The verdict of a gate as a file: JSON for programs, JUnit XML for viewers of test results."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from reasonx_eval.errors import ReasonXError
from reasonx_eval.gate.gate import GatedMetric, GateResult
from reasonx_eval.io.files import write_bytes, write_json
from reasonx_eval.report.tables import printable
from reasonx_eval.statistics.paired import SampleChange

SCHEMA = 1
_WORST = 5


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorseSample(_Part):
    sample: str
    baseline: float
    value: float
    worse_by: float


class CheckVerdict(_Part):
    """One metric. Numbers are in its unit; worse_by, ci_good and ci_bad are positive where the run is worse.

    p_within : one-sided, of being worse by the margin or more; p_worse : of being worse by no more than the margin
    p_worse_adjusted : the same after Holm's correction over the gate
    samples_needed : samples (scenes, where clusters < n) that would settle it; null if it is settled, or none would
    beyond : of an exact rule, how many samples are worse by more than the margin
    """

    protocol: str
    dataset: str
    model: str
    metric: str
    unit: str
    higher_is_better: bool
    outcome: Literal["pass", "regressed", "cannot tell"]
    baseline: float
    value: float
    worse_by: float
    ci_good: float | None
    ci_bad: float | None
    margin: float
    exact: bool
    p_within: float | None
    p_worse: float | None
    p_worse_adjusted: float | None
    n: int
    clusters: int
    samples_needed: int | None
    beyond: int | None
    better: int
    worse: int
    equal: int
    worst: list[WorseSample]
    baseline_signature: str
    signature: str


class Verdict(_Part):
    """verdict.json. outcome agrees with the exit code; "error": the gate stopped at an error."""

    schema_: int = Field(SCHEMA, alias="schema")
    outcome: Literal["pass", "regressed", "cannot tell", "not comparable", "error"]
    exit_code: int
    inconclusive: Literal["report", "fail", "pass"] | None = None
    confidence: float | None = None
    resamples: int | None = None
    seed: int | None = None
    checks: list[CheckVerdict] = []
    refused: list[str] = []
    notes: list[str] = []


def make_verdict(gate: GateResult) -> Verdict:
    s = gate.settings
    return Verdict(
        schema=SCHEMA, outcome=gate.outcome, exit_code=gate.exit_code, inconclusive=gate.inconclusive,
        confidence=s.confidence, resamples=s.resamples, seed=s.seed,
        checks=[_check(j) for j in gate.judged], refused=list(gate.refused), notes=list(gate.notes),
    )  # fmt: skip


def error_verdict(error: ReasonXError) -> Verdict:
    """The verdict of a gate that stopped at an error: a file of an earlier gate must not stay there in its place."""
    return Verdict(schema=SCHEMA, outcome="error", exit_code=error.exit_code, refused=[str(error)])


def _check(j: GatedMetric) -> CheckVerdict:
    r, c = j.check.result, j.check
    ends = r.worse_interval
    worst = c.beyond if c.rule.exact else r.worst
    return CheckVerdict(
        protocol=j.run.protocol.ref, dataset=j.run.dataset.name, model=j.run.name, metric=r.name, unit=r.info.unit,
        higher_is_better=r.info.higher_is_better, outcome=c.outcome, baseline=r.base, value=r.other,
        worse_by=r.worse_by, ci_good=None if ends is None else ends[0], ci_bad=None if ends is None else ends[1],
        margin=c.margin, exact=c.rule.exact,
        p_within=None if c.rule.exact else c.within_p, p_worse=None if c.rule.exact else c.worse_p,
        p_worse_adjusted=None if c.rule.exact else c.worse_p_adjusted, n=r.n, clusters=r.clusters,
        samples_needed=c.needed, beyond=len(c.beyond) if c.rule.exact else None,
        better=r.wins, worse=r.losses, equal=r.ties,
        worst=[_worse(w) for w in worst[:_WORST]],
        baseline_signature=j.baseline.signature, signature=j.run.signature,
    )  # fmt: skip


def _worse(change: SampleChange) -> WorseSample:
    return WorseSample(sample=change.sample_id, baseline=change.base, value=change.other, worse_by=change.worse_by)


def write_verdict(path: Path, verdict: Verdict) -> None:
    write_json(path, verdict.model_dump(mode="json", by_alias=True))


def write_junit(path: Path, verdict: Verdict, describe: Callable[[CheckVerdict], str]) -> None:
    """JUnit XML: a suite for each model under each protocol, a case for each metric.

    Regressed is a failure, what could not be compared an error; "cannot tell" is a failure too, unless it was said
    to be a pass: then it is skipped.
    """
    root = ET.Element("testsuites", name="reasonx-eval gate")
    suites: dict[tuple[str, str], list[CheckVerdict]] = {}
    for c in verdict.checks:
        suites.setdefault((c.protocol, c.model), []).append(c)
    for (protocol, model), checks in suites.items():
        suite = _suite(root, f"{protocol} {model}", len(checks))
        for c in checks:
            case = ET.SubElement(suite, "testcase", classname=printable(f"{protocol}.{model}"),
                                 name=printable(c.metric))  # fmt: skip
            _outcome(case, c, printable(describe(c)), verdict.inconclusive)
            ET.SubElement(case, "system-out").text = printable(f"baseline {c.baseline_signature}  run {c.signature}")
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    if verdict.refused:
        suite = _suite(root, "not compared", len(verdict.refused))
        suite.set("errors", str(len(verdict.refused)))
        for number, line in enumerate(verdict.refused, 1):
            case = ET.SubElement(suite, "testcase", classname="gate", name=f"not compared {number}")
            ET.SubElement(case, "error", message=printable(line.splitlines()[0])).text = "\n".join(
                map(printable, line.splitlines()))  # fmt: skip
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    write_bytes(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _suite(root: ET.Element, name: str, tests: int) -> ET.Element:
    return ET.SubElement(root, "testsuite", name=printable(name), tests=str(tests), failures="0", errors="0",
                         skipped="0")  # fmt: skip


def _outcome(case: ET.Element, c: CheckVerdict, text: str, inconclusive: str | None) -> None:
    if c.outcome == "regressed":
        ET.SubElement(case, "failure", type="regressed", message=text)
    elif c.outcome == "cannot tell" and inconclusive == "pass":
        ET.SubElement(case, "skipped", message=text)
    elif c.outcome == "cannot tell":
        ET.SubElement(case, "failure", type="cannot tell", message=text)

