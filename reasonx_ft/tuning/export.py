"""From tuned weights to a folder that `reasonx-eval run --model FOLDER` runs: weights, reasonx.json, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reasonx_eval import __version__
from reasonx_eval.io.files import write_json, write_text
from reasonx_eval.models.embedded.tuned import CARD_NAME, SCHEMA, TunedCard
from reasonx_eval.models.loading.checkpoint import is_hub_id
from reasonx_ft.policies.base import Policy
from reasonx_ft.tuning.check import Check

README: Final = "README.md"
#: what the evaluation calls a metric that is the reward itself, measured on ground truth
REWARDED: Final = ("agreement",)


@dataclass(frozen=True)
class Facts:
    """What a card says of a run: see `TunedCard`; pairs : judged pairs used, by modality; config : all of it."""

    name: str
    base: str
    method: str
    reward: str
    data: tuple[str, ...]
    judge: str
    seed: int
    licence: str | None = None
    pairs: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


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
        *((k, v, base.canaries.get(k) if base else None) for k, v in check.canaries.items()),
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
