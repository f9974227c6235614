"""reasonx-eval list: models, data sets, protocols, metrics."""

from __future__ import annotations

from typing import Any

import click


@click.command("list")
@click.argument("what", type=click.Choice(["models", "datasets", "protocols", "metrics"]), default="models")
@click.option("--task", type=click.Choice(["depth", "normals", "albedo", "irradiance"]), help="Only this task.")
@click.option("--dataset", help="Only protocols of this dataset.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(what: str, task: str | None, dataset: str | None, as_json: bool) -> int:
    """List models (the default), datasets, protocols or metrics."""
    from reasonx_eval.cli.common import print_json, prints_to_stderr

    listings = {"models": _models, "datasets": _datasets, "protocols": _protocols, "metrics": _metrics}
    with prints_to_stderr():  # plug-ins are imported
        rows = listings[what](task, dataset)
    if as_json:
        print_json(rows)
        return 0
    from reasonx_eval.report.tables import print_table

    # how to get a model is a sentence: `info` has room for it
    columns = [c for c in rows[0] if c != "get"] if rows else ["nothing matches"]
    print_table(columns, [[_cell(row[c]) for c in columns] for row in rows])
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _models(task: str | None, _: str | None) -> list[dict[str, Any]]:
    from reasonx_eval.models.loading.catalogue import list_models

    rows = [row for row in list_models() if task is None or task in row.tasks]
    return [{"name": r.name, "task": list(r.tasks), "kind": list(r.kinds) if len(r.kinds) < 5 else ["any"],
             "size": None if r.parameters_m is None else f"{r.parameters_m:g} M", "licence": r.licence,
             "source": r.source, "available": "yes" if r.available else f"no: {r.why_not}", "get": r.how}
            for r in rows]  # fmt: skip


def _datasets(task: str | None, _: str | None) -> list[dict[str, Any]]:
    from reasonx_eval.io.plugins import describe_failure
    from reasonx_eval.protocols.protocol import default_protocols
    from reasonx_eval.registry import DATASETS, dataset_class

    rows: list[dict[str, Any]] = []
    for name in DATASETS:
        try:
            info = dataset_class(name).info
        except Exception as error:  # a broken plug-in shows in the list and stops nothing
            rows.append({"name": name, "title": f"unavailable: {describe_failure(error)}", "targets": [],
                         "splits": [], "default protocols": [], "licence": None})  # fmt: skip
            continue
        defaults = [p.ref for p in default_protocols(name, task)]
        if task is None or defaults:
            splits = [k if n is None else f"{k}:{n}" for k, n in info.splits.items()]
            rows.append({"name": name, "title": info.title, "targets": list(info.targets), "splits": splits,
                         "default protocols": defaults, "licence": info.licence})  # fmt: skip
    return rows


def _protocols(task: str | None, dataset: str | None) -> list[dict[str, Any]]:
    from reasonx_eval.protocols.protocol import all_protocols

    return [
        {"name": p.ref, "dataset": p.dataset, "split": p.split, "n": p.n, "accepts": list(p.accepts), "title": p.title,
         "default": "default" if p.default_for else "compatibility" if p.compat else ""}
        for p in all_protocols().values()
        if task in (None, p.task) and (dataset is None or dataset == p.dataset or dataset in p.default_for)
    ]  # fmt: skip


def _metrics(task: str | None, _: str | None) -> list[dict[str, Any]]:
    from reasonx_eval.metrics.table import METRICS, metric_info

    shown = [*METRICS.values(), metric_info("whdr10"), metric_info("whdr20")]
    return [{"name": m.name, "label": m.label, "unit": m.unit, "better": "higher" if m.higher_is_better else "lower",
             "description": m.description} for m in shown]  # fmt: skip
