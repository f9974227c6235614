"""How much worse is still good enough: a margin for each metric of each protocol, as TOML."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.validation import explain
from reasonx_eval.protocols.protocol import Protocol, all_protocols

Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Part):
    """What one metric is held to; exactly one of the three.

    margin : how much worse the mean may be, in the metric's unit
    relative : the same as a fraction of the baseline's mean
    exact : no sample may be worse by more than `tolerance` (the metric's unit; default 0): for deterministic outputs
    """

    margin: Margin | None = None
    relative: Margin | None = None
    exact: bool = False
    tolerance: Margin | None = None

    @model_validator(mode="after")
    def _one(self) -> Rule:
        given = [self.margin is not None, self.relative is not None, self.exact]
        if given.count(True) != 1:
            raise ValueError("give one of margin = X, relative = X, or exact = true")
        if self.tolerance is not None and not self.exact:
            raise ValueError("tolerance goes with exact = true")
        return self

    def allowed(self, baseline: float) -> float:
        """How much worse is allowed, in the metric's unit.

        Parameters
        ----------
        baseline : mean of the baseline
        """
        if self.relative is not None:
            return self.relative * abs(baseline)
        return (self.tolerance or 0.0) if self.exact else float(self.margin or 0.0)


class Policy(_Part):
    """policy.toml.

    confidence : of the intervals, in (0, 1); 1 - confidence is also the chance, at most, that a gate calls anything
        regressed although all is within its margin
    protocol : ``name@version`` -> metric -> rule. A metric without a rule is not gated.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    confidence: float = Field(0.95, gt=0, lt=1)
    protocol: Mapping[str, Annotated[Mapping[str, Rule], Field(min_length=1)]] = Field(min_length=1)

    def rules(self, protocol: Protocol) -> Mapping[str, Rule]:
        """Rules of a protocol's metrics; empty if it is not in the policy.

        Raises
        ------
        UsageError
            A metric that the protocol does not report, with the nearest match.
        """
        found = self.protocol.get(protocol.ref, {})
        for name in found:
            _known_metric(name, protocol)
        return found


def load_policy(path: Path, also: Collection[str] = ()) -> Policy:
    """Read and check a policy.

    Parameters
    ----------
    also : ``name@version`` of protocols that are known though this installation has not got them

    Raises
    ------
    UsageError
        No such file, broken TOML, an unknown key, protocol or metric (with the nearest match).
    """
    try:
        policy = Policy.model_validate(read_toml(path))
    except FileNotFoundError:
        raise UsageError("no such policy", where=str(path), fix="write one: " + EXAMPLE) from None
    except ValidationError as error:
        raise UsageError(explain(error, most=4), where=str(path), fix=EXAMPLE) from None
    installed = all_protocols()
    for ref, rules in policy.protocol.items():
        if ref in installed:
            for name in rules:
                _known_metric(name, installed[ref], path)
        elif ref not in also:
            raise unknown("protocol", ref, [*installed, *also], where=str(path))
    return policy


EXAMPLE = '[protocol."depth/nyuv2@1"] abs_rel = { margin = 0.002 }'


def _known_metric(name: str, protocol: Protocol, path: Path | None = None) -> None:
    if name not in protocol.metrics:
        where = protocol.ref if path is None else f"{path}: {protocol.ref}"
        raise unknown("metric", name, protocol.metrics, where=where)
