"""reasonx-ft tune: make a predictor better on photos that nobody labelled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reasonx_ft.tuning.train import TrainResult


@click.command("tune")
@click.argument("base")
@click.option("--photos", required=True, metavar="PHOTOS",
              help="Folder of the photos that were judged, or dataset:NAME[/SPLIT].")
@click.option("--judgements", required=True, type=click.Path(path_type=Path), help="Store written by annotate.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--preset", default="default", show_default=True, metavar="NAME",
              help="default; diffusion, for Marigold-type pipelines; paper, the published recipe.")
@click.option("--method", metavar="NAME", help="grpo, ranking or expected alone.  [default: the preset's]")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML with any key of the configuration.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One key, e.g. objective.kl=0.05.")
@click.option("--steps", type=int, help="Optimiser steps.  [default: the preset's epochs]")
@click.option("--seed", type=int, help="Seed of the order of photos, of pairs and of noise.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--report-to", metavar="TRACKER",
              help="Log to tensorboard, wandb, trackio or mlflow too, if it is installed.")
@click.option("--name", help="Of the tuned model, in tables.  [default: BASE-METHOD]")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files, for dataset:NAME.")
@click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE")
@click.option("--stop-after", type=click.IntRange(min=1), metavar="N",
              help="Save after step N and stop; the same command goes on.")
@click.option("--dry-run", is_flag=True, help="Print the plan of the run and the cost of a step, and stop.")
@click.option("--force", is_flag=True, help="Start anew: replace what is in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")  # fmt: skip
def command(base: str, photos: str, judgements: Path, out: Path, preset: str, method: str | None, file: Path | None,
            settings: tuple[str, ...], root: Path | None, dataset_options: tuple[str, ...], name: str | None,
            stop_after: int | None, dry_run: bool, force: bool, as_json: bool, quiet: bool,
            **flags: Any) -> int:  # fmt: skip
    """Tune BASE by a judge's stored answers; the same command goes on after an interrupt, to the same weights.

    BASE is tiny, tiny-flow, a tuned checkpoint, or a folder or hub id of a depth network or a Marigold pipeline. OUT
    gets log.jsonl, checkpoints/ and, at the end, model/. A guardrail that stops the run exports its best weights, and
    the exit code is 3. Under `accelerate launch` or torchrun, processes share the photos of a step, with --use_fsdp the
    weights too.

    \b
    reasonx-ft annotate dataset:scenes-wild/train --judge tiny --limit 100 --out judgements
    reasonx-ft tune tiny --photos dataset:scenes-wild/train --judgements judgements --out tuned
    reasonx-eval run --model tuned/model --dataset scenes-wild
    """
    from reasonx_eval.cli.common import parse_options, print_json, prints_to_stderr
    from reasonx_ft.cli.progress import stage_bars
    from reasonx_ft.tuning.api import tune
    from reasonx_ft.tuning.plan import make_plan
    from reasonx_ft.tuning.settings import read_settings
    from reasonx_ft.tuning.state import Sources

    given: dict[str, Any] = parse_options(settings, "--set")
    for key, dotted in (("steps", "optimiser.steps"), ("seed", "seed"), ("device", "machine.device"),
                        ("report_to", "watch.report_to")):  # fmt: skip
        if flags[key] is not None:
            given[dotted] = flags[key]
    options = parse_options(dataset_options, "--dataset-option")
    if dry_run:
        config = read_settings(preset=preset, method=method, base=base, file=file, flags=given)
        with prints_to_stderr(), stage_bars(quiet) as progress:
            plan = make_plan(Sources(base, photos, judgements, root, options), config, progress=progress)
        if as_json:
            print_json(plan)
        else:
            click.echo("\n".join(_lines(plan)))
        return 0
    with prints_to_stderr(), stage_bars(quiet) as progress:
        result = tune(base, photos=photos, judgements=judgements, out=out, preset=preset, method=method, config=file,
                      settings=given, name=name, root=root, dataset_options=options, stop_after=stop_after,
                      force=force, progress=progress)  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # one answer, however many processes
        _print(result, out, as_json)
    return _exit(result, out)


def _lines(plan: dict[str, Any]) -> list[str]:
    """The plan as text, a line an item."""
    found = []
    for key, value in plan.items():
        if isinstance(value, dict):
            found.append(key)
            found += [f"  {k:<22} {_short(v)}" for k, v in value.items()]
        else:
            found.append(f"{key:<24} {_short(value)}")
    return found


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print(result: TrainResult, out: Path, as_json: bool) -> None:
    from reasonx_eval.cli.common import print_json
    from reasonx_ft.tuning.checkpoint import LOG

    if as_json:
        print_json({"folder": str(result.folder), "step": result.step, "steps": result.steps,
                    "stopped": result.stopped, "card": result.card.model_dump(mode="json", by_alias=True)})
        return
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    for label, metric in result.card.metrics.items():
        before = "" if metric["base"] is None else f"{metric['base']:.4f} -> "
        click.echo(f"{label:<44} {before}{metric['value']:.4f}")
        click.echo(f"  {metric['signature']}")
    click.echo(f"model  {result.folder}  (step {result.step} of {result.steps}; log {out / LOG})")
    click.echo(f"try    reasonx-eval run --model {result.folder} --dataset scenes-wild")


def _exit(result: TrainResult, out: Path) -> int:
    from reasonx_eval.errors import RegressionFound

    if result.stopped is not None:
        raise RegressionFound(
            f"stopped by a guardrail: {result.stopped}\n  the best weights, of step {result.step}, are in "
            f"{result.folder}", where=str(out), fix="a larger objective.kl or objective.distance, a smaller "
            "optimiser.learning_rate, a better judge; or another limit under [guard]",
        )  # fmt: skip
    return 0
