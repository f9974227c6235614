"""reasonx-eval info NAME: everything about one model, dataset, protocol or metric."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> int:
    """Show one protocol (depth/nyuv2), dataset (nyuv2), model (retinex) or metric (abs_rel)."""
    from reasonx_eval.cli.common import prints_to_stderr

    with prints_to_stderr():  # plug-ins are imported
        facts = _find(name)
    if as_json:
        click.echo(json.dumps(facts, indent=1, default=str))
        return 0
    width = max(map(len, facts))
    for key, value in facts.items():
        for k, line in enumerate(_lines(value)):
            click.echo(f"{key if k == 0 else '':<{width}}  {line}")
    return 0


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{k} = {v}" for k, v in value.items()] or ["none"]
    if isinstance(value, (list, tuple)):
        return [", ".join(map(str, value)) or "none"]
    return str(value).strip().splitlines() or [""]


def _find(name: str) -> dict[str, Any]:
    from reasonx_eval.errors import unknown
    from reasonx_eval.metrics.table import METRICS
    from reasonx_eval.models.loading.catalogue import list_models
    from reasonx_eval.protocols.protocol import all_protocols, get_protocol
    from reasonx_eval.registry import DATASETS

    if "/" in name and "." not in name.partition("/")[0]:
        return _protocol(get_protocol(name))
    tables: list[tuple[list[str], Callable[[str], dict[str, Any]]]] = [
        (list(DATASETS), _dataset),
        ([m.name for m in list_models()], _model),
        ([*METRICS, "whdr10", "whdr20"], _metric),
    ]
    for names, describe in tables:
        if name in names:
            return describe(name)
    everything = [n for names, _ in tables for n in names] + [p.name for p in all_protocols().values()]
    raise unknown("name", name, everything)


def _protocol(p: Any) -> dict[str, Any]:
    from reasonx_eval.protocols.protocol import Protocol

    assert isinstance(p, Protocol)
    facts: dict[str, Any] = {"protocol": p.ref, "title": p.title}
    if p.compat:
        facts["compatibility"] = p.compat
    facts |= {"dataset": p.dataset, "split": p.split, "n": p.n or "depends on the files", "accepts": list(p.accepts),
              "metrics": list(p.metrics), "pooling": "per image, then mean" if p.pool == "image" else "all pixels",
              "rules": {k: v for k, v in p.rules[_table(p)].items() if v is not None}}  # fmt: skip
    if p.dataset_options:
        facts["files"] = dict(p.dataset_options)
    n = p.n or 0
    facts |= {"notes": p.notes, "sources": list(p.sources), "digest": p.digest,
              "signature": "\n".join(p.signature(kind=kind, n=n) for kind in p.accepts)}  # fmt: skip
    return facts


def _table(p: Any) -> str:
    return next(k for k in ("depth", "normals", "whdr", "map", "pairs") if getattr(p, k) is not None)


def _dataset(name: str) -> dict[str, Any]:
    from reasonx_eval.io.paths import dataset_root
    from reasonx_eval.protocols.protocol import all_protocols, default_protocols
    from reasonx_eval.registry import dataset_class

    info = dataset_class(name).info
    mine = [p.ref for p in all_protocols().values() if p.dataset == name]
    facts: dict[str, Any] = {
        "dataset": info.name, "title": info.title, "targets": list(info.targets), "splits": dict(info.splits),
        "options": dict(info.options), "licence": info.licence, "homepage": info.homepage or "none", "size": info.size,
        "default protocols": [p.ref for p in default_protocols(name)], "protocols": mine,
    }  # fmt: skip
    if info.example:
        facts["example"] = info.example
    if info.needs_root:
        facts["root here"] = dataset_root(name, None) or f"not set; reasonx-eval doctor {name} --prepare"
    return facts


def _model(name: str) -> dict[str, Any]:
    from reasonx_eval.models.loading.catalogue import list_models

    row = next(m for m in list_models() if m.name == name)
    facts: dict[str, Any] = {
        "model": row.name, "task": list(row.tasks), "kind": list(row.kinds), "source": row.source,
        "licence": row.licence or "not stated", "available": "yes" if row.available else f"no: {row.why_not}",
    }  # fmt: skip
    if row.how:
        facts["get it"] = row.how
    if row.parameters_m is not None:
        facts["parameters"] = f"{row.parameters_m:g} million"
    return facts | {key.replace("_", " "): value for key, value in row.facts.items()}


def _metric(name: str) -> dict[str, Any]:
    from reasonx_eval.metrics.table import metric_info

    metric = metric_info(name)
    function = getattr(metric.function, "func", metric.function)  # of a threshold: a partial
    return {**asdict(metric), "function": f"reasonx_eval.metrics.{function.__name__}"}
