"""Our numbers beside the published ones: as printed, consistent, inconsistent, or not the same protocol.

The rule. A number printed with d decimals stands for every value within half a unit of its last one. Ours is *as
printed* if it is one of them; *consistent* if they meet our 95 % interval; *inconsistent* otherwise. A published number
that is known to have been made differently is shown, but never judged, and the reason is said. The interval is that of
other images of the same kind: on the very same images a faithful repetition agrees much more closely, so "consistent"
is the weaker word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from reasonx_eval.errors import (
    EXIT_NOT_COMPARABLE,
    EXIT_OK,
    EXIT_REGRESSION,
    NotComparable,
    UsageError,
    unknown,
)
from reasonx_eval.io.results import Value
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.protocols.references import Reference, published_names, references
from reasonx_eval.statistics.runs import Run

Verdict = Literal["as printed", "consistent", "inconsistent", "not the same protocol", "absent"]

RULE = ("as printed: ours rounds to the published number; consistent: the published number, within its "
        "rounding, meets our 95% interval")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One published number and ours.

    step : one unit of the last decimal that was printed
    why : the known difference, where it is not the same protocol; why ours is absent
    """

    reference: Reference
    ours: Value
    step: float
    verdict: Verdict
    why: str | None = None

    @property
    def judged(self) -> bool:
        """Whether the two were held against each other; else `why` says why not."""
        return self.verdict in ("as printed", "consistent", "inconsistent")


def check(run: Run, published_as: str | None = None) -> list[Check]:
    """Every published number of a run's model under its protocol, beside the run's own.

    Parameters
    ----------
    run : finished and verified
    published_as : the source's name of the model; none takes the names the catalogue knows

    Raises
    ------
    NotComparable
        Nothing is published for this protocol or model, or the run's rules are not those of this installation.
    UsageError
        A name that no source uses, or a model that was published under several: which one it is must be said.
    """
    _same_rules(run)
    known = references(run.protocol.name)
    if not known:
        raise NotComparable("no published number is known under this protocol", where=run.protocol.ref,
                            fix="reasonx-eval list protocols")  # fmt: skip
    name = _published_name(run, known, published_as)
    found = [r for r in known if r.model.casefold() == name.casefold()]
    return [_judge(run, r, printed_step(r, known)) for r in found]


def _same_rules(run: Run) -> None:
    try:
        here = get_protocol(run.protocol.ref).digest
    except UsageError as error:
        raise NotComparable(error.what, where=str(run.where)) from None
    if here != run.digest:
        raise NotComparable(f"the run's rules are not those that {run.protocol.ref} has here", where=str(run.where),
                            fix="run again")  # fmt: skip


def _published_name(run: Run, known: Sequence[Reference], given: str | None) -> str:
    names = {r.model.casefold(): r.model for r in known}
    if given is not None:
        if given.casefold() not in names:
            raise unknown("published model", given, names.values(), where=run.protocol.ref)
        return names[given.casefold()]
    own = [n for n in (*published_names().get(run.name, ()), run.name) if n.casefold() in names]
    if len(own) > 1:
        listed = ", ".join(f"'{n}'" for n in own)
        raise UsageError(f"was published as {listed}: say which one this run repeats", where=run.name,
                         fix=f"--as '{own[0]}'")  # fmt: skip
    if not own:
        raise NotComparable(f"no number is published for this model under {run.protocol.name}, only for "
                            f"{', '.join(sorted(names.values()))}", where=run.name,
                            fix="--as NAME, if it is one of them")  # fmt: skip
    return own[0]


def printed_step(reference: Reference, known: Sequence[Reference]) -> float:
    """One unit of the last decimal that the source prints: the finest of the numbers in the reference's column.

    Examples: 0.96 in a column with 0.964 is 0.960, printed in steps of 0.001.
    """
    column = [r.value for r in known if (r.source, r.table, r.status, r.metric) ==
              (reference.source, reference.table, reference.status, reference.metric)]  # fmt: skip
    places = max(-int(Decimal(repr(v)).as_tuple().exponent) for v in column)
    return float(Decimal(1).scaleb(-places))


def _judge(run: Run, reference: Reference, step: float) -> Check:
    ours = run.aggregate[reference.metric]
    if ours.value is None:
        return Check(reference, ours, step, "absent", ours.reason)
    if run.status != "complete":
        return Check(reference, ours, step, "not the same protocol",
                     f"ours has {len(run.scored)} of the {run.dataset.n} images")  # fmt: skip
    if reference.difference is not None:
        return Check(reference, ours, step, "not the same protocol", reference.difference)
    return Check(reference, ours, step, agreement(ours, reference.value, step))


def agreement(ours: Value, published: float, step: float) -> Literal["as printed", "consistent", "inconsistent"]:
    """The rule of this module, for one number that is there.

    Parameters
    ----------
    ours : with a value; without an interval only "as printed" can hold
    published, step : in the same unit
    """
    assert ours.value is not None
    # a unit in the last place of doubles, so that 0.0545 counts as what 0.055 and 0.054 both stand for
    reach = step / 2 * (1 + 1e-9)
    low, high = published - reach, published + reach
    if low <= ours.value <= high:
        return "as printed"
    if ours.ci_low is None or ours.ci_high is None:
        return "inconsistent"
    return "consistent" if ours.ci_low <= high and ours.ci_high >= low else "inconsistent"


def exit_code(checks: Sequence[Check]) -> int:
    """3 where a number made by the same protocol is inconsistent, 0 where all of those agree, 4 where there is none.

    What its own authors printed decides; copies of it decide only where there is nothing else.
    """
    judged = [c for c in checks if c.judged]
    judged = [c for c in judged if c.reference.status == "printed"] or judged
    if any(c.verdict == "inconsistent" for c in judged):
        return EXIT_REGRESSION
    return EXIT_OK if judged else EXIT_NOT_COMPARABLE
