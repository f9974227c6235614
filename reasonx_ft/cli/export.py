"""reasonx-ft export: a checkpoint of a tuning as a model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the model.")
@click.option("--weights", default="best", show_default=True, metavar="WHICH",
              help="best, last, or the number of a step whose checkpoint is kept.")
@click.option("--interpolate", type=float, metavar="SHARE",
              help="How much of the way from the base's weights to the tuned ones: less gains less and forgets less.  "
                   "[default: as the tuning was set, optimiser.interpolate]")
@click.option("--name", help="Of the model, in tables.  [default: the tuning's]")
@click.option("--force", is_flag=True, help="Replace a model that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")  # fmt: skip
def command(run: Path, out: Path, weights: str, interpolate: float | None, name: str | None, force: bool,
            as_json: bool) -> int:  # fmt: skip
    """Write the weights of a tuning, finished or not, as a folder that reasonx-eval runs.

    RUN is the folder of reasonx-ft tune. Averaged weights are written where the tuning averages.

    \b
    reasonx-ft export tuned --weights last --out tuned-last
    reasonx-eval run --model tuned-last --dataset scenes-wild
    """
    from reasonx_eval.cli.common import print_json, prints_to_stderr
    from reasonx_ft.tuning.export import export_run

    with prints_to_stderr():
        card = export_run(run, out, weights=weights, name=name, interpolate=interpolate, force=force)
    if as_json:
        print_json(card.model_dump(mode="json", by_alias=True))
        return 0
    click.echo(f"model  {out}  ({card.name}: {card.base} after {card.steps} steps of {card.method})")
    return 0
