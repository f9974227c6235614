"""From tuned weights to a folder that `reasonx-eval run --model FOLDER` runs: weights, reasonx.json, README.md."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from reasonx_eval import __version__
from reasonx_eval.errors import DataError, RegressionFound, UsageError, unknown
from reasonx_eval.io.files import write_json, write_text
from reasonx_eval.io.old_names import current_names
from reasonx_eval.models.embedded.tuned import CARD_NAME, SCHEMA, TunedCard
from reasonx_eval.models.loading.checkpoint import is_hub_id
from reasonx_ft.policies.base import Policy
from reasonx_ft.policies.load import make_policy
from reasonx_ft.training.files import load_state
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.facts import Facts
from reasonx_ft.tuning.weights import between, clone_state, load

README: Final = "README.md"
#: what the evaluation calls a metric that is the reward itself, measured on ground truth
REWARDED: Final = ("agreement",)


@dataclass(frozen=True)
class Check:
    """Measurements after `step` steps; NaN where there is nothing to measure on.

    agreement : modality -> share of held-out pairs, in [0, 1], mean over photos
    photos : modality -> how many photos that is
    spread, edges : modality -> mean standard deviation of the codes over a photo, and mean step between neighbours
    saturated : modality -> share of the codes' values beyond the range that decoding cuts to, where there is one
    normals_away : share of pixels whose normals point away from the camera, in [0, 1]; NaN where no normals are tuned
    unrewarded_metrics : label -> value; signatures : label (or modality) -> by what rules
    """

    step: int
    agreement: Mapping[str, float]
    photos: Mapping[str, int]
    spread: Mapping[str, float]
    edges: Mapping[str, float]
    unrewarded_metrics: Mapping[str, float] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    saturated: Mapping[str, float] = field(default_factory=dict)
    normals_away: float = math.nan

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Check:
        """A check as a checkpoint holds it."""
        return cls(**current_names("tuning", dict(stored)))

    @property
    def mean_agreement(self) -> float:
        """Over the modalities that have one; NaN without any."""
        known = [v for v in self.agreement.values() if not np.isnan(v)]
        return float(np.mean(known)) if known else float("nan")


def write_model(policy: Policy, folder: Path, facts: Facts, *, step: int, check: Check | None = None,
                base: Check | None = None, notes: str = "") -> TunedCard:  # fmt: skip
    """Write the policy's present weights with their cards.

    Parameters
    ----------
    step : optimiser steps that made them
    check, base : measurements of these weights and of the base, where there are some
    notes : anything else that a user of the weights should know
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = policy.save(folder)
    metrics = {} if check is None else _metrics(check, base)
    card = TunedCard(schema=SCHEMA, name=facts.name, architecture=saved.architecture, path=saved.path,
                     base=facts.base, method=facts.method, reward=facts.reward, rewarded=list(REWARDED),
                     data=list(facts.data), judge=facts.judge, seed=facts.seed, steps=step, licence=facts.licence,
                     metrics=metrics, notes=notes)  # fmt: skip
    write_json(folder / CARD_NAME, card.model_dump(mode="json", by_alias=True))
    write_text(folder / README, _readme(card, facts))
    return card


def _metrics(check: Check, base: Check | None) -> dict[str, Any]:
    """Label -> value, the base's value, and the signature of both."""
    found: dict[str, Any] = {}
    for label, values, before in (
        *((f"held-out agreement, {m}", v, base.agreement.get(m) if base else None) for m, v in check.agreement.items()),
        *((k, v, base.unrewarded_metrics.get(k) if base else None) for k, v in check.unrewarded_metrics.items()),
    ):
        key = label.removeprefix("held-out agreement, ")
        if values == values:
            found[label] = {"value": values, "base": before, "signature": check.signatures[key]}
    return found


def _readme(card: TunedCard, facts: Facts) -> str:
    """A model card, as hubs show it."""
    head = ["---", f"license: {(card.licence or 'unknown').lower()}", "library_name: reasonx",
            *([f"base_model: {card.base}"] if is_hub_id(card.base) else []),
            "tags: [reasonx, intrinsic-images]", "---"]  # fmt: skip
    pairs = ", ".join(f"{n:,} of {m}" for m, n in facts.pairs.items())
    about = [
        f"# {card.name}",
        "",
        f"`{card.base}`, tuned with reasonx-ft {__version__} on photos without labels, by a judge's answers about",
        "pairs of points.",
        "",
        f"- method: {card.method}, {card.steps} steps, seed {card.seed}",
        f"- reward: {card.reward}",
        f"- photos: {', '.join(card.data)}",
        f"- judge: {card.judge}" + (f"; pairs: {pairs}" if pairs else ""),
        *([f"- note: {card.notes}"] if card.notes else []),
        "",
        "```sh",
        "reasonx-eval run --model FOLDER --dataset scenes-wild",
        "```",
    ]
    return "\n".join([*head, "", *about, *_table(card.metrics), *_settings(facts.config)]) + "\n"


def _table(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return []
    rows = [f"| {label} | {_number(m['base'])} | {m['value']:.4f} |" for label, m in metrics.items()]
    return ["", "## While it was tuned", "", "| | base | tuned |", "|---|---|---|", *rows, "", "```",
            *dict.fromkeys(m["signature"] for m in metrics.values()), "```",
            "", "Agreement is with the judge, not with the truth: evaluate before use."]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"


def _settings(config: Mapping[str, Any]) -> list[str]:
    if not config:
        return []
    return ["", "## Configuration", "", "```json", json.dumps(config, indent=1), "```"]


def export_run(
    run: Path, out: Path, *, weights: str = "best", name: str | None = None, interpolate: float | None = None,
    force: bool = False,
) -> TunedCard:
    """Write a model.

    Parameters
    ----------
    run : folder of a tuning
    out : folder of the model
    weights : best, last, or the number of a step
    name : of the model; default that of the run
    interpolate : how much of the way from the base, in (0, 1]; default what the run was set to

    Raises
    ------
    UsageError
        No such run, step or check; a model there already, without `force`; `interpolate` out of range.
    DataError
        The base is not what it was, or the checkpoint can't be read.
    """
    if interpolate is not None and not 0 < interpolate <= 1:
        raise UsageError(f"interpolate {interpolate:g}: needs a number above 0, up to 1", where="export")
    about = checkpoint.read_run(run)
    state = _state(run, weights)
    replaced = (out / CARD_NAME).exists()
    if replaced and not force:
        raise UsageError("a model is there already", where=str(out), fix="--force, or another --out")
    if replaced and out.resolve() == Path(about.base).resolve():
        raise UsageError("the base of this run, which it would replace", where=str(out), fix="another --out")
    configured = about.config.optimiser.interpolate
    share = configured if interpolate is None else interpolate
    policy = make_policy(about.base, device="cpu", **about.config.policy)
    try:
        load(policy.network, _exported(state, policy.network, share, configured))
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the checkpoint is not of {about.base} as it is now: {' '.join(str(error).split())[:200]}",
                        where=str(run)) from None  # fmt: skip
    facts = Facts(**{**about.facts, "name": name or about.facts["name"], "data": tuple(about.facts["data"]),
                     "config": about.config.model_dump(mode="json")})  # fmt: skip
    check = None if state.get("check") is None else Check.of(state["check"])
    if check is not None and (check.step != state["step"] or share != configured):
        check = None  # measured before: not of these weights
    base = (state.get("guardrails") or {}).get("base")
    if replaced:
        shutil.rmtree(out)  # only now that there is something to put in its place
    return write_model(policy, out, facts, step=int(state["step"]), check=check,
                       base=None if base is None else Check.of(base))  # fmt: skip


def _exported(state: Mapping[str, Any], base: nn.Module, share: float, configured: float) -> Mapping[str, Tensor]:
    """The weights a share of the way from the base; those of a best check are on the way already, as configured."""
    average = state.get("average")
    if average is None:
        tuned, share = state["weights"], share / configured
    else:
        tuned = average["mean"] or state["weights"]
    return tuned if share == 1 else between(clone_state(base), tuned, share)


def _state(run: Path, weights: str) -> Mapping[str, Any]:
    kept = checkpoint.steps_kept(run)
    if weights == "best":
        best = checkpoint.load_best(run)
        if best is None:
            raise UsageError("no check has been made yet", where=str(run), fix="--weights last")
        if best["step"] == 0:
            raise RegressionFound("no check was better than the base: its weights are no tuned model", where=str(run),
                                  fix="--weights last, for the last ones")  # fmt: skip
        return best
    if not kept:
        raise UsageError("no checkpoint yet", where=str(run), fix="watch.save_every, or let the tuning finish")
    if weights == "last":
        return load_state(checkpoint.path_of(run, kept[0]))
    if not weights.isdecimal() or int(weights) not in kept:
        raise unknown("weights", weights, ["best", "last", *map(str, kept)], where=str(run))
    return load_state(checkpoint.path_of(run, int(weights)))
